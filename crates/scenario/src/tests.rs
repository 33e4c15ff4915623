//! Printing and reading agree, whatever the scenario; results are written in the files' words.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_letter() -> impl Strategy<Value = char> {
    proptest::char::range('a', 'h')
}

fn any_actor() -> impl Strategy<Value = Actor> {
    proptest::char::range('P', 'T').prop_map(Actor)
}

fn any_place() -> impl Strategy<Value = Place> {
    let area = (any_letter(), proptest::option::of((0u64..600, 1u64..600, 1u64..3))).prop_map(
        |(letter, pages)| match pages {
            None => Place::all(Base::Area(letter)),
            Some((from, count, stride)) => Place {
                pages: Some((from, from + count)),
                stride,
                ..Place::all(Base::Area(letter))
            },
        },
    );
    let address = (any::<u64>(), proptest::option::of(1u64..9)).prop_map(|(addr, pages)| Place {
        pages: pages.map(|pages| (0, pages)),
        ..Place::all(Base::Address(addr))
    });
    let named =
        prop::sample::select(vec![Base::Vdso, Base::Vvar, Base::Kernel, Base::Top, Base::Null])
            .prop_map(Place::all);
    (prop_oneof![4 => area, 1 => address, 1 => named], -9000i64..9000)
        .prop_map(|(place, offset)| Place { offset, ..place })
}

fn any_mask() -> impl Strategy<Value = Mask> {
    prop_oneof![
        Just(Mask::Null),
        Just(Mask::Bad),
        (proptest::collection::btree_set(0u16..2000, 0..5), proptest::option::of(1u32..4))
            .prop_map(|(nodes, words)| Mask::Nodes { nodes: nodes.into_iter().collect(), words }),
    ]
}

fn any_pid() -> impl Strategy<Value = Pid> {
    prop_oneof![
        Just(Pid::Caller),
        Just(Pid::Absent),
        Just(Pid::Kthread),
        any_actor().prop_map(|actor| Pid::Actor(actor.0)),
        (i32::MIN..0).prop_map(Pid::Number),
        (1..i32::MAX).prop_map(Pid::Number),
    ]
}

fn any_pointer() -> impl Strategy<Value = Pointer> {
    prop_oneof![
        Just(Pointer::Good),
        Just(Pointer::Null),
        Just(Pointer::Bad),
        (0u64..99).prop_map(Pointer::Cut)
    ]
}

fn any_target() -> impl Strategy<Value = MoveTarget> {
    prop_oneof![
        Just(MoveTarget::Query),
        vec((any::<i32>(), 1u64..9), 1..5).prop_map(MoveTarget::Nodes)
    ]
}

fn any_call() -> impl Strategy<Value = Step> {
    prop_oneof![
        (any_pid(), any_mask(), any_mask(), any::<u64>())
            .prop_map(|(pid, from, to, maxnode)| Step::MigratePages { pid, from, to, maxnode }),
        (
            any_pid(),
            vec((any_place(), 1u64..9), 0..5),
            any_target(),
            any::<u64>(),
            proptest::option::of(any::<u64>()),
            (any_pointer(), any_pointer(), any_pointer())
        )
            .prop_map(
                |(pid, pages, nodes, flags, count, (pages_at, nodes_at, status_at))| {
                    Step::MovePages {
                        pid,
                        pages,
                        nodes,
                        flags,
                        count,
                        pages_at,
                        nodes_at,
                        status_at,
                    }
                }
            ),
        (
            any_place(),
            any::<i32>().prop_map(Mode),
            any_mask(),
            0u64..32,
            proptest::option::of(any::<u64>()),
            any::<u64>()
        )
            .prop_map(|(place, mode, mask, flags, len, maxnode)| Step::Mbind {
                place,
                mode,
                mask,
                flags,
                len,
                maxnode
            }),
        (0u64..32, proptest::option::of(any_place()), any_pointer(), any_pointer()).prop_map(
            |(flags, addr, mode_at, mask_at)| Step::GetMempolicy {
                flags,
                addr,
                mode_at,
                mask_at,
                maxnode: None
            }
        ),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let other = prop::sample::select(vec![
        "map a 8",
        "map b 4 memfd of=a private=1",
        "map c 2 anon at=0x1000",
        "fill a 0012",
        "store a[1] 7",
        "check a 7",
        "protect a none",
        "madv a[0..4] dontneed",
        "fork Q",
        "wait Q",
        "uid 1000",
        "euid 7",
        "smp bind+static {0,1}",
        "home a 2 0 len=0",
        "cg c1 0-1",
        "cgset c1 1",
        "cgin c1 Q",
        "pool 0 2",
        "wi 0 x",
        "hog 1 4",
        "where a b[1]",
        "ctr",
        "smaps a Rss",
        "sys /sys/devices/system/node/node0/distance",
        "trace on",
        "kflag a 21",
    ])
    .prop_map(|text| text.parse::<Scenario>().unwrap().acts.remove(0).step);
    prop_oneof![any_call(), any_place().prop_map(Step::Touch), other]
}

fn any_scenario() -> impl Strategy<Value = Scenario> {
    vec((any::<bool>(), any_actor(), any_step()), 0..6).prop_map(|acts| Scenario {
        acts: acts
            .into_iter()
            .enumerate()
            .map(|(position, (joined, actor, step))| Act {
                joined: joined && position > 0,
                actor,
                step,
            })
            .collect(),
    })
}

proptest! {
    #[test]
    fn what_a_scenario_prints_it_reads_back(scenario in any_scenario()) {
        prop_assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "[a-zA-Z0-9 ;:&=*+{},.\\[\\]/?@-]{0,60}") {
        let _ = text.parse::<Scenario>();
        let _ = parse_case_file(&text);
    }

    #[test]
    fn what_a_case_file_prints_it_reads_back(scenario in any_scenario()) {
        let case = Case {
            number: "XX-01".into(),
            proves: "something".into(),
            scenario,
            results: ["0".into(), "1; a:0".into(), String::new()],
        };
        prop_assert_eq!(parse_case_file(&print_case_file(std::slice::from_ref(&case))), Ok(vec![case]));
    }
}

#[test]
fn an_unknown_verb_is_named_in_the_error() {
    let error = "touch a; frobnicate a".parse::<Scenario>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the step `frobnicate a`: no such verb: `frobnicate`"
    );
}

#[test]
fn a_word_too_many_is_an_error() {
    assert!("unpin a".parse::<Scenario>().is_err());
    assert!("touch a len=4".parse::<Scenario>().is_err());
}

#[test]
fn results_are_written_as_the_case_files_have_them() {
    let on = |node| PageNode::On(node);
    let where_ = Seen::Where(vec![
        ("a".into(), vec![on(0), PageNode::Absent, PageNode::Zero]),
        ("b".into(), vec![on(1); 512]),
    ]);
    assert_eq!(where_.to_string(), "a:0-z b:1*512");
    let status = Seen::Status {
        result: Err("ENODEV".into()),
        words: vec![Some(Ok(1)), Some(Ok(1)), None, Some(Err("EBUSY".into()))],
    };
    assert_eq!(status.to_string(), "ENODEV [1*2 ~ -EBUSY]");
    let policy = Policy { mode: Some("bind".into()), nodes: Some(vec![0, 2]), ..Policy::default() };
    assert_eq!(Seen::Policy(policy).to_string(), "0 bind {0,2}");
}
