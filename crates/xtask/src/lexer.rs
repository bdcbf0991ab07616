//! Just enough Rust to tell code from comments and literals.

/// `source` with every comment, string and character literal blanked out, line by line the same.
pub(crate) fn code_only(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut word = false;
    while let Some(first) = rest.chars().next() {
        let skipped = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !word => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            out.push(first);
            word = first.is_alphanumeric() || first == '_';
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        } else {
            let (literal, after) = rest.split_at_checked(skipped).unwrap_or((rest, ""));
            out.push(' ');
            out.extend(literal.chars().filter(|c| *c == '\n'));
            word = false;
            rest = after;
        }
    }
    out
}

/// The length of the block comment that `text` begins with; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth.saturating_sub(1), at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the string literal that `text` begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string that `text` begins with, or 0 where it is an ordinary word.
fn raw_string(text: &str) -> usize {
    let Some(after) = text.strip_prefix('r') else { return 0 };
    let body = after.trim_start_matches('#');
    let hashes = after.len() - body.len();
    if !body.starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let start = 1 + hashes + 1;
    let inner = text.get(start..).unwrap_or_default();
    inner.find(&close).map_or(text.len(), |at| start + at + close.len())
}

/// The length of the character literal that `text` begins with, or 0 where it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| 3 + at + 1),
        Some(_) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Whether `code` has `word` standing alone, not as part of a longer name.
pub(crate) fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        let after = code.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_go_and_lines_stay() {
        let source = "a // b\nc /* d /* e */ \n f */ g \"h \\\" i\" j r#\"k \" l\"# m 'n' '\\'' 'o\n";
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count());
        for kept in ["a", "c", "g", "j", "m", "o"] {
            assert!(has_word(&code, kept), "{kept} in {code:?}");
        }
        for gone in ["b", "d", "e", "f", "h", "i", "k", "l", "n"] {
            assert!(!has_word(&code, gone), "{gone} in {code:?}");
        }
    }

    #[test]
    fn an_r_that_is_a_word_or_its_end_starts_nothing() {
        assert_eq!(code_only("for r in var(r#type)"), "for r in var(r#type)");
    }

    #[test]
    fn an_unfinished_literal_ends_with_the_text() {
        for source in ["\"x", "r#\"x", "/* x", "'", "'\\", "'\\'"] {
            code_only(source);
        }
    }

    #[test]
    fn a_word_is_not_part_of_a_name() {
        assert!(has_word("x unsafe{", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
    }
}
