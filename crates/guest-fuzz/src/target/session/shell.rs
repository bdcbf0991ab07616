//! Commands for the guest's shell, and what they print.

use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::error::{Error, Result};

/// How many bytes of a file one line carries: with four characters each, terminals take it in one piece.
const UPLOAD_LINE: usize = 100;
/// How long a command may take that does next to nothing.
const PROMPT: Duration = Duration::from_secs(20);

/// A logged-in shell at the end of a wire.
#[derive(Debug)]
pub(super) struct Shell<'a> {
    wire: &'a mut Wire,
    number: &'a mut u32,
}

/// What a command printed, and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) text: String,
}

impl<'a> Shell<'a> {
    /// `number` is the number of the last command: no two have the same.
    pub(super) fn new(wire: &'a mut Wire, number: &'a mut u32) -> Self {
        Self { wire, number }
    }

    /// Runs `command`, a line.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] where it does not end in 20 seconds; [`Error::Dead`] where the guest hung up.
    pub(super) fn run(&mut self, command: &str) -> Result<Answer> {
        *self.number += 1;
        let number = *self.number;
        self.wire.send(bracketed(number, command).as_bytes());
        let deadline = Instant::now() + PROMPT;
        loop {
            if let Some((answer, end)) = answer(self.wire.received(), number) {
                self.wire.forget(end);
                return Ok(answer);
            }
            if !self.wire.receive(deadline) {
                return Err(match self.wire.is_closed() {
                    true => Error::Dead,
                    false => Error::NoAnswer { what: format!("`{command}` in the guest") },
                });
            }
        }
    }

    /// Runs `command`; whether it said that it succeeded.
    pub(super) fn succeeds(&mut self, command: &str) -> Result<bool> {
        Ok(self.run(command)?.status == 0)
    }

    /// Writes `bytes` to a file. Needs nothing but the shell's own printf.
    pub(super) fn write_file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        for (index, part) in bytes.chunks(UPLOAD_LINE).enumerate() {
            let escapes: String = part.iter().map(|byte| format!("\\{byte:03o}")).collect();
            let append = if index == 0 { ">" } else { ">>" };
            let answer = self.run(&format!("printf '{escapes}' {append} {path}"))?;
            if answer.status != 0 {
                return Err(Error::protocol(format!("writing {path} in the guest"), answer.text.trim()));
            }
        }
        Ok(())
    }
}

/// A line that runs `command` between two words that its echo does not have.
pub(super) fn bracketed(number: u32, command: &str) -> String {
    format!("echo iofuzz''-b{number}:; {command}; echo iofuzz''-e{number}:$?.\n")
}

/// The answer to command `number` among `bytes`, and where it ends.
pub(super) fn answer(bytes: &[u8], number: u32) -> Option<(Answer, usize)> {
    let (begin, end) = (format!("iofuzz-b{number}:"), format!("iofuzz-e{number}:"));
    let text_at = find(bytes, begin.as_bytes())? + begin.len();
    let text_end = find(bytes.get(text_at..)?, end.as_bytes())? + text_at;
    let status_at = text_end + end.len();
    let status_end = find(bytes.get(status_at..)?, b".")? + status_at;
    let status = std::str::from_utf8(bytes.get(status_at..status_end)?).ok()?.trim().parse().unwrap_or(-1);
    let text = String::from_utf8_lossy(bytes.get(text_at..text_end)?).replace('\r', "");
    let text = text.strip_prefix('\n').unwrap_or(&text).to_owned();
    Some((Answer { status, text }, status_end + 1))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;

    /// A shell of this machine.
    fn with_shell(test: impl FnOnce(Shell<'_>)) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let end = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        let mut child = Command::new("sh").stdin(end()).stdout(end()).spawn().unwrap();
        drop(theirs);
        let mut wire = Wire::new(ours).unwrap();
        test(Shell::new(&mut wire, &mut 0));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_a_command_prints_and_its_status() {
        with_shell(|mut shell| {
            assert_eq!(shell.run("printf 'a\\nb'").unwrap(), Answer { status: 0, text: "a\nb".to_owned() });
            assert_eq!(shell.run("(exit 7)").unwrap(), Answer { status: 7, text: String::new() });
            assert!(shell.succeeds("true").unwrap() && !shell.succeeds("false").unwrap());
            assert!(matches!(shell.run("exit"), Err(Error::Dead)));
        });
    }

    #[test]
    fn a_file_arrives_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..700).map(|n| (n % 256) as u8).collect();
        with_shell(|mut shell| shell.write_file(path.to_str().unwrap(), &bytes).unwrap());
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }

    #[test]
    fn an_echo_is_no_answer() {
        let echo = bracketed(3, "id").replace('\n', "\r\n");
        assert_eq!(answer(echo.as_bytes(), 3), None);
        let whole = format!("{echo}iofuzz-b3:\r\nroot\r\niofuzz-e3:0.\r\n# ");
        let (said, end) = answer(whole.as_bytes(), 3).unwrap();
        assert_eq!((said.text.as_str(), &whole[end..]), ("root\n", "\r\n# "));
        assert_eq!(answer(whole.as_bytes(), 4), None);
    }
}
