//! What comes after an interrupted commit, wherever its record is.

use crate::binary::Line;
use crate::process::run;
use crate::program::Program;
use crate::scratch::{scratch, text};
use crate::tracer::{Outcome, disturbed};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An edit that can be interrupted.
#[derive(Debug, Clone, Copy)]
pub struct Interruptible {
    /// The binary.
    pub program: Program,
    /// Makes an image.
    pub make: fn(&Path),
    /// An edit of it that takes several writes, of which the second one never happens.
    pub edit: Line,
    /// An edit of other bytes.
    pub other: Line,
}

/// Makes a test of every check: `interrupted!(EDIT)` with an [`Interruptible`].
#[macro_export]
macro_rules! interrupted {
    ($edit:expr) => {
        $crate::interrupted! { $edit;
            every_change_waits_also_one_without_a_record
            what_wrote_nothing_is_in_nobodys_way
            its_plan_completes_it_with_and_without_a_record_of_its_own
            its_record_completes_it_too
            the_state_folder_is_looked_into
        }
    };
    ($edit:expr; $($check:ident)+) => { $(
        #[test]
        fn $check() {
            $crate::interrupted::$check(&$edit);
        }
    )+ };
}

/// An image on which an edit was interrupted.
struct Interrupted {
    of: Interruptible,
    folder: TempDir,
    image: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Interrupted {
    /// The edit, with `more`, was killed at its `nth` write.
    fn new(of: &Interruptible, nth: usize, more: &[&str]) -> Interrupted {
        let folder = scratch();
        let image = folder.path().join("image");
        (of.make)(&image);
        let before = fs::read(&image).unwrap();
        let plan = folder.path().join("plan");
        of.program.run(&image, &[of.edit, &["--save-plan", text(&plan)]].concat()).expect(0);
        of.program.edit(&image, &[of.edit, &["--no-undo"]].concat());
        let after = fs::read(&image).unwrap();
        fs::write(&image, &before).unwrap();
        let case = Interrupted { of: *of, folder, image, before, after };
        case.interrupt(nth, more);
        case
    }

    fn interrupt(&self, nth: usize, more: &[&str]) {
        let args = [self.of.edit, more].concat();
        let outcome = disturbed(self.of.program, "pwrite64", "signal=KILL", nth, &self.image, &args);
        assert!(matches!(outcome, Outcome::Killed), "{outcome:?}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn record(&self) -> String {
        format!("{}.undo-1", text(&self.image))
    }

    #[track_caller]
    fn edit(&self, args: &[&str]) {
        self.of.program.edit(&self.image, args);
    }

    /// The other edit is refused, with `more` or without.
    #[track_caller]
    fn refuses_others(&self, more: &[&str]) {
        let now = fs::read(&self.image).unwrap();
        let run = self.of.program.run(&self.image, &[self.of.other, more].concat()).expect(1);
        assert!(run.err().contains("no interrupted commit"), "{run}");
        assert_eq!(fs::read(&self.image).unwrap(), now);
    }

    #[track_caller]
    fn is_before(&self) {
        assert!(fs::read(&self.image).unwrap() == self.before);
    }

    #[track_caller]
    fn is_after(&self) {
        assert!(fs::read(&self.image).unwrap() == self.after);
    }
}

/// Wherever its own record would go.
pub fn every_change_waits_also_one_without_a_record(of: &Interruptible) {
    let case = Interrupted::new(of, 2, &[]);
    case.refuses_others(&[]);
    case.refuses_others(&["--no-undo"]);
    case.refuses_others(&["--undo-dir", text(&case.path("elsewhere"))]);
    case.edit(&["undo"]);
    case.is_before();
    case.edit(of.other);
}

/// Killed before its first write.
pub fn what_wrote_nothing_is_in_nobodys_way(of: &Interruptible) {
    for more in [&[][..], &["--no-undo"]] {
        let case = Interrupted::new(of, 1, &[]);
        case.edit(&[of.other, more].concat());
    }
}

/// `apply` with the saved plan.
pub fn its_plan_completes_it_with_and_without_a_record_of_its_own(of: &Interruptible) {
    for (kept, more) in
        [(&[][..], &[][..]), (&[], &["--no-undo"]), (&["--no-undo"], &[]), (&["--no-undo"], &["--no-undo"])]
    {
        let case = Interrupted::new(of, 2, kept);
        case.edit(&[&["apply", text(&case.path("plan"))], more].concat());
        case.is_after();
        if kept.is_empty() {
            case.edit(&["undo"]);
            case.is_before();
        }
    }
}

/// `apply` with the undo record.
pub fn its_record_completes_it_too(of: &Interruptible) {
    let case = Interrupted::new(of, 2, &[]);
    case.edit(&["apply", &case.record()]);
    case.is_after();
    case.edit(&["undo"]);
    case.is_before();
}

/// A record in the state folder, where it went because the image's folder could not be written, is found when it can.
pub fn the_state_folder_is_looked_into(of: &Interruptible) {
    let case = Interrupted::new(of, 2, &[]);
    let state = case.path("state");
    fs::write(&case.image, &case.before).unwrap();
    fs::remove_file(case.record()).unwrap();
    case.interrupt(2, &["--undo-dir", text(&state.join("vdisk-tools/undo"))]);

    let with_state = |args: &[&str]| {
        run(of.program.command().arg(&case.image).args(args).env("XDG_STATE_HOME", &state), b"")
    };
    let refused = with_state(of.other).expect(1);
    assert!(refused.err().contains("no interrupted commit"), "{refused}");
    with_state(&["undo"]).expect(0);
    case.is_before();
}
