//! Steps that are a little simpler than a given one, in the order in which they are tried.

use super::sound::place_of;
use crate::parse::DEFAULT_MAXNODE;
use crate::{Act, Actor, Kind, Mask, Mode, MoveTarget, Pid, Place, Pointer, Step, flags};

/// Simpler forms of a step; bold ones first.
pub(super) fn simpler(act: &Act) -> Vec<Act> {
    let mut forms = Forms { act, list: Vec::new() };
    if act.actor != Actor::FIRST {
        forms.list.push(Act { actor: Actor::FIRST, ..act.clone() });
    }
    if act.joined {
        forms.list.push(Act { joined: false, ..act.clone() });
    }
    forms.of_step();
    forms.of_place();
    forms.list
}

struct Forms<'a> {
    act: &'a Act,
    list: Vec<Act>,
}

impl Forms<'_> {
    /// Adds the step with a change.
    fn add(&mut self, change: impl FnOnce(&mut Step)) {
        let mut act = self.act.clone();
        change(&mut act.step);
        self.list.push(act);
    }

    /// Adds one form for each of `values`, put into the step by `put`.
    fn each<T>(&mut self, values: Vec<T>, put: impl Fn(&mut Step, T)) {
        for value in values {
            self.add(|step| put(step, value));
        }
    }

    fn of_place(&mut self) {
        let mut step = self.act.step.clone();
        let Some(place) = place_of(&mut step) else { return };
        self.each(places(place), |step, value| {
            if let Some(place) = place_of(step) {
                *place = value;
            }
        });
    }

    fn of_step(&mut self) {
        match &self.act.step {
            Step::Map { pages, .. } => self.of_map(*pages),
            Step::Fill { digits, .. } => {
                let mut fewer: Vec<Vec<u8>> = digits.iter().map(|&digit| vec![digit]).collect();
                fewer.extend(without_each(digits));
                fewer.retain(|digits| !digits.is_empty());
                self.each(fewer, |step, value| {
                    if let Step::Fill { digits, .. } = step {
                        *digits = value;
                    }
                });
            }
            Step::Where(places) => self.each(without_each(places), |step, value| {
                *step = Step::Where(value);
            }),
            Step::Cgroup { mems: Some(mems), .. } | Step::CgroupSet { mems, .. } => {
                let list: Vec<&str> = mems.split(',').collect();
                let fewer = without_each(&list).into_iter().filter(|list| !list.is_empty());
                self.each(fewer.map(|list| list.join(",")).collect(), |step, value| match step {
                    Step::Cgroup { mems, .. } => *mems = Some(value),
                    Step::CgroupSet { mems, .. } => *mems = value,
                    _ => {}
                });
            }
            Step::Pool { pages, .. } if *pages > 1 => self.add(|step| {
                if let Step::Pool { pages, .. } = step {
                    *pages = 1;
                }
            }),
            _ => self.of_call(),
        }
    }

    fn of_map(&mut self, now: u64) {
        self.add(|step| {
            if let Step::Map { kind, private, of, .. } = step {
                (*kind, *private, *of) = (Kind::Anon, false, None);
            }
        });
        self.add(|step| {
            if let Step::Map { private, of, .. } = step {
                (*private, *of) = (false, None);
            }
        });
        self.each(smaller(now), |step, value| {
            if let Step::Map { pages, .. } = step {
                *pages = value;
            }
        });
    }

    fn of_call(&mut self) {
        match &self.act.step {
            Step::MigratePages { from, to, .. } => {
                self.each(masks(from), |step, value| {
                    if let Step::MigratePages { from, .. } = step {
                        *from = value;
                    }
                });
                self.each(masks(to), |step, value| {
                    if let Step::MigratePages { to, .. } = step {
                        *to = value;
                    }
                });
            }
            Step::MovePages { .. } => self.of_move_pages(),
            Step::Mbind { mode, mask, flags, .. } => {
                self.of_policy(*mode, mask);
                self.each(fewer_bits(*flags), |step, value| {
                    if let Step::Mbind { flags, .. } = step {
                        *flags = value;
                    }
                });
            }
            Step::SetMempolicy { mode, mask, .. } => self.of_policy(*mode, mask),
            _ => {}
        }
        self.add(plain);
    }

    fn of_policy(&mut self, mode: Mode, mask: &Mask) {
        self.each(modes(mode), |step, value| {
            if let Step::Mbind { mode, .. } | Step::SetMempolicy { mode, .. } = step {
                *mode = value;
            }
        });
        self.each(masks(mask), |step, value| {
            if let Step::Mbind { mask, .. } | Step::SetMempolicy { mask, .. } = step {
                *mask = value;
            }
        });
    }

    fn of_move_pages(&mut self) {
        let Step::MovePages { pages, nodes, .. } = &self.act.step else { return };
        let mut lists = without_each(pages);
        lists.push(pages.iter().map(|&(place, _)| (place, 1)).collect());
        for (at, &(place, times)) in pages.iter().enumerate() {
            lists.extend(places(&place).into_iter().map(|simple| {
                let mut list = pages.clone();
                list[at] = (simple, times);
                list
            }));
        }
        self.each(lists, |step, value| {
            if let Step::MovePages { pages, .. } = step {
                *pages = value;
            }
        });
        let MoveTarget::Nodes(list) = nodes else { return };
        let mut targets = vec![MoveTarget::Query];
        let fewer = without_each(list).into_iter().filter(|list| !list.is_empty());
        targets.extend(fewer.map(MoveTarget::Nodes));
        targets.push(MoveTarget::Nodes(list.iter().map(|&(node, _)| (node, 1)).collect()));
        self.each(targets, |step, value| {
            if let Step::MovePages { nodes, .. } = step {
                *nodes = value;
            }
        });
    }
}

/// The call with nothing special about its arguments but nodes and pages.
fn plain(step: &mut Step) {
    match step {
        Step::MigratePages { pid, maxnode, .. } => {
            (*pid, *maxnode) = (Pid::Caller, DEFAULT_MAXNODE);
        }
        Step::MovePages { pid, flags, count, pages_at, nodes_at, status_at, .. } => {
            (*pid, *flags, *count) = (Pid::Caller, flags::MOVE, None);
            (*pages_at, *nodes_at, *status_at) = (Pointer::Good, Pointer::Good, Pointer::Good);
        }
        Step::Mbind { len, maxnode, .. } => (*len, *maxnode) = (None, DEFAULT_MAXNODE),
        Step::SetMempolicy { maxnode, .. } => *maxnode = DEFAULT_MAXNODE,
        Step::GetMempolicy { mode_at, mask_at, maxnode, .. } => {
            (*mode_at, *mask_at, *maxnode) = (Pointer::Good, Pointer::Good, None);
        }
        Step::HomeNode { flags, len, .. } => (*flags, *len) = (0, None),
        _ => {}
    }
}

/// Fewer pages of the same base.
fn places(place: &Place) -> Vec<Place> {
    let mut simple = vec![
        Place { pages: None, stride: 1, offset: 0, ..*place },
        Place { stride: 1, offset: 0, ..*place },
    ];
    if let Some((from, upto)) = place.pages {
        let with = |from, upto| Place { pages: Some((from, upto)), ..*place };
        simple.push(with(from, from + 1));
        simple.push(with(0, 1));
        simple.push(with(from, from + (upto - from).div_ceil(2)));
        simple.push(with(from + (upto - from) / 2, upto));
        simple.push(with(from, upto.max(from + 2) - 1));
        simple.push(with(from.min(upto - 2.min(upto)) + 1, upto));
    }
    simple.retain(|simple| simple != place && simple.pages.is_none_or(|(from, upto)| from < upto));
    simple
}

fn masks(mask: &Mask) -> Vec<Mask> {
    match mask {
        Mask::Null | Mask::Bad => vec![Mask::Nodes { nodes: Vec::new(), words: None }],
        Mask::Nodes { nodes, words } => {
            let mut simple = vec![Mask::Nodes { nodes: nodes.clone(), words: None }];
            let fewer = without_each(nodes);
            simple.extend(fewer.into_iter().map(|nodes| Mask::Nodes { nodes, words: *words }));
            simple
        }
    }
}

fn modes(mode: Mode) -> Vec<Mode> {
    let flags = Mode::FLAGS.iter().map(|(_, bit)| bit).filter(|&bit| mode.0 & bit != 0);
    let mut simple: Vec<Mode> = flags.map(|bit| Mode(mode.0 & !bit)).collect();
    let bits = Mode::FLAGS.iter().fold(0, |sum, (_, bit)| sum | bit);
    // The default, and BIND, which a reader knows best.
    simple.extend([0, 2].map(|plain| Mode(mode.0 & bits | plain)));
    simple
}

fn fewer_bits(word: u64) -> Vec<u64> {
    (0..64).map(|bit| 1 << bit).filter(|bit| word & bit != 0).map(|bit| word & !bit).collect()
}

fn smaller(number: u64) -> Vec<u64> {
    let mut list = vec![1, 512, number / 2, number.saturating_sub(1)];
    list.retain(|&smaller| (1..number).contains(&smaller));
    list
}

/// The list without one of its items, for each of them; the last one first.
fn without_each<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    (0..list.len())
        .rev()
        .map(|gone| {
            let kept = list.iter().enumerate().filter(|&(at, _)| at != gone);
            kept.map(|(_, item)| item.clone()).collect()
        })
        .collect()
}
