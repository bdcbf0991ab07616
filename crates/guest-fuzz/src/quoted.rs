//! [`quoted`]: what somebody else wrote, for a message.

/// The most characters that are shown.
const MOST: usize = 80;

/// `text` in quotation marks, escaped, and cut after 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut rest = text.chars();
    let shown: String = rest.by_ref().take(MOST).flat_map(char::escape_debug).collect();
    let more = if rest.next().is_some() { "…" } else { "" };
    format!("\"{shown}\"{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short_and_clean() {
        assert_eq!(quoted(&"é".repeat(80)), format!("\"{}\"", "é".repeat(80)));
        assert_eq!(quoted(&"é".repeat(81)), format!("\"{}\"…", "é".repeat(80)));
        assert_eq!(quoted("\u{1b}[2J\"ü"), "\"\\u{1b}[2J\\\"ü\"");
    }
}
