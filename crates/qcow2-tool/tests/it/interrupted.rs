//! What comes after an interrupted commit, wherever its record is.

use crate::support::images::one_bitmap;
use crate::support::program::{QCOW2, edit, qcow2};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use test_support::scratch::{scratch, text};
use test_support::tracer::{Outcome, disturbed};

/// Of three writes, the second one never happens.
const DELETE: [&str; 2] = ["del-header-ext", "0x23852875"];

struct Interrupted {
    folder: TempDir,
    image: PathBuf,
    before: Vec<u8>,
}

/// An image on which [`DELETE`], with `more`, was killed at its `nth` write.
fn interrupted(nth: usize, more: &[&str]) -> Interrupted {
    let folder = scratch();
    let image = one_bitmap(folder.path(), "image");
    let before = fs::read(&image).unwrap();
    qcow2(&image, &[&DELETE[..], &["--save-plan", text(&folder.path().join("plan"))]].concat()).expect(0);
    let outcome = disturbed(QCOW2, "pwrite64", "signal=KILL", nth, &image, &[&DELETE[..], more].concat());
    assert!(matches!(outcome, Outcome::Killed), "{outcome:?}");
    Interrupted { folder, image, before }
}

impl Interrupted {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn refuses(&self, args: &[&str]) {
        let now = fs::read(&self.image).unwrap();
        let run = qcow2(&self.image, args).expect(1);
        assert!(run.err().contains("no interrupted commit"), "{run}");
        assert_eq!(fs::read(&self.image).unwrap(), now);
    }

    #[track_caller]
    fn is_before(&self) {
        assert!(fs::read(&self.image).unwrap() == self.before);
    }
}

const OTHER: [&str; 3] = ["set-feature-bit", "compatible", "0"];

#[test]
fn every_change_waits_also_one_without_a_record() {
    let case = interrupted(2, &[]);
    case.refuses(&OTHER);
    case.refuses(&[&OTHER[..], &["--no-undo"]].concat());
    case.refuses(&[&OTHER[..], &["--undo-dir", text(&case.path("elsewhere"))]].concat());
    edit(&case.image, &["undo"]);
    case.is_before();
    edit(&case.image, &OTHER);
}

#[test]
fn what_wrote_nothing_is_in_nobodys_way() {
    for more in [&[][..], &["--no-undo"]] {
        let case = interrupted(1, &[]);
        edit(&case.image, &[&OTHER[..], more].concat());
    }
}

#[test]
fn its_plan_completes_it_with_and_without_a_record_of_its_own() {
    for (kept, more) in
        [(&[][..], &[][..]), (&[], &["--no-undo"]), (&["--no-undo"], &[]), (&["--no-undo"], &["--no-undo"])]
    {
        let case = interrupted(2, kept);
        edit(&case.image, &[&["apply", text(&case.path("plan"))], more].concat());
        let run = qcow2(&case.image, &["del-header-ext", "0x23852875"]).expect(1);
        assert_eq!(run.out(), "No such header extension\n");
        if kept.is_empty() {
            edit(&case.image, &["undo"]);
            case.is_before();
        }
    }
}

#[test]
fn its_record_completes_it_too() {
    let case = interrupted(2, &[]);
    let record = format!("{}.undo-1", text(&case.image));
    edit(&case.image, &["apply", &record]);
    edit(&case.image, &["undo"]);
    case.is_before();
}

/// A record in the state folder, where it went because the image's folder could not be written, is found when it can.
#[test]
fn the_state_folder_is_looked_into() {
    let case = interrupted(2, &[]);
    let state = case.path("state");
    let place = state.join("vdisk-tools/undo");
    fs::write(&case.image, &case.before).unwrap();
    fs::remove_file(format!("{}.undo-1", text(&case.image))).unwrap();
    let more = [&DELETE[..], &["--undo-dir", text(&place)]].concat();
    let outcome = disturbed(QCOW2, "pwrite64", "signal=KILL", 2, &case.image, &more);
    assert!(matches!(outcome, Outcome::Killed), "{outcome:?}");

    let run = with_state(&case.image, &state, &OTHER);
    assert_eq!(run.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&run.stderr).contains("no interrupted commit"), "{run:?}");
    assert_eq!(with_state(&case.image, &state, &["undo"]).status.code(), Some(0));
    case.is_before();
}

fn with_state(image: &Path, state: &Path, args: &[&str]) -> Output {
    Command::new(QCOW2.path()).arg(image).args(args).env("XDG_STATE_HOME", state).output().unwrap()
}
