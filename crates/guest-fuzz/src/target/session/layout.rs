//! The memory that the program in the guest shares with us: where what is, in bytes from its start. Both sides use it.

/// What is at its start.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"iofuzz\x01\0");
/// The guest's: 4 bytes, 1 where it uses iopl, 2 where /dev/port.
pub(crate) const STATE: u64 = 8;
/// Ours: 4 bytes, not 0 where it shall end.
pub(crate) const QUIT: u64 = 12;
/// Ours: how many slots there are to be executed.
pub(crate) const SUBMITTED: u64 = 0x40;
/// The guest's: how many were begun.
pub(crate) const STARTED: u64 = 0x80;
/// The guest's: how many were ended.
pub(crate) const DONE: u64 = 0xc0;
/// The guest's: changes while it waits for work.
pub(crate) const HEARTBEAT: u64 = 0x100;
/// Where the slots begin. Each is a port (16 bits), a kind, a spare byte, and a value (32 bits), which a read replaces.
pub(crate) const SLOTS_AT: u64 = 0x1_0000;
/// How many slots there are.
pub(crate) const SLOTS: u64 = 8192;
/// The length of the whole.
pub(crate) const LENGTH: u64 = SLOTS_AT + 8 * SLOTS;
