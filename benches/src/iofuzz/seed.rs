//! The seed's method, the whole of it: for each operation a line for the guest's shell with `echo | dd` or `dd`, its output
//! up to the prompt, a second line that asks for the status, and an empty one that asks whether the shell is there.
//!
//! The lines are the seed's, with its faults. Its session's waits are those of the library that it was written for, autotest's
//! `kvm_subprocess`: output is read until there is none for 0.1 s, also before a line is sent, and whether the shell is
//! there is looked at after 0.5 s. [`Pace::AtOnce`] has none of these waits, and goes on as soon as the prompt is there.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use guest_fuzz::generate::Generator;
use guest_fuzz::instruction::Instruction;
use guest_fuzz::region::RegionMap;
use guest_fuzz::target::qemu::{Qemu, QemuCommand};

use super::Sample;

/// How long output may be silent until it is taken to have ended.
const SILENCE: Duration = Duration::from_millis(100);
/// After what time it is looked whether an empty line was answered.
const RESPONSE: Duration = Duration::from_millis(500);
/// How long the guest may take to its prompt.
const BOOT: Duration = Duration::from_secs(120);
/// How long a line may take.
const LINE: Duration = Duration::from_secs(30);

/// How the answer to a line is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Without a wait that the guest does not cause: what is compared with.
    AtOnce,
    /// As the seed's session does it.
    Waiting,
}

/// The seed's program on all ports of `map`, with `fuzz_count` writes each, in the guest of `command`. The last value
/// written must be in the map's last port then.
pub(super) fn run(
    command: &QemuCommand,
    map: &RegionMap,
    fuzz_count: u32,
    pace: Pace,
) -> Result<Sample, Box<dyn Error>> {
    let mut session = Session::start(command, pace)?;
    let mut statuses = Vec::new();
    let mut written = None;
    let begun = Instant::now();
    for instruction in (Generator::Classic { fuzz_count }).episode(map, 1, 0) {
        statuses.push(session.status_of(&line(&instruction)?)?);
        if !session.is_responsive()? {
            return Err("the guest's shell is gone".into());
        }
        if let Instruction::Out { port, value, .. } = instruction {
            written = Some((port, value));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (port, value) = written.ok_or("nothing was written")?;
    // The seed's own reading line reads port 0.
    let read =
        session.output_of(&format!("dd if=/dev/port skip={port} bs=1 count=1 2>/dev/null | od -An -tu1"))?;
    let is_there = read.split_whitespace().any(|word| word.parse() == Ok(value));
    let right = is_there && statuses.iter().all(|status| *status == Some(0));
    let answer = if right { "each status 0, last write read back" } else { "not what was written" };
    let answer = format!("{} operations, {answer}", statuses.len());
    Ok(Sample { figure: statuses.len() as f64 / seconds, answer, right })
}

/// The seed's line for `instruction`.
fn line(instruction: &Instruction) -> Result<String, String> {
    match instruction {
        // The octal number of Python 2, with its leading zero.
        Instruction::Out { port, value: 0, .. } => {
            Ok(format!(r"echo -e '\0' | dd of=/dev/port seek={port} bs=1 count=1"))
        }
        Instruction::Out { port, value, .. } => {
            Ok(format!(r"echo -e '\0{value:o}' | dd of=/dev/port seek={port} bs=1 count=1"))
        }
        Instruction::In { port, .. } => Ok(format!("dd if=/dev/port seek={port} of=/dev/null bs=1 count=1")),
        other => Err(format!("the seed has no `{other}`")),
    }
}

/// A shell at the serial port of a guest.
struct Session {
    stream: UnixStream,
    pace: Pace,
    _qemu: Qemu,
}

impl Session {
    fn start(command: &QemuCommand, pace: Pace) -> Result<Self, Box<dyn Error>> {
        let (stream, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        let chardev = format!("socket,id=seed,fd={}", theirs.as_raw_fd());
        let arguments = ["-chardev", &chardev, "-serial", "chardev:seed"].map(Into::into);
        let qemu = Qemu::spawn(command, &arguments, vec![theirs])?;
        let mut session = Self { stream, pace, _qemu: qemu };
        session.up_to_prompt(BOOT)?;
        Ok(session)
    }

    /// The status of `line`, if it is said.
    fn status_of(&mut self, line: &str) -> Result<Option<u32>, Box<dyn Error>> {
        self.output_of(line)?;
        self.send("echo $?")?;
        let output = self.up_to_prompt(LINE)?;
        Ok(output.lines().find_map(|line| line.trim().parse().ok()))
    }

    /// What `line` prints, between its echo and the prompt.
    fn output_of(&mut self, line: &str) -> Result<String, Box<dyn Error>> {
        self.drain()?;
        self.send(line)?;
        self.up_to_prompt(LINE)
    }

    /// Whether an empty line is answered.
    fn is_responsive(&mut self) -> Result<bool, Box<dyn Error>> {
        self.drain()?;
        self.send("")?;
        if self.pace == Pace::AtOnce {
            return self.up_to_prompt(LINE).map(|_| true);
        }
        std::thread::sleep(RESPONSE);
        Ok(!plain(&self.read(Duration::ZERO)?).trim().is_empty())
    }

    fn send(&mut self, line: &str) -> Result<(), Box<dyn Error>> {
        Ok(self.stream.write_all(format!("{line}\n").as_bytes())?)
    }

    fn drain(&mut self) -> Result<(), Box<dyn Error>> {
        let silence = if self.pace == Pace::Waiting { SILENCE } else { Duration::ZERO };
        self.read(silence).map(drop)
    }

    /// Reads until the last line is a prompt: what is before it, but for the first line, which is an echo.
    fn up_to_prompt(&mut self, patience: Duration) -> Result<String, Box<dyn Error>> {
        let begun = Instant::now();
        let mut bytes = Vec::new();
        while begun.elapsed() < patience {
            match self.pace {
                Pace::Waiting => bytes.extend(self.read(SILENCE)?),
                Pace::AtOnce => bytes.extend(self.read_once(SILENCE)?.unwrap_or_default()),
            }
            if let Some(output) = before_prompt(&plain(&bytes)) {
                return Ok(output.to_owned());
            }
        }
        Err(format!("no prompt: {}", plain(&bytes)).into())
    }

    /// Reads until there is nothing for `silence`.
    fn read(&mut self, silence: Duration) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut bytes = Vec::new();
        while let Some(more) = self.read_once(silence)? {
            bytes.extend(more);
        }
        Ok(bytes)
    }

    /// Waits for something to read, no longer than `patience`.
    fn read_once(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        self.stream.set_nonblocking(patience.is_zero())?;
        self.stream.set_read_timeout(Some(patience).filter(|patience| !patience.is_zero()))?;
        let mut buffer = vec![0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("the guest hung up".into()),
            Ok(count) => {
                buffer.truncate(count);
                Ok(Some(buffer))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Text without carriage returns, and without what asks a terminal for its size.
fn plain(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "").replace("\x1b[6n", "")
}

/// If `text` ends with a prompt, `#` or `$` as the seed has it, what is between its first line and that.
fn before_prompt(text: &str) -> Option<&str> {
    let (before, last) = text.trim_end().rsplit_once('\n')?;
    last.ends_with(['#', '$']).then(|| before.split_once('\n').map_or("", |(_, output)| output))
}

#[cfg(test)]
mod tests {
    use guest_fuzz::instruction::PortWidth;

    use super::*;

    #[test]
    fn the_lines_are_the_seeds() {
        let (port, width) = (0x3ef, PortWidth::Byte);
        let write = |value| line(&Instruction::Out { port, width, value }).unwrap();
        assert_eq!(write(255), r"echo -e '\0377' | dd of=/dev/port seek=1007 bs=1 count=1");
        assert_eq!(write(0), r"echo -e '\0' | dd of=/dev/port seek=1007 bs=1 count=1");
        let read = line(&Instruction::In { port, width }).unwrap();
        assert_eq!(read, "dd if=/dev/port seek=1007 of=/dev/null bs=1 count=1");
        assert!(line(&Instruction::Reset).is_err());
    }

    #[test]
    fn an_answer_ends_with_a_prompt_and_not_with_an_echo() {
        assert_eq!(before_prompt("echo $"), None);
        assert_eq!(before_prompt("echo $?\n0\n"), None);
        assert_eq!(before_prompt("echo $?\n0\n/ # "), Some("0"));
        assert_eq!(before_prompt("\n/ # "), Some(""));
        assert_eq!(plain(b"0\r\n/ # \x1b[6n"), "0\n/ # ");
    }
}
