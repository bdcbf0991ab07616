//! Two answers about one image: ours and qemu-img's, and whether they are the same.
//!
//! `beside.py` notes them while QEMU's tests run, a line for each.

use crate::failure::Failure;

use super::explained::Explained;

/// Reasons not to open an image that are no fault of the image, and how qemu-img words them.
const NO_FAULT: [(&str, &str); 3] = [
    ("the backing file is not there", "Could not open backing file"),
    ("the data file is not there", "No such file or directory"),
    ("no key was given", "'encrypt.key-secret' is required"),
];

/// How ours refuses a file that is larger than the address space of a process.
const TOO_LARGE: &str = "cannot map the ";

/// A line of the log.
#[derive(Debug, PartialEq)]
pub(super) struct Line<'l> {
    /// The test that called.
    pub(super) test: &'l str,
    /// What it gave to qemu-img.
    pub(super) command: &'l str,
    /// What came of it.
    pub(super) asked: Asked<'l>,
}

/// Whether ours was asked.
#[derive(Debug, PartialEq)]
pub(super) enum Asked<'l> {
    /// It was not, for this reason.
    No(&'l str),
    /// Both were.
    Both(Pair<'l>),
}

/// The two answers.
#[derive(Debug, PartialEq)]
pub(super) struct Pair<'l> {
    /// Before the repair that the test asked for, after it, or as it is where there is none.
    pub(super) when: &'l str,
    /// qemu-img's, without a repair.
    pub(super) theirs: Answer<'l>,
    /// Ours.
    pub(super) ours: Answer<'l>,
    /// The last line of qemu-img's stderr, and of ours.
    pub(super) error: &'l str,
    /// Where both documents and a copy of the image are, if the answers are not the same.
    pub(super) kept: &'l str,
}

/// An answer, as `key=value` words.
#[derive(Debug, PartialEq)]
pub(super) struct Answer<'l> {
    status: i32,
    /// What both count, in one order; empty where nothing could be counted.
    counts: Vec<(&'l str, &'l str)>,
    /// The codes of our findings that say that the image is wrong.
    findings: Vec<&'l str>,
}

/// What a pair of answers is.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The same status and the same counts.
    Same,
    /// A difference that CHECK.md explains, by name.
    Explained(String),
    /// Any other.
    Different,
}

impl<'l> Line<'l> {
    /// Reads a line.
    pub(super) fn parse(line: &'l str) -> Result<Line<'l>, Failure> {
        let wrong = || Failure::new(format!("a line of answers that cannot be read: {line}"));
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            [test, command, "not asked", reason] => Ok(Line { test, command, asked: Asked::No(reason) }),
            [test, command, when, theirs, ours, error, kept] => {
                let answer = |words| Answer::parse(words).ok_or_else(wrong);
                let pair = Pair { when, theirs: answer(theirs)?, ours: answer(ours)?, error, kept };
                Ok(Line { test, command, asked: Asked::Both(pair) })
            }
            _ => Err(wrong()),
        }
    }
}

impl<'l> Answer<'l> {
    fn parse(words: &'l str) -> Option<Answer<'l>> {
        let mut answer = Answer { status: 0, counts: Vec::new(), findings: Vec::new() };
        for word in words.split(' ') {
            match word.split_once('=')? {
                ("status", status) => answer.status = status.parse().ok()?,
                ("finding", code) => answer.findings.push(code),
                ("extra-corruptions" | "lost-mappings", _) => {}
                count => answer.counts.push(count),
            }
        }
        Some(answer)
    }

    fn count(&self, key: &str) -> &str {
        self.counts.iter().find(|(name, _)| *name == key).map_or("0", |(_, value)| value)
    }
}

impl Pair<'_> {
    /// Compares the two.
    pub(super) fn judge(&self, explained: &Explained) -> Verdict {
        let (theirs, ours) = (&self.theirs, &self.ours);
        let name = if theirs.counts.is_empty() && !ours.counts.is_empty() {
            self.not_opened(explained)
        } else if ours.counts.is_empty() && ours.status == 1 && self.error.contains(TOO_LARGE) {
            Some("a file of more than 128 TiB".to_owned())
        } else if theirs.counts != ours.counts {
            None
        } else if theirs.status == ours.status {
            return Verdict::Same;
        } else {
            match (theirs.status, ours.status) {
                (1, 2) if theirs.count("check-errors") != "0" => {
                    Some("refcounts that cannot be read".to_owned())
                }
                (0 | 3, 2) => only(&ours.findings, |code| explained.only_ours.contains(code)),
                _ => None,
            }
        };
        name.map_or(Verdict::Different, Verdict::Explained)
    }

    /// Why QEMU does not open an image that ours looked at.
    fn not_opened(&self, explained: &Explained) -> Option<String> {
        let reason = NO_FAULT.iter().find(|(_, words)| self.error.contains(words));
        match (self.theirs.status, self.ours.status) {
            (1, 0 | 3) => reason.map(|(name, _)| (*name).to_owned()),
            (1, 2 | 63) => {
                let mut codes =
                    self.ours.findings.iter().filter(|code| explained.not_opened.contains(**code));
                let code = codes.next().map(|code| format!("not opened: {code}"));
                code.or_else(|| reason.map(|(name, _)| (*name).to_owned()))
            }
            _ => None,
        }
    }
}

/// The codes as one name, where there are some, and each is one that explains.
fn only(codes: &[&str], explains: impl Fn(&str) -> bool) -> Option<String> {
    let all = !codes.is_empty() && codes.iter().all(|code| explains(code));
    all.then(|| codes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(theirs: &str, ours: &str, error: &str) -> Verdict {
        let line = format!("060\tcheck t.qcow2\tas it is\t{theirs}\t{ours}\t{error}\t-");
        match Line::parse(&line).unwrap().asked {
            Asked::Both(pair) => pair.judge(&Explained::read()),
            asked => panic!("{asked:?}"),
        }
    }

    fn explained(name: &str) -> Verdict {
        Verdict::Explained(name.to_owned())
    }

    #[test]
    fn the_same_is_the_same_whatever_else_was_found() {
        assert_eq!(verdict("status=0 leaks=0", "status=0 leaks=0", ""), Verdict::Same);
        let ours = "status=2 corruptions=1 extra-corruptions=1 finding=overlap";
        assert_eq!(verdict("status=2 corruptions=1", ours, ""), Verdict::Same);
        assert_eq!(verdict("status=1", "status=1", ""), Verdict::Same);
    }

    #[test]
    fn any_count_that_differs_is_a_difference() {
        assert_eq!(verdict("status=3 leaks=1", "status=3 leaks=2", ""), Verdict::Different);
        assert_eq!(verdict("status=0 leaks=0", "status=2 leaks=1 finding=overlap", ""), Verdict::Different);
        assert_eq!(verdict("status=0 leaks=0", "status=1", ""), Verdict::Different);
        let too_large =
            verdict("status=3 leaks=1", "status=1", " | error: cannot map the 562949959712768 bytes of t");
        assert_eq!(too_large, explained("a file of more than 128 TiB"));
        assert_eq!(verdict("status=0 leaks=0", "status=101", ""), Verdict::Different);
    }

    #[test]
    fn a_status_is_explained_by_findings_that_the_document_lists() {
        let ours = "status=2 leaks=0 extra-corruptions=2 finding=corrupt finding=dirty";
        assert_eq!(verdict("status=0 leaks=0", ours, ""), explained("corrupt, dirty"));
        let ours = "status=2 leaks=1 lost-mappings=1 finding=lost-table";
        assert_eq!(verdict("status=3 leaks=1", ours, ""), explained("lost-table"));
        assert_eq!(verdict("status=0 leaks=0", "status=2 leaks=0", ""), Verdict::Different);
        let ours = "status=2 leaks=0 finding=dirty finding=no-such-finding";
        assert_eq!(verdict("status=0 leaks=0", ours, ""), Verdict::Different);
        // It is never clean where QEMU says corrupt.
        assert_eq!(verdict("status=2 corruptions=1", "status=0 corruptions=1", ""), Verdict::Different);
        let unreadable = verdict("status=1 check-errors=7", "status=2 check-errors=7", "");
        assert_eq!(unreadable, explained("refcounts that cannot be read"));
    }

    #[test]
    fn an_image_that_qemu_does_not_open_must_have_a_reason() {
        let gone = "qemu-img: Could not open 't': Could not open backing file: Could not open 'b'";
        assert_eq!(verdict("status=1", "status=0 leaks=0", gone), explained("the backing file is not there"));
        assert_eq!(verdict("status=1", "status=0 leaks=0", "qemu-img: other"), Verdict::Different);
        let ours = "status=2 corruptions=1 finding=data-outside finding=l1-size";
        assert_eq!(verdict("status=1", ours, "L1 table is too small"), explained("not opened: l1-size"));
        let ours = "status=2 corruptions=1 finding=data-outside";
        assert_eq!(verdict("status=1", ours, "L1 table is too small"), Verdict::Different);
    }

    #[test]
    fn what_was_not_asked_says_why() {
        let line = Line::parse("302\tcheck nbd:x\tnot asked\tprotocol nbd").unwrap();
        assert_eq!(line.asked, Asked::No("protocol nbd"));
        assert!(Line::parse("302\tcheck").is_err());
        assert!(Line::parse("302\tcheck\tas it is\tstatus=x\tstatus=0\t\t-").is_err());
    }
}
