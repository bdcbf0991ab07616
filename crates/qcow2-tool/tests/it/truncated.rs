//! A file that is cut short while it is mapped.

use crate::support::program::command;
use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;
use test_support::scratch::scratch;

/// An image with one bitmap, whose table of many entries starts far behind the header.
fn image_with_a_long_table() -> Vec<u8> {
    const ENTRIES: u32 = 400_000;
    let mut image = vec![0; (2 << 16) + 8 * ENTRIES as usize];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(95, &[1]);
    put(99, &[4]);
    put(103, &[104]);
    put(104, &[0x23, 0x85, 0x28, 0x75, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 0]);
    put(120, &32u64.to_be_bytes());
    put(128, &0x1_0000u64.to_be_bytes());
    put(0x1_0000, &0x2_0000u64.to_be_bytes());
    put(0x1_0008, &ENTRIES.to_be_bytes());
    put(0x1_0010, &[1, 16, 0, 1, 0, 0, 0, 0, b'b']);
    image
}

#[test]
fn gives_an_error_and_no_signal() {
    let folder = scratch();
    let path = folder.path().join("image.qcow2");
    fs::write(&path, image_with_a_long_table()).unwrap();
    let mut child = command()
        .arg(&path)
        .arg("dump-header-exts")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The first bytes are there, so the image is mapped; the pipe is full long before the table ends.
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    sleep(Duration::from_millis(100));
    File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    stdout.read_to_end(&mut Vec::new()).unwrap();
    let mut message = String::new();
    child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{message}");
    assert_eq!(
        message,
        format!(
            "error: {}: cannot be read: cut short while it was mapped, or an I/O error\n",
            path.display()
        )
    );
}
