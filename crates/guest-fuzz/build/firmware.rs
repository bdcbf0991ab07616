//! The micro guest: a program that QEMU runs as its firmware, and that does what it finds in a queue in memory.
//!
//! At reset the processor is in 16-bit mode, at the end of the ROM. It enters 32-bit mode, copies the ROM to RAM and goes
//! on there, as devices may cover the ROM's copy below 1 MiB. Interrupts stay off. If the machine was reset by an
//! instruction, that one has ended: the guest runs the prologue again, which puts PCI devices back to where they were, and
//! goes on with the next instruction.
//!
//! An emulator translates what it executes: whatever writes where code is throws translations away. So a reset does not
//! copy what is there already, and all code is in one page, which is what lets a translated jump go straight on.

mod main_loop;
mod operations;

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use self::main_loop::{END, main_loop};
use self::operations::other_operations;

use crate::layout::*;

/// Where the ROM is when the processor starts.
const ROM: u32 = 0u32.wrapping_sub(ROM_BYTES as u32);
/// In the ROM, where 16-bit code begins.
const ENTRY_16: usize = 0xfe00;
/// In the ROM, the descriptors of a flat code and a flat data segment. Before it is code.
const GDT: usize = 0xa00;
/// In the ROM, size and address of the above, for 16-bit code: the ROM's own.
const GDT_POINTER: usize = 0xa20;
/// In the ROM, the same for later: the copy's.
const GDT_COPY_POINTER: usize = 0xa28;
/// In the ROM, size and address of the interrupt descriptor table.
const IDT_POINTER: usize = 0xa30;
/// In the ROM, a table of no interrupts: with it, an interrupt is a reset.
const NO_IDT_POINTER: usize = 0xa38;
/// In the ROM, where the code is that is gone to through a register: 32-bit code has no address relative to itself.
const IN_RAM: usize = 0xa40;
/// In the ROM, the interrupt descriptor table.
const IDT: usize = 0xb00;
/// How many interrupts it has: the exceptions. Another one is an exception itself.
const GATES: usize = 32;
/// The exception that is none of an instruction: an interrupt that cannot be switched off.
const NMI: usize = 2;
/// In the ROM, where each operation's code is.
const TABLE: usize = 0xc00;

/// What becomes of code that is emitted.
type Emitted = Result<(), IcedError>;

const CODE_SEGMENT: u16 = 8;
const DATA_SEGMENT: u16 = 16;

/// The ROM.
pub(crate) fn image() -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let Program { code, entry, table, end, in_ram, ignore, fault } = assemble()?;
    let mut rom = vec![0; ROM_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let place = rom.get_mut(at..at + bytes.len()).filter(|place| place.iter().all(|&byte| byte == 0));
        place.map(|place| place.copy_from_slice(bytes)).ok_or_else(|| format!("no room at {at:#x}"))
    };
    put(0, &code)?;
    for index in 0..=END {
        let handler = if index == END { Some(&end) } else { table.get(index).or(table.first()) };
        let handler = handler.ok_or("no operations")?;
        put(TABLE + index * 4, &handler.to_le_bytes())?;
    }
    // Base 0, limit 4 GiB; code that can be read, data that can be written.
    put(GDT + 8, &0x00cf_9b00_0000_ffffu64.to_le_bytes())?;
    put(GDT + 16, &0x00cf_9300_0000_ffffu64.to_le_bytes())?;
    put(GDT_POINTER, &pointer(23, ROM + GDT as u32))?;
    put(GDT_COPY_POINTER, &pointer(23, CODE + GDT as u32))?;
    put(IDT_POINTER, &pointer((GATES * 8 - 1) as u16, CODE + IDT as u32))?;
    put(NO_IDT_POINTER, &pointer(0, 0))?;
    put(IN_RAM, &in_ram.to_le_bytes())?;
    for exception in 0..GATES {
        let handler = if exception == NMI { ignore } else { fault };
        put(IDT + exception * 8, &gate(handler))?;
    }
    put(ENTRY_16, &entry_16(ROM + (entry - CODE)))?;
    // The reset vector: a near jump.
    let distance = (ENTRY_16 as u16).wrapping_sub(0xfff3).to_le_bytes();
    put(0xfff0, &[&[0xe9], &distance[..]].concat())?;
    Ok(rom)
}

/// What `lgdt` and `lidt` read.
fn pointer(limit: u16, base: u32) -> Vec<u8> {
    [&limit.to_le_bytes()[..], &base.to_le_bytes()].concat()
}

/// Of the interrupt table, the entry of an interrupt that `handler` is for.
fn gate(handler: u32) -> [u8; 8] {
    let low = handler & 0xffff | u32::from(CODE_SEGMENT) << 16;
    let high = handler & 0xffff_0000 | 0x8e00;
    (u64::from(high) << 32 | u64::from(low)).to_le_bytes()
}

/// 16-bit code that goes to `entry` in 32-bit mode. The code segment is where the processor put it, above all else.
fn entry_16(entry: u32) -> Vec<u8> {
    let pointer = (GDT_POINTER as u16).to_le_bytes();
    let mut code = vec![0xfa]; // cli
    code.extend([0x66, 0x2e, 0x0f, 0x01, 0x16, pointer[0], pointer[1]]); // lgdt cs:[GDT_POINTER]
    code.extend([0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.extend([0x0c, 0x01]); // or al, 1
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.extend([0x66, 0xea]); // jmp CODE_SEGMENT:entry
    code.extend(entry.to_le_bytes());
    code.extend(CODE_SEGMENT.to_le_bytes());
    code
}

/// The 32-bit program.
struct Program {
    code: Vec<u8>,
    /// The address of its first instruction.
    entry: u32,
    /// Those of the operations.
    table: Vec<u32>,
    /// That of the end of the slots.
    end: u32,
    in_ram: u32,
    ignore: u32,
    fault: u32,
}

fn assemble() -> Result<Program, Box<dyn std::error::Error>> {
    let mut a = CodeAssembler::new(32)?;
    let mut labels = Labels::new(&mut a);

    let mut entry = a.create_label();
    a.set_label(&mut entry)?;
    enter_ram(&mut a, &mut labels)?;
    boot(&mut a, &labels)?;
    let mut operations = main_loop(&mut a, &mut labels)?;
    other_operations(&mut a, &labels, &mut operations)?;

    let assembled =
        a.assemble_options(u64::from(CODE), iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
    let address = |label: &CodeLabel| assembled.label_ip(label).map(|address| address as u32);
    let table = operations.iter().map(address).collect::<Result<Vec<_>, _>>()?;
    if table.len() != usize::from(OPERATIONS) {
        return Err(format!("{} operations, not {OPERATIONS}", table.len()).into());
    }
    Ok(Program {
        table,
        entry: address(&entry)?,
        end: address(&labels.end)?,
        in_ram: address(&labels.in_ram)?,
        ignore: address(&labels.ignore)?,
        fault: address(&labels.fault)?,
        code: assembled.inner.code_buffer,
    })
}

struct Labels {
    in_ram: CodeLabel,
    /// An interrupt that is ignored.
    ignore: CodeLabel,
    /// An exception, which ends the instruction that caused it.
    fault: CodeLabel,
    /// The start of the main loop.
    next: CodeLabel,
    /// The end of the slots that are known of.
    end: CodeLabel,
    /// The end of an operation that left `esi` and `edi` as they were.
    advance: CodeLabel,
    /// The end of any operation.
    finish: CodeLabel,
}

impl Labels {
    fn new(a: &mut CodeAssembler) -> Self {
        let mut label = || a.create_label();
        Self {
            in_ram: label(),
            ignore: label(),
            fault: label(),
            next: label(),
            end: label(),
            advance: label(),
            finish: label(),
        }
    }
}

/// Copies the ROM's program to RAM, unless it is there, and goes on there. Runs in the ROM: nothing is relative.
fn enter_ram(a: &mut CodeAssembler, labels: &mut Labels) -> Emitted {
    let mut is_there = a.create_label();
    let program = |a: &mut CodeAssembler| {
        a.mov(esi, ROM)?;
        a.mov(edi, CODE)?;
        a.mov(ecx, PROGRAM_BYTES as u32 / 4)
    };
    a.mov(eax, u32::from(DATA_SEGMENT))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(ss, eax)?;
    a.mov(esp, STACK)?;
    a.cld()?;
    program(a)?;
    a.repe().cmpsd()?;
    a.je(is_there)?;
    program(a)?;
    a.rep().movsd()?;
    a.set_label(&mut is_there)?;
    a.mov(edx, dword_ptr(CODE + IN_RAM as u32))?;
    a.jmp(edx)?;
    a.set_label(&mut labels.in_ram)?;
    a.lgdt(ptr(CODE + GDT_COPY_POINTER as u32))?;
    a.lidt(ptr(CODE + IDT_POINTER as u32))
}

/// System management, counters; then on with the prologue.
fn boot(a: &mut CodeAssembler, labels: &Labels) -> Emitted {
    // A system management interrupt is left at once: rsm.
    a.mov(word_ptr(SMM_ENTRY), 0xaa0f)?;

    // Where this boot finds the queue, in the log. What was begun has ended.
    a.mov(eax, dword_ptr(QUEUE + STARTED))?;
    a.mov(dword_ptr(QUEUE + DONE), eax)?;
    a.mov(ecx, dword_ptr(BOOTS))?;
    a.mov(edx, ecx)?;
    a.and(edx, BOOT_LOG_ENTRIES - 1)?;
    a.mov(dword_ptr(edx * 4 + BOOT_LOG), eax)?;
    a.inc(ecx)?;
    a.mov(dword_ptr(BOOTS), ecx)?;

    a.mov(dword_ptr(QUEUE + BASE), SLOTS_AT)?;
    a.mov(dword_ptr(QUEUE + MASK), SLOTS - 1)?;
    a.mov(dword_ptr(PROLOGUE + BASE), PROLOGUE_SLOTS_AT)?;
    a.mov(dword_ptr(PROLOGUE + MASK), PROLOGUE_SLOTS - 1)?;
    a.mov(dword_ptr(PROLOGUE + STARTED), 0)?;
    a.mov(dword_ptr(PROLOGUE + DONE), 0)?;
    a.mov(ebx, PROLOGUE)?;
    a.xor(ebp, ebp)?;
    a.jmp(labels.next)
}
