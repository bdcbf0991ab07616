//! [`Wire`]: bytes to and from a guest's terminal, without ever waiting longer than asked.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};

/// How much is kept of what nobody takes: a guest may print without end.
const KEPT: usize = 1 << 20;

/// A connection to a guest's terminal.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    closed: bool,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Result<Self> {
        stream.set_nonblocking(true).map_err(Error::io("the guest's terminal"))?;
        Ok(Self { stream, received: Vec::new(), outgoing: Vec::new(), closed: false })
    }

    /// Whether the other end hung up.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Sends `bytes` as soon as there is room; does not wait.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
        self.flush();
    }

    /// Receives what there is, and waits for it until `deadline` where there is nothing: whether something came.
    pub(super) fn receive(&mut self, deadline: Instant) -> bool {
        loop {
            self.flush();
            if self.take() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.closed || left.is_zero() {
                return false;
            }
            self.poll(left);
        }
    }

    /// What was received and not cleared.
    pub(super) fn received(&self) -> &[u8] {
        &self.received
    }

    /// Forgets the first `count` bytes that were received.
    pub(super) fn forget(&mut self, count: usize) {
        self.received.drain(..count.min(self.received.len()));
    }

    /// Forgets all that was received.
    pub(super) fn clear_received(&mut self) {
        self.received.clear();
    }

    /// Forgets all that was received, and what was not sent yet.
    pub(super) fn clear(&mut self) {
        self.received.clear();
        self.outgoing.clear();
    }

    /// The last words, for an error message.
    pub(super) fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.received);
        let plain = |c: &char| !c.is_control() || *c == '\n';
        let text: String = text.chars().filter(plain).collect();
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join(" | ");
        last.chars().rev().take(200).collect::<Vec<_>>().iter().rev().collect()
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.closed {
            match self.stream.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
        }
    }

    fn take(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        let mut any = false;
        while !self.closed && self.received.len() < 2 * KEPT {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.received.extend(buffer.iter().take(count));
                    any = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.closed = true,
            }
        }
        let surplus = self.received.len().saturating_sub(KEPT);
        self.received.drain(..surplus);
        any
    }

    fn poll(&self, patience: Duration) {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, !self.outgoing.is_empty());
        let patience = patience.min(Duration::from_secs(60)) + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
        // Whatever it says, the next read says it better.
        let _ = poll(&mut [PollFd::new(self.stream.as_fd(), flags)], timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_as_long_as_asked_and_no_longer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours).unwrap();
        let begun = Instant::now();
        assert!(!wire.receive(begun + Duration::from_millis(20)));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        theirs.write_all(b"a\x1b[6nb\r\nc").unwrap();
        assert!(wire.receive(Instant::now()));
        assert_eq!(wire.last_words(), "a[6nb | c");
        wire.forget(100);
        assert_eq!(wire.received(), b"");
        drop(theirs);
        assert!(!wire.receive(Instant::now() + Duration::from_secs(60)) && wire.is_closed());
    }

    #[test]
    fn a_guest_that_prints_without_end_costs_no_more_than_a_mebibyte() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let printer = std::thread::spawn(move || (0..5000).try_for_each(|_| theirs.write_all(&[b'x'; 1024])));
        let mut wire = Wire::new(ours).unwrap();
        while !wire.is_closed() {
            wire.receive(Instant::now() + Duration::from_secs(1));
            assert!(wire.received().len() <= KEPT);
        }
        printer.join().unwrap().unwrap();
    }

    #[test]
    fn nobody_who_reads_is_no_reason_to_wait() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours).unwrap();
        wire.send(&vec![0; 4 << 20]);
        assert!(!wire.outgoing.is_empty() && !wire.closed);
    }
}
