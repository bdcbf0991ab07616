//! The fuzz target for what QEMU says on a qtest connection.

#[cfg(target_os = "linux")]
use guest_fuzz::target::qtest::{Answer, Answers};

/// Takes the bytes as QEMU's words, once whole and once in pieces.
///
/// # Panics
/// Where pieces have other answers than the whole, or there are more answers than lines.
#[cfg(target_os = "linux")]
pub fn qtest_answer(bytes: &[u8]) {
    let mut whole = Answers::default();
    whole.feed(bytes);
    let whole: Vec<Answer> = whole.collect();
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert!(whole.len() <= lines, "{} answers in {lines} lines", whole.len());
    let size = bytes.first().map_or(1, |&byte| usize::from(byte % 7) + 1);
    let mut pieces = Answers::default();
    bytes.chunks(size).for_each(|piece| pieces.feed(piece));
    assert_eq!(pieces.collect::<Vec<_>>(), whole);
}

/// Does nothing: the protocol is spoken on Linux only.
#[cfg(not(target_os = "linux"))]
pub fn qtest_answer(_bytes: &[u8]) {}
