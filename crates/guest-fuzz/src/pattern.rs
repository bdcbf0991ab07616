//! [`Pattern`]: a name, or a glob. [`port_range`]: ports as a person writes them.

use crate::error::{Error, Result};
use crate::quoted::quoted;
use crate::region::Space;

/// A name as it is, or with `*` for any characters and `?` for one. All of a name has to match, case included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<char>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().collect())
    }

    /// Compares from the left. At a mismatch the last star takes one character more: no more than the product of
    /// both lengths in steps, whatever the pattern.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (&self.0, name.chars().collect::<Vec<_>>());
        let (mut at, mut here) = (0, 0);
        let mut star = None;
        while let Some(&character) = name.get(here) {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, here));
                    at += 1;
                }
                Some(&wanted) if wanted == '?' || wanted == character => (at, here) = (at + 1, here + 1),
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    (at, here) = (star_at + 1, taken + 1);
                }
            }
        }
        pattern.iter().skip(at).all(|&rest| rest == '*')
    }
}

/// A number: hexadecimal with `0x`, decimal without. A leading zero is neither, since it could be meant as either.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = |text: &str, radix: u32| {
        let valid = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
        valid.then(|| u64::from_str_radix(text, radix).ok()).flatten()
    };
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if text.len() > 1 && text.starts_with('0') => None,
        None => digits(text, 10),
    }
}

/// `FIRST-LAST`, or one number. `None` where it is none, or ends before it begins.
pub(crate) fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    (first <= last).then_some((first, last))
}

/// One or more ports, or `None` where `text` is meant as a name.
///
/// # Errors
/// Where it looks like ports and is none: `0060-006f`, `0x6f-0x60`, `0x10000`.
pub(crate) fn port_range(what: &str, text: &str) -> Result<Option<(u64, u64)>> {
    let looks_like_number = |part: &str| {
        let part = part.trim();
        part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_hexdigit() || c == 'x' || c == 'X')
    };
    if !text.split('-').all(looks_like_number) {
        return Ok(None);
    }
    match range(text) {
        Some((first, last)) if last <= u64::from(u16::MAX) => Ok(Some((first, last))),
        _ => Err(Error::Syntax {
            what: what.to_owned(),
            line: 1,
            expected: "ports such as 0x60 or 0x60-0x6f, up to 0xffff".to_owned(),
            found: quoted(text),
        }),
    }
}

/// `FIRST-LAST` as a person writes it.
pub(crate) fn range_text(space: Space, first: u64, last: u64) -> String {
    let width = if space == Space::Port { 6 } else { 10 };
    match first == last {
        true => format!("{first:#0width$x}"),
        false => format!("{first:#0width$x}-{last:#0width$x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_whole() {
        assert!(Pattern::new("serial").matches("serial"));
        assert!(!Pattern::new("serial").matches("serial2"));
        assert!(!Pattern::new("serial").matches("serial (set)"));
        assert!(!Pattern::new("serial").matches("Serial"));
        assert!(Pattern::new("").matches(""));
        assert!(!Pattern::new("").matches("a"));
    }

    #[test]
    fn stars_take_any_and_marks_one() {
        for name in ["acpi-evt", "acpi-", "acpi-a-b"] {
            assert!(Pattern::new("acpi-*").matches(name), "{name}");
        }
        assert!(!Pattern::new("acpi-*").matches("xacpi-evt"));
        assert!(Pattern::new("*").matches(""));
        assert!(Pattern::new("*a*b").matches("xxaxaybb"));
        assert!(!Pattern::new("*a*b").matches("xxaxaybc"));
        assert!(Pattern::new("p?c").matches("pic"));
        assert!(!Pattern::new("p?c").matches("pc"));
        assert!(Pattern::new("?").matches("é"));
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let name = "a".repeat(3000);
        assert!(!Pattern::new(&("a*".repeat(500) + "b")).matches(&name));
    }

    #[test]
    fn numbers_say_what_they_are() {
        assert_eq!((number("0x3f8"), number("96"), number("0")), (Some(0x3f8), Some(96), Some(0)));
        for bad in ["", "0x", "060", "0060", "3f8", "-1", "+1", "1_0", "0x+1", "0x10000000000000000"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_are_told_from_names() {
        let ports = |text| port_range("test", text);
        assert_eq!(ports("0x60-0x6f").unwrap(), Some((0x60, 0x6f)));
        assert_eq!(ports("0x80").unwrap(), Some((0x80, 0x80)));
        for name in ["0000:00:1f.3", "serial", "3com", "pci-conf-idx", "", "-"] {
            assert_eq!(ports(name).unwrap(), None, "{name}");
        }
        for bad in ["0060-006f", "0x6f-0x60", "0x10000", "0x1-0x2-0x3", "0xfff0-0x10000"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
