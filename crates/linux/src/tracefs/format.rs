//! Reads an event's `format` file: where its fields lie, and the words for their values.
//!
//! ```text
//! name: mm_migrate_pages_start
//! ID: 682
//! format:
//!         field:int common_pid;   offset:4;       size:4; signed:1;
//!         field:int reason;       offset:12;      size:4; signed:1;
//!
//! print fmt: "reason=%s", __print_symbolic(REC->reason, {0, "compaction"}, {5, "numa_misplaced"})
//! ```
//!
//! - Number, offsets and words differ between kernels, so no event is understood without it.
//! - The words of a field are those of the `__print_symbolic` that begins with `REC->field`. An
//!   entry whose value is an expression, or a name that the kernel did not resolve, is left out; its
//!   value is then shown as a number.
//!
//! Source: kernel, Documentation/trace/events.rst; kernel/trace/trace_events.c, `f_show`.

use std::collections::BTreeMap;

use crate::Malformed;

/// How the events of one kind are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Its name, without that of its system.
    pub name: String,
    /// What `common_type` is in its events.
    pub id: u16,
    /// In the order of the file, those common to all events first.
    pub fields: Vec<Field>,
}

/// A field of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Bytes from the start of the event.
    pub offset: usize,
    /// Its size in bytes; of an array, that of the whole.
    pub bytes: usize,
    /// Whether its number may be negative.
    pub is_signed: bool,
    /// Whether it is a plain number: no address, array or string.
    pub is_number: bool,
    /// Words for its values, if the kernel prints words.
    pub words: BTreeMap<i64, String>,
}

impl Format {
    /// The field of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The fields that are its own: all but the common ones.
    pub fn own_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.name.starts_with("common_"))
    }
}

impl Field {
    /// Its number in the bytes of an event; `None` for an array, or when the event is too short. A
    /// number above `i64::MAX` (an address) keeps its bits.
    #[must_use]
    pub fn number(&self, event: &[u8]) -> Option<i64> {
        let bytes = event.get(self.offset..self.offset.checked_add(self.bytes)?)?;
        Some(match *bytes {
            [a] if self.is_signed => i64::from(i8::from_ne_bytes([a])),
            [a] => i64::from(a),
            [a, b] if self.is_signed => i64::from(i16::from_ne_bytes([a, b])),
            [a, b] => i64::from(u16::from_ne_bytes([a, b])),
            [a, b, c, d] if self.is_signed => i64::from(i32::from_ne_bytes([a, b, c, d])),
            [a, b, c, d] => i64::from(u32::from_ne_bytes([a, b, c, d])),
            _ => i64::from_ne_bytes(bytes.try_into().ok()?),
        })
    }

    /// The word for a value, or its number where the kernel has no word.
    #[must_use]
    pub fn word(&self, value: i64) -> String {
        self.words.get(&value).cloned().unwrap_or_else(|| value.to_string())
    }
}

/// Reads the text of a format file.
///
/// # Errors
///
/// When the name, the number, or a part of a field is missing.
pub fn parse(text: &str) -> Result<Format, Malformed> {
    let line_of = |prefix: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(prefix));
        found.map(str::trim).ok_or_else(|| Malformed::new(1, format!("no line `{prefix}`")))
    };
    let id = line_of("ID:")?;
    let id = id.parse().map_err(|_| Malformed::new(1, format!("`{id}` is no event number")))?;
    let mut fields = parse_fields(text)?;
    let print = text.split_once("\nprint fmt:").map_or("", |(_, print)| print);
    for field in &mut fields {
        field.words = words(print, &field.name);
    }
    Ok(Format { name: line_of("name:")?.to_owned(), id, fields })
}

/// The `field:` lines of a format file or of `header_page`.
pub(super) fn parse_fields(text: &str) -> Result<Vec<Field>, Malformed> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.trim_start().starts_with("field:"))
        .map(|(at, line)| {
            field(line.trim_start()).ok_or_else(|| {
                Malformed::new(at + 1, "not `field:TYPE NAME; offset:N; size:N; signed:N;`")
            })
        })
        .collect()
}

/// `field:unsigned long caller[8]; offset:16; size:64; signed:0;`
fn field(line: &str) -> Option<Field> {
    let mut parts = line.split(';').map(str::trim);
    let declaration = parts.next()?.strip_prefix("field:")?;
    let name = declaration.split_whitespace().last()?.trim_start_matches('*');
    let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
    Some(Field {
        name: name.split('[').next()?.to_owned(),
        offset: number("offset:")?,
        bytes: number("size:")?,
        is_signed: number("signed:")? == 1,
        is_number: !declaration.contains(['*', '[']) && !declaration.contains("_loc "),
        words: BTreeMap::new(),
    })
}

/// The words that the print format has for the values of `field`.
fn words(print: &str, field: &str) -> BTreeMap<i64, String> {
    let rest = print.split("__print_symbolic(").skip(1).find_map(|call| {
        let rest = call.trim_start().strip_prefix("REC->")?.strip_prefix(field)?;
        rest.trim_start().strip_prefix(',')
    });
    let mut words = BTreeMap::new();
    let mut rest = rest.unwrap_or_default().trim_start();
    // {0, "compaction"}, {1, "memory_failure"})
    while let Some((entry, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        if let Some((value, word)) = entry.split_once(',')
            && let Some(value) = value_of(value.trim())
        {
            words.insert(value, word.trim().trim_matches('"').to_owned());
        }
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    words
}

fn value_of(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "name: e\nID: 7\nformat:\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:const int * p;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\
        \tfield:int why;\toffset:12;\tsize:4;\tsigned:1;\n\n\
        print fmt: \"%s %s\", __print_symbolic(REC->whyever, {9, \"no\"}), \
        __print_symbolic(REC->why, {0, \"a\"}, {0x10, \"b c\"}, {1 << 3, \"d\"}, {NAME, \"e\"})\n";

    #[test]
    fn names_lose_their_stars_and_brackets() {
        let format = parse(TEXT).unwrap();
        let names: Vec<_> = format.fields.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, ["common_pid", "p", "caller", "why"]);
        let numbers: Vec<_> = format.own_fields().map(|field| field.is_number).collect();
        assert_eq!(numbers, [false, false, true]);
        assert_eq!((format.id, format.name.as_str()), (7, "e"));
    }

    #[test]
    fn words_are_those_of_the_very_field_and_what_is_no_number_has_none() {
        let format = parse(TEXT).unwrap();
        let why = format.field("why").unwrap();
        assert_eq!([0, 16, 8, -1].map(|value| why.word(value)), ["a", "b c", "8", "-1"]);
        assert!(format.field("p").unwrap().words.is_empty());
    }

    #[test]
    fn a_number_has_the_sign_and_the_size_of_its_field() {
        let field = |bytes, is_signed| Field {
            name: String::new(),
            offset: 1,
            bytes,
            is_signed,
            is_number: true,
            words: BTreeMap::new(),
        };
        let event = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for bytes in [1, 2, 4, 8] {
            assert_eq!(field(bytes, true).number(&event), Some(-1));
        }
        assert_eq!(field(2, false).number(&event), Some(0xffff));
        assert_eq!(field(4, false).number(&event), Some(0xffff_ffff));
        assert_eq!(field(3, false).number(&event), None);
        assert_eq!(field(8, false).number(&event[..8]), None);
    }

    #[test]
    fn a_file_without_a_number_or_with_half_a_field_is_refused() {
        assert!(parse("name: x\n").is_err());
        let error = parse("name: x\nID: 1\n\tfield:int a;\toffset:4;\n").unwrap_err();
        assert_eq!(error.line, 3);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(
            text in "(name: [a-z]{0,3}\n)?(ID: [0-9]{0,6}\n)?(\tfield:[ -~]{0,20};\toffset:[0-9]{0,20}\
                ;\tsize:[0-9]{0,20};\tsigned:[01-]{0,2};\n){0,3}(print fmt: [ -~]{0,20}\
                __print_symbolic\\(REC->[a-z]{0,2}[ -~]{0,40}\n)?|[ -~\n]{0,100}"
        ) {
            if let Ok(format) = parse(&text) {
                for field in &format.fields {
                    let _ = field.number(&[0; 24]);
                }
            }
        }
    }
}
