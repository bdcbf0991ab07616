//! What is measured.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const EMPTY: &str = "empty process";
pub(crate) const DUMP_HEADER: &str = "qcow2 dump-header";
const PY_DUMP: &str = "qcow2.py dump-header";
const PY_DUMP_J: &str = "qcow2.py -j dump-header";
const PY_EDIT: &str = "qcow2.py set-feature-bit compatible 0";

/// Where the programs are. Peers that are not installed leave their rows out.
pub(crate) struct Programs {
    pub(crate) empty: PathBuf,
    qcow2: PathBuf,
    qcow2_py: Option<PathBuf>,
    qemu_img: bool,
}

impl Programs {
    /// Ours in `dir`, QEMU's script in `$VDISK_QEMU_SRC` or target/qemu-src, where `cargo xtask deps` unpacks it.
    pub(crate) fn find(dir: &Path) -> Result<Self, String> {
        let ours = |name: &str| {
            let path = dir.join(format!("{name}{}", env::consts::EXE_SUFFIX));
            if path.is_file() {
                return Ok(path);
            }
            Err(format!("there is no {}; build it with: cargo build --release --bins", path.display()))
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let source = env::var_os("VDISK_QEMU_SRC").unwrap_or_else(|| "target/qemu-src".into());
        let script = root.join(source).join("tests/qemu-iotests/qcow2.py");
        let python = Command::new("python3").arg("--version").output().is_ok();
        if !python || !script.is_file() {
            eprintln!("no qcow2.py beside us: run `cargo xtask deps`");
        }
        let qemu_img = Command::new("qemu-img").arg("--version").output().is_ok();
        Ok(Self {
            empty: ours("empty-process")?,
            qcow2: ours("qcow2")?,
            qcow2_py: (python && script.is_file()).then_some(script),
            qemu_img,
        })
    }
}

/// One command.
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) words: Vec<OsString>,
    /// It changes the image: its answer is the field that it changed.
    pub(crate) edits: bool,
    /// The row that does the same, for the ratio.
    pub(crate) peer: Option<&'static str>,
    /// The row that must give the same answer, byte for byte.
    pub(crate) answers_like: Option<&'static str>,
}

/// The rows for the image at `path`, ours first.
pub(crate) fn rows(programs: &Programs, path: &Path) -> Vec<Row> {
    let mut rows = vec![Row::new(EMPTY, [programs.empty.clone().into()])];
    let mut add = |label, program: &[OsString], args: &[&str]| {
        let args = args.iter().map(|&arg| if arg == "FILE" { path.into() } else { OsString::from(arg) });
        rows.push(Row::new(label, program.iter().cloned().chain(args)));
    };
    let ours: [OsString; 1] = [programs.qcow2.clone().into()];
    add(DUMP_HEADER, &ours, &["FILE", "dump-header"]);
    add("qcow2 dump-header -j", &ours, &["FILE", "dump-header", "-j"]);
    add("qcow2 dump-header --json", &ours, &["FILE", "dump-header", "--json"]);
    add("qcow2 set-feature-bit compatible 0", &ours, &["FILE", "set-feature-bit", "compatible", "0"]);
    let no_undo = ["FILE", "set-feature-bit", "compatible", "0", "--no-undo"];
    add("qcow2 set-feature-bit compatible 0 --no-undo", &ours, &no_undo);
    if programs.qemu_img {
        add("qemu-img info", &["qemu-img".into()], &["info", "FILE"]);
        add("qemu-img info --output=json", &["qemu-img".into()], &["info", "--output=json", "FILE"]);
    }
    if let Some(script) = &programs.qcow2_py {
        let python: [OsString; 2] = ["python3".into(), script.into()];
        add(PY_DUMP, &python, &["FILE", "dump-header"]);
        add(PY_DUMP_J, &python, &["FILE", "dump-header", "-j"]);
        add(PY_EDIT, &python, &["FILE", "set-feature-bit", "compatible", "0"]);
    }
    for row in &mut rows {
        (row.edits, row.peer, row.answers_like) = match row.label {
            EMPTY => (false, None, None),
            label if label.contains("set-feature-bit") => (true, Some(PY_EDIT), Some(PY_EDIT)),
            DUMP_HEADER => (false, Some(PY_DUMP), Some(PY_DUMP)),
            "qcow2 dump-header -j" => (false, Some(PY_DUMP_J), Some(PY_DUMP_J)),
            PY_DUMP | "qemu-img info" => (false, Some(PY_DUMP), None),
            _ => (false, Some(PY_DUMP_J), None),
        };
    }
    rows
}

impl Row {
    fn new(label: &'static str, words: impl IntoIterator<Item = OsString>) -> Self {
        let words = words.into_iter().collect();
        Self { label, words, edits: false, peer: None, answers_like: None }
    }

    /// Whether the program is of this workspace.
    pub(crate) fn is_ours(&self) -> bool {
        self.label == EMPTY || self.label.starts_with("qcow2 ")
    }

    /// The command, under `prefix` (a program that counts its instructions) where there is one.
    pub(crate) fn command(&self, prefix: &[&str]) -> Command {
        let words: Vec<OsString> =
            prefix.iter().map(OsString::from).chain(self.words.iter().cloned()).collect();
        let (program, args) = words.split_first().map_or((OsString::new(), &[][..]), |(p, a)| (p.clone(), a));
        let mut command = Command::new(program);
        command.args(args).env_remove("VDISK_UNDO_DIR");
        command
    }
}
