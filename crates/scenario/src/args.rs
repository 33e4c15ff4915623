//! Arguments of the system calls as a scenario writes them: raw numbers with names.

/// Bits of the `flags` arguments, by the names that the notation uses.
pub mod flags {
    /// `MPOL_MF_STRICT`.
    pub const STRICT: u64 = 1;
    /// `MPOL_MF_MOVE`.
    pub const MOVE: u64 = 2;
    /// `MPOL_MF_MOVE_ALL`.
    pub const ALL: u64 = 4;
    /// `MPOL_MF_LAZY`, which the kernel refuses.
    pub const LAZY: u64 = 8;
    /// `MPOL_F_NODE` of get_mempolicy(2).
    pub const NODE: u64 = 1;
    /// `MPOL_F_ADDR` of get_mempolicy(2).
    pub const ADDR: u64 = 2;
    /// `MPOL_F_MEMS_ALLOWED` of get_mempolicy(2).
    pub const MEMS: u64 = 4;

    /// Flags of mbind(2) and move_pages(2), lowest bit first.
    pub(crate) const MOVING: [(&str, u64); 4] =
        [("STRICT", STRICT), ("MOVE", MOVE), ("ALL", ALL), ("LAZY", LAZY)];
    /// Flags of get_mempolicy(2), lowest bit first.
    pub(crate) const ASKING: [(&str, u64); 3] = [("NODE", NODE), ("ADDR", ADDR), ("MEMS", MEMS)];
}

/// The `mode` argument of mbind(2) and set_mempolicy(2): the raw word, named or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub i32);

impl Mode {
    /// Names of the modes; the index is the kernel's number.
    pub const NAMES: [&'static str; 7] =
        ["default", "preferred", "bind", "interleave", "local", "many", "weighted"];
    /// Names of the mode flags with their bits.
    pub const FLAGS: [(&'static str, i32); 3] =
        [("static", 0x8000), ("relative", 0x4000), ("balancing", 0x2000)];
}

/// A node mask argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// A null pointer.
    Null,
    /// An address that nobody can read.
    Bad,
    /// A mask with these bits set; `words` limits how many 64-bit words of it are readable.
    Nodes {
        /// Bits, ascending.
        nodes: Vec<u16>,
        /// Readable words; `None`: all.
        words: Option<u32>,
    },
}

/// The process that a call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pid {
    /// The caller, as pid 0.
    Caller,
    /// A child, a thread, or `P`.
    Actor(char),
    /// A number that nobody has.
    Absent,
    /// A kernel thread.
    Kthread,
    /// A number as it stands.
    Number(i32),
}

/// An array or word that the kernel reads or writes through a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pointer {
    /// Good from end to end.
    #[default]
    Good,
    /// A null pointer.
    Null,
    /// An address that nobody can access.
    Bad,
    /// Only so many entries are accessible.
    Cut(u64),
}

/// Target nodes of move_pages(2): a list whose last number goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveTarget {
    /// A null pointer: the call only asks.
    Query,
    /// Numbers, each with how often it stands in a row.
    Nodes(Vec<(i32, u64)>),
}
