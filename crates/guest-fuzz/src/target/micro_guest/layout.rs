//! Where things are in the micro guest's memory, and what an instruction looks like there. The firmware is assembled with
//! these numbers, and the host writes and reads by them.
//!
//! Address bit 20 is clear wherever the guest runs, reads or writes on its own account: with the A20 gate shut, it runs on.

/// The firmware is that large: what QEMU wants of a `-bios` file.
pub(crate) const ROM_BYTES: usize = 64 << 10;
/// The guest's memory.
pub(crate) const RAM_BYTES: u64 = 64 << 20;

/// At the ROM's begin, the program; behind it is only what leads there.
pub(crate) const PROGRAM_BYTES: usize = 0x1000;
/// Where the program is copied to. Devices can overwrite this, not the ROM; each reset mends it.
pub(crate) const CODE: u32 = 0x20_0000;
/// The end of the stack.
pub(crate) const STACK: u32 = 0x21_0000;
/// The control block.
pub(crate) const CONTROL: u32 = 0x21_1000;
/// How often the guest has booted.
pub(crate) const BOOTS: u32 = CONTROL + 0x40;
/// The number of the boot after which the prologue is done, and instructions are executed.
pub(crate) const READY: u32 = CONTROL + 0x44;
/// How many instructions faulted: what the processor cannot do has no effect.
pub(crate) const FAULTS: u32 = CONTROL + 0x48;
/// Written by the host; an idle guest copies it to [`PONG`].
pub(crate) const PING: u32 = CONTROL + 0x80;
/// See [`PING`].
pub(crate) const PONG: u32 = CONTROL + 0x4c;
/// Where the guest was at each boot: what [`STARTED`] said, for the last [`BOOT_LOG_ENTRIES`] boots.
pub(crate) const BOOT_LOG: u32 = CONTROL + 0x1000;
/// How many boots are logged: a power of two.
pub(crate) const BOOT_LOG_ENTRIES: u32 = 1024;

/// The counters of the prologue's queue.
pub(crate) const PROLOGUE: u32 = CONTROL + 0x100;
/// The counters of the instructions' queue.
pub(crate) const QUEUE: u32 = CONTROL + 0x200;
/// In a queue's counters, what the host wrote: how many instructions there are. Numbers are modulo 2^32.
pub(crate) const PRODUCED: u32 = 0;
/// What the guest wrote: how many were begun.
pub(crate) const STARTED: u32 = 0x40;
/// What the guest wrote: how many were ended, when it last had nothing to do or did something lengthy. All that were begun
/// have ended where both are the same, else all but one. It is never further behind than the queue is long.
pub(crate) const DONE: u32 = 0x44;
/// Where the queue's slots are; written by the guest at boot.
pub(crate) const BASE: u32 = 0x48;
/// How many slots it has, less one; written by the guest at boot.
pub(crate) const MASK: u32 = 0x4c;

/// An instruction takes that many bytes in a queue, as a power of two.
pub(crate) const SLOT_SHIFT: u32 = 4;
/// The prologue's slots.
pub(crate) const PROLOGUE_SLOTS_AT: u32 = 0x22_0000;
/// How many the prologue has: a power of two.
pub(crate) const PROLOGUE_SLOTS: u32 = 0x1_0000 >> SLOT_SHIFT;
/// The instructions' slots.
pub(crate) const SLOTS_AT: u32 = 0x40_0000;
/// How many there are: a power of two.
pub(crate) const SLOTS: u32 = 0x10_0000 >> SLOT_SHIFT;
/// What block writes write.
pub(crate) const ARENA: u32 = 0x60_0000;
/// How large that is.
pub(crate) const ARENA_BYTES: u32 = 0x10_0000;
/// The memory that a generator may fill, for devices to read: address.
pub(crate) const PLAYGROUND: u64 = 0x80_0000;
/// The same: length. It ends below 16 MiB, where ISA devices end.
pub(crate) const PLAYGROUND_BYTES: u64 = 0x70_0000;

/// Where a processor in system management mode begins.
pub(crate) const SMM_ENTRY: u32 = 0x3_8000;

/// In a slot, behind the operation's byte: 24 bits of a number that depends on the operation.
pub(crate) const SLOT_SMALL: u32 = 1;
/// Of that number, in a slot of a port instruction: the byte that is written, then the port, big-endian.
pub(crate) const SMALL_BYTE: u32 = 0;
/// See [`SMALL_BYTE`].
pub(crate) const SMALL_PORT: u32 = 8;
/// In a slot: an address, a configuration address, a string's port.
pub(crate) const SLOT_A: u32 = 4;
/// In a slot: a value, lower half. What was read is written here.
pub(crate) const SLOT_B: u32 = 8;
/// In a slot: a value, upper half; a count.
pub(crate) const SLOT_C: u32 = 12;

/// The bits of a register number that select a byte of port 0xcfc.
pub(crate) const MASK_CONFIG: u32 = 3;

/// What the guest can do: the first byte of a slot. Those with a width are followed by the wider ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operation {
    Nothing = 0,
    /// Port. Byte, word, long.
    In = 1,
    /// Port; B: value, unless it is a byte.
    Out = 4,
    /// A: port; B: address; C: count.
    InString = 7,
    /// The same.
    OutString = 10,
    /// A: address. Byte, word, long, quad.
    Read = 13,
    /// A: address; B and C: value.
    Write = 17,
    /// A: address; B: where the bytes are; C: how many.
    Copy = 21,
    /// A: address; B and C: pattern; small: how many bytes.
    Fill = 22,
    /// A: configuration address; small: its lowest two bits. Byte, word, long.
    PciRead = 23,
    /// The same; B: value.
    PciWrite = 26,
    /// B: how many reads of port 0x80.
    Delay = 29,
    Reset = 30,
}

/// How many operations there are.
pub(crate) const OPERATIONS: u8 = 31;
