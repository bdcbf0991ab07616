//! Where the programs are. Peers that are not installed leave their rows out.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Programs {
    pub(crate) empty: PathBuf,
    pub(crate) table_loop: PathBuf,
    pub(crate) qcow2_loop: PathBuf,
    pub(crate) qcow2: PathBuf,
    pub(crate) qed: PathBuf,
    pub(crate) iofuzz: PathBuf,
    /// QEMU's scripts of these names.
    pub(crate) qcow2_py: Option<PathBuf>,
    pub(crate) qed_py: Option<PathBuf>,
    pub(crate) qemu_img: bool,
}

impl Programs {
    /// The one called `name` in `dir`.
    pub(crate) fn ours(dir: &Path, name: &str) -> Result<PathBuf, String> {
        let path = dir.join(format!("{name}{}", env::consts::EXE_SUFFIX));
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("there is no {}; build it with: cargo build --release --bins", path.display()))
    }

    /// Ours in `dir`, QEMU's scripts in `$VDISK_QEMU_SRC` or target/qemu-src, where `cargo xtask deps` unpacks them.
    pub(crate) fn find(dir: &Path) -> Result<Self, String> {
        let ours = |name| Self::ours(dir, name);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let source = env::var_os("VDISK_QEMU_SRC").unwrap_or_else(|| "target/qemu-src".into());
        let python = Command::new("python3").arg("--version").output().is_ok();
        let script = |name| {
            let script = root.join(&source).join("tests/qemu-iotests").join(name);
            if !python || !script.is_file() {
                eprintln!("no {name} beside us: run `cargo xtask deps`");
            }
            (python && script.is_file()).then_some(script)
        };
        Ok(Self {
            empty: ours("empty-process")?,
            table_loop: ours("table-loop")?,
            qcow2_loop: ours("qcow2-loop")?,
            qcow2: ours("qcow2")?,
            qed: ours("qed")?,
            iofuzz: ours("iofuzz")?,
            qcow2_py: script("qcow2.py"),
            qed_py: script("qed.py"),
            qemu_img: Command::new("qemu-img").arg("--version").output().is_ok(),
        })
    }
}
