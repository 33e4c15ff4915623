//! A system call that the kernel handed over, and what it is answered.

/// A call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The kernel's name for this very wait.
    pub(crate) id: u64,
    /// The thread that calls, in our pid namespace.
    pub(crate) tid: u32,
    /// `AUDIT_ARCH_*` of the caller.
    pub(crate) arch: u32,
    /// The number of the call.
    pub(crate) number: i64,
    /// Its arguments as they lie in the registers.
    pub(crate) args: [u64; 6],
}

/// How a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It returns this.
    Value(i64),
    /// It fails with this errno (positive).
    Error(i32),
    /// The kernel makes it after all. Arguments in memory may have changed since we looked.
    Continue,
    /// It has been answered (a descriptor was sent as its result).
    Sent,
}

/// The low half of a register, as the kernel takes an `int`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel ignores the high half too")]
pub(crate) const fn int(argument: u64) -> i32 {
    argument as i32
}

/// The low half of a register, as the kernel takes an `unsigned int`.
#[expect(clippy::cast_possible_truncation, reason = "the kernel ignores the high half too")]
pub(crate) const fn unsigned(argument: u64) -> u32 {
    argument as u32
}
