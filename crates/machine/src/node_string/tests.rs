//! Node strings held against a table of what libnuma makes of them, and properties.

use proptest::prelude::*;

use super::*;

fn context(allowed: &str, memory_nodes: u16) -> NodeStringContext {
    NodeStringContext { allowed: allowed.parse().unwrap(), memory_nodes, mask_bits: 1024 }
}

/// A computer on which every device is on node 1, but those that are called `lost`.
fn on_node_1(device: Device<'_>) -> Result<NodeSet, OsString> {
    let (Device::Net(name)
    | Device::Ip(name)
    | Device::File(name)
    | Device::Block(name)
    | Device::Pci(name)) = device;
    if name == "lost" { Err("no such device".into()) } else { Ok("1".parse().unwrap()) }
}

fn parse(text: &str, context: &NodeStringContext) -> Result<NodeSet, NodeStringError> {
    parse_node_string(OsStr::new(text), context, on_node_1)
}

/// What a string means, in short: the nodes, or the error with what it points at.
fn meaning(text: &str, context: &NodeStringContext) -> String {
    match parse(text, context) {
        Ok(nodes) => format!("{{{nodes}}}"),
        Err(NodeStringError::Unparseable { rest }) => format!("unparseable {}", rest.display()),
        Err(NodeStringError::NotAllowed { number, is_range_end: false, .. }) => {
            format!("not allowed {}", number.cast_signed())
        }
        Err(NodeStringError::NotAllowed { number, .. }) => {
            format!("end not allowed {}", number.cast_signed())
        }
        Err(NodeStringError::NoRangeEnd { rest }) => format!("no end {}", rest.display()),
        Err(NodeStringError::Trailing { rest }) => format!("trailing {}", rest.display()),
        Err(NodeStringError::Device { reason }) => format!("device: {}", reason.display()),
    }
}

#[test]
fn a_machine_of_three_nodes_reads_every_form() {
    let machine = context("0-2", 3);
    for (text, expected) in [
        // Numbers.
        ("", "{}"),
        ("0", "{0}"),
        ("2", "{2}"),
        ("00", "{0}"),
        ("01", "{1}"),
        ("0x2", "{2}"),
        (" 1", "{1}"),
        ("\t1", "{1}"),
        ("-0", "{0}"),
        ("3", "not allowed 3"),
        ("1024", "not allowed 1024"),
        ("-1", "not allowed -1"),
        ("-18446744073709551615", "{1}"),
        ("4294967296", "{0}"),
        ("4294967298", "{2}"),
        ("99999999999999999999", "not allowed -1"),
        // Lists.
        ("0,2", "{0,2}"),
        ("2,0", "{0,2}"),
        ("0,0", "{0}"),
        ("0, 1", "{0-1}"),
        ("0,3", "not allowed 3"),
        ("0,", "unparseable "),
        (",0", "unparseable ,0"),
        ("0,,1", "unparseable ,1"),
        ("0,x", "unparseable x"),
        // Ranges.
        ("0-2", "{0-2}"),
        ("1-1", "{1}"),
        ("2-0", "{2}"),
        ("0-1,2", "{0-2}"),
        ("0x0-0x2", "{0-2}"),
        ("0- 1", "{0-1}"),
        ("0-+1", "{0-1}"),
        ("0--0", "{0}"),
        ("0-3", "end not allowed 3"),
        ("0--1", "end not allowed -1"),
        ("3-0", "not allowed 3"),
        ("0-4294967297", "{0-2}"),
        ("2-4294967296", "{0,2}"),
        ("0-", "no end "),
        ("0-x", "no end x"),
        ("0--", "no end -"),
        ("0-,1", "no end ,1"),
        ("0-1-2", "trailing -2"),
        // What follows a node.
        ("1 ", "trailing  "),
        ("0..1", "trailing ..1"),
        ("0x", "trailing x"),
        ("0x,1", "trailing x,1"),
        ("08", "trailing 8"),
        ("0;1", "trailing ;1"),
        ("0 1", "trailing  1"),
        ("0all", "trailing all"),
        // Words.
        ("all", "{0-2}"),
        ("0,all", "{0-2}"),
        ("all,0", "unparseable all,0"),
        ("ALL", "unparseable ALL"),
        ("all ", "unparseable all "),
        ("same", "unparseable same"),
        ("x", "unparseable x"),
        ("-", "unparseable -"),
        // Inverted.
        ("!0", "{1-2}"),
        ("!0-1", "{2}"),
        ("!all", "{}"),
        ("!", "unparseable "),
        ("!!0", "unparseable !0"),
        ("0,!1", "unparseable !1"),
        // Relative.
        ("+0", "{0}"),
        ("+0-1", "{0-1}"),
        ("+0,+1", "{0-1}"),
        ("+3", "not allowed 1024"),
        ("+0-3", "end not allowed 1024"),
        ("+-1", "not allowed -1"),
        ("+all", "{0-2}"),
        ("+", "unparseable "),
        ("!+0", "{1-2}"),
        ("+!0", "unparseable !0"),
        ("++1", "{1}"),
        // Devices.
        ("netdev:eth0", "{1}"),
        ("ip:192.0.2.1", "{1}"),
        ("file:/a,b", "{1}"),
        ("block:sda", "{1}"),
        ("pci:00:1f.2", "{1}"),
        ("0,netdev:eth0", "{0-1}"),
        ("!netdev:eth0", "{0,2}"),
        ("netdev:", "{1}"),
        ("netdev:lost", "device: no such device"),
        ("Netdev:eth0", "unparseable Netdev:eth0"),
        ("net:eth0", "unparseable net:eth0"),
        ("netdev", "unparseable netdev"),
        (":eth0", "unparseable :eth0"),
    ] {
        assert_eq!(meaning(text, &machine), expected, "{text:?}");
    }
}

#[test]
fn a_machine_with_gaps_in_its_numbers_is_counted_as_libnuma_counts_it() {
    let machine = context("0,2,5", 3);
    for (text, expected) in [
        ("all", "{0,2,5}"),
        ("0-5", "{0,2,5}"),
        ("2-5", "{2,5}"),
        ("1", "not allowed 1"),
        ("0-1", "end not allowed 1"),
        ("+1", "{2}"),
        ("+1-2", "{2,5}"),
        ("+3", "not allowed 1024"),
        // Three nodes have memory, so 0 to 2 are inverted, and 5 stays as it was.
        ("!0", "{1-2}"),
        ("!5", "{0-2,5}"),
        ("!all", "{1,5}"),
    ] {
        assert_eq!(meaning(text, &machine), expected, "{text:?}");
    }
}

#[test]
fn from_a_cpuset_with_one_node_no_other_node_can_be_named() {
    let cpuset = context("0", 2);
    assert_eq!(meaning("1", &cpuset), "not allowed 1");
    assert_eq!(meaning("all", &cpuset), "{0}");
    assert_eq!(meaning("!0", &cpuset), "{1}");
    assert_eq!(meaning("+1", &cpuset), "not allowed 1024");
}

#[test]
fn a_relative_number_past_the_last_node_names_the_size_of_the_mask() {
    let small = NodeStringContext { mask_bits: 64, ..context("0-1", 2) };
    assert_eq!(meaning("+2", &small), "not allowed 64");
}

#[test]
fn an_error_names_what_was_written_and_what_may_be() {
    let machine = context("0-1", 2);
    for (text, expected) in [
        ("0,x", "`x` is not a node: write numbers and ranges such as 0-2,5, or all"),
        ("99", "node 99 is not among the nodes that may be used here: 0-1"),
        ("+7", "node +7 is not among the nodes that may be used here: 0-1"),
        ("0- 7", "node 7 is not among the nodes that may be used here: 0-1"),
        ("0-", "`` is not the end of a range: write two numbers, such as 0-2"),
        ("0..1", "`..1` follows a node: put a comma between nodes, and nothing after the last"),
        ("netdev:lost", "no such device"),
    ] {
        assert_eq!(parse(text, &machine).unwrap_err().to_string(), expected);
    }
}

#[test]
fn bytes_that_are_no_text_are_kept_for_the_message() {
    let error = parse_node_string(OsStr::from_bytes(b"0,\xff"), &context("0", 1), on_node_1);
    let rest = OsStr::from_bytes(b"\xff").to_owned();
    assert_eq!(error, Err(NodeStringError::Unparseable { rest }));
}

fn any_allowed() -> impl Strategy<Value = NodeSet> {
    prop::collection::vec(0..NodeId::LIMIT, 1..20)
        .prop_map(|raw| raw.into_iter().filter_map(NodeId::new).collect())
}

proptest! {
    #[test]
    fn what_a_set_of_allowed_nodes_prints_is_a_node_string_for_it(allowed in any_allowed()) {
        let context = NodeStringContext { allowed, memory_nodes: 4, mask_bits: 1024 };
        prop_assert_eq!(parse(&allowed.to_string(), &context), Ok(allowed));
        prop_assert_eq!(parse("all", &context), Ok(allowed));
    }

    #[test]
    fn a_string_without_inversion_names_allowed_nodes_only(
        allowed in any_allowed(),
        text in "\\+?[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,3}",
    ) {
        let context = NodeStringContext { allowed, memory_nodes: 4, mask_bits: 1024 };
        if let Ok(nodes) = parse(&text, &context) {
            prop_assert!(nodes.is_subset(&allowed), "{nodes} is not within {allowed}");
        }
    }

    #[test]
    fn inverting_twice_is_no_change(text in "[0-2](-[0-2])?(,[0-2])?") {
        let machine = context("0-2", 3);
        let nodes = parse(&text, &machine).unwrap();
        let inverted = parse(&format!("!{text}"), &machine).unwrap();
        prop_assert_eq!(nodes.intersection(&inverted), NodeSet::EMPTY);
        prop_assert_eq!(nodes.union(&inverted), machine.allowed);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-!+,0-9a-z: ]{0,12}|.*", allowed in any_allowed()) {
        let context = NodeStringContext { allowed, memory_nodes: 4, mask_bits: 1024 };
        let _ = parse(&text, &context);
    }
}
