//! A memory policy: what set_mempolicy(2) and mbind(2) build, and what a cpuset does to it.
//!
//! Source: behaviour spec 4.1 and 5; set_mempolicy(2).

use machine::{NodeId, NodeSet};

use crate::errno::Errno;
use crate::version::Behaviour;

/// How a policy chooses, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyMode {
    /// `MPOL_DEFAULT`: no policy.
    Default = 0,
    /// `MPOL_PREFERRED`.
    Preferred = 1,
    /// `MPOL_BIND`.
    Bind = 2,
    /// `MPOL_INTERLEAVE`.
    Interleave = 3,
    /// `MPOL_LOCAL`.
    Local = 4,
    /// `MPOL_PREFERRED_MANY`.
    PreferredMany = 5,
    /// `MPOL_WEIGHTED_INTERLEAVE`.
    WeightedInterleave = 6,
}

/// Flags that come in the mode argument.
pub mod mode_flag {
    /// `MPOL_F_STATIC_NODES`: the nodes stay as given when the cpuset changes.
    pub const STATIC: u16 = 1 << 15;
    /// `MPOL_F_RELATIVE_NODES`: the nodes count within the cpuset.
    pub const RELATIVE: u16 = 1 << 14;
    /// `MPOL_F_NUMA_BALANCING`: balancing may move the pages within the policy.
    pub const BALANCING: u16 = 1 << 13;
}

const MODE_FLAGS: u16 = mode_flag::STATIC | mode_flag::RELATIVE | mode_flag::BALANCING;

/// A policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemPolicy {
    pub(crate) mode: PolicyMode,
    pub(crate) flags: u16,
    /// The nodes that count now.
    pub(crate) nodes: NodeSet,
    /// The user's nodes where they are remembered, else the cpuset's nodes at the last (re)bind:
    /// one field, as in the kernel, which is why a rebind overwrites remembered nodes.
    remembered: NodeSet,
    pub(crate) home: Option<NodeId>,
}

/// The `mode` argument taken apart (`sanitize_mpol_flags`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModeWord {
    pub(crate) mode: PolicyMode,
    pub(crate) flags: u16,
}

impl ModeWord {
    /// Spec 4.1.
    pub(crate) fn parse(word: i32, behaviour: &Behaviour) -> Result<Self, Errno> {
        let flags = u16::try_from(word & i32::from(MODE_FLAGS)).unwrap_or(0);
        let mode = match word & !i32::from(MODE_FLAGS) {
            0 => PolicyMode::Default,
            1 => PolicyMode::Preferred,
            2 => PolicyMode::Bind,
            3 => PolicyMode::Interleave,
            4 => PolicyMode::Local,
            5 => PolicyMode::PreferredMany,
            6 if behaviour.weighted_interleave => PolicyMode::WeightedInterleave,
            _ => return Err(Errno::EINVAL),
        };
        let both = mode_flag::STATIC | mode_flag::RELATIVE;
        if flags & both == both {
            return Err(Errno::EINVAL);
        }
        let may_balance = mode == PolicyMode::Bind
            || mode == PolicyMode::PreferredMany && behaviour.balancing_with_many;
        if flags & mode_flag::BALANCING != 0 && !may_balance {
            return Err(Errno::EINVAL);
        }
        Ok(Self { mode, flags })
    }
}

impl MemPolicy {
    /// Builds a policy from the user's nodes; `None` is "remove" (`mpol_new`).
    pub(crate) fn new(word: ModeWord, user: &NodeSet) -> Result<Option<Self>, Errno> {
        let ModeWord { mut mode, flags } = word;
        let placed = flags & (mode_flag::STATIC | mode_flag::RELATIVE) != 0;
        match mode {
            PolicyMode::Default if user.is_empty() => return Ok(None),
            PolicyMode::Default => return Err(Errno::EINVAL),
            PolicyMode::Preferred if user.is_empty() => {
                if placed {
                    return Err(Errno::EINVAL);
                }
                mode = PolicyMode::Local;
            }
            PolicyMode::Local if !user.is_empty() || placed => return Err(Errno::EINVAL),
            PolicyMode::Local => {}
            _ if user.is_empty() => return Err(Errno::EINVAL),
            _ => {}
        }
        let nodes = NodeSet::EMPTY;
        Ok(Some(Self { mode, flags, nodes, remembered: nodes, home: None }))
    }

    /// Fits the user's nodes into `allowed`: cpuset and memory (`mpol_set_nodemask`).
    pub(crate) fn contextualise(
        mut self,
        user: &NodeSet,
        cpuset: &NodeSet,
        with_memory: &NodeSet,
        behaviour: &Behaviour,
    ) -> Result<Self, Errno> {
        if self.mode == PolicyMode::Local {
            return Ok(self);
        }
        let allowed = cpuset.intersection(with_memory);
        let nodes = if self.has(mode_flag::RELATIVE) {
            fold_onto(user, &allowed)
        } else {
            user.intersection(&allowed)
        };
        self.remembered = if self.remembers_user(behaviour) { *user } else { *cpuset };
        self.nodes = match (self.mode, nodes.first()) {
            (_, None) => return Err(Errno::EINVAL),
            (PolicyMode::Preferred, Some(first)) => NodeSet::only(first),
            _ => nodes,
        };
        Ok(self)
    }

    pub(crate) const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    fn remembers_user(&self, behaviour: &Behaviour) -> bool {
        self.has(mode_flag::STATIC | mode_flag::RELATIVE)
            || behaviour.balancing_keeps_user_mask && self.has(mode_flag::BALANCING)
    }

    /// Whether the kernel takes two policies for the same (`__mpol_equal`). The cpuset's nodes at
    /// the last bind do not count.
    pub(crate) fn is_same(&self, other: &Self, behaviour: &Behaviour) -> bool {
        let Self { mode, flags, nodes, remembered, home } = *self;
        (mode, flags, nodes, home) == (other.mode, other.flags, other.nodes, other.home)
            && (remembered == other.remembered || !self.remembers_user(behaviour))
    }

    /// The nodes that get_mempolicy(2) shows.
    pub(crate) fn shown_nodes(&self, behaviour: &Behaviour) -> NodeSet {
        if self.mode == PolicyMode::Local {
            NodeSet::EMPTY
        } else if self.remembers_user(behaviour) {
            self.remembered
        } else {
            self.nodes
        }
    }

    /// The mode word that get_mempolicy(2) shows.
    pub(crate) const fn word(&self) -> i32 {
        self.mode as i32 | self.flags as i32
    }

    /// Follows a change of the cpuset to `mems` (`mpol_rebind_policy`, spec 5).
    pub(crate) fn rebind(&mut self, mems: &NodeSet) {
        let unchanged =
            !self.has(mode_flag::STATIC | mode_flag::RELATIVE) && self.remembered == *mems;
        match self.mode {
            PolicyMode::Local | PolicyMode::Default => return,
            _ if unchanged => return,
            PolicyMode::Preferred | PolicyMode::PreferredMany => {
                self.remembered = *mems;
                return;
            }
            _ => {}
        }
        let nodes = if self.has(mode_flag::STATIC) {
            self.remembered.intersection(mems)
        } else if self.has(mode_flag::RELATIVE) {
            fold_onto(&self.remembered, mems)
        } else {
            let nodes = remap(&self.nodes, &self.remembered, mems);
            self.remembered = *mems;
            nodes
        };
        self.nodes = if nodes.is_empty() { *mems } else { nodes };
    }

    /// Balancing may move pages of this policy (`MPOL_F_MOF`).
    pub(crate) const fn migrates_on_fault(&self) -> bool {
        self.has(mode_flag::BALANCING)
    }

    /// The policy as numa_maps prints it (`mpol_to_str`, spec 11.2.1).
    pub(crate) fn text(&self) -> String {
        let mut text = match self.mode {
            PolicyMode::Default => "default",
            PolicyMode::Preferred => "prefer",
            PolicyMode::Bind => "bind",
            PolicyMode::Interleave => "interleave",
            PolicyMode::Local => "local",
            PolicyMode::PreferredMany => "prefer (many)",
            PolicyMode::WeightedInterleave => "weighted interleave",
        }
        .to_owned();
        let flags: Vec<&str> = [
            (mode_flag::STATIC, "static"),
            (mode_flag::RELATIVE, "relative"),
            (mode_flag::BALANCING, "balancing"),
        ]
        .into_iter()
        .filter(|&(bit, _)| self.has(bit))
        .map(|(_, name)| name)
        .collect();
        if !flags.is_empty() {
            text.push('=');
            text.push_str(&flags.join("|"));
        }
        if self.mode != PolicyMode::Local && !self.nodes.is_empty() {
            text.push_str(&format!(":{}", self.nodes));
        }
        text.truncate(63);
        text
    }
}

/// RELATIVE nodes: the user's bits modulo the number of allowed nodes, then bit j stands for the
/// j-th allowed node (`mpol_relative_nodemask`).
fn fold_onto(user: &NodeSet, allowed: &NodeSet) -> NodeSet {
    let members: Vec<NodeId> = allowed.iter().collect();
    if members.is_empty() {
        return NodeSet::EMPTY;
    }
    user.iter().map(|node| members[node.index() % members.len()]).collect()
}

/// Position by position from `old` to `new`; nodes outside `old` stay (`nodes_remap`).
fn remap(nodes: &NodeSet, old: &NodeSet, new: &NodeSet) -> NodeSet {
    let members: Vec<NodeId> = new.iter().collect();
    let position = |node: NodeId| old.iter().position(|member| member == node);
    nodes
        .iter()
        .map(|node| match position(node) {
            Some(at) if !members.is_empty() => members[at % members.len()],
            _ => node,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelVersion;

    fn set(text: &str) -> NodeSet {
        text.parse().unwrap()
    }

    fn policy(mode: PolicyMode, flags: u16, user: &str, cpuset: &str) -> MemPolicy {
        let word = ModeWord { mode, flags };
        let behaviour = KernelVersion::V6_12.behaviour();
        MemPolicy::new(word, &set(user))
            .unwrap()
            .unwrap()
            .contextualise(&set(user), &set(cpuset), &set("0-2"), behaviour)
            .unwrap()
    }

    #[test]
    fn relative_nodes_fold_onto_the_allowed_ones() {
        assert_eq!(policy(PolicyMode::Bind, mode_flag::RELATIVE, "4", "0-2").nodes, set("1"));
    }

    #[test]
    fn a_bind_made_in_a_small_cpuset_does_not_grow_back() {
        let mut bind = policy(PolicyMode::Bind, 0, "0-1", "1");
        bind.rebind(&set("0-1"));
        assert_eq!(bind.nodes, set("0"));
    }

    #[test]
    fn the_nodes_of_the_cpuset_make_no_other_policy_and_remembered_nodes_do() {
        let behaviour = KernelVersion::V6_12.behaviour();
        for (flags, is_same) in [(0, true), (mode_flag::STATIC, false)] {
            let one = policy(PolicyMode::Bind, flags, "0", "0");
            let other = policy(PolicyMode::Bind, flags, "0-1", "0");
            let grown = policy(PolicyMode::Bind, flags, "0", "0-1");
            assert_eq!(one.is_same(&other, behaviour), is_same);
            assert!(one.is_same(&grown, behaviour));
            assert!(!one.is_same(&MemPolicy { home: NodeId::new(0), ..one }, behaviour));
        }
    }

    #[test]
    fn static_nodes_outside_the_cpuset_become_the_whole_cpuset() {
        let mut bind = policy(PolicyMode::Bind, mode_flag::STATIC, "0-1", "0-2");
        bind.rebind(&set("2"));
        assert_eq!(bind.nodes, set("2"));
        assert_eq!(bind.shown_nodes(KernelVersion::V6_12.behaviour()), set("0-1"));
    }

    #[test]
    fn the_text_is_what_numa_maps_prints() {
        let flags = mode_flag::STATIC | mode_flag::BALANCING;
        assert_eq!(
            policy(PolicyMode::Bind, flags, "0-1", "0-2").text(),
            "bind=static|balancing:0-1"
        );
        assert_eq!(policy(PolicyMode::PreferredMany, 0, "1-2", "0-2").text(), "prefer (many):1-2");
    }
}
