//! [`Qmp`]: QEMU's control protocol, a JSON object a line.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The longest answer that is read: `info mtree` of a large machine has 100 KiB.
const MAX_LINE: usize = 16 << 20;
/// How many events are kept that nobody fetched; the oldest go first.
const MAX_EVENTS: usize = 4096;

/// Something that QEMU says unasked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// `RESET`, `SHUTDOWN`, `SUSPEND`, `GUEST_PANICKED`, `STOP` and others.
    pub name: String,
    /// What it says about it.
    pub data: Value,
}

/// A connection to QEMU's control protocol.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    lines: Lines,
    events: VecDeque<Event>,
    version: String,
    last_id: u64,
}

impl Qmp {
    /// Takes the greeting, and leaves the negotiation behind.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] where QEMU says nothing within `patience`; [`Error::Dead`] where it hangs up;
    /// [`Error::Protocol`] where it says something else.
    pub fn connect(stream: UnixStream, patience: Duration) -> Result<Self> {
        let mut qmp = Self {
            stream,
            lines: Lines::default(),
            events: VecDeque::new(),
            version: String::new(),
            last_id: 0,
        };
        let greeting = qmp.message("the greeting", Instant::now() + patience)?;
        qmp.version = version(&greeting)
            .ok_or_else(|| Error::protocol("QMP's greeting", format!("no version in {greeting}")))?;
        qmp.execute("qmp_capabilities", &json!({}), patience)?;
        Ok(qmp)
    }

    /// The version that QEMU gives of itself, with the packager's in parentheses.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Has `command` executed, and returns what it returns.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] where QEMU does not answer within `patience`. Its late answer is not taken for another one's.
    /// [`Error::Dead`] where it hung up; [`Error::Protocol`] with QEMU's words where it refuses.
    pub fn execute(&mut self, command: &str, arguments: &Value, patience: Duration) -> Result<Value> {
        let deadline = Instant::now() + patience;
        self.last_id += 1;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": self.last_id }).to_string();
        line.push('\n');
        self.send(command, line.as_bytes(), deadline)?;
        loop {
            let mut answer = self.message(command, deadline)?;
            if answer.get("id").and_then(Value::as_u64) != Some(self.last_id) {
                self.note(&answer);
                continue;
            }
            return match answer.get_mut("return").map(Value::take) {
                Some(value) => Ok(value),
                None => Err(Error::protocol(command, refusal(&answer))),
            };
        }
    }

    /// Asks for `command` to be executed, and does not wait: neither for room nor for the answer, which nobody gets.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] where there is no room, as QEMU has not read what it was sent before; [`Error::Dead`] where it
    /// hung up.
    pub fn request(&mut self, command: &str) -> Result<()> {
        self.last_id += 1;
        let mut line = json!({ "execute": command, "id": self.last_id }).to_string();
        line.push('\n');
        let sent = self.stream.set_nonblocking(true).and_then(|()| self.stream.write(line.as_bytes()));
        let restored = self.stream.set_nonblocking(false);
        match sent.and_then(|count| restored.map(|()| count)) {
            Ok(count) if count == line.len() => Ok(()),
            // The rest of a line that has begun must follow, or no other line is one.
            Ok(count) => {
                let rest = line.as_bytes().get(count..).unwrap_or_default();
                self.send(command, rest, Instant::now())
            }
            Err(error) => Err(failed(command, error)),
        }
    }

    /// Has a command of the human monitor executed, and returns its text.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn human(&mut self, command: &str, patience: Duration) -> Result<String> {
        let text = self.execute("human-monitor-command", &json!({ "command-line": command }), patience)?;
        let not_text = || Error::protocol(command, "the answer is no text");
        text.as_str().map(str::to_owned).ok_or_else(not_text)
    }

    /// What QEMU says of its state: `running`, `paused`, `shutdown` and others.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn status(&mut self, patience: Duration) -> Result<String> {
        let answer = self.execute("query-status", &json!({}), patience)?;
        let status = answer.get("status").and_then(Value::as_str);
        status
            .map(str::to_owned)
            .ok_or_else(|| Error::protocol("query-status", format!("no status in {answer}")))
    }

    /// The events that came since they were last fetched, in order. Does not wait.
    pub fn events(&mut self) -> Vec<Event> {
        while let Ok(message) = self.message("events", Instant::now()) {
            self.note(&message);
        }
        self.events.drain(..).collect()
    }

    fn note(&mut self, message: &Value) {
        // Anything else is the late answer to a command that nobody waits for any more.
        if let Some(name) = message.get("event").and_then(Value::as_str) {
            let data = message.get("data").cloned().unwrap_or_else(|| Value::Object(Map::new()));
            if self.events.len() == MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(Event { name: name.to_owned(), data });
        }
    }

    fn send(&mut self, what: &str, line: &[u8], deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let sent = self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write_all(line));
        sent.map_err(|error| failed(what, error))
    }

    fn message(&mut self, what: &str, deadline: Instant) -> Result<Value> {
        loop {
            if let Some(line) = self.lines.next_line() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|error| Error::protocol(what, format!("the answer is no JSON: {error}")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = if left.is_zero() {
                self.stream.set_nonblocking(true)
            } else {
                self.stream.set_nonblocking(false).and_then(|()| self.stream.set_read_timeout(Some(left)))
            };
            let read = timeout.and_then(|()| self.lines.read(&mut self.stream));
            let restored = self.stream.set_nonblocking(false);
            match read.and_then(|count| restored.map(|()| count)) {
                Ok(0) => return Err(Error::Dead),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(what, error)),
            }
        }
    }
}

fn failed(what: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::NoAnswer { what: what.to_owned() },
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
            Error::Dead
        }
        _ => Error::Io { what: format!("QMP, {what}"), source: error },
    }
}

fn version(greeting: &Value) -> Option<String> {
    let version = greeting.get("QMP")?.get("version")?;
    let number = |name| version.get("qemu")?.get(name)?.as_u64();
    let package = version.get("package").and_then(Value::as_str).unwrap_or("").trim();
    let mut text = format!("{}.{}.{}", number("major")?, number("minor")?, number("micro")?);
    if !package.is_empty() {
        text.push_str(&format!(" ({package})"));
    }
    Some(text)
}

fn refusal(answer: &Value) -> String {
    let description = answer.get("error").and_then(|error| error.get("desc")).and_then(Value::as_str);
    description.map_or_else(|| format!("neither an answer nor an error: {answer}"), str::to_owned)
}

/// Lines out of a stream.
#[derive(Debug, Default)]
struct Lines {
    bytes: VecDeque<u8>,
    /// How many of the bytes are known to have no line's end.
    searched: usize,
}

impl Lines {
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.bytes.iter().skip(self.searched).position(|&byte| byte == b'\n');
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.bytes.len();
            return None;
        };
        self.searched = 0;
        let line = self.bytes.drain(..=end).collect();
        Some(line)
    }

    fn read(&mut self, stream: &mut UnixStream) -> io::Result<usize> {
        if self.bytes.len() > MAX_LINE {
            return Err(io::Error::other(format!("a line of more than {MAX_LINE} bytes")));
        }
        let mut buffer = [0; 16 << 10];
        let count = stream.read(&mut buffer)?;
        self.bytes.extend(buffer.iter().take(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::thread;

    use super::*;

    const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian 1"}, "capabilities": []}}"#;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// A QMP whose other end says the greeting and `{"return": {}}`, then one of `answers` to each command.
    fn qmp(answers: &'static [&'static str]) -> Result<Qmp> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || {
            writeln!(theirs, "{GREETING}\r").unwrap();
            let commands = io::BufReader::new(theirs.try_clone().unwrap()).lines();
            for (command, answer) in commands.zip(std::iter::once(&"ID {}").chain(answers)) {
                let command: Value = serde_json::from_str(&command.unwrap()).unwrap();
                for line in answer.lines() {
                    let line = match line.strip_prefix("ID ") {
                        Some(value) => format!(r#"{{"return": {value}, "id": {}}}"#, command["id"]),
                        None => line.to_owned(),
                    };
                    writeln!(theirs, "{line}").unwrap();
                }
            }
        });
        Qmp::connect(ours, PATIENCE)
    }

    #[test]
    fn answers_and_events() {
        let mut qmp = qmp(&[
            "{\"event\": \"RESET\", \"data\": {\"guest\": true}, \"timestamp\": {}}\nID {\"status\": \"running\"}",
            "{\"return\": \"late\", \"id\": 1}\nID \"text\"",
        ])
        .unwrap();
        assert_eq!(qmp.version(), "10.0.2 (Debian 1)");
        assert_eq!(qmp.status(PATIENCE).unwrap(), "running");
        assert_eq!(qmp.events(), [Event { name: "RESET".to_owned(), data: json!({ "guest": true }) }]);
        assert_eq!(qmp.events(), []);
        assert_eq!(qmp.human("info mtree", PATIENCE).unwrap(), "text");
        assert!(matches!(qmp.status(PATIENCE), Err(Error::Dead)), "the other end is gone");
    }

    #[test]
    fn refusals_and_silence_and_nonsense() {
        let mut qmp =
            qmp(&["{\"error\": {\"desc\": \"no\"}, \"id\": 2}", "{\"id\": 3}", "nonsense", ""]).unwrap();
        let message = |result: Result<Value>| result.unwrap_err().to_string();
        assert_eq!(message(qmp.execute("stop", &json!({}), PATIENCE)), "stop: no");
        assert!(message(qmp.execute("stop", &json!({}), PATIENCE)).contains("neither"));
        assert!(message(qmp.execute("stop", &json!({}), PATIENCE)).contains("no JSON"));
        let begun = Instant::now();
        let silent = qmp.execute("stop", &json!({}), Duration::from_millis(20));
        assert!(matches!(silent, Err(Error::NoAnswer { .. } | Error::Dead)), "{silent:?}");
        assert!(begun.elapsed() < PATIENCE);
    }

    #[test]
    fn a_greeting_without_a_version_is_none() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"QMP\": {}}\n").unwrap();
        assert!(matches!(Qmp::connect(ours, PATIENCE), Err(Error::Protocol { .. })));
    }
}
