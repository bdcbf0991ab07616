//! Archives in the form that Linux unpacks at its start: cpio, "newc".

/// An archive that grows. Its files have the numbers and the times that they always have: the same files make the same
/// bytes.
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// An empty archive.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), entries: 0 }
    }

    /// Adds a folder; the one above it must be there.
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, 0o040_755, (0, 0), &[]);
    }

    /// Adds a file that can be executed.
    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) {
        self.entry(path, 0o100_755, (0, 0), contents);
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, 0o020_600, (major, minor), &[]);
    }

    /// The archive, complete.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// A header of 13 numbers, the name, the contents; each part ends at a multiple of four.
    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let (size, name_size) = (contents.len() as u32, path.len() as u32 + 1);
        let numbers = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        numbers.iter().for_each(|number| self.bytes.extend_from_slice(format!("{number:08X}").as_bytes()));
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_of_one_file_byte_by_byte() {
        let mut cpio = Cpio::new();
        cpio.program("ab", b"hello");
        let header = "07070100000001000081ED00000000000000000000000100000000\
                      000000050000000000000000000000000000000000000003000000\
                      00";
        let archive = cpio.finish();
        let (first, rest) = archive.split_at(124);
        assert_eq!(first, [header.as_bytes(), b"ab\0\0\0\0", b"hello\0\0\0"].concat()[..124].as_ref());
        assert!(rest.starts_with(b"070701") && rest.ends_with(b"TRAILER!!!\0\0\0\0"), "{rest:?}");
        assert_eq!(archive.len() % 4, 0);
    }

    #[test]
    fn a_device_has_its_numbers() {
        let mut cpio = Cpio::new();
        cpio.device("dev/console", 5, 1);
        let text = String::from_utf8(cpio.finish()).unwrap();
        assert_eq!(&text[14..22], "00002180");
        assert_eq!(&text[78..94], "0000000500000001");
    }
}
