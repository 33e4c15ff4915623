//! Numbers as C's `strtoul` with base 0 reads them: what numactl's tools accept as a node or a pid.
//!
//! Leading white space, one sign, `0x` for hexadecimal, a leading `0` for octal. A negative number
//! wraps around, and one that is too large becomes the largest there is: neither is an error.
//! pagetide's own numbers are read by [`str::parse`]; this is for the drop-ins.
//!
//! Source: strtoul(3), C locale; ISO C, 7.24.1.7.

/// The number at the start of `text` and what follows it; `None` when there is no digit.
pub fn strtoul(text: &[u8]) -> Option<(u64, &[u8])> {
    let blanks = text.iter().take_while(|byte| is_space(**byte)).count();
    let unsigned = &text[blanks..];
    let (is_negative, unsigned) = match unsigned.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, unsigned),
    };
    let (base, digits) = base_of(unsigned);
    let length = digits.iter().take_while(|byte| digit(**byte, base).is_some()).count();
    if length == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(length);
    let magnitude = digits
        .iter()
        .filter_map(|byte| digit(*byte, base))
        .try_fold(0u64, |sum, next| sum.checked_mul(base.into())?.checked_add(next.into()));
    let number = match magnitude {
        Some(magnitude) if is_negative => magnitude.wrapping_neg(),
        Some(magnitude) => magnitude,
        None => u64::MAX,
    };
    Some((number, rest))
}

/// The base that a prefix asks for, and the digits. `0x` without a digit after it is the number 0.
fn base_of(unsigned: &[u8]) -> (u32, &[u8]) {
    match unsigned {
        [b'0', b'x' | b'X', digits @ ..] if digits.first().is_some_and(u8::is_ascii_hexdigit) => {
            (16, digits)
        }
        [b'0', ..] => (8, unsigned),
        _ => (10, unsigned),
    }
}

fn digit(byte: u8, base: u32) -> Option<u32> {
    char::from(byte).to_digit(base)
}

/// `isspace` of the C locale; Rust's ASCII white space lacks the vertical tab.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == b'\x0b'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_read_in_the_base_that_its_prefix_asks_for() {
        for (text, number, rest) in [
            ("7", 7, ""),
            ("0", 0, ""),
            ("010", 8, ""),
            ("08", 0, "8"),
            ("0x1F", 31, ""),
            ("0X1g", 1, "g"),
            ("0x", 0, "x"),
            ("0b1", 0, "b1"),
            ("12x", 12, "x"),
            (" \t\n\x0b\x0c\r5 ", 5, " "),
            ("+5", 5, ""),
            ("-1", u64::MAX, ""),
            ("-18446744073709551615", 1, ""),
            ("18446744073709551615", u64::MAX, ""),
            ("18446744073709551616", u64::MAX, ""),
            ("-18446744073709551616", u64::MAX, ""),
            ("0x10000000000000000", u64::MAX, ""),
        ] {
            assert_eq!(strtoul(text.as_bytes()), Some((number, rest.as_bytes())), "{text:?}");
        }
    }

    #[test]
    fn a_text_without_a_digit_is_no_number() {
        for text in ["", " ", "x", "+", "-", "+-1", "- 1", "all", "x1"] {
            assert_eq!(strtoul(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_number_is_itself(number in any::<u64>(), rest in "[^0-9]*") {
            let text = format!("{number}{rest}");
            prop_assert_eq!(strtoul(text.as_bytes()), Some((number, rest.as_bytes())));
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = strtoul(&text);
        }
    }
}
