//! Killed at any call, or with any call failing, an edit leaves an image that is as it was, as
//! it will be, or undoable; and the plan can be completed.

use crate::plan;
use crate::program::Program;
use crate::scratch::{names, scratch, text};
use crate::tracer::{CALLS, Outcome, disturbed, occurrences};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An edit of an image, with what it looks like before and after.
#[derive(Debug)]
pub struct Case {
    program: Program,
    folder: TempDir,
    before: Vec<u8>,
    after: Vec<u8>,
    args: &'static [&'static str],
}

impl Case {
    /// The edit `args`, which changes something, of the image at `image`, which is left as it is.
    #[must_use]
    pub fn new(program: Program, image: &Path, args: &'static [&'static str]) -> Case {
        let folder = scratch();
        let before = fs::read(image).unwrap();
        let case = Case { program, after: Vec::new(), before, args, folder };
        let image = case.fresh();
        program.run(&image, &[args, &["--save-plan", text(&case.plan())]].concat()).expect(0);
        program.edit(&image, args);
        let after = fs::read(&image).unwrap();
        assert!(after != case.before, "{args:?} changes something");
        Case { after, ..case }
    }

    fn plan(&self) -> PathBuf {
        self.folder.path().join("plan")
    }

    /// The image as it was, alone in its folder.
    fn fresh(&self) -> PathBuf {
        let folder = self.folder.path().join("fresh");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir(&folder).unwrap();
        let image = folder.join("image");
        fs::write(&image, &self.before).unwrap();
        image
    }

    fn is_before(&self, image: &Path) -> bool {
        fs::read(image).unwrap() == self.before
    }

    fn is_after(&self, image: &Path) -> bool {
        fs::read(image).unwrap() == self.after
    }

    /// After a crash: `undo` brings back what was, and `apply` completes what will be.
    fn recovers(&self, image: &Path, because: &str) {
        let copy = copied(image);
        self.undoes(&copy, because);
        let copy = copied(image);
        let run = self.program.run(&copy, &["apply", text(&self.plan())]);
        assert_eq!(run.status.code(), Some(0), "{because}, then apply: {run}");
        assert!(self.is_after(&copy), "{because}: apply completes the edit");
        // Where the first commit was never finished, its record serves this one, too.
        if names(copy.parent().unwrap()).len() > 1 {
            self.undoes(&copy, &format!("{because}, then apply"));
        }
    }

    fn undoes(&self, image: &Path, because: &str) {
        let was_before = self.is_before(image);
        let run = self.program.run(image, &["undo"]);
        let status = run.status.code();
        assert!(status == Some(0) || was_before && status == Some(1), "{because}, then undo: {run}");
        assert!(self.is_before(image), "{because}: undo brings back what was");
        // Nothing that the crash has left is in the way.
        let run = self.program.run(image, self.args);
        assert_eq!(run.status.code(), Some(0), "{because}, undone, and edited again: {run}");
        assert!(self.is_after(image), "{because}, undone, and edited again");
    }
}

/// A copy of an image with all that is beside it, in a folder of its own. Records name their
/// image by its path, so that the copy takes the place of the first one.
fn copied(image: &Path) -> PathBuf {
    let from = image.parent().unwrap();
    let to = from.parent().unwrap().join("copy");
    drop(fs::remove_dir_all(&to));
    fs::create_dir(&to).unwrap();
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    to.join("image")
}

/// Makes a test of every check: `crash!(cases())` with a `Vec` of [`Case`].
#[macro_export]
macro_rules! crash {
    ($cases:expr) => {
        $crate::crash! { $cases;
            an_edit_that_is_killed_can_be_undone_or_completed
            an_undo_that_is_killed_can_be_undone_again
            an_apply_that_is_killed_can_be_undone_or_completed
            a_torn_write_can_be_undone_or_completed
            a_call_that_fails_is_reported_and_loses_nothing
            a_record_that_cannot_be_read_stops_everything_and_is_named
        }
    };
    ($cases:expr; $($check:ident)+) => { $(
        #[test]
        fn $check() {
            $crate::crash::$check(&$cases);
        }
    )+ };
}

/// Disturbs every occurrence of every call until the command ends undisturbed.
fn everywhere(
    what: &str,
    case: &Case,
    args: &[&str],
    prepare: impl Fn() -> PathBuf,
    judge: impl Fn(&Path, Outcome, &str),
) {
    let mut total = 0;
    for call in CALLS {
        for nth in occurrences(case.program, call, &prepare(), args) {
            let image = prepare();
            let because = format!("{args:?} on {} bytes, {what} at {call} {nth}", case.before.len());
            judge(&image, disturbed(case.program, call, what, nth, &image, args), &because);
            total += 1;
        }
    }
    assert!(total > 10, "only {total} calls were disturbed");
}

/// Killed at any call.
pub fn an_edit_that_is_killed_can_be_undone_or_completed(cases: &[Case]) {
    for case in cases {
        everywhere(
            "signal=KILL",
            case,
            case.args,
            || case.fresh(),
            |image, outcome, because| {
                assert!(matches!(outcome, Outcome::Killed), "{because}: {outcome:?}");
                case.recovers(image, because);
            },
        );
    }
}

/// Killed at any call of an `undo`.
pub fn an_undo_that_is_killed_can_be_undone_again(cases: &[Case]) {
    for case in cases {
        let edited = || {
            let image = case.fresh();
            case.program.edit(&image, case.args);
            image
        };
        everywhere("signal=KILL", case, &["undo"], edited, |image, outcome, because| {
            assert!(matches!(outcome, Outcome::Killed), "{because}: {outcome:?}");
            case.undoes(image, because);
        });
    }
}

/// Killed at any call of an `apply`.
pub fn an_apply_that_is_killed_can_be_undone_or_completed(cases: &[Case]) {
    for case in cases {
        let plan = case.plan();
        everywhere(
            "signal=KILL",
            case,
            &["apply", text(&plan)],
            || case.fresh(),
            |image, outcome, because| {
                assert!(matches!(outcome, Outcome::Killed), "{because}: {outcome:?}");
                case.recovers(image, because);
            },
        );
    }
}

/// A write that only half happened, with every write before it done.
pub fn a_torn_write_can_be_undone_or_completed(cases: &[Case]) {
    for case in cases {
        let writes = plan::of(case.program, &case.fresh(), case.args);
        for (index, write) in writes.iter().enumerate() {
            for length in [1, write.new.len() / 2, write.new.len() - 1] {
                let image = case.fresh();
                let outcome =
                    disturbed(case.program, "pwrite64", "signal=KILL", index + 1, &image, case.args);
                assert!(matches!(outcome, Outcome::Killed), "each write is one call");
                let done = plan::applied(&case.before, &writes[..index]);
                assert!(fs::read(&image).unwrap() == done, "the writes happen in their order");
                fs::write(&image, with(done, write.offset, &write.new[..length])).unwrap();
                let because = format!("{:?}: {length} bytes of write {index}", case.args);
                case.recovers(&image, &because);
            }
        }
    }
}

/// With any call failing.
pub fn a_call_that_fails_is_reported_and_loses_nothing(cases: &[Case]) {
    for case in cases {
        for error in ["error=ENOSPC", "error=EIO"] {
            everywhere(
                error,
                case,
                case.args,
                || case.fresh(),
                |image, outcome, because| {
                    let Outcome::Ended(run) = outcome else { panic!("{because}: {outcome:?}") };
                    match run.status.code() {
                        Some(0) => assert!(case.is_after(image), "{because}: {run}"),
                        Some(1) => {
                            assert!(case.is_before(image), "{because}: {run}");
                            assert_eq!(
                                names(image.parent().unwrap()).len(),
                                1,
                                "{because}: a record is left: {run}"
                            );
                        }
                        Some(70) => case.recovers(image, because),
                        _ => panic!("{because}: {run}"),
                    }
                },
            );
        }
    }
}

/// `bytes` with `new` at `at`; they grow where they have to.
fn with(mut bytes: Vec<u8>, at: usize, new: &[u8]) -> Vec<u8> {
    bytes.resize(bytes.len().max(at + new.len()), 0);
    bytes[at..at + new.len()].copy_from_slice(new);
    bytes
}

/// A record is renamed into place when it is complete; one that is not was not made by us, and
/// is for its owner to look at.
pub fn a_record_that_cannot_be_read_stops_everything_and_is_named(cases: &[Case]) {
    for case in cases {
        let image = case.fresh();
        case.program.edit(&image, case.args);
        let record = image.with_file_name("image.undo-1");
        let whole = fs::read(&record).unwrap();
        for length in [0, 1, whole.len() / 3, whole.len() / 2] {
            let image = case.fresh();
            fs::write(&record, &whole[..length]).unwrap();
            for args in [&["undo"], case.args] {
                let run = case.program.run(&image, args).expect(1);
                assert!(run.err().contains("image.undo-1"), "{length} bytes of a record: {run}");
                assert!(case.is_before(&image) && record.exists(), "{length} bytes of a record: {run}");
            }
        }
    }
}
