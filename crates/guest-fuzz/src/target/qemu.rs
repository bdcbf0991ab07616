//! [`Qemu`]: a QEMU process and its control connection.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::process::Process;
use super::qmp::Qmp;
use super::{ProcessorTime, processor_time};
use crate::error::{Error, Result};
use crate::signature::signal_name;
use crate::verdict::Death;

/// How long QEMU may take until it answers.
const START: Duration = Duration::from_secs(20);

/// Which QEMU, and what the user wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuCommand {
    /// The program.
    pub program: PathBuf,
    /// Its arguments: the machine, devices. What a target needs is added to them.
    pub arguments: Vec<OsString>,
}

impl QemuCommand {
    /// `program` with `arguments`.
    pub fn new<T: Into<OsString>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = T>,
    ) -> Self {
        Self { program: program.into(), arguments: arguments.into_iter().map(Into::into).collect() }
    }

    /// The arguments, as text.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        self.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Whether one of `options`, such as `-m`, is among the arguments.
    #[must_use]
    pub fn has(&self, options: &[&str]) -> bool {
        self.value_behind(options).is_some()
    }

    /// The argument behind the last of `options` among the arguments; empty where it is the last argument.
    #[must_use]
    pub fn value_of(&self, options: &[&str]) -> Option<String> {
        self.value_behind(options).map(|value| value.to_string_lossy().into_owned())
    }

    fn value_behind(&self, options: &[&str]) -> Option<OsString> {
        let is_option = |argument: &OsString| {
            let argument = argument.to_string_lossy();
            // QEMU takes both `-m` and `--m`.
            options.iter().any(|option| argument == *option || argument.strip_prefix('-') == Some(option))
        };
        let at = self.arguments.iter().rposition(is_option)?;
        Some(self.arguments.get(at + 1).cloned().unwrap_or_default())
    }
}

/// A QEMU that runs. It is killed when this is dropped, and when this process ends, however that is.
#[derive(Debug)]
pub struct Qemu {
    process: Process,
    qmp: Qmp,
    command: Vec<String>,
}

impl Qemu {
    /// Starts QEMU with the arguments of `command`, then `added`, and waits until it answers. It inherits `files`, under
    /// the numbers that they have in this process.
    ///
    /// # Errors
    /// [`Error::Start`] with QEMU's own words where it ends instead, or does not answer within 20 seconds.
    pub fn spawn(command: &QemuCommand, added: &[OsString], mut files: Vec<OwnedFd>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("cannot make a socket"))?;
        let chardev = format!("socket,id=iofuzz-qmp,fd={}", theirs.as_raw_fd());
        let mut arguments = command.arguments.clone();
        arguments.extend_from_slice(added);
        arguments.extend(["-display", "none", "-monitor", "none"].map(OsString::from));
        arguments
            .extend(["-chardev", &chardev, "-mon", "chardev=iofuzz-qmp,mode=control"].map(OsString::from));
        files.push(theirs.into());
        let words =
            std::iter::once(command.program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
        let words = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let mut process = Process::spawn(&command.program, &arguments, files)?;
        match Qmp::connect(ours, START) {
            Ok(qmp) => Ok(Self { process, qmp, command: words }),
            Err(error) => Err(Error::Start {
                what: command.program.display().to_string(),
                why: why_not(&command.program, &mut process, &error),
            }),
        }
    }

    /// Its control connection.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Its command line.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// How much processor time it has used; `None` where the process is but a script around QEMU.
    #[must_use]
    pub fn processor_time(&self) -> Option<ProcessorTime> {
        let (time, threads) = processor_time::of_process(self.id())?;
        // A QEMU has one for each of its guest's processors, and more.
        (threads > 1).then_some(time)
    }

    /// How it ended, if it has.
    pub fn death(&mut self) -> Option<Death> {
        self.process.death()
    }

    /// How it ended, if it does within `patience`.
    pub fn wait_for_death(&mut self, patience: Duration) -> Option<Death> {
        let begun = Instant::now();
        loop {
            let death = self.process.death();
            if death.is_some() || begun.elapsed() >= patience {
                return death;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends it. It has no say.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

fn why_not(program: &Path, process: &mut Process, error: &Error) -> String {
    // Its end and that of its connection need not be seen at once.
    let begun = Instant::now();
    let mut death = process.death();
    while death.is_none() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(1));
        death = process.death();
    }
    let said = process.said();
    let words: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    let why = match (words.is_empty(), death) {
        (false, _) => words.join("; "),
        (true, Some(Death { code: Some(code), .. })) => {
            format!("it ended with status {code}, without a word")
        }
        (true, Some(Death { signal: Some(signal), .. })) => format!("it ended, by {}", signal_name(signal)),
        (true, _) => format!("it does not speak QEMU's control protocol ({error})"),
    };
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("qemu") { why } else { format!("{why}; is this a QEMU?") }
}

/// The QEMU on PATH for the machines that this one can be taken for: `qemu-system-x86_64`, else `qemu-system-i386`.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let is_program =
        |candidate: &PathBuf| nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok();
    ["qemu-system-x86_64", "qemu-system-i386"].iter().find_map(|name| {
        std::env::split_paths(&path).map(|folder: PathBuf| Path::join(&folder, name)).find(is_program)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_among_the_arguments() {
        let command = QemuCommand::new("q", ["-M", "pc", "--m", "64", "-m", "128", "-S"]);
        assert_eq!(command.value_of(&["-m"]).as_deref(), Some("128"));
        assert_eq!(command.value_of(&["-M", "-machine"]).as_deref(), Some("pc"));
        assert_eq!(command.value_of(&["-S"]).as_deref(), Some(""));
        assert!(!command.has(&["-nodefaults"]));
    }

    #[test]
    fn qemu_answers_and_ends() {
        let command = QemuCommand::new("qemu-system-x86_64", ["-M", "none"]);
        let mut qemu = Qemu::spawn(&command, &[], Vec::new()).unwrap();
        assert_eq!(qemu.qmp().status(START).unwrap(), "running");
        assert_eq!(qemu.death(), None);
        qemu.qmp().execute("quit", &serde_json::json!({}), START).unwrap();
        assert_eq!(qemu.wait_for_death(START).unwrap().code, Some(0));
    }

    #[test]
    fn what_is_no_qemu_is_called_so() {
        let folder = tempfile::tempdir().unwrap();
        let why = |program: &str, arguments: &[&str]| {
            let command = QemuCommand::new(program, arguments.iter().copied());
            Qemu::spawn(&command, &[], Vec::new()).unwrap_err().to_string()
        };
        assert_eq!(
            why("/bin/true", &[]),
            "/bin/true did not start: it ended with status 0, without a word; is this a QEMU?"
        );
        let script = folder.path().join("killed");
        std::fs::write(&script, "#!/bin/sh\nkill -9 $$\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert!(why(script.to_str().unwrap(), &[]).ends_with("it ended, by SIGKILL; is this a QEMU?"));
        assert!(why("/bin/cat", &["-M", "pc"]).contains("invalid option -- 'M'"));
        assert!(why("/nonexistent", &[]).starts_with("cannot run /nonexistent: No such file"));
    }

    #[test]
    fn qemu_says_why_it_does_not_start() {
        let command = QemuCommand::new("qemu-system-x86_64", ["-M", "no-such-machine"]);
        let error = Qemu::spawn(&command, &[], Vec::new()).unwrap_err().to_string();
        assert!(error.contains("unsupported machine type"), "{error}");
    }
}
