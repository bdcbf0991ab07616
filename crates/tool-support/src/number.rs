//! Numbers as Python's `int(text, 0)` reads them, for that is what every script written for qcow2.py expects.

/// The value of `text`; `None` where Python raises ValueError. Values beyond 127 bits are that large, and no larger.
///
/// ```
/// assert_eq!(tool_support::number::parse("0x1_00"), Some(256));
/// assert_eq!(tool_support::number::parse("010"), None);
/// ```
#[must_use]
pub fn parse(text: &str) -> Option<i128> {
    let text = text.trim();
    let (negative, text) = match text.as_bytes() {
        [b'-', ..] => (true, text.get(1..)?),
        [b'+', ..] => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (radix, digits) = match text.get(..2) {
        Some("0x" | "0X") => (16, after_prefix(text)?),
        Some("0o" | "0O") => (8, after_prefix(text)?),
        Some("0b" | "0B") => (2, after_prefix(text)?),
        _ => (10, text),
    };
    // A decimal number does not begin with a zero, unless it is zero.
    if radix == 10 && digits.starts_with('0') && digits.chars().any(|c| !matches!(c, '0' | '_')) {
        return None;
    }
    let magnitude = magnitude(digits, radix)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// The value of `text`, where it is a whole number of at most 64 bits.
#[must_use]
pub fn unsigned(text: &str) -> Option<u64> {
    parse(text).and_then(|number| u64::try_from(number).ok())
}

/// The bytes that `text` says: a number as [`unsigned`] reads it, or decimal digits and a suffix as QEMU has them: k, M, G,
/// T, P or E, in either case, for powers of 1024.
///
/// ```
/// assert_eq!(tool_support::number::bytes("64k"), Some(65536));
/// assert_eq!(tool_support::number::bytes("0x1E"), Some(30));
/// assert_eq!(tool_support::number::bytes("16E"), None);
/// ```
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    if let Some(number) = unsigned(text) {
        return Some(number);
    }
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let mut suffix = text.get(digits.len()..)?.chars();
    let (Some(suffix), None) = (suffix.next(), suffix.next()) else { return None };
    let power = "kMGTPE".chars().position(|known| known.eq_ignore_ascii_case(&suffix))? + 1;
    let is_decimal = digits.chars().all(|c| c.is_ascii_digit() || c == '_');
    unsigned(digits).filter(|_| is_decimal)?.checked_mul(1 << (10 * power))
}

/// The digits behind a prefix such as `0x`, which one underscore may separate.
fn after_prefix(text: &str) -> Option<&str> {
    let digits = text.get(2..)?;
    Some(digits.strip_prefix('_').unwrap_or(digits))
}

fn magnitude(digits: &str, radix: u32) -> Option<i128> {
    let mut value = 0i128;
    for group in digits.split('_') {
        if group.is_empty() {
            return None;
        }
        for c in group.chars() {
            let digit = c.to_digit(radix)?;
            value = value.saturating_mul(radix.into()).saturating_add(digit.into());
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::{bytes, parse};

    #[test]
    fn what_python_accepts() {
        for (text, value) in [
            ("0", 0),
            ("16", 16),
            ("0x10", 16),
            ("0X1f", 31),
            ("0o20", 16),
            ("0O17", 15),
            ("0b101", 5),
            ("0B1", 1),
            ("1_000", 1000),
            ("0x_f_f", 255),
            (" \t5\n", 5),
            ("+5", 5),
            ("-5", -5),
            ("-0x5", -5),
            ("00", 0),
            ("0_0", 0),
            ("0x010", 16),
        ] {
            assert_eq!(parse(text), Some(value), "{text:?}");
        }
        assert_eq!(parse(&"9".repeat(100)), Some(i128::MAX));
    }

    #[test]
    fn suffixes_are_powers_of_1024() {
        for (text, value) in [
            ("5", 5),
            ("0x10", 16),
            ("1k", 1 << 10),
            ("1K", 1 << 10),
            ("3m", 3 << 20),
            ("2G", 2 << 30),
            (" 1T ", 1 << 40),
            ("7P", 7 << 50),
            ("15E", 15 << 60),
            ("1_0k", 10 << 10),
            ("0k", 0),
        ] {
            assert_eq!(bytes(text), Some(value), "{text:?}");
        }
        for text in ["", "k", "1kk", "1x", "-1k", "+1k", "0x1k", "16E", "1.5k", "1 kB", "1é", "0b", "é"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_python_rejects() {
        for text in [
            "", " ", "010", "0x", "0x_", "_1", "1_", "1__0", "0b2", "0o8", "- 5", "--5", "5x", "0x-5", "1.0",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
