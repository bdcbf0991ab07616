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
    use super::parse;

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
    fn what_python_rejects() {
        for text in [
            "", " ", "010", "0x", "0x_", "_1", "1_", "1__0", "0b2", "0o8", "- 5", "--5", "5x", "0x-5", "1.0",
            "é",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
