//! The program that executes port accesses inside a Linux guest: a static x86-64 ELF file of about a kilobyte, which
//! needs nothing but the kernel.
//!
//! `helper PREFERENCE [SHARED]`: PREFERENCE is `a` (any way), `i` (only iopl) or `p` (only /dev/port). Its first line is
//! `*iofuzz1`, then `i`, `p` or `n`: the way it found, or none; then `s` (stream), `r` (ring) or `x` (it ends).
//!
//! - **Stream.** Reads a line, executes it, writes a line. What is a terminal is made raw and left as it was. A symbol is
//!   six bits, as the character 0x30 + bits; numbers have their highest bits first. A line is `#`, which
//!   makes it a comment should a shell read it, its sequence symbol, its operations, and a check of three symbols: the
//!   upper 18 bits of FNV-1a over the characters between. An operation
//!   is one symbol (bits 0-3 kind, bits 4-5 port: 0 the same, 1 the next one, 2 three symbols follow) and its value. The
//!   answer is `+`, the same sequence symbol, the values read, a check, the line's end. A line with the sequence symbol
//!   of the one before is not executed: the answer is repeated. A line whose check is wrong is answered by `-`. A
//!   Ctrl-C or the input's end ends it.
//! - **Ring.** SHARED is the memory of a PCI device that the host sees, too. `target::session::layout`
//!   is what is where.

mod elf;
mod line;

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::ring_layout::{DONE, HEARTBEAT, LENGTH, MAGIC, QUIT, SLOTS, SLOTS_AT, STARTED, STATE, SUBMITTED};

/// Where the code is.
const TEXT: u64 = 0x40_0000;
/// Where the data is; all zeroes at first.
const DATA: u64 = 0x60_0000;
const DATA_SIZE: u64 = ANSWER + (400 << 10) - DATA;
/// The length of the file's headers, behind which the code begins.
const HEADERS: u64 = 64 + 3 * 56;

const TERMIOS_BEFORE: u64 = DATA;
const TERMIOS_RAW: u64 = DATA + 0x40;
const SLOT: u64 = DATA + 0x80;
const TIME: u64 = DATA + 0x90;
const SEQUENCE: u64 = DATA + 0xa0;
const ANSWER_LENGTH: u64 = DATA + 0xa8;
const BYTE: u64 = DATA + 0xb0;
const HELLO: u64 = DATA + 0xc0;
const IS_TERMINAL: u64 = DATA + 0xd0;
const INPUT: u64 = DATA + 0x1000;
const INPUT_SIZE: u64 = 64 << 10;
const ANSWER: u64 = INPUT + INPUT_SIZE + 0x1000;

/// How many symbols the value of an operation has, by its kind.
const VALUE_SYMBOLS: [u8; 16] = [0, 0, 0, 0, 2, 3, 6, 6, 6, 0, 0, 0, 0, 0, 0, 0];
/// How many symbols a value read has, by the operation's kind.
const READ_SYMBOLS: [u8; 16] = [0, 2, 3, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const READ: u32 = 0;
const WRITE: u32 = 1;
const OPEN: u32 = 2;
const MMAP: u32 = 9;
const IOCTL: u32 = 16;
const PREAD: u32 = 17;
const PWRITE: u32 = 18;
const NANOSLEEP: u32 = 35;
const EXIT: u32 = 60;
const IOPL: u32 = 172;

/// The whole file.
pub(crate) fn assemble() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let labels = Labels::new(&mut a);
    Helper { a, labels }.assemble()
}

/// What is jumped to from more than one routine.
#[derive(Clone, Copy)]
struct Labels {
    ring: CodeLabel,
    stream: CodeLabel,
    none: CodeLabel,
    ring_bad: CodeLabel,
    say_hello: CodeLabel,
    execute: CodeLabel,
    sleep: CodeLabel,
    number: CodeLabel,
    check: CodeLabel,
    write_answer: CodeLabel,
    leave: CodeLabel,
    value_symbols: CodeLabel,
    read_symbols: CodeLabel,
    dev_port: CodeLabel,
}

impl Labels {
    fn new(a: &mut CodeAssembler) -> Self {
        Self {
            ring: a.create_label(),
            stream: a.create_label(),
            none: a.create_label(),
            ring_bad: a.create_label(),
            say_hello: a.create_label(),
            execute: a.create_label(),
            sleep: a.create_label(),
            number: a.create_label(),
            check: a.create_label(),
            write_answer: a.create_label(),
            leave: a.create_label(),
            value_symbols: a.create_label(),
            read_symbols: a.create_label(),
            dev_port: a.create_label(),
        }
    }
}

/// Registers that keep their meaning throughout: r13d is 0 for iopl and 1 for /dev/port, whose file is r14d.
struct Helper {
    a: CodeAssembler,
    labels: Labels,
}

type Done = Result<(), IcedError>;

impl Helper {
    fn assemble(mut self) -> Result<Vec<u8>, IcedError> {
        self.start()?;
        self.hello()?;
        self.ring()?;
        self.stream()?;
        self.line()?;
        self.leave()?;
        self.number_and_check()?;
        self.execute()?;
        self.sleep()?;
        self.data()?;
        let code = self.a.assemble(TEXT + HEADERS)?;
        let mut file = elf::headers(code.len() as u64);
        file.extend_from_slice(&code);
        Ok(file)
    }

    fn system_call(&mut self, number: u32) -> Done {
        self.a.mov(eax, number)?;
        self.a.syscall()
    }

    /// Finds a way to the ports. r15 is the stack at the start: the count of arguments, then their addresses.
    fn start(&mut self) -> Done {
        let Labels { stream, ring, none, dev_port, .. } = self.labels;
        let (mut preferred, mut try_port, mut ready) =
            (self.a.create_label(), self.a.create_label(), self.a.create_label());
        self.a.mov(r15, rsp)?;
        self.a.xor(r13d, r13d)?;
        self.a.mov(dword_ptr(SEQUENCE), 0xff)?;
        self.a.mov(ebx, u32::from(b'a'))?;
        self.a.cmp(qword_ptr(r15), 2)?;
        self.a.jb(preferred)?;
        self.a.mov(rsi, qword_ptr(r15 + 16))?;
        self.a.movzx(ebx, byte_ptr(rsi))?;
        self.a.set_label(&mut preferred)?;
        self.a.cmp(ebx, u32::from(b'p'))?;
        self.a.je(try_port)?;
        self.a.mov(edi, 3)?;
        self.system_call(IOPL)?;
        self.a.test(eax, eax)?;
        self.a.jz(ready)?;
        self.a.cmp(ebx, u32::from(b'i'))?;
        self.a.je(none)?;
        self.a.set_label(&mut try_port)?;
        self.a.lea(rdi, ptr(dev_port))?;
        self.a.mov(esi, 2)?;
        self.a.xor(edx, edx)?;
        self.system_call(OPEN)?;
        self.a.test(eax, eax)?;
        self.a.js(none)?;
        self.a.mov(r14d, eax)?;
        self.a.inc(r13d)?;
        self.a.set_label(&mut ready)?;
        self.a.cmp(qword_ptr(r15), 3)?;
        self.a.jb(stream)?;
        self.a.jmp(ring)
    }

    /// `say_hello`: writes the first line, whose last character is al. `none`, `ring_bad`: so there is nothing to do.
    fn hello(&mut self) -> Done {
        let Labels { mut none, mut ring_bad, mut say_hello, .. } = self.labels;
        let mut by_iopl = self.a.create_label();
        self.a.set_label(&mut none)?;
        self.a.mov(r13d, u32::from(b'n' - b'i'))?;
        self.a.set_label(&mut ring_bad)?;
        self.a.mov(eax, u32::from(b'x'))?;
        self.a.call(say_hello)?;
        self.a.mov(edi, 1)?;
        self.system_call(EXIT)?;

        self.a.set_label(&mut say_hello)?;
        self.a.mov(rcx, u64::from_le_bytes(*b"*iofuzz1"))?;
        self.a.mov(qword_ptr(HELLO), rcx)?;
        self.a.mov(ecx, r13d)?;
        // The way is 0, 1 or `n - i`; 1 is to become `p`.
        self.a.cmp(ecx, 1)?;
        self.a.jne(by_iopl)?;
        self.a.mov(ecx, u32::from(b'p' - b'i'))?;
        self.a.set_label(&mut by_iopl)?;
        self.a.add(ecx, u32::from(b'i'))?;
        self.a.mov(byte_ptr(HELLO + 8), cl)?;
        self.a.mov(byte_ptr(HELLO + 9), al)?;
        self.a.mov(byte_ptr(HELLO + 10), u32::from(b'\n'))?;
        self.a.mov(edi, 1)?;
        self.a.mov(esi, HELLO as u32)?;
        self.a.mov(edx, 11)?;
        self.system_call(WRITE)?;
        self.a.ret()
    }

    /// r12 is the ring, rbx how many slots were begun, rbp how many there are.
    fn ring(&mut self) -> Done {
        let Labels { mut ring, ring_bad, say_hello, execute, sleep, leave, .. } = self.labels;
        let (mut next, mut perform, mut refill, mut idle, mut spin) = (
            self.a.create_label(),
            self.a.create_label(),
            self.a.create_label(),
            self.a.create_label(),
            self.a.create_label(),
        );
        self.a.set_label(&mut ring)?;
        self.a.mov(rdi, qword_ptr(r15 + 24))?;
        self.a.mov(esi, 0x10_1002)?; // O_RDWR | O_SYNC
        self.a.xor(edx, edx)?;
        self.system_call(OPEN)?;
        self.a.test(eax, eax)?;
        self.a.js(ring_bad)?;
        self.a.mov(r8d, eax)?;
        self.a.xor(edi, edi)?;
        self.a.mov(esi, LENGTH as u32)?;
        self.a.mov(edx, 3)?; // PROT_READ | PROT_WRITE
        self.a.mov(r10d, 1)?; // MAP_SHARED
        self.a.xor(r9d, r9d)?;
        self.system_call(MMAP)?;
        self.a.test(rax, rax)?;
        self.a.js(ring_bad)?;
        self.a.mov(r12, rax)?;
        self.a.mov(rcx, MAGIC)?;
        self.a.cmp(rcx, qword_ptr(r12))?;
        self.a.jne(ring_bad)?;
        self.a.mov(eax, u32::from(b'r'))?;
        self.a.call(say_hello)?;
        self.a.xor(ebx, ebx)?;
        self.a.xor(ebp, ebp)?;
        self.a.lea(eax, dword_ptr(r13 + 1))?;
        self.a.mov(dword_ptr(r12 + STATE as i32), eax)?;

        self.a.set_label(&mut next)?;
        self.a.cmp(rbx, rbp)?;
        self.a.jne(perform)?;
        self.a.xor(r15d, r15d)?;
        self.a.set_label(&mut refill)?;
        self.a.inc(qword_ptr(r12 + HEARTBEAT as i32))?;
        self.a.cmp(dword_ptr(r12 + QUIT as i32), 0)?;
        self.a.jne(leave)?;
        self.a.mov(rbp, qword_ptr(r12 + SUBMITTED as i32))?;
        self.a.cmp(rbp, rbx)?;
        self.a.je(idle)?;
        // The host writes it with a system call, which need not write all eight bytes at once.
        self.a.cmp(rbp, qword_ptr(r12 + SUBMITTED as i32))?;
        self.a.jne(refill)?;
        self.a.mov(rax, rbp)?;
        self.a.sub(rax, rbx)?;
        self.a.cmp(rax, SLOTS as i32)?;
        self.a.ja(leave)?;
        self.a.set_label(&mut perform)?;
        self.a.mov(eax, ebx)?;
        self.a.and(eax, SLOTS as u32 - 1)?;
        self.a.lea(rdi, qword_ptr(r12 + rax * 8 + SLOTS_AT as i32))?;
        self.a.inc(rbx)?;
        self.a.mov(qword_ptr(r12 + STARTED as i32), rbx)?;
        self.a.call(execute)?;
        self.a.mov(qword_ptr(r12 + DONE as i32), rbx)?;
        self.a.jmp(next)?;

        self.a.set_label(&mut idle)?;
        self.a.inc(r15d)?;
        self.a.cmp(r15d, 400)?;
        self.a.jb(spin)?;
        self.a.mov(eax, 100)?;
        self.a.call(sleep)?;
        self.a.set_label(&mut spin)?;
        self.a.pause()?;
        self.a.jmp(refill)
    }

    /// Reads lines. r12 is how many bytes of one are there.
    fn stream(&mut self) -> Done {
        let Labels { mut stream, say_hello, .. } = self.labels;
        let mut plain = self.a.create_label();
        self.a.set_label(&mut stream)?;
        // The hello comes last: from then on nothing is echoed.
        self.a.xor(edi, edi)?;
        self.a.mov(esi, 0x5401)?; // TCGETS
        self.a.mov(edx, TERMIOS_BEFORE as u32)?;
        self.system_call(IOCTL)?;
        self.a.test(eax, eax)?;
        self.a.jnz(plain)?;
        self.a.inc(dword_ptr(IS_TERMINAL))?;
        self.a.mov(esi, TERMIOS_BEFORE as u32)?;
        self.a.mov(edi, TERMIOS_RAW as u32)?;
        self.a.mov(ecx, 64)?;
        self.a.rep().movsb()?;
        self.a.xor(eax, eax)?;
        self.a.mov(dword_ptr(TERMIOS_RAW), eax)?; // input: as it comes
        self.a.mov(dword_ptr(TERMIOS_RAW + 4), eax)?; // output: as it goes
        self.a.mov(dword_ptr(TERMIOS_RAW + 12), eax)?; // no echo, no lines, no signals
        self.a.mov(word_ptr(TERMIOS_RAW + 22), 0x0100)?; // VTIME 0, VMIN 1
        self.a.xor(edi, edi)?;
        self.a.mov(esi, 0x5402)?; // TCSETS
        self.a.mov(edx, TERMIOS_RAW as u32)?;
        self.system_call(IOCTL)?;
        self.a.set_label(&mut plain)?;
        self.a.mov(eax, u32::from(b's'))?;
        self.a.call(say_hello)?;
        self.a.xor(r12d, r12d)
    }

    /// `leave`: gives the terminal back and ends.
    fn leave(&mut self) -> Done {
        let Labels { mut leave, .. } = self.labels;
        let mut last = self.a.create_label();
        self.a.set_label(&mut leave)?;
        self.a.cmp(dword_ptr(IS_TERMINAL), 0)?;
        self.a.je(last)?;
        self.a.xor(edi, edi)?;
        self.a.mov(esi, 0x5403)?; // TCSETSW
        self.a.mov(edx, TERMIOS_BEFORE as u32)?;
        self.system_call(IOCTL)?;
        self.a.set_label(&mut last)?;
        self.a.xor(edi, edi)?;
        self.system_call(EXIT)
    }

    /// `execute`: does what the slot at rdi says; a value read replaces its value.
    fn execute(&mut self) -> Done {
        let Labels { mut execute, sleep, .. } = self.labels;
        let mut label = || self.a.create_label();
        let (mut by_file, mut file_read, mut store, mut end) = (label(), label(), label(), label());
        let mut kinds = [label(), label(), label(), label(), label(), label(), label()];
        let mut delay_again = label();
        self.a.set_label(&mut execute)?;
        self.a.movzx(ecx, byte_ptr(rdi + 2))?;
        self.a.movzx(edx, word_ptr(rdi))?;
        self.a.mov(eax, dword_ptr(rdi + 4))?;
        self.a.cmp(ecx, 8)?;
        self.a.je(sleep)?;
        self.a.test(r13d, r13d)?;
        self.a.jnz(by_file)?;
        for (kind, label) in kinds.iter().enumerate() {
            self.a.cmp(ecx, kind as u32 + 1)?;
            self.a.je(*label)?;
        }
        self.a.ret()?;

        let [in_byte, in_word, in_long, out_byte, out_word, out_long, delay] = &mut kinds;
        self.a.set_label(in_byte)?;
        self.a.in_(al, dx)?;
        self.a.movzx(eax, al)?;
        self.a.jmp(store)?;
        self.a.set_label(in_word)?;
        self.a.in_(ax, dx)?;
        self.a.movzx(eax, ax)?;
        self.a.jmp(store)?;
        self.a.set_label(in_long)?;
        self.a.in_(eax, dx)?;
        self.a.set_label(&mut store)?;
        self.a.mov(dword_ptr(rdi + 4), eax)?;
        self.a.set_label(&mut end)?;
        self.a.ret()?;
        self.a.set_label(out_byte)?;
        self.a.out(dx, al)?;
        self.a.ret()?;
        self.a.set_label(out_word)?;
        self.a.out(dx, ax)?;
        self.a.ret()?;
        self.a.set_label(out_long)?;
        self.a.out(dx, eax)?;
        self.a.ret()?;
        self.a.set_label(delay)?;
        self.a.mov(ecx, eax)?;
        self.a.set_label(&mut delay_again)?;
        self.a.test(ecx, ecx)?;
        self.a.jz(end)?;
        self.a.in_(al, 0x80)?;
        self.a.dec(ecx)?;
        self.a.jmp(delay_again)?;

        // /dev/port moves one byte at a time, so that only bytes are what was asked for.
        self.a.set_label(&mut by_file)?;
        self.a.mov(r8, rdi)?;
        self.a.mov(dword_ptr(BYTE), eax)?;
        self.a.mov(r10d, edx)?;
        self.a.mov(edi, r14d)?;
        self.a.mov(esi, BYTE as u32)?;
        self.a.mov(edx, 1)?;
        self.a.cmp(ecx, 1)?;
        self.a.je(file_read)?;
        let mut restore = self.a.create_label();
        self.a.cmp(ecx, 4)?;
        self.a.jne(restore)?;
        self.system_call(PWRITE)?;
        self.a.set_label(&mut restore)?;
        self.a.mov(rdi, r8)?;
        self.a.ret()?;
        self.a.set_label(&mut file_read)?;
        self.system_call(PREAD)?;
        self.a.mov(rdi, r8)?;
        self.a.movzx(eax, byte_ptr(BYTE))?;
        self.a.jmp(store)
    }

    /// `sleep`: for eax microseconds.
    fn sleep(&mut self) -> Done {
        let Labels { mut sleep, .. } = self.labels;
        self.a.set_label(&mut sleep)?;
        self.a.mov(r8, rdi)?;
        self.a.xor(edx, edx)?;
        self.a.mov(ecx, 1_000_000)?;
        self.a.div(ecx)?;
        self.a.imul_3(edx, edx, 1000)?;
        self.a.mov(qword_ptr(TIME), rax)?;
        self.a.mov(qword_ptr(TIME + 8), rdx)?;
        self.a.mov(edi, TIME as u32)?;
        self.a.xor(esi, esi)?;
        self.system_call(NANOSLEEP)?;
        self.a.mov(rdi, r8)?;
        self.a.ret()
    }

    fn data(&mut self) -> Done {
        let Labels { mut value_symbols, mut read_symbols, mut dev_port, .. } = self.labels;
        self.a.set_label(&mut value_symbols)?;
        self.a.db(&VALUE_SYMBOLS)?;
        self.a.set_label(&mut read_symbols)?;
        self.a.db(&READ_SYMBOLS)?;
        self.a.set_label(&mut dev_port)?;
        self.a.db(b"/dev/port\0")
    }
}
