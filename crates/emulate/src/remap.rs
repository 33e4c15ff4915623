//! mremap(2): pages that move to another address keep their place.

use crate::world::World;

/// Called before the kernel makes the call.
pub(crate) fn before(_world: &mut World, _pid: u32, _args: [u64; 6]) {}
