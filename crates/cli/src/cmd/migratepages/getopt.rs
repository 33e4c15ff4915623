//! The command line of numactl's migratepages, as `getopt_long` of the C library reads it.
//!
//! Its only option is help, and every option ends the command with the usage text. So all that is
//! needed is to find the first one, to say what getopt says of it, and to tell the operands apart.
//!
//! Options may stand between operands unless `POSIXLY_CORRECT` is set; `--` ends them; `-` is an
//! operand; a long option may be shortened. Text is bytes here, as it is there.
//!
//! Source: getopt_long(3), C library 2.36.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// What a command line without its first word asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// No option; the operands in order.
    Operands(Vec<&'a OsStr>),
    /// Help, or a mistake in an option with what is to be said of it after the program's name.
    Usage(Option<OsString>),
}

/// Reads the words after the program's name.
pub(super) fn parse(words: &[OsString], stops_at_operand: bool) -> Parsed<'_> {
    let mut operands: Vec<&OsStr> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let is_option = word.len() > 1 && word.as_bytes()[0] == b'-';
        if word == "--" || (!is_option && stops_at_operand) {
            let rest = if word == "--" { at + 1 } else { at };
            operands.extend(words[rest..].iter().map(OsString::as_os_str));
            break;
        }
        if is_option {
            return Parsed::Usage(complaint(word.as_bytes()));
        }
        operands.push(word);
    }
    Parsed::Operands(operands)
}

/// What is wrong with an option; nothing if it asks for help.
fn complaint(option: &[u8]) -> Option<OsString> {
    let Some(long) = option.strip_prefix(b"--") else {
        let letter = &option[1..2];
        return (letter != b"h").then(|| message(b"invalid option -- '", letter, b"'"));
    };
    let equals = long.iter().position(|&byte| byte == b'=');
    let name = &long[..equals.unwrap_or(long.len())];
    if !b"help".starts_with(name) {
        return Some(message(b"unrecognized option '", option, b"'"));
    }
    equals.map(|_| "option '--help' doesn't allow an argument".into())
}

fn message(before: &[u8], quoted: &[u8], after: &[u8]) -> OsString {
    OsStr::from_bytes(&[before, quoted, after].concat()).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    fn complains(text: &str) -> Option<String> {
        match parse(&words(text), false) {
            Parsed::Usage(complaint) => complaint.map(|text| text.into_string().unwrap()),
            Parsed::Operands(operands) => panic!("{text:?} has no option but {operands:?}"),
        }
    }

    #[test]
    fn options_are_found_between_operands_but_not_behind_two_dashes() {
        assert_eq!(complains("1 0 -x 1").unwrap(), "invalid option -- 'x'");
        let behind = words("1 -- -x -");
        assert_eq!(
            parse(&behind, false),
            Parsed::Operands(vec!["1", "-x", "-"].into_iter().map(OsStr::new).collect())
        );
    }

    #[test]
    fn an_operand_ends_the_options_where_posix_is_asked_for() {
        let mixed = words("1 -x --");
        assert_eq!(
            parse(&mixed, true),
            Parsed::Operands(vec!["1", "-x", "--"].into_iter().map(OsStr::new).collect())
        );
        assert_eq!(parse(&words("-h 1"), true), Parsed::Usage(None));
    }

    #[test]
    fn help_may_be_shortened_but_takes_no_value() {
        for text in ["-h", "-hx", "--help", "--h"] {
            assert_eq!(complains(text), None, "{text}");
        }
        assert_eq!(complains("--he=1").unwrap(), "option '--help' doesn't allow an argument");
    }

    #[test]
    fn an_unknown_option_is_named_as_getopt_names_it() {
        assert_eq!(complains("-xh").unwrap(), "invalid option -- 'x'");
        assert_eq!(complains("--version=1").unwrap(), "unrecognized option '--version=1'");
        assert_eq!(complains("--helper").unwrap(), "unrecognized option '--helper'");
    }

    #[test]
    fn a_letter_that_is_no_text_is_printed_as_the_byte_it_is() {
        let bytes = [OsStr::from_bytes(b"-\xff\xfe").to_owned()];
        let complaint = OsStr::from_bytes(b"invalid option -- '\xff'").to_owned();
        assert_eq!(parse(&bytes, false), Parsed::Usage(Some(complaint)));
    }

    proptest! {
        #[test]
        fn words_without_a_dash_are_operands_in_their_order(
            line in prop::collection::vec("([^-\u{0}].{0,5})?", 0..6),
            posix in any::<bool>(),
        ) {
            let words: Vec<OsString> = line.iter().map(OsString::from).collect();
            let operands = line.iter().map(OsStr::new).collect();
            prop_assert_eq!(parse(&words, posix), Parsed::Operands(operands));
        }

        #[test]
        fn no_words_make_it_panic(line in prop::collection::vec("-{0,2}.{0,6}", 0..6)) {
            let words: Vec<OsString> = line.iter().map(OsString::from).collect();
            let _ = parse(&words, false);
        }
    }
}
