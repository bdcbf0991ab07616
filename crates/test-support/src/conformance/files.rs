//! Files that are no images, or may not be touched, and scarce memory.

use crate::binary::{Binary, Line, assert_orderly, assert_refused};
use crate::process::{Run, installed, run};
use crate::scratch::{Snapshot, names, scratch, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that are too short, absent, pipes, folders, devices.
pub fn what_is_no_image_is_refused_at_once(binary: &Binary) {
    let folder = scratch();
    let named = |name: &str| folder.path().join(name);
    let with = |name: &str, bytes: &[u8]| {
        fs::write(named(name), bytes).unwrap();
        named(name)
    };
    let fifo = named("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _listener = UnixListener::bind(named("socket")).unwrap();
    symlink("loop", named("loop")).unwrap();
    symlink("nowhere", named("dangling")).unwrap();
    let refused: Vec<PathBuf> = vec![
        named("absent"),
        named("absent/image"),
        with("empty", b""),
        with("one-byte", b"Q"),
        with("cut", b"QFI\xfb\0\0"),
        named("one-byte/below-a-file"),
        folder.path().to_owned(),
        fifo,
        named("socket"),
        named("loop"),
        named("dangling"),
        PathBuf::from("/dev/zero"),
        PathBuf::from("/dev/null"),
        PathBuf::from("/dev/full"),
        named(&"x".repeat(300)),
        PathBuf::new(),
    ];
    let before = names(folder.path());
    for file in &refused {
        for line in binary.working() {
            let run = run(binary.program.command().arg(file).args(line), b"data");
            // An empty FILE is a wrong command line to some.
            let status = if text(file).is_empty() { run.status.code().unwrap().max(1) } else { 1 };
            assert_refused(&run, status);
            assert!(run.err().contains(text(file)), "the message names the file: {run}");
            assert!(run.stdout.is_empty(), "nothing on standard output: {run}");
        }
    }
    assert_eq!(names(folder.path()), before, "nothing was made beside them");
    assert_eq!(fs::read(named("one-byte")).unwrap(), b"Q");
}

/// Runs the binary as a user who is not root, for whom permissions count.
fn unprivileged(binary: &Binary, program: &Path, image: &Path, line: Line) -> Run {
    let mut command = if owner_is_root(image) {
        let mut setpriv = installed("setpriv");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        setpriv
    } else {
        binary.program.command()
    };
    command.env_remove("VDISK_UNDO_DIR").env("HOME", image.parent().unwrap());
    command.env_remove("XDG_STATE_HOME");
    run(command.arg(image).args(line), b"data")
}

fn owner_is_root(path: &Path) -> bool {
    fs::metadata(path).unwrap().uid() == 0
}

/// File permissions, for a user who is not root.
pub fn what_may_not_be_read_or_written_is_refused(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    // Where the tests run as root, another user has to reach the program and the folder.
    let program = folder.path().join("program");
    fs::copy(binary.program.path(), &program).unwrap();
    for path in [folder.path(), &program] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    fs::set_permissions(&image, Permissions::from_mode(0o000)).unwrap();
    for line in binary.working() {
        let run = unprivileged(binary, &program, &image, line);
        assert_refused(&run, 1);
        assert!(run.err().contains(text(&image)), "the message names the file: {run}");
    }

    fs::set_permissions(&image, Permissions::from_mode(0o444)).unwrap();
    let before = Snapshot::of(&image);
    for &line in binary.reading {
        unprivileged(binary, &program, &image, line).expect(0);
    }
    for &line in binary.editing {
        let run = unprivileged(binary, &program, &image, line);
        assert_refused(&run, 1);
        before.unchanged(&image, &run);
    }
}

/// An edit that cannot write, not even its undo record, leaves everything as it was.
pub fn a_failing_write_is_no_edit(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let before = Snapshot::of(&image);
    for &line in binary.editing {
        // No file may be larger than nothing, so that every write fails.
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"", binary.program.path()]);
        let run = run(limited.arg(&image).args(line), b"data");
        assert_refused(&run, 1);
        before.unchanged(&image, &run);
    }
}

/// 200 MB of address space, also for a file of 1 TiB.
pub fn little_memory_is_enough(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    let limited = |line: Line| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -v 200000; exec \"$0\" \"$@\"", binary.program.path()]);
        run(shell.arg(&image).args(line).env_remove("VDISK_UNDO_DIR"), b"data")
    };
    for line in binary.working() {
        (binary.good)(&image);
        assert_orderly(&limited(line).expect(0));
        // A file of 1 TiB, nearly all of it a hole: done, or refused in good order.
        fs::File::options().write(true).open(&image).unwrap().set_len(1 << 40).unwrap();
        assert_orderly(&limited(line));
        for name in names(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
}

/// Neither does a dry run.
pub fn reading_changes_nothing(binary: &Binary) {
    let folder = scratch();
    let image = folder.path().join("image");
    (binary.good)(&image);
    let before = Snapshot::of(&image);
    for &line in binary.reading {
        let run = run(binary.program.command().arg(&image).args(line), b"").expect(0);
        assert!(!run.stdout.is_empty(), "{run}");
        before.unchanged(&image, &run);
    }
    for &line in binary.editing {
        let run = run(binary.program.command().arg(&image).args(line).arg("--dry-run"), b"data").expect(0);
        assert!(!run.stdout.is_empty(), "a plan: {run}");
        before.unchanged(&image, &run);
    }
}
