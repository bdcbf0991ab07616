//! The micro guest: a program that QEMU runs as its firmware, and that does what it finds in a queue in memory.
//!
//! At reset the processor is in 16-bit mode, at the end of the ROM. It enters 32-bit mode, copies the ROM to RAM and goes
//! on there, as devices may cover the ROM's copy below 1 MiB. Interrupts stay off. If the machine was reset by an
//! instruction, that one has ended: the guest runs the prologue again, which puts PCI devices back to where they were, and
//! goes on with the next instruction.
//!
//! In the main loop, `ebx` is the queue's counters, `ebp` the number of instructions begun, `esi` the slot, `edx`, `eax`
//! and `ecx` its contents. All registers but `ebx`, `ebp` and `esp` are an operation's own.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::layout::*;

/// Where the ROM is when the processor starts.
const ROM: u32 = 0u32.wrapping_sub(ROM_BYTES as u32);
/// In the ROM, where 16-bit code begins.
const ENTRY_16: usize = 0xfe00;
/// In the ROM, the descriptors of a flat code and a flat data segment.
const GDT: usize = 0xfd00;
/// In the ROM, size and address of the above, for 16-bit code: the ROM's own.
const GDT_POINTER: usize = 0xfd20;
/// In the ROM, the same for later: the copy's.
const GDT_COPY_POINTER: usize = 0xfd28;
/// In the ROM, size and address of the interrupt descriptor table.
const IDT_POINTER: usize = 0xfd30;
/// In the ROM, a table of no interrupts: with it, an interrupt is a reset.
const NO_IDT_POINTER: usize = 0xfd38;
/// In the ROM, where each operation's code is.
const TABLE: usize = 0xf000;
/// In the ROM, where the code is that is gone to through a register: 32-bit code has no address relative to itself.
const IN_RAM: usize = 0xfd40;
/// The same: of an interrupt.
const IGNORE: usize = 0xfd44;
/// The same: of an exception.
const FAULT: usize = 0xfd48;

/// A piece of an operation.
type Emit = fn(&mut CodeAssembler) -> Result<(), IcedError>;

const CODE_SEGMENT: u16 = 8;
const DATA_SEGMENT: u16 = 16;

/// The ROM.
pub(crate) fn image() -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let Program { code, entry, table, in_ram, ignore, fault } = assemble()?;
    let mut rom = vec![0; ROM_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        let place = rom.get_mut(at..at + bytes.len()).filter(|place| place.iter().all(|&byte| byte == 0));
        place.map(|place| place.copy_from_slice(bytes)).ok_or_else(|| format!("no room at {at:#x}"))
    };
    put(0, &code)?;
    for index in 0..256 {
        let handler = table.get(index).or(table.first()).ok_or("no operations")?;
        put(TABLE + index * 4, &handler.to_le_bytes())?;
    }
    // Base 0, limit 4 GiB; code that can be read, data that can be written.
    put(GDT + 8, &0x00cf_9b00_0000_ffffu64.to_le_bytes())?;
    put(GDT + 16, &0x00cf_9300_0000_ffffu64.to_le_bytes())?;
    put(GDT_POINTER, &pointer(23, ROM + GDT as u32))?;
    put(GDT_COPY_POINTER, &pointer(23, CODE + GDT as u32))?;
    put(IDT_POINTER, &pointer(256 * 8 - 1, IDT))?;
    put(NO_IDT_POINTER, &pointer(0, 0))?;
    for (at, address) in [(IN_RAM, in_ram), (IGNORE, ignore), (FAULT, fault)] {
        put(at, &address.to_le_bytes())?;
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
    in_ram: u32,
    ignore: u32,
    fault: u32,
}

fn assemble() -> Result<Program, Box<dyn std::error::Error>> {
    let mut a = CodeAssembler::new(32)?;
    let mut labels = Labels::new(&mut a);
    let mut operations = Vec::new();

    let mut entry = a.create_label();
    a.set_label(&mut entry)?;
    enter_ram(&mut a, &mut labels)?;
    boot(&mut a, &labels)?;
    main_loop(&mut a, &mut labels)?;
    emit_operations(&mut a, &labels, &mut operations)?;

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
        in_ram: address(&labels.in_ram)?,
        ignore: address(&labels.ignore)?,
        fault: address(&labels.fault)?,
        code: assembled.inner.code_buffer,
    })
}

struct Labels {
    in_ram: CodeLabel,
    ignore: CodeLabel,
    fault: CodeLabel,
    next: CodeLabel,
    finish: CodeLabel,
}

impl Labels {
    fn new(a: &mut CodeAssembler) -> Self {
        let mut label = || a.create_label();
        Self { in_ram: label(), ignore: label(), fault: label(), next: label(), finish: label() }
    }
}

/// Copies the ROM to RAM and goes on there. Runs in the ROM: nothing is relative.
fn enter_ram(a: &mut CodeAssembler, labels: &mut Labels) -> Result<(), IcedError> {
    a.mov(eax, u32::from(DATA_SEGMENT))?;
    a.mov(ds, eax)?;
    a.mov(es, eax)?;
    a.mov(ss, eax)?;
    a.mov(esp, STACK)?;
    a.cld()?;
    a.mov(esi, ROM)?;
    a.mov(edi, CODE)?;
    a.mov(ecx, ROM_BYTES as u32 / 4)?;
    a.rep().movsd()?;
    a.mov(eax, CODE)?;
    a.mov(edx, dword_ptr(CODE + IN_RAM as u32))?;
    a.jmp(edx)?;
    a.set_label(&mut labels.in_ram)?;
    a.lgdt(ptr(CODE + GDT_COPY_POINTER as u32))
}

/// Interrupt table, system management, counters; then on with the prologue.
fn boot(a: &mut CodeAssembler, labels: &Labels) -> Result<(), IcedError> {
    let mut gates = a.create_label();
    let mut is_fault = a.create_label();
    let mut set = a.create_label();

    // Exceptions are faults of an instruction, and end it. All else, such as an NMI, is ignored.
    a.mov(edi, IDT)?;
    a.xor(ecx, ecx)?;
    a.set_label(&mut gates)?;
    a.mov(eax, dword_ptr(CODE + IGNORE as u32))?;
    a.cmp(ecx, 2)?;
    a.je(set)?;
    a.cmp(ecx, 32)?;
    a.jb(is_fault)?;
    a.jmp(set)?;
    a.set_label(&mut is_fault)?;
    a.mov(eax, dword_ptr(CODE + FAULT as u32))?;
    a.set_label(&mut set)?;
    a.mov(edx, eax)?;
    a.and(eax, 0xffff)?;
    a.or(eax, u32::from(CODE_SEGMENT) << 16)?;
    a.and(edx, 0xffff_0000u32)?;
    a.or(edx, 0x8e00)?;
    a.mov(dword_ptr(edi), eax)?;
    a.mov(dword_ptr(edi + 4), edx)?;
    a.add(edi, 8)?;
    a.inc(ecx)?;
    a.cmp(ecx, 256)?;
    a.jb(gates)?;
    a.lidt(ptr(CODE + IDT_POINTER as u32))?;

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

fn main_loop(a: &mut CodeAssembler, labels: &mut Labels) -> Result<(), IcedError> {
    let mut idle = a.create_label();
    let mut spin = a.create_label();

    // Nothing to do: the prologue's end, or the host's turn.
    a.set_label(&mut idle)?;
    a.cmp(ebx, PROLOGUE)?;
    a.jne(spin)?;
    a.mov(ebx, QUEUE)?;
    a.mov(ebp, dword_ptr(QUEUE + STARTED))?;
    a.mov(eax, dword_ptr(BOOTS))?;
    a.mov(dword_ptr(READY), eax)?;
    a.jmp(labels.next)?;
    a.set_label(&mut spin)?;
    a.mov(eax, dword_ptr(PING))?;
    a.mov(dword_ptr(PONG), eax)?;
    a.pause()?;
    a.jmp(labels.next)?;

    a.set_label(&mut labels.fault)?;
    a.mov(esp, STACK)?;
    a.inc(dword_ptr(FAULTS))?;
    a.set_label(&mut labels.finish)?;
    a.mov(dword_ptr(ebx + DONE), ebp)?;
    a.set_label(&mut labels.next)?;
    a.cmp(ebp, dword_ptr(ebx + PRODUCED))?;
    a.je(idle)?;
    a.mov(esi, ebp)?;
    a.and(esi, dword_ptr(ebx + MASK))?;
    a.shl(esi, SLOT_SHIFT)?;
    a.add(esi, dword_ptr(ebx + BASE))?;
    a.inc(ebp)?;
    a.mov(dword_ptr(ebx + STARTED), ebp)?;
    a.movzx(ecx, byte_ptr(esi))?;
    a.mov(edx, dword_ptr(esi + SLOT_A))?;
    a.mov(eax, dword_ptr(esi + SLOT_B))?;
    a.jmp(dword_ptr(ecx * 4 + (CODE + TABLE as u32)))?;

    a.set_label(&mut labels.ignore)?;
    a.iretd()
}

/// One piece of code for each operation, in the order of their numbers.
fn emit_operations(
    a: &mut CodeAssembler,
    labels: &Labels,
    operations: &mut Vec<CodeLabel>,
) -> Result<(), IcedError> {
    let finish = labels.finish;
    let mut operation = |a: &mut CodeAssembler,
                         body: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let mut label = a.create_label();
        a.set_label(&mut label)?;
        operations.push(label);
        body(a)?;
        a.jmp(finish)
    };
    let value = SLOT_B;

    operation(a, &|_| Ok(()))?;

    operation(a, &|a| {
        a.in_(al, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        a.in_(ax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        a.in_(eax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| a.out(dx, al))?;
    operation(a, &|a| a.out(dx, ax))?;
    operation(a, &|a| a.out(dx, eax))?;

    let string_in: [Emit; 3] = [|a| a.rep().insb(), |a| a.rep().insw(), |a| a.rep().insd()];
    for instruction in string_in {
        operation(a, &|a| {
            a.mov(edi, eax)?;
            a.mov(ecx, dword_ptr(esi + SLOT_C))?;
            instruction(a)
        })?;
    }
    let string_out: [Emit; 3] = [|a| a.rep().outsb(), |a| a.rep().outsw(), |a| a.rep().outsd()];
    for instruction in string_out {
        operation(a, &|a| {
            a.mov(ecx, dword_ptr(esi + SLOT_C))?;
            a.mov(esi, eax)?;
            instruction(a)
        })?;
    }

    operation(a, &|a| {
        a.mov(al, byte_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        a.mov(ax, word_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        a.mov(eax, dword_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        a.movq(mm0, qword_ptr(edx))?;
        a.movq(qword_ptr(esi + value), mm0)
    })?;
    operation(a, &|a| a.mov(byte_ptr(edx), al))?;
    operation(a, &|a| a.mov(word_ptr(edx), ax))?;
    operation(a, &|a| a.mov(dword_ptr(edx), eax))?;
    operation(a, &|a| {
        a.movq(mm0, qword_ptr(esi + value))?;
        a.movq(qword_ptr(edx), mm0)
    })?;

    operation(a, &|a| {
        a.mov(edi, edx)?;
        a.mov(edx, dword_ptr(esi + SLOT_C))?;
        a.mov(esi, eax)?;
        a.mov(ecx, edx)?;
        a.shr(ecx, 2)?;
        a.rep().movsd()?;
        a.mov(ecx, edx)?;
        a.and(ecx, 3)?;
        a.rep().movsb()
    })?;
    operation(a, &fill)?;

    let pci = |a: &mut CodeAssembler| {
        a.mov(ecx, eax)?;
        a.mov(eax, edx)?;
        a.mov(edx, 0xcf8)?;
        a.out(dx, eax)?;
        a.movzx(edx, byte_ptr(esi + SLOT_SMALL))?;
        a.add(edx, 0xcfc)?;
        a.mov(eax, ecx)
    };
    operation(a, &|a| {
        pci(a)?;
        a.in_(al, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        pci(a)?;
        a.in_(ax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        pci(a)?;
        a.in_(eax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, &|a| {
        pci(a)?;
        a.out(dx, al)
    })?;
    operation(a, &|a| {
        pci(a)?;
        a.out(dx, ax)
    })?;
    operation(a, &|a| {
        pci(a)?;
        a.out(dx, eax)
    })?;

    operation(a, &|a| {
        let mut again = a.create_label();
        let mut end = a.create_label();
        a.mov(ecx, eax)?;
        a.set_label(&mut again)?;
        a.sub(ecx, 1)?;
        a.jb(end)?;
        a.in_(al, 0x80)?;
        a.jmp(again)?;
        a.set_label(&mut end)?;
        a.nop()
    })?;
    operation(a, &|a| {
        a.lidt(ptr(CODE + NO_IDT_POINTER as u32))?;
        a.int3()
    })
}

/// Eight bytes at a time, then the rest of them one by one, from the slot.
fn fill(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut again = a.create_label();
    let mut rest = a.create_label();
    a.mov(edi, edx)?;
    a.mov(ecx, dword_ptr(esi))?;
    a.shr(ecx, 8)?;
    a.mov(edx, dword_ptr(esi + SLOT_C))?;
    a.set_label(&mut again)?;
    a.cmp(ecx, 8)?;
    a.jb(rest)?;
    a.mov(dword_ptr(edi), eax)?;
    a.mov(dword_ptr(edi + 4), edx)?;
    a.add(edi, 8)?;
    a.sub(ecx, 8)?;
    a.jmp(again)?;
    a.set_label(&mut rest)?;
    a.add(esi, SLOT_B)?;
    a.rep().movsb()
}
