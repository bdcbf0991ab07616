//! Standard error: a line that is written again and again, where that is a terminal, and lines that stay.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guest_fuzz::campaign::Status;
use tool_support::status::note;

/// How often the line is written.
pub(crate) const PERIOD: Duration = Duration::from_millis(200);

/// Standard error.
#[derive(Debug)]
pub(crate) struct Screen {
    is_live: bool,
    /// Whether the line is on the terminal.
    is_drawn: Mutex<bool>,
}

impl Screen {
    /// Standard error, as it is.
    pub(crate) fn new() -> Self {
        Self { is_live: std::io::stderr().is_terminal(), is_drawn: Mutex::new(false) }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        let mut is_drawn = self.is_drawn.lock().unwrap_or_else(PoisonError::into_inner);
        erase(&mut is_drawn);
        note(text);
    }

    /// Writes the line anew.
    pub(crate) fn show(&self, status: &Status, time: Duration, recent: f64) {
        if !self.is_live {
            return;
        }
        let mut is_drawn = self.is_drawn.lock().unwrap_or_else(PoisonError::into_inner);
        *is_drawn = true;
        let line = line(status, time, recent);
        // Where standard error is gone there is nobody to tell.
        let _ = write!(std::io::stderr(), "\r\x1b[2K{line}");
    }

    /// Takes the line away.
    pub(crate) fn clear(&self) {
        erase(&mut self.is_drawn.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn erase(is_drawn: &mut bool) {
    if std::mem::take(is_drawn) {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

fn line(status: &Status, time: Duration, recent: f64) -> String {
    let operations = if status.operations == 1 { "operation" } else { "operations" };
    format!(
        "{:>4} s  {} {operations}  {}/s  {}  {}",
        time.as_secs(),
        short(status.operations as f64),
        short(recent),
        counted(status.resets, "reset"),
        counted(status.findings, "finding"),
    )
}

/// A number in three digits or so: `12.3 M`.
pub(crate) fn short(number: f64) -> String {
    match number {
        n if n >= 1e10 => format!("{:.1} G", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// A verdict and what findings of its cause have in common, which begins with the verdict where nothing says more.
pub(crate) fn named(verdict: &str, signature: &str) -> String {
    match signature.strip_prefix(verdict) {
        Some(rest) if rest.is_empty() || rest.starts_with(':') => signature.to_owned(),
        _ if signature.is_empty() => verdict.to_owned(),
        _ => format!("{verdict}: {signature}"),
    }
}

/// `1 reset`, `2 resets`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_named_once() {
        assert_eq!(named("vmm-stall", "vmm-stall"), "vmm-stall");
        assert_eq!(named("guest-hang", "guest-hang: ide"), "guest-hang: ide");
        assert_eq!(named("crash", "SIGABRT: x"), "crash: SIGABRT: x");
        assert_eq!(named("guest-reset", ""), "guest-reset");
        assert_eq!(named("exit", "exit status 3: x"), "exit: exit status 3: x");
    }

    #[test]
    fn the_line_fits_a_terminal() {
        let status = Status { operations: 34_100_000, resets: 1, machines: 2, findings: 0 };
        let shown = line(&status, Duration::from_secs(12), 2_840_000.0);
        assert_eq!(shown, "  12 s  34.1 M operations  2.8 M/s  1 reset  0 findings");
        let worst = Status { operations: u64::MAX, resets: 999_999_999, machines: 2, findings: 9999 };
        assert!(line(&worst, Duration::from_secs(99_999), 99e9).len() < 80);
    }
}
