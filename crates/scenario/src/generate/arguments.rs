//! Arguments of the calls: mostly right, and wrong in the ways whose order of checks matters.

use std::ops::Range;

use super::Outline;
use super::dice::Dice;
use super::world::{Feature, World};
use crate::parse::DEFAULT_MAXNODE;
use crate::{Mask, Mode, MoveTarget, Pid, Pointer, flags};

/// A set of nodes that exist; never empty.
pub(super) fn nodes(dice: &mut Dice, outline: Outline) -> Vec<u16> {
    loop {
        let set: Vec<u16> = (0..outline.nodes).filter(|_| dice.one_in(2)).collect();
        if !set.is_empty() {
            return set;
        }
    }
}

pub(super) fn node(dice: &mut Dice, outline: Outline) -> u16 {
    u16::try_from(dice.below(u64::from(outline.nodes))).unwrap_or(0)
}

pub(super) fn mask(dice: &mut Dice, world: &World) -> Mask {
    let nodes = nodes(dice, world.outline);
    if !world.errs(dice, 3) {
        return Mask::Nodes { nodes, words: None };
    }
    let absent = |mut nodes: Vec<u16>, node| {
        nodes.push(node);
        Mask::Nodes { nodes, words: None }
    };
    match dice.below(6) {
        0 => Mask::Null,
        1 => Mask::Bad,
        2 => Mask::Nodes { nodes: Vec::new(), words: None },
        3 => absent(nodes, dice.pick(&[9, 63, 64, 1023])),
        4 => absent(Vec::new(), world.outline.nodes),
        _ => Mask::Nodes { nodes, words: Some(u32::from(dice.one_in(2))) },
    }
}

pub(super) fn maxnode(dice: &mut Dice, world: &World) -> u64 {
    if world.errs(dice, 5) {
        dice.pick(&[0, 1, 2, 3, 64, 65, 66, 1024, 1026, 32769, 32770, u64::MAX])
    } else {
        DEFAULT_MAXNODE
    }
}

/// A mode with its flags, and nodes that go with it.
pub(super) fn policy(dice: &mut Dice, world: &World) -> (Mode, Mask) {
    let [default, preferred, bind, interleave, local, many, weighted] = [0, 1, 2, 3, 4, 5, 6];
    let weighted = if world.has(Feature::Weights) { weighted } else { interleave };
    let mut mode = dice.weighted(&[
        (1, default),
        (2, preferred),
        (4, bind),
        (3, interleave),
        (1, local),
        (2, many),
        (1, weighted),
    ]);
    let takes_nodes = mode != default && mode != local;
    let mask = mask(dice, world);
    let mask = if takes_nodes || world.errs(dice, 3) {
        mask
    } else {
        Mask::Nodes { nodes: Vec::new(), words: None }
    };
    if takes_nodes && dice.one_in(3) {
        mode |= dice.pick(&[0x8000, 0x4000, 0x8000, 0x4000, 0x2000]);
    }
    if world.errs(dice, 4) {
        mode = dice.pick(&[mode | 0x8000, mode | 0xc000, mode | 0x2000, 7, 12, -1]);
    }
    (Mode(mode), mask)
}

/// Flags of mbind(2).
pub(super) fn mbind_flags(dice: &mut Dice, world: &World) -> u64 {
    if world.errs(dice, 5) {
        return dice.pick(&[flags::LAZY, 16, flags::MOVE + flags::LAZY, 1 << 31]);
    }
    dice.weighted(&[
        (3, 0),
        (2, flags::STRICT),
        (4, flags::MOVE),
        (2, flags::ALL),
        (3, flags::MOVE | flags::STRICT),
        (2, flags::ALL | flags::STRICT),
    ])
}

/// Flags of move_pages(2).
pub(super) fn move_flags(dice: &mut Dice, world: &World) -> u64 {
    if world.errs(dice, 6) {
        dice.pick(&[0, flags::STRICT, flags::LAZY, 16, flags::MOVE | flags::ALL, 1 << 30])
    } else {
        dice.weighted(&[(3, flags::MOVE), (2, flags::ALL)])
    }
}

/// The process that a call names.
pub(super) fn pid(dice: &mut Dice, world: &World, caller: usize) -> Pid {
    if world.errs(dice, 5) {
        return dice.pick(&[Pid::Absent, Pid::Kthread, Pid::Number(-1)]);
    }
    if world.processes.len() == 1 || dice.one_in(2) {
        return Pid::Caller;
    }
    // A dead one is a good question as well.
    let others: Vec<usize> = (0..world.processes.len()).filter(|&at| at != caller).collect();
    Pid::Actor(world.processes[dice.pick(&others)].actor.0)
}

/// Where pages shall go.
pub(super) fn move_target(dice: &mut Dice, world: &World) -> MoveTarget {
    if dice.one_in(6) {
        return MoveTarget::Query;
    }
    let wrong = [-1, i32::from(world.outline.nodes), 1024, i32::MAX];
    let list = (0..dice.within(1..4))
        .map(|_| {
            let node = if world.errs(dice, 5) {
                dice.pick(&wrong)
            } else {
                i32::from(node(dice, world.outline))
            };
            (node, dice.pick(&[1, 1, 2, 3]))
        })
        .collect();
    MoveTarget::Nodes(list)
}

pub(super) fn pointer(dice: &mut Dice, world: &World, entries: Range<u64>) -> Pointer {
    if world.errs(dice, 9) {
        let cut = Pointer::Cut(dice.within(entries));
        dice.pick(&[Pointer::Null, Pointer::Bad, cut, cut])
    } else {
        Pointer::Good
    }
}
