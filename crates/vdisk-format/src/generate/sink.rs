//! The sparse writer: what is zero is not written.

use std::io::{self, Seek, SeekFrom, Write};

use super::GenerateError;

/// Zeros are left out in aligned blocks of this many bytes.
const BLOCK: u64 = 4096;
/// A block of zeros, to compare with.
const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
/// Neighbouring writes are put together up to this many bytes.
const BATCH: usize = 1 << 20;

/// Writes pieces that do not overlap, at offsets in any order, leaving holes where there are only zeros.
pub(super) struct Sink<'a, W> {
    out: &'a mut W,
    /// Where the writer stands, if that is known.
    position: Option<u64>,
    /// The end of what has been put, in bytes.
    end: u64,
    /// Bytes that are not written yet, and where they belong.
    pending: Vec<u8>,
    pending_at: u64,
}

impl<'a, W: Write + Seek> Sink<'a, W> {
    pub(super) fn new(out: &'a mut W) -> Self {
        Sink { out, position: None, end: 0, pending: Vec::new(), pending_at: 0 }
    }

    /// Writes `bytes` at the offset `at`, except for its blocks of zeros.
    pub(super) fn put(&mut self, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = (BLOCK - at % BLOCK) as usize;
            let (block, rest) = bytes.split_at(room.min(bytes.len()));
            if !ZEROS.starts_with(block) {
                self.append(at, block)?;
            }
            at += block.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes what is left, and makes the file `length` bytes long. Returns that length.
    pub(super) fn finish(mut self, length: u64) -> io::Result<u64> {
        self.flush()?;
        if self.end < length {
            self.append(length - 1, &[0])?;
            self.flush()?;
        }
        self.out.flush()?;
        Ok(length)
    }

    fn append(&mut self, at: u64, block: &[u8]) -> io::Result<()> {
        let follows = self.pending_at + self.pending.len() as u64 == at;
        if !follows || self.pending.len() >= BATCH {
            self.flush()?;
            self.pending_at = at;
        }
        self.pending.extend_from_slice(block);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.position != Some(self.pending_at) {
            self.out.seek(SeekFrom::Start(self.pending_at))?;
        }
        self.out.write_all(&self.pending)?;
        let end = self.pending_at + self.pending.len() as u64;
        self.position = Some(end);
        self.end = self.end.max(end);
        self.pending.clear();
        Ok(())
    }
}

/// An empty buffer with room for `bytes` bytes.
pub(super) fn buffer(bytes: u64) -> Result<Vec<u8>, GenerateError> {
    let mut buffer = Vec::new();
    let length = usize::try_from(bytes).map_err(|_| GenerateError::OutOfMemory { bytes })?;
    buffer.try_reserve_exact(length).map_err(|_| GenerateError::OutOfMemory { bytes })?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Notes each write.
    #[derive(Default)]
    struct Log(Cursor<Vec<u8>>, Vec<(u64, usize)>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.push((self.0.position(), bytes.len()));
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl Seek for Log {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    #[test]
    fn zeros_are_left_out_and_neighbours_put_together() {
        let mut log = Log::default();
        let mut sink = Sink::new(&mut log);
        let mut bytes = vec![0; 3 * 4096];
        bytes[4096] = 7;
        sink.put(8192, &bytes).unwrap();
        sink.put(16384, &1_u64.to_be_bytes()).unwrap();
        sink.put(16392, &[0; 8]).unwrap();
        sink.put(16400, &2_u64.to_be_bytes()).unwrap();
        assert_eq!(sink.finish(1 << 16).unwrap(), 1 << 16);
        assert_eq!(log.1, [(12288, 4096 + 8), (16400, 8), (65535, 1)]);
        let image = log.0.into_inner();
        assert_eq!((image.len(), image[12288], image[16407]), (1 << 16, 7, 2));
    }

    #[test]
    fn an_empty_file_stays_empty() {
        let mut out = Cursor::new(Vec::new());
        assert_eq!(Sink::new(&mut out).finish(0).unwrap(), 0);
        assert!(out.into_inner().is_empty());
    }
}
