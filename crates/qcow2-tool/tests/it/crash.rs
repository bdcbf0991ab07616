//! Killed at any call, or with any call failing, an edit leaves an image that is as it was, as
//! it will be, or undoable; and the plan can be completed.

use crate::support::bytes::{Bytes, at};
use crate::support::images::{self, made};
use crate::support::plan;
use crate::support::program::{edit, qcow2};
use crate::support::scratch::{names, scratch, text};
use crate::support::tracer::{CALLS, Outcome, disturbed, occurrences};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An edit of an image, with what it looks like before and after.
struct Case {
    folder: TempDir,
    before: Vec<u8>,
    after: Vec<u8>,
    args: &'static [&'static str],
}

impl Case {
    /// Makes the plan and the image after it, undisturbed.
    fn new(image: &Path, args: &'static [&'static str]) -> Case {
        let folder = scratch();
        let before = fs::read(image).unwrap();
        let case = Case { after: Vec::new(), before, args, folder };
        let image = case.fresh();
        qcow2(&image, &[args, &["--save-plan", text(&case.plan())]].concat()).expect(0);
        edit(&image, args);
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
        let run = qcow2(&copy, &["apply", text(&self.plan())]);
        assert_eq!(run.status.code(), Some(0), "{because}, then apply: {run}");
        assert!(self.is_after(&copy), "{because}: apply completes the edit");
        // Where the first commit was never finished, its record serves this one, too.
        if names(copy.parent().unwrap()).len() > 1 {
            self.undoes(&copy, &format!("{because}, then apply"));
        }
    }

    fn undoes(&self, image: &Path, because: &str) {
        let was_before = self.is_before(image);
        let run = qcow2(image, &["undo"]);
        let status = run.status.code();
        assert!(status == Some(0) || was_before && status == Some(1), "{because}, then undo: {run}");
        assert!(self.is_before(image), "{because}: undo brings back what was");
        // Nothing that the crash has left is in the way.
        let run = qcow2(image, self.args);
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

/// Edits of one write and of several, in place and growing the file.
fn cases() -> Vec<Case> {
    let folder = scratch();
    let base = made(folder.path(), "base", "").path;
    let backed = format!("backing_file={},backing_fmt=qcow2", text(&base));
    let overlay = made(folder.path(), "overlay", &backed).path;
    let bitmap = images::one_bitmap(folder.path(), "bitmap");
    // A file that ends within its header area, so that an extension makes it grow.
    let short = folder.path().join("short");
    let mut bytes = Bytes::read(&base).with_area(&[]);
    bytes.0.truncate(bytes.header_length() + 8);
    bytes.with_u64(at::SIZE, 0).write(&short);
    vec![
        Case::new(&base, &["set-header", "size", "0x123456789"]),
        Case::new(&base, &["add-header-ext", "0x12345678", "some data"]),
        Case::new(&overlay, &["add-header-ext", "0x12345678", "some data"]),
        Case::new(&overlay, &["del-header-ext", "0x6803f857"]),
        Case::new(&bitmap, &["del-header-ext", "0x23852875"]),
        Case::new(&short, &["add-header-ext", "0x12345678", "more than there was room for in the file"]),
    ]
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
        for nth in occurrences(call, &prepare(), args) {
            let image = prepare();
            let because = format!("{args:?} on {} bytes, {what} at {call} {nth}", case.before.len());
            judge(&image, disturbed(call, what, nth, &image, args), &because);
            total += 1;
        }
    }
    assert!(total > 10, "only {total} calls were disturbed");
}

#[test]
fn an_edit_that_is_killed_can_be_undone_or_completed() {
    for case in cases() {
        everywhere(
            "signal=KILL",
            &case,
            case.args,
            || case.fresh(),
            |image, outcome, because| {
                assert!(matches!(outcome, Outcome::Killed), "{because}: {outcome:?}");
                case.recovers(image, because);
            },
        );
    }
}

#[test]
fn an_undo_that_is_killed_can_be_undone_again() {
    for case in cases() {
        let edited = || {
            let image = case.fresh();
            edit(&image, case.args);
            image
        };
        everywhere("signal=KILL", &case, &["undo"], edited, |image, outcome, because| {
            assert!(matches!(outcome, Outcome::Killed), "{because}: {outcome:?}");
            case.undoes(image, because);
        });
    }
}

#[test]
fn an_apply_that_is_killed_can_be_undone_or_completed() {
    for case in cases() {
        let plan = case.plan();
        everywhere(
            "signal=KILL",
            &case,
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
#[test]
fn a_torn_write_can_be_undone_or_completed() {
    for case in cases() {
        let writes = plan::of(&case.fresh(), case.args);
        for (index, write) in writes.iter().enumerate() {
            for length in [1, write.new.len() / 2, write.new.len() - 1] {
                let image = case.fresh();
                let outcome = disturbed("pwrite64", "signal=KILL", index + 1, &image, case.args);
                assert!(matches!(outcome, Outcome::Killed), "each write is one call");
                let done = plan::applied(&case.before, &writes[..index]);
                assert!(fs::read(&image).unwrap() == done, "the writes happen in their order");
                Bytes(done).with(write.offset, &write.new[..length]).write(&image);
                let because = format!("{:?}: {length} bytes of write {index}", case.args);
                case.recovers(&image, &because);
            }
        }
    }
}

#[test]
fn a_call_that_fails_is_reported_and_loses_nothing() {
    for case in cases() {
        for error in ["error=ENOSPC", "error=EIO"] {
            everywhere(
                error,
                &case,
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

/// A record is renamed into place when it is complete; one that is not was not made by us, and
/// is for its owner to look at.
#[test]
fn a_record_that_cannot_be_read_stops_everything_and_is_named() {
    let case = &cases()[1];
    let image = case.fresh();
    edit(&image, case.args);
    let record = image.with_file_name("image.undo-1");
    let whole = fs::read(&record).unwrap();
    for length in [0, 1, whole.len() / 3, whole.len() / 2] {
        let image = case.fresh();
        fs::write(&record, &whole[..length]).unwrap();
        for args in [&["undo"], case.args] {
            let run = qcow2(&image, args).expect(1);
            assert!(run.err().contains("image.undo-1"), "{length} bytes of a record: {run}");
            assert!(case.is_before(&image) && record.exists(), "{length} bytes of a record: {run}");
        }
    }
}
