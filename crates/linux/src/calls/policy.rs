//! The caller's own memory policies. No process can change those of another.

use std::io;

use machine::{AddrRange, NodeId, NodeSet};

use crate::sys::{self, BindFlags};
use crate::{Errno, MemPolicy};

/// Why a policy could not be set or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A policy that we only know as text cannot be given to the kernel.
    #[error("cannot set the policy `{policy}`: it is not known here")]
    Unknown {
        /// The policy.
        policy: Box<MemPolicy>,
    },

    /// `EINVAL`.
    #[error(
        "the kernel does not accept the policy `{policy}` (EINVAL): the mode needs other nodes, \
         none of them has memory and is in our cpuset, or the kernel is too old for it"
    )]
    Invalid {
        /// The policy.
        policy: Box<MemPolicy>,
    },

    /// `EFAULT`: a hole in the range.
    #[error("{range} is not wholly mapped (EFAULT)")]
    NotMapped {
        /// The range.
        range: AddrRange,
    },

    /// `EIO`, with [`BindFlags::STRICT`]: the policy is set, but pages stayed elsewhere.
    #[error("some pages of {range} are not where `{policy}` wants them (EIO)")]
    Misplaced {
        /// The range.
        range: AddrRange,
        /// The policy.
        policy: Box<MemPolicy>,
    },

    /// `EPERM`: moving shared pages.
    #[error("moving shared pages needs CAP_SYS_NICE (EPERM)")]
    NotPrivileged,

    /// Any other errno.
    #[error("{call} failed: {errno}")]
    Call {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

/// Sets the policy of a range of our own memory, and moves its pages if `flags` say so.
///
/// # Errors
///
/// [`PolicyError`].
///
/// Source: behaviour spec 4.3.
#[doc(alias = "mbind")]
pub fn bind(range: AddrRange, policy: &MemPolicy, flags: BindFlags) -> Result<(), PolicyError> {
    let mode = mode_word(policy)?;
    let boxed = || Box::new(policy.clone());
    sys::mbind(range.start(), range.bytes().get(), mode, &policy.nodes, flags).map_err(|error| {
        match Errno::from(&error) {
            Errno::EINVAL => PolicyError::Invalid { policy: boxed() },
            Errno::EFAULT => PolicyError::NotMapped { range },
            Errno::EIO => PolicyError::Misplaced { range, policy: boxed() },
            Errno::EPERM => PolicyError::NotPrivileged,
            errno => PolicyError::Call { call: "mbind", errno },
        }
    })
}

/// Sets the policy of the calling thread. Moves nothing.
///
/// # Errors
///
/// [`PolicyError`].
///
/// Source: behaviour spec 4.2.
#[doc(alias = "set_mempolicy")]
pub fn set_thread_policy(policy: &MemPolicy) -> Result<(), PolicyError> {
    sys::set_thread_policy(mode_word(policy)?, &policy.nodes).map_err(|error| {
        match Errno::from(&error) {
            Errno::EINVAL => PolicyError::Invalid { policy: Box::new(policy.clone()) },
            errno => PolicyError::Call { call: "set_mempolicy", errno },
        }
    })
}

/// The policy of the calling thread.
///
/// # Errors
///
/// [`PolicyError::Call`].
///
/// Source: behaviour spec 4.4.
#[doc(alias = "get_mempolicy")]
pub fn thread_policy() -> Result<MemPolicy, PolicyError> {
    sys::get_thread_policy().map(from_words).map_err(failed("get_mempolicy"))
}

/// The policy of the mapping at `address` in our own memory; default if it has none, whatever the
/// thread has.
///
/// # Errors
///
/// [`PolicyError::Call`] with `EFAULT` when nothing is mapped there.
///
/// Source: behaviour spec 4.4.
pub fn range_policy(address: u64) -> Result<MemPolicy, PolicyError> {
    sys::get_range_policy(address).map(from_words).map_err(failed("get_mempolicy"))
}

/// Nodes that the cpuset of the calling thread allows.
///
/// # Errors
///
/// [`PolicyError::Call`].
///
/// Source: behaviour spec 4.4.
pub fn allowed_nodes() -> Result<NodeSet, PolicyError> {
    sys::get_allowed_nodes().map_err(failed("get_mempolicy"))
}

/// Sets the node where allocation starts in a range of our own memory that is bound.
///
/// # Errors
///
/// [`PolicyError::Call`]: `ENOENT` when the range has no policy, `EOPNOTSUPP` when it has one
/// without home node.
///
/// Source: behaviour spec 4.5.
pub fn set_home_node(range: AddrRange, node: NodeId) -> Result<(), PolicyError> {
    sys::set_home_node(range.start(), range.bytes().get(), node)
        .map_err(failed("set_mempolicy_home_node"))
}

fn mode_word(policy: &MemPolicy) -> Result<u32, PolicyError> {
    policy.mode_word().ok_or_else(|| PolicyError::Unknown { policy: Box::new(policy.clone()) })
}

fn from_words((mode, nodes): (u32, NodeSet)) -> MemPolicy {
    MemPolicy::from_words(mode, nodes)
}

fn failed(call: &'static str) -> impl Fn(io::Error) -> PolicyError {
    move |error| PolicyError::Call { call, errno: Errno::from(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PolicyMode;

    #[test]
    fn the_policy_of_a_thread_is_read_as_it_was_set() {
        let policy = MemPolicy::new(PolicyMode::Bind, allowed_nodes().unwrap());
        set_thread_policy(&policy).unwrap();
        assert_eq!(thread_policy().unwrap(), policy);
        set_thread_policy(&MemPolicy::default()).unwrap();
        assert_eq!(thread_policy().unwrap(), MemPolicy::default());
    }

    #[test]
    fn a_policy_that_is_only_a_text_is_refused_before_the_kernel_sees_it() {
        let policy = MemPolicy::from_text("nearest:0");
        let error = set_thread_policy(&policy).unwrap_err();
        assert_eq!(error.to_string(), "cannot set the policy `nearest:0`: it is not known here");
    }

    #[test]
    fn a_hole_cannot_be_bound() {
        let range = AddrRange::new(0, 4096).unwrap();
        let policy = MemPolicy::new(PolicyMode::Bind, allowed_nodes().unwrap());
        let error = bind(range, &policy, BindFlags::NONE).unwrap_err();
        assert!(matches!(error, PolicyError::NotMapped { .. }), "{error}");
    }
}
