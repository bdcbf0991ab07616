//! Standard output: buffered, byte exact into pipes and files, and harmless to terminals.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use crate::ascii_json::Ascii;

/// Standard output.
///
/// ```no_run
/// let mut out = tool_support::Out::stdout();
/// out.untrusted(b"a name from an image: \x1b[31m\n")?; // a terminal shows \x1b, a pipe gets the byte
/// out.finish()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Out {
    stdout: BufWriter<StdoutLock<'static>>,
    escape: bool,
}

impl Out {
    /// Standard output, escaped where it is a terminal.
    #[must_use]
    pub fn stdout() -> Self {
        let stdout = io::stdout().lock();
        let escape = stdout.is_terminal();
        Self { stdout: BufWriter::with_capacity(1 << 16, stdout), escape }
    }

    /// Writes a text in which there may be bytes that come from an image.
    ///
    /// # Errors
    /// As [`Write::write_all`].
    pub fn untrusted(&mut self, text: &[u8]) -> io::Result<()> {
        if self.escape {
            // A copy: another process may write to a mapped image between the validation and the use of a text.
            let copy = text.to_vec();
            write!(self.stdout, "{}", escaped(&copy))
        } else {
            self.stdout.write_all(text)
        }
    }

    /// Writes a name that comes from an image: on a terminal in one line, for the next one might look like ours.
    ///
    /// # Errors
    /// As [`Write::write_all`].
    pub fn name(&mut self, name: &[u8]) -> io::Result<()> {
        if !self.escape {
            return self.stdout.write_all(name);
        }
        let copy = name.to_vec();
        self.stdout.write_all(escaped(&copy).to_string().replace('\n', "\\n").as_bytes())
    }

    /// Writes one JSON document, indented, and a line break; in ASCII where it is a terminal.
    ///
    /// # Errors
    /// As [`Write::write_all`].
    pub fn json(&mut self, document: &impl serde::Serialize) -> io::Result<()> {
        if self.escape {
            let formatter = Ascii::with_indent(b"  ");
            document.serialize(&mut serde_json::Serializer::with_formatter(&mut self.stdout, formatter))?;
        } else {
            serde_json::to_writer_pretty(&mut self.stdout, document)?;
        }
        self.stdout.write_all(b"\n")
    }

    /// Flushes. What was not flushed may be lost without an error: every command ends with this.
    ///
    /// # Errors
    /// As [`Write::flush`].
    pub fn finish(mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Text with its control characters made visible, line breaks and tabs but for excepted: `\x1b` for an escape. Bytes
/// that are not UTF-8 are shown in the same way.
#[must_use]
pub fn escaped(bytes: &[u8]) -> impl fmt::Display + '_ {
    Escaped(bytes)
}

struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\n' | '\t' => f.write_char(c)?,
                    c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                    // C1 controls, and what reorders or hides the text around it.
                    c if c.is_control()
                        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') =>
                    {
                        write!(f, "\\u{{{:x}}}", u32::from(c))?;
                    }
                    c => f.write_char(c)?,
                }
            }
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// Text from an image, for JSON: what is not UTF-8 becomes U+FFFD.
#[derive(Debug, Clone, Copy)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        // A copy: another process may write to a mapped image between the validation and the use of a text.
        for chunk in self.0.to_vec().utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

impl serde::Serialize for Lossy<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let shown = escaped(b"a\x1b[31m\x07\xff\xc2\x9b\r\xe2\x80\xaez\n").to_string();
        assert_eq!(shown, "a\\x1b[31m\\x07\\xff\\u{9b}\\x0d\\u{202e}z\n");
    }
}
