//! The main loop, and the operations that are close to it: a processor's port instructions.
//!
//! `ebx` is the queue's counters, `ebp` the number of instructions begun, `esi` the slot, `ecx` its first word, and `edi` the
//! last byte of the slots that are known to be filled. `eax` and `edx` are an operation's own.
//!
//! A translated program pays for branches, for memory accesses and most of all for jumps through a register. So these
//! operations are found by comparing, the likeliest first, and go on to the next one by themselves. That an instruction
//! begins is written before it does anything. That it has ended is what the beginning of the next one says; it is
//! written where there is no next one, and behind operations that are far from the loop.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::{CODE, Emitted, Labels, TABLE};
use crate::layout::*;

/// The operation behind the last one.
pub(super) const END: usize = 0xff;

/// A port instruction, of `edx` and `eax`.
struct Port {
    operation: Operation,
    /// The rank of its width.
    rank: u8,
    instruction: fn(&mut CodeAssembler) -> Emitted,
    label: CodeLabel,
}

impl Port {
    /// In the order of their numbers.
    fn all(a: &mut CodeAssembler) -> [Self; 6] {
        let mut port =
            |operation, rank, instruction| Self { operation, rank, instruction, label: a.create_label() };
        [
            port(Operation::In, 0, |a| a.in_(al, dx)),
            port(Operation::In, 1, |a| a.in_(ax, dx)),
            port(Operation::In, 2, |a| a.in_(eax, dx)),
            port(Operation::Out, 0, |a| a.out(dx, al)),
            port(Operation::Out, 1, |a| a.out(dx, ax)),
            port(Operation::Out, 2, |a| a.out(dx, eax)),
        ]
    }

    /// Goes to it where the slot is one of it.
    fn compare(&self, a: &mut CodeAssembler) -> Emitted {
        a.cmp(cl, u32::from(self.operation as u8 + self.rank))?;
        a.je(self.label)
    }

    fn execute(&self, a: &mut CodeAssembler) -> Emitted {
        // The port, without the flags that a shift leaves to be stored.
        a.mov(edx, ecx)?;
        a.bswap(edx)?;
        match (self.operation, self.rank) {
            (Operation::Out, 0) => a.mov(al, ch)?,
            (Operation::Out, _) => a.mov(eax, dword_ptr(esi + SLOT_B))?,
            _ => {}
        }
        (self.instruction)(a)?;
        if self.operation == Operation::In {
            a.mov(dword_ptr(esi + SLOT_B), eax)?;
        }
        Ok(())
    }
}

/// Returns where each of the operations begins that are here, in the order of their numbers.
pub(super) fn main_loop(a: &mut CodeAssembler, labels: &mut Labels) -> Result<Vec<CodeLabel>, IcedError> {
    let ports = Port::all(a);
    let [in_byte, .., out_byte, _, _] = &ports;
    let choose = |a: &mut CodeAssembler| {
        out_byte.compare(a)?;
        in_byte.compare(a)?;
        a.movzx(eax, cl)?;
        a.jmp(dword_ptr(eax * 4 + (CODE + TABLE as u32)))
    };

    next(a, labels)?;
    choose(a)?;
    // A slot that says so is not the end: something wrote over it.
    let mut nothing = a.create_label();
    a.set_label(&mut labels.end)?;
    a.cmp(edi, esi)?;
    a.jb(labels.finish)?;
    a.set_label(&mut nothing)?;
    begin(a)?;
    a.set_label(&mut labels.advance)?;
    advance(a)?;
    choose(a)?;
    let mut operations = vec![nothing];
    for port in &ports {
        let mut label = port.label;
        a.set_label(&mut label)?;
        operations.push(label);
        begin(a)?;
        port.execute(a)?;
        advance(a)?;
        choose(a)?;
    }

    a.set_label(&mut labels.ignore)?;
    a.iretd()?;
    Ok(operations)
}

/// What is to be done next, as the counters have it.
fn next(a: &mut CodeAssembler, labels: &mut Labels) -> Emitted {
    let mut idle = a.create_label();
    let mut spin = a.create_label();
    let mut known = a.create_label();

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
    a.mov(ecx, dword_ptr(ebx + PRODUCED))?;
    a.sub(ecx, ebp)?;
    a.je(idle)?;
    // As many as were produced, up to the end of the queue's memory.
    a.mov(edi, dword_ptr(ebx + MASK))?;
    a.mov(esi, ebp)?;
    a.and(esi, edi)?;
    a.sub(edi, esi)?;
    a.inc(edi)?;
    a.cmp(edi, ecx)?;
    a.jbe(known)?;
    a.mov(edi, ecx)?;
    a.set_label(&mut known)?;
    a.shl(esi, SLOT_SHIFT)?;
    a.add(esi, dword_ptr(ebx + BASE))?;
    a.shl(edi, SLOT_SHIFT)?;
    a.lea(edi, dword_ptr(esi + edi - 1))?;
    a.mov(ecx, dword_ptr(esi))
}

/// From slot to slot: where there is no more of them, there is an [`END`].
fn advance(a: &mut CodeAssembler) -> Emitted {
    a.lea(esi, dword_ptr(esi + (1 << SLOT_SHIFT)))?;
    a.mov(ecx, dword_ptr(esi))?;
    // All ones there. A branch would cost more, and a 486 has no conditional move.
    a.cmp(edi, esi)?;
    a.sbb(eax, eax)?;
    a.or(ecx, eax)
}

/// An instruction begins: before it does anything, the counter says so.
pub(super) fn begin(a: &mut CodeAssembler) -> Emitted {
    // Unlike `inc`, it leaves no flags to be computed.
    a.lea(ebp, dword_ptr(ebp + 1))?;
    a.mov(dword_ptr(ebx + STARTED), ebp)
}
