//! The seccomp filter: which calls are handed to the supervisor, as a classic BPF program.
//!
//! A filter that decides by number alone uses the kernel's bitmap of calls that are always allowed,
//! so that all others stay native. Arguments are looked at only where most calls of a number do
//! not concern us (mmap without `MAP_FIXED`, madvise that drops nothing).
//!
//! Not handed over on purpose: clone, fork and vfork. A call that is handed over may fail with
//! `EINTR` when a signal comes before we have received it, which programs do not expect of fork. A
//! child is met by what it does first instead: glibc calls set_robust_list in every new thread and
//! after every fork, and a child that execs does just that.
//!
//! Source: seccomp(2); kernel, Documentation/userspace-api/seccomp_filter.rst.

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

/// Which calls of a number are handed over. Arguments are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// All.
    Always,
    /// Those that have one of these bits in this argument.
    AnyBit(u32, u32),
    /// Those that have none of these bits in this argument.
    NoBit(u32, u32),
    /// Those whose argument has one of these values.
    OneOf(u32, &'static [u32]),
    /// Those whose argument has another value.
    Not(u32, u32),
}

/// A number of a call, and which calls of it are handed over.
pub(crate) type Rule = (i64, When);

/// Values of madvise(2) that drop pages at once: `MADV_DONTNEED`, `MADV_REMOVE`,
/// `MADV_DONTNEED_LOCKED`, `MADV_GUARD_INSTALL`.
pub(crate) const DROPPING_ADVICE: &[u32] = &[4, REMOVE, 24, 102];
/// `MADV_REMOVE`: shared memory gives pages up, for all who map it.
pub(crate) const REMOVE: u32 = 9;

const MAP_FIXED: u32 = 0x10;
/// Not in libc 0.2 for all targets.
pub(crate) const SYS_SET_MEMPOLICY_HOME_NODE: i64 = 450;

const RULES: &[Rule] = &[
    (libc::SYS_munmap, When::Always),
    (libc::SYS_mmap, When::AnyBit(3, MAP_FIXED)),
    (libc::SYS_madvise, When::OneOf(2, DROPPING_ADVICE)),
    (libc::SYS_getcpu, When::Always),
    (libc::SYS_get_mempolicy, When::Always),
    (libc::SYS_set_mempolicy, When::Always),
    (libc::SYS_mbind, When::Always),
    (libc::SYS_move_pages, When::Always),
    (libc::SYS_migrate_pages, When::Always),
    (SYS_SET_MEMPOLICY_HOME_NODE, When::Always),
    (libc::SYS_sched_getaffinity, When::Always),
    (libc::SYS_sched_setaffinity, When::Always),
    (libc::SYS_mremap, When::Always),
    (libc::SYS_execve, When::Always),
    (libc::SYS_execveat, When::Always),
    (libc::SYS_exit, When::Always),
    (libc::SYS_exit_group, When::Always),
    // What new programs, threads and children do first.
    (libc::SYS_set_robust_list, When::Always),
    (libc::SYS_set_tid_address, When::Always),
    (libc::SYS_arch_prctl, When::Always),
];

/// `AUDIT_ARCH_X86_64`.
pub(crate) const ARCH: u32 = 0xC000_003E;
/// `AUDIT_ARCH_I386`: 32-bit programs.
const ARCH_32: u32 = 0x4000_0003;
/// The numbers there of what the model would answer: set and get of affinity, mbind, get and set of
/// mempolicy, migrate_pages, move_pages, getcpu, set_mempolicy_home_node. They are handed over to be
/// refused: an answer of this computer would be wrong.
const REFUSED_32: &[u32] = &[241, 242, 274, 275, 276, 294, 317, 318, 450];
/// Numbers from here on are of the x32 ABI.
const X32: u32 = 0x4000_0000;

const RETURN_ALLOW: u32 = 0x7FFF_0000;
const RETURN_NOTIFY: u32 = 0x7FC0_0000;

// Offsets in `struct seccomp_data`; of an argument, its low half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const fn load(offset: u32) -> Instruction {
    Instruction { code: 0x20, jump_true: 0, jump_false: 0, value: offset }
}

const fn answer(value: u32) -> Instruction {
    Instruction { code: 0x06, jump_true: 0, jump_false: 0, value }
}

/// Skips `then` instructions if the loaded word equals `value`, else `otherwise`.
const fn if_equal(value: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction { code: 0x15, jump_true: then, jump_false: otherwise, value }
}

const fn if_at_least(value: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction { code: 0x35, jump_true: then, jump_false: otherwise, value }
}

const fn if_any_bit(value: u32, then: u8, otherwise: u8) -> Instruction {
    Instruction { code: 0x45, jump_true: then, jump_false: otherwise, value }
}

/// The program; `more` are rules for numbers that have none here.
pub(crate) fn program(more: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    let refused = one_of(NUMBER, REFUSED_32);
    program.push(if_equal(ARCH_32, 0, u8::try_from(refused.len()).expect("the list is short")));
    program.extend(refused);
    program.extend([
        if_equal(ARCH, 1, 0),
        answer(RETURN_ALLOW),
        load(NUMBER),
        if_at_least(X32, 0, 1),
        answer(RETURN_ALLOW),
    ]);
    for &(number, when) in RULES.iter().chain(more) {
        let body = body(when);
        let number = u32::try_from(number).expect("numbers of system calls are small");
        let length = u8::try_from(body.len()).expect("a rule is short");
        program.push(if_equal(number, 0, length));
        program.extend(body);
    }
    program.push(answer(RETURN_ALLOW));
    program
}

fn body(when: When) -> Vec<Instruction> {
    match when {
        When::Always => vec![answer(RETURN_NOTIFY)],
        When::AnyBit(argument, bits) => if_holds(argument, if_any_bit(bits, 0, 1)),
        When::NoBit(argument, bits) => if_holds(argument, if_any_bit(bits, 1, 0)),
        When::Not(argument, value) => if_holds(argument, if_equal(value, 1, 0)),
        When::OneOf(argument, values) => one_of(ARGUMENTS + 8 * argument, values),
    }
}

/// Hands over a call of which `test`, that skips nothing where it holds and one instruction else, holds.
fn if_holds(argument: u32, test: Instruction) -> Vec<Instruction> {
    vec![load(ARGUMENTS + 8 * argument), test, answer(RETURN_NOTIFY), answer(RETURN_ALLOW)]
}

/// Hands over a call whose word at `offset` has one of these values, and no other.
fn one_of(offset: u32, values: &[u32]) -> Vec<Instruction> {
    let mut body = vec![load(offset)];
    for (value, left) in values.iter().zip((1..=values.len()).rev()) {
        body.push(if_equal(*value, u8::try_from(left).expect("a list is short"), 0));
    }
    body.extend([answer(RETURN_ALLOW), answer(RETURN_NOTIFY)]);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel's interpreter does with the few instructions that we use.
    fn play(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let low = |at: u32| u32::try_from(args[at as usize]).unwrap();
        let (mut at, mut word) = (0, 0);
        loop {
            let Instruction { code, jump_true, jump_false, value } = program[at];
            at += 1;
            let holds = match code {
                0x06 => return value,
                0x20 => {
                    word = match value {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        offset => low((offset - ARGUMENTS) / 8),
                    };
                    continue;
                }
                0x15 => word == value,
                0x35 => word >= value,
                _ => word & value != 0,
            };
            at += usize::from(if holds { jump_true } else { jump_false });
        }
    }

    fn is_notified(number: i64, args: [u64; 6]) -> bool {
        play(&program(&[]), ARCH, u32::try_from(number).unwrap(), args) == RETURN_NOTIFY
    }

    #[test]
    fn every_rule_without_a_condition_is_handed_over_and_its_neighbours_are_not() {
        let ruled: Vec<i64> = RULES.iter().map(|rule| rule.0).collect();
        for (number, when) in RULES {
            assert!(*when != When::Always || is_notified(*number, [0; 6]), "{number}");
            assert!(ruled.contains(&(number + 1)) || !is_notified(number + 1, [0; 6]));
        }
    }

    #[test]
    fn mmap_is_handed_over_only_where_it_replaces() {
        assert!(is_notified(libc::SYS_mmap, [0, 0, 0, 0x32, 0, 0]));
        assert!(!is_notified(libc::SYS_mmap, [0, 0, 0, 0x10_0022, 0, 0]));
    }

    #[test]
    fn madvise_is_handed_over_only_where_it_drops_pages() {
        for advice in 0..110u32 {
            let expected = DROPPING_ADVICE.contains(&advice);
            let args = [0, 0, u64::from(advice), 0, 0, 0];
            assert_eq!(is_notified(libc::SYS_madvise, args), expected, "{advice}");
        }
    }

    #[test]
    fn calls_of_another_architecture_are_left_alone_but_for_those_that_must_be_refused() {
        let number = u32::try_from(libc::SYS_munmap).unwrap();
        assert_eq!(play(&program(&[]), ARCH, number | X32, [0; 6]), RETURN_ALLOW);
        for number in 0..500 {
            let answer = play(&program(&[]), ARCH_32, number, [0; 6]);
            assert_eq!(answer == RETURN_NOTIFY, REFUSED_32.contains(&number), "{number}");
        }
        assert_eq!(play(&program(&[]), 0xC000_00B7, number, [0; 6]), RETURN_ALLOW);
    }

    #[test]
    fn more_rules_are_added_behind_ours() {
        let more = [
            (libc::SYS_openat, When::Always),
            (libc::SYS_statx, When::NoBit(2, 0x1000)),
            (libc::SYS_readlink, When::Not(2, 1023)),
        ];
        let is_notified = |number: i64, args| {
            play(&program(&more), ARCH, u32::try_from(number).unwrap(), args) == RETURN_NOTIFY
        };
        assert!(is_notified(libc::SYS_openat, [0; 6]));
        assert!(is_notified(libc::SYS_statx, [0, 0, 0x6fff, 0, 0, 0]));
        assert!(!is_notified(libc::SYS_statx, [0, 0, 0x1100, 0, 0, 0]));
        assert!(is_notified(libc::SYS_readlink, [0, 0, 1022, 0, 0, 0]));
        assert!(!is_notified(libc::SYS_readlink, [0, 0, 1023, 0, 0, 0]));
    }
}
