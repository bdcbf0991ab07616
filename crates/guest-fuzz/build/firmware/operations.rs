//! The operations that are far from the main loop: `edx`, `eax` and the slot at `esi` say what to do.

use iced_x86::code_asm::*;

use super::main_loop::begin;
use super::{CODE, Emitted, Labels, NO_IDT_POINTER};
use crate::layout::*;

/// A piece of an operation.
type Emit = fn(&mut CodeAssembler) -> Emitted;

/// One piece of code for each operation that is not the main loop's, in the order of their numbers.
pub(super) fn other_operations(
    a: &mut CodeAssembler,
    labels: &Labels,
    operations: &mut Vec<CodeLabel>,
) -> Emitted {
    // One that changes neither `esi` nor `edi` ends at `advance`, another at `finish`.
    let (advance, finish) = (labels.advance, labels.finish);
    let mut operation =
        |a: &mut CodeAssembler, end: CodeLabel, body: &dyn Fn(&mut CodeAssembler) -> Emitted| {
            let mut label = a.create_label();
            a.set_label(&mut label)?;
            operations.push(label);
            begin(a)?;
            a.mov(edx, dword_ptr(esi + SLOT_A))?;
            a.mov(eax, dword_ptr(esi + SLOT_B))?;
            body(a)?;
            a.jmp(end)
        };
    let value = SLOT_B;

    let string_in: [Emit; 3] = [|a| a.rep().insb(), |a| a.rep().insw(), |a| a.rep().insd()];
    for instruction in string_in {
        operation(a, finish, &|a| {
            a.mov(edi, eax)?;
            a.mov(ecx, dword_ptr(esi + SLOT_C))?;
            instruction(a)
        })?;
    }
    let string_out: [Emit; 3] = [|a| a.rep().outsb(), |a| a.rep().outsw(), |a| a.rep().outsd()];
    for instruction in string_out {
        operation(a, finish, &|a| {
            a.mov(ecx, dword_ptr(esi + SLOT_C))?;
            a.mov(esi, eax)?;
            instruction(a)
        })?;
    }

    operation(a, advance, &|a| {
        a.mov(al, byte_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        a.mov(ax, word_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        a.mov(eax, dword_ptr(edx))?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        a.movq(mm0, qword_ptr(edx))?;
        a.movq(qword_ptr(esi + value), mm0)
    })?;
    operation(a, advance, &|a| a.mov(byte_ptr(edx), al))?;
    operation(a, advance, &|a| a.mov(word_ptr(edx), ax))?;
    operation(a, advance, &|a| a.mov(dword_ptr(edx), eax))?;
    operation(a, advance, &|a| {
        a.movq(mm0, qword_ptr(esi + value))?;
        a.movq(qword_ptr(edx), mm0)
    })?;

    operation(a, finish, &|a| {
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
    operation(a, finish, &fill)?;

    let pci = |a: &mut CodeAssembler| {
        a.mov(ecx, eax)?;
        a.mov(eax, edx)?;
        a.mov(edx, 0xcf8)?;
        a.out(dx, eax)?;
        a.movzx(edx, byte_ptr(esi + SLOT_SMALL))?;
        a.add(edx, 0xcfc)?;
        a.mov(eax, ecx)
    };
    operation(a, advance, &|a| {
        pci(a)?;
        a.in_(al, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        pci(a)?;
        a.in_(ax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        pci(a)?;
        a.in_(eax, dx)?;
        a.mov(dword_ptr(esi + value), eax)
    })?;
    operation(a, advance, &|a| {
        pci(a)?;
        a.out(dx, al)
    })?;
    operation(a, advance, &|a| {
        pci(a)?;
        a.out(dx, ax)
    })?;
    operation(a, advance, &|a| {
        pci(a)?;
        a.out(dx, eax)
    })?;

    operation(a, advance, &|a| {
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
    operation(a, finish, &|a| {
        a.lidt(ptr(CODE + NO_IDT_POINTER as u32))?;
        a.int3()
    })
}

/// Eight bytes at a time, then the rest of them one by one, from the slot.
fn fill(a: &mut CodeAssembler) -> Emitted {
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
