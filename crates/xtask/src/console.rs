//! The `console` blocks of a Markdown file: the commands in them, and what each must print.

use std::ops::Range;

/// One command of a block, with the output shown below it.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    /// The number of its line, from 1.
    pub(crate) line: usize,
    /// The command; lines that began with `> ` continue it.
    pub(crate) command: String,
    /// The output it must print.
    pub(crate) expected: Vec<String>,
    /// Which lines of the file, from 0, the expected output takes up.
    pub(crate) place: Range<usize>,
}

impl Step {
    /// Commands for the reader's own machine are shown, never run.
    pub(crate) fn is_run(&self) -> bool {
        !["cargo ", "sudo "].iter().any(|prefix| self.command.starts_with(prefix))
    }
}

/// Every command of every block fenced as `console`, in order.
pub(crate) fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut fence: Option<bool> = None;
    let mut fresh = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_end();
        match fence {
            None if trimmed.starts_with("```") => {
                fence = Some(trimmed == "```console");
                fresh = true;
            }
            None => {}
            Some(_) if trimmed == "```" => fence = None,
            Some(false) => {}
            Some(true) => {
                if let Some(command) = line.strip_prefix("$ ") {
                    let next = index + 1;
                    let command = command.to_owned();
                    steps.push(Step { line: next, command, expected: Vec::new(), place: next..next });
                    fresh = false;
                } else if let Some(step) = steps.last_mut().filter(|_| !fresh) {
                    let more = line.strip_prefix("> ").filter(|_| step.expected.is_empty());
                    if let Some(more) = more {
                        step.command.push('\n');
                        step.command.push_str(more);
                        step.place = index + 1..index + 1;
                    } else {
                        step.expected.push(line.to_owned());
                        step.place.end = index + 1;
                    }
                } else {
                    return Err(format!("line {}: a console block begins with `$ command`", index + 1));
                }
            }
        }
    }
    if fence.is_some() {
        return Err("the last block is not closed".to_owned());
    }
    Ok(steps)
}

/// `text` with the expected output of each step replaced; `None` leaves it as it is.
pub(crate) fn rewrite(text: &str, steps: &[Step], outputs: &[Option<Vec<String>>]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // From the end, so that the places before stay right.
    for (step, output) in steps.iter().zip(outputs).rev() {
        if let Some(output) = output {
            lines.splice(step.place.clone(), output.iter().cloned());
        }
    }
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

/// Whether `printed` is what `expected` says: a line `...` stands for any number of lines, `[..]`
/// within a line for anything. Blanks at the end of a line are of no account.
pub(crate) fn matches(expected: &[impl AsRef<str>], printed: &[impl AsRef<str>]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return printed.is_empty() };
    if first.as_ref().trim_end() == "..." {
        let tails = (0..=printed.len()).filter_map(|from| printed.get(from..));
        return tails.into_iter().any(|tail| matches(rest, tail));
    }
    let Some((line, others)) = printed.split_first() else { return false };
    line_matches(first.as_ref().trim_end(), line.as_ref().trim_end()) && matches(rest, others)
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once("[..]") else { return pattern == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    let ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
    ends.filter_map(|at| line.get(at..)).any(|tail| line_matches(rest, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree(expected: &str, printed: &str) -> bool {
        let split = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        matches(&split(expected), &split(printed))
    }

    #[test]
    fn lines_must_be_equal_up_to_trailing_blanks() {
        assert!(agree("", ""));
        assert!(agree("a\nb", "a  \nb"));
        assert!(!agree("a", "a\nb"));
        assert!(!agree("a\nb", "a"));
        assert!(!agree("", "a"));
        assert!(!agree(" a", "a"));
    }

    #[test]
    fn dots_stand_for_any_number_of_lines() {
        assert!(agree("...", ""));
        assert!(agree("a\n...\nz", "a\nz"));
        assert!(agree("a\n...\nz", "a\nb\nz\nz"));
        assert!(agree("...\nb\n...", "a\nb\nc"));
        assert!(!agree("a\n...\nz", "a\nb"));
    }

    #[test]
    fn brackets_stand_for_anything_within_a_line() {
        assert!(agree("took [..] s", "took 0.3 s"));
        assert!(agree("[..]b[..]", "abc"));
        assert!(agree("a[..]", "a"));
        assert!(agree("[..]é", "éé"));
        assert!(!agree("a[..]c", "ab"));
        assert!(!agree("a[..]c", "a\nc"));
    }

    const PAGE: &str = "\
text
```sh
$ not run
```
```console
$ one
out
$ two \\
> more
$ sudo three
```
after
";

    #[test]
    fn only_console_blocks_are_read() {
        let steps = steps(PAGE).unwrap();
        let commands: Vec<&str> = steps.iter().map(|step| step.command.as_str()).collect();
        assert_eq!(commands, ["one", "two \\\nmore", "sudo three"]);
        assert_eq!(steps[0].expected, ["out"]);
        assert_eq!((steps[0].line, steps[0].is_run(), steps[2].is_run()), (6, true, false));
    }

    #[test]
    fn a_page_must_be_well_formed() {
        assert!(steps("```console\nout\n```\n").is_err());
        assert!(steps("```console\n$ a\n```\n```console\nout\n```\n").is_err());
        assert!(steps("```console\n$ a\n").is_err());
    }

    #[test]
    fn blessing_rewrites_only_what_it_is_given() {
        let steps = steps(PAGE).unwrap();
        let lines = |text: &[&str]| Some(text.iter().map(|line| (*line).to_owned()).collect());
        let page = rewrite(PAGE, &steps, &[lines(&["x", "y"]), lines(&["z"]), None]);
        assert_eq!(page, PAGE.replace("out\n", "x\ny\n").replace("> more\n", "> more\nz\n"));
        assert_eq!(rewrite(PAGE, &steps, &[None, None, None]), PAGE);
        assert_eq!(rewrite(PAGE, &steps, &[lines(&[]), None, None]), PAGE.replace("out\n", ""));
    }
}
