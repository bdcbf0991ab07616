//! [`Login`]: from whatever a guest's terminal shows to a shell that answers.

use std::time::{Duration, Instant};

use super::options::SessionOptions;
use super::wire::Wire;
use crate::error::{Error, Result};

/// How long a terminal may be silent before it is nudged.
const QUIET: Duration = Duration::from_millis(1500);
/// How long a guest may think about a name or a password: many wait before they refuse.
const THINKING: Duration = Duration::from_secs(12);
/// How long what asks for a name or a password is given to listen, at each attempt: it throws away what was typed before it
/// does, and so the first letters of an answer that comes too soon.
const LISTENING: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];
/// What guests say to a wrong name or password, in small letters.
const REFUSALS: [&str; 4] =
    ["login incorrect", "authentication failure", "permission denied", "too many authentication failures"];

/// Who logs in.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    user: String,
    password: Option<String>,
    prompt: Option<String>,
    /// There is a shell at the other end, or will be: it shows no prompt.
    silent_shell: bool,
}

impl Credentials {
    pub(super) fn new(options: &SessionOptions, silent_shell: bool) -> Self {
        let SessionOptions { user, password, prompt, .. } = options.clone();
        Self { user, password, prompt, silent_shell }
    }
}

/// An attempt to log in.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    stage: Stage,
    /// Which question of ours the shell is to answer: an older one's answer is none.
    probe: u32,
    last_event: Instant,
    nudges: u32,
    /// How often the guest has refused: once may be a letter that was lost.
    refusals: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    NameSent,
    PasswordSent,
    Probed,
}

/// What the last line on a terminal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Name,
    Password,
    Command,
    Nothing,
}

impl Login {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            stage: Stage::Waiting,
            probe: 0,
            last_event: Instant::now(),
            nudges: 0,
            refusals: 0,
        }
    }

    /// Goes on until `deadline`: whether there is a shell.
    ///
    /// # Errors
    /// Where the guest refuses twice, or wants a password that nobody gave; [`Error::Dead`] where it hung up.
    pub(super) fn step(&mut self, wire: &mut Wire, deadline: Instant) -> Result<bool> {
        loop {
            if wire.receive(deadline.min(Instant::now() + Duration::from_millis(50))) {
                self.last_event = Instant::now();
            }
            if self.look(wire)? {
                return Ok(true);
            }
            if wire.is_closed() {
                return Err(Error::Dead);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    fn look(&mut self, wire: &mut Wire) -> Result<bool> {
        let text = plain(wire.received());
        if self.stage == Stage::Probed && text.contains(&format!("iofuzz-p{}:", self.probe)) {
            wire.clear();
            return Ok(true);
        }
        let small = text.to_ascii_lowercase();
        let refusal = REFUSALS.iter().find(|words| small.contains(*words));
        if let (Stage::PasswordSent | Stage::NameSent, Some(words)) = (self.stage, refusal) {
            self.refused(&format!("the guest says `{words}`"))?;
            return Ok(false);
        }
        let listens = LISTENING.get(self.refusals).is_none_or(|&time| self.last_event.elapsed() >= time);
        match (ask(&text, self.credentials.prompt.as_deref()), self.stage) {
            (Ask::Name | Ask::Password, _) if !listens => {}
            (Ask::Name, Stage::PasswordSent) => self.refused("the guest asks for a name again")?,
            (Ask::Name, _) => {
                let user = self.credentials.user.clone();
                self.answer(wire, &user, Stage::NameSent);
            }
            (Ask::Password, Stage::PasswordSent) => self.refused("it asks for the password again")?,
            (Ask::Password, _) => {
                let Some(password) = self.credentials.password.clone() else {
                    return Err(self.error("the guest asks for a password, and none was given"));
                };
                self.answer(wire, &password, Stage::PasswordSent);
            }
            (Ask::Command, stage) if stage != Stage::Probed => self.ask_shell(wire),
            (_, Stage::NameSent | Stage::PasswordSent) if self.last_event.elapsed() < THINKING => {}
            _ if self.last_event.elapsed() > QUIET => self.nudge(wire),
            _ => {}
        }
        Ok(false)
    }

    fn answer(&mut self, wire: &mut Wire, text: &str, stage: Stage) {
        wire.clear();
        wire.send(format!("{text}\n").as_bytes());
        self.last_event = Instant::now();
        self.stage = stage;
    }

    /// Has a shell say something that its terminal's echo does not say.
    fn ask_shell(&mut self, wire: &mut Wire) {
        self.probe += 1;
        let question = format!("echo iofuzz''-p{}:", self.probe);
        self.answer(wire, &question, Stage::Probed);
    }

    /// A silent terminal: an empty line makes most of them show their prompt. A Ctrl-C ends what an earlier session left
    /// there: half a login, or our program.
    fn nudge(&mut self, wire: &mut Wire) {
        self.nudges += 1;
        match self.nudges % 3 {
            _ if self.credentials.silent_shell => self.ask_shell(wire),
            0 => self.ask_shell(wire),
            1 => self.answer(wire, "", Stage::Waiting),
            _ => self.answer(wire, "\x03", Stage::Waiting),
        }
    }

    /// Once more from the start, unless that was tried.
    fn refused(&mut self, why: &str) -> Result<()> {
        self.refusals += 1;
        if self.refusals >= LISTENING.len() {
            return Err(self.error(why));
        }
        self.last_event = Instant::now();
        self.stage = Stage::Waiting;
        Ok(())
    }

    fn error(&self, why: &str) -> Error {
        Error::Start { what: format!("the session of `{}`", self.credentials.user), why: why.to_owned() }
    }
}

/// Text without what moves a cursor or sets a colour.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => {
                // ESC [ numbers letter, or ESC letter.
                if characters.next() == Some('[') {
                    let _ = characters.by_ref().find(char::is_ascii_alphabetic);
                }
            }
            '\n' => plain.push('\n'),
            control if control.is_control() => {}
            other => plain.push(other),
        }
    }
    plain
}

fn ask(text: &str, prompt: Option<&str>) -> Ask {
    let line = text.rsplit('\n').next().unwrap_or("").trim_end();
    let small = line.to_ascii_lowercase();
    let is_prompt = match prompt.map(str::trim_end) {
        Some(prompt) => !prompt.is_empty() && line.ends_with(prompt),
        None => line.ends_with(['#', '$', '%', '>']),
    };
    if is_prompt {
        Ask::Command
    } else if small.ends_with("login:") && !small.ends_with("last login:") {
        Ask::Name
    } else if small.ends_with("password:") {
        Ask::Password
    } else {
        Ask::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn login(password: Option<&str>, prompt: Option<&str>) -> Login {
        let credentials = Credentials {
            user: "root".to_owned(),
            password: password.map(str::to_owned),
            prompt: prompt.map(str::to_owned),
            silent_shell: false,
        };
        Login::new(credentials)
    }

    /// A guest that prints the first text, then for each line it reads the next one; `PROBE` becomes the answer.
    fn guest(texts: &'static [&'static str]) -> Wire {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let mut lines = Vec::new();
            for text in texts {
                let probe = String::from_utf8_lossy(&lines).replace("echo iofuzz''", "iofuzz");
                theirs.write_all(text.replace("PROBE", probe.trim()).as_bytes()).unwrap();
                lines.clear();
                let mut byte = [0];
                while theirs.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                    lines.extend(byte);
                }
            }
        });
        Wire::new(ours).unwrap()
    }

    const INCORRECT: &str = "Login incorrect\r\n\r\nlogin: ";

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_name_a_password_a_shell() {
        let mut wire = guest(&[
            "[    1.0] booting\r\n\r\nDebian guest ttyS0\r\nguest login: ",
            "root\r\nPassword: ",
            "\r\nLast login: today\r\n\x1b[1m# \x1b[6n",
            "echo iofuzz''-p1:\r\nPROBE\r\n# ",
        ]);
        assert!(login(Some("x"), None).step(&mut wire, soon()).unwrap());
    }

    #[test]
    fn refusals_say_why() {
        let why = |texts: &'static [_], password| {
            let mut wire = guest(texts);
            login(password, None).step(&mut wire, soon()).unwrap_err().to_string()
        };
        let texts = &["login: ", "Password: ", INCORRECT, "Password: ", INCORRECT];
        assert_eq!(
            why(texts, Some("x")),
            "the session of `root` did not start: the guest says `login incorrect`"
        );
        assert!(why(texts, None).contains("none was given"));
        let silent = &["login: ", "Password: ", "\r\nlogin: ", "Password: ", "\r\nlogin: "];
        assert!(why(silent, Some("x")).contains("a name again"));
        assert!(why(&["Password: ", "Password: ", "Password: "], Some("x")).contains("the password again"));
    }

    #[test]
    fn one_refusal_may_be_a_letter_that_was_lost() {
        let mut wire =
            guest(&["login: ", "Password: ", INCORRECT, "Password: ", "# ", "echo\r\nPROBE\r\n# "]);
        assert!(login(Some("x"), None).step(&mut wire, soon()).unwrap());
    }

    #[test]
    fn a_silent_terminal_is_nudged_and_no_prompt_is_waited_for_in_vain() {
        let mut wire = guest(&["", "\r\n# ", "PROBE\r\n"]);
        let begun = Instant::now();
        assert!(login(None, None).step(&mut wire, soon()).unwrap());
        assert!(begun.elapsed() >= QUIET);
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours).unwrap();
        assert!(!login(None, None).step(&mut wire, Instant::now() + Duration::from_millis(60)).unwrap());
    }

    #[test]
    fn what_asks_for_what() {
        assert_eq!(ask("x\nguest login: ", None), Ask::Name);
        assert_eq!(ask("Last login: ", None), Ask::Nothing);
        assert_eq!(ask("Password:", None), Ask::Password);
        assert_eq!(ask("root@guest:~# ", None), Ask::Command);
        assert_eq!(ask("root@guest:~# ", Some("=> ")), Ask::Nothing);
        assert_eq!(ask("guest => ", Some("=> ")), Ask::Command);
        assert_eq!(ask("# \n", None), Ask::Nothing);
        assert_eq!(plain(b"a\x1b[31;1mb\x1b[6n\x07c\r\n"), "abc\n");
    }
}
