//! A memory policy: of a thread, or of a mapping; as text in numa_maps, as words in system calls.
//!
//! The kernel writes `default`, `bind:0-1`, `prefer (many)=static:0,2`. It writes at most 63
//! characters and cuts a longer text off, anywhere; since what is missing cannot be known, such a
//! text is kept as it is, as is one with words that we do not know.
//!
//! The home node is in no file, and no call reads it.
//!
//! Source: kernel, mm/mempolicy.c, `mpol_to_str`; include/uapi/linux/mempolicy.h.

use std::fmt;
use std::ops::BitOr;

use machine::NodeSet;

/// Length at which numa_maps cuts a policy off.
const CUT_OFF: usize = 63;

/// Where a policy lets pages be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyMode {
    /// No policy of its own: that of the thread, or the node of the running CPU.
    #[default]
    Default,
    /// One node first, others when it is full.
    Preferred,
    /// These nodes only.
    Bind,
    /// These nodes in turn.
    Interleave,
    /// The node of the running CPU first.
    Local,
    /// These nodes first, others when they are full. Linux 5.15.
    PreferredMany,
    /// These nodes in turn, each as often as its weight says. Linux 6.9.
    WeightedInterleave,
    /// One that we do not know, or a text that is cut off; as the kernel wrote it, with flags and
    /// nodes.
    Other(String),
}

/// Modes with their number in system calls and their name in numa_maps.
const MODES: [(PolicyMode, u32, &str); 7] = [
    (PolicyMode::Default, 0, "default"),
    (PolicyMode::Preferred, 1, "prefer"),
    (PolicyMode::Bind, 2, "bind"),
    (PolicyMode::Interleave, 3, "interleave"),
    (PolicyMode::Local, 4, "local"),
    (PolicyMode::PreferredMany, 5, "prefer (many)"),
    (PolicyMode::WeightedInterleave, 6, "weighted interleave"),
];

/// Flags of a policy, as the kernel keeps them in the mode word. Others survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyFlags(u32);

impl PolicyFlags {
    /// None.
    pub const NONE: Self = Self(0);
    /// Hint faults may move pages within the nodes (`MPOL_F_NUMA_BALANCING`).
    pub const NUMA_BALANCING: Self = Self(1 << 13);
    /// Nodes are counted within the cpuset (`MPOL_F_RELATIVE_NODES`).
    pub const RELATIVE_NODES: Self = Self(1 << 14);
    /// Nodes are kept when the cpuset changes (`MPOL_F_STATIC_NODES`).
    pub const STATIC_NODES: Self = Self(1 << 15);

    /// Bits of the mode word that are no mode.
    const MASK: u32 = !0xff;

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for PolicyFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Flags with their names in numa_maps.
const FLAGS: [(PolicyFlags, &str); 3] = [
    (PolicyFlags::STATIC_NODES, "static"),
    (PolicyFlags::RELATIVE_NODES, "relative"),
    (PolicyFlags::NUMA_BALANCING, "balancing"),
];

/// A memory policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemPolicy {
    /// How it chooses.
    pub mode: PolicyMode,
    /// Its flags.
    pub flags: PolicyFlags,
    /// The nodes that it names; none for default and local.
    pub nodes: NodeSet,
}

impl MemPolicy {
    /// A policy without flags.
    #[must_use]
    pub fn new(mode: PolicyMode, nodes: NodeSet) -> Self {
        Self { mode, flags: PolicyFlags::NONE, nodes }
    }

    /// Reads the text of numa_maps. What is not understood is kept, in [`PolicyMode::Other`].
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self::understand(text)
            .unwrap_or_else(|| Self::new(PolicyMode::Other(text.to_owned()), NodeSet::EMPTY))
    }

    fn understand(text: &str) -> Option<Self> {
        if text.len() >= CUT_OFF {
            return None;
        }
        let (head, nodes) = match text.split_once(':') {
            Some((head, nodes)) => (head, nodes.parse().ok()?),
            None => (text, NodeSet::EMPTY),
        };
        let (name, flag_names) = head.split_once('=').unwrap_or((head, ""));
        let (mode, ..) = MODES.into_iter().find(|(_, _, known)| *known == name)?;
        let mut flags = PolicyFlags::NONE;
        // A kernel that has no name for a flag writes `bind=:0`.
        for name in flag_names.split('|').filter(|name| !name.is_empty()) {
            flags = flags | FLAGS.into_iter().find(|(_, known)| *known == name)?.0;
        }
        Some(Self { mode, flags, nodes })
    }

    /// From the mode word and node mask of get_mempolicy(2).
    #[must_use]
    pub fn from_words(mode: u32, nodes: NodeSet) -> Self {
        let flags = PolicyFlags(mode & PolicyFlags::MASK);
        let number = mode & !PolicyFlags::MASK;
        let known = MODES.into_iter().find(|(_, known, _)| *known == number);
        let mode =
            known.map_or_else(|| PolicyMode::Other(format!("mode {number}")), |(mode, ..)| mode);
        Self { mode, flags, nodes }
    }

    /// The mode word for a system call; `None` for [`PolicyMode::Other`].
    #[must_use]
    pub fn mode_word(&self) -> Option<u32> {
        MODES
            .into_iter()
            .find(|(mode, ..)| *mode == self.mode)
            .map(|(_, number, _)| number | self.flags.0)
    }

    /// Whether pages may be placed on these nodes and on no other.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.mode == PolicyMode::Bind
    }
}

impl fmt::Display for MemPolicy {
    /// As numa_maps has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mode {
            PolicyMode::Other(text) => f.write_str(text)?,
            known => {
                let mode = MODES.iter().find(|(mode, ..)| mode == known);
                f.write_str(mode.map_or("", |(_, _, name)| name))?;
            }
        }
        let mut separator = '=';
        for (_, name) in FLAGS.iter().filter(|(flag, _)| self.flags.contains(*flag)) {
            write!(f, "{separator}{name}")?;
            separator = '|';
        }
        if self.nodes.is_empty() { Ok(()) } else { write!(f, ":{}", self.nodes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::NodeId;
    use proptest::prelude::*;

    fn nodes(list: &str) -> NodeSet {
        list.parse().unwrap()
    }

    #[test]
    fn the_kernels_words_are_understood() {
        let bind = MemPolicy::from_text("bind:0-1");
        assert_eq!(bind, MemPolicy::new(PolicyMode::Bind, nodes("0-1")));
        let many = MemPolicy::from_text("prefer (many)=relative:2");
        assert_eq!(many.mode, PolicyMode::PreferredMany);
        assert_eq!(many.flags, PolicyFlags::RELATIVE_NODES);
        assert_eq!(MemPolicy::from_text("default"), MemPolicy::default());
        assert_eq!(MemPolicy::from_text("local").mode, PolicyMode::Local);
        let both = MemPolicy::from_text("bind=static|balancing:1");
        assert_eq!(both.flags, PolicyFlags::STATIC_NODES | PolicyFlags::NUMA_BALANCING);
    }

    #[test]
    fn a_flag_that_the_kernel_cannot_name_does_not_hide_the_policy() {
        assert_eq!(MemPolicy::from_text("bind=:0").to_string(), "bind:0");
    }

    #[test]
    fn an_unknown_policy_is_shown_as_the_kernel_wrote_it() {
        for text in ["nearest:0", "bind=sticky:0", "bind:0-x", ""] {
            let policy = MemPolicy::from_text(text);
            assert_eq!(policy.mode, PolicyMode::Other(text.to_owned()));
            assert_eq!(policy.to_string(), text);
            assert_eq!(policy.mode_word(), None);
        }
    }

    #[test]
    fn a_text_as_long_as_the_kernels_buffer_is_not_believed() {
        let text =
            format!("bind:{}", "0,2,4,6,8,10,12,14,16,18,20,22,24,26,28,30,32,34,36,38,40,42");
        let cut = &text[..CUT_OFF];
        assert_eq!(MemPolicy::from_text(cut).mode, PolicyMode::Other(cut.to_owned()));
    }

    #[test]
    fn a_mode_word_goes_there_and_back() {
        let policy = MemPolicy::from_words(0x8000 | 2, nodes("1"));
        assert_eq!(policy.to_string(), "bind=static:1");
        assert_eq!(policy.mode_word(), Some(0x8002));
        assert_eq!(MemPolicy::from_words(77, NodeSet::EMPTY).to_string(), "mode 77");
    }

    proptest! {
        #[test]
        fn what_a_policy_prints_it_reads_back(
            mode in 0_u32..7,
            flags in 0_u32..8,
            members in prop::collection::vec(0_u16..64, 0..6),
        ) {
            let nodes = members.into_iter().filter_map(NodeId::new).collect();
            let policy = MemPolicy::from_words(mode | flags << 13, nodes);
            prop_assert_eq!(MemPolicy::from_text(&policy.to_string()), policy);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = MemPolicy::from_text(&text);
        }
    }
}
