//! Whatever words a program passes to a system call, it gets a value or an errno.

use pagetide_model::{
    Buffers, Credentials, GetMempolicyArgs, KernelVersion, MbindArgs, MovePagesArrays,
};
use proptest::prelude::*;

use crate::world::{BASE, PAGE, World};

/// Addresses and sizes where something changes, and anything else.
fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        prop::sample::select(vec![
            0, 1, 2, 3, 8, 63, 64, 65, 66, 1023, 1024, 1025, 1026, 4095, 4096, 8192, 32_769,
            32_770,
        ]),
        prop::sample::select(vec![0x1000, 0x2000, BASE, BASE + 5 * PAGE, BASE + 1, BASE - PAGE]),
        prop::sample::select(vec![u64::MAX, u64::MAX - 4095, 0x7fff_ffff_e000, 1 << 63]),
        any::<u64>(),
    ]
}

fn any_int() -> impl Strategy<Value = i32> {
    prop_oneof![0i32..10, -3i32..0, any::<i32>(), Just(0x8002), Just(0x4003), Just(0x2002)]
}

/// A caller's memory with two masks and a place to store at.
fn memory(bits: u64) -> Buffers {
    let mut user = Buffers::default();
    user.put(0x1000, bits.to_le_bytes().repeat(16));
    user.put(0x2000, BASE.to_le_bytes().repeat(600));
    user
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_argument_of_a_system_call_makes_the_machine_panic(
        version in prop::sample::select(KernelVersion::ALL.to_vec()),
        privileged in any::<bool>(),
        bits in prop_oneof![0u64..8, any::<u64>()],
        calls in prop::collection::vec(
            (0u8..6, prop::array::uniform5(any_word()), prop::array::uniform2(any_int())),
            1..8,
        ),
    ) {
        let mut world = World::new(version);
        world.map(16);
        world.write(0..10);
        if !privileged {
            let uids = [1000; 3];
            let user = Credentials { uids, sys_nice: false, sys_ptrace: false };
            world.machine.set_credentials(world.task, user);
        }
        let task = world.task;
        let mut user = memory(bits);
        for (call, [a, b, c, d, e], [x, y]) in calls {
            let machine = &mut world.machine;
            let _succeeded = match call {
                0 => machine.migrate_pages(&user, task, x, a, b, c).is_ok(),
                1 => {
                    let count = a % 1000;
                    let arrays = MovePagesArrays { count, pages: b, nodes: c, status: d };
                    machine.move_pages(&mut user, task, x, arrays, y).is_ok()
                }
                2 => {
                    let flags = y.unsigned_abs();
                    let args =
                        MbindArgs { start: a, length: b, mode: x, mask: c, maxnode: d, flags };
                    machine.mbind(&user, task, args).is_ok()
                }
                3 => machine.set_mempolicy(&user, task, x, a, b).is_ok(),
                4 => {
                    let args =
                        GetMempolicyArgs { mode: a, mask: b, maxnode: c, address: d, flags: e };
                    machine.get_mempolicy(&mut user, task, args).is_ok()
                }
                _ => machine.set_mempolicy_home_node(task, a, b, c, d).is_ok(),
            };
            prop_assert_eq!(world.machine.check(), Ok(()));
        }
    }
}
