//! One line of symbols: its check, its operations, its answer.

use iced_x86::code_asm::*;

use super::{
    ANSWER, ANSWER_LENGTH, BYTE, Done, Helper, INPUT, INPUT_SIZE, Labels, READ, SEQUENCE, SLOT, WRITE,
};

impl Helper {
    /// One line: rbx is the next symbol, rbp the end of the operations, r15 where the next value goes.
    pub(super) fn line(&mut self) -> Done {
        let Labels { leave, number, check, write_answer, execute, value_symbols, read_symbols, .. } =
            self.labels;
        let mut label = || self.a.create_label();
        let (mut more, mut scan, mut complete, mut bad, mut compare) =
            (label(), label(), label(), label(), label());
        let (mut operation, mut same_port, mut next_port, mut valued, mut emit) =
            (label(), label(), label(), label(), label());
        let mut finish = label();
        self.a.set_label(&mut more)?;
        self.a.mov(edx, INPUT_SIZE as u32)?;
        self.a.sub(edx, r12d)?;
        self.a.jz(bad)?;
        self.a.xor(edi, edi)?;
        self.a.lea(rsi, qword_ptr(r12 + INPUT as i32))?;
        self.a.mov(rbx, rsi)?;
        self.system_call(READ)?;
        self.a.test(eax, eax)?;
        self.a.jle(leave)?;
        self.a.add(r12d, eax)?;
        self.a.lea(rcx, qword_ptr(r12 + INPUT as i32))?;
        self.a.set_label(&mut scan)?;
        self.a.cmp(rbx, rcx)?;
        self.a.jae(more)?;
        self.a.mov(al, byte_ptr(rbx))?;
        self.a.cmp(al, 3)?;
        self.a.je(leave)?;
        self.a.cmp(al, i32::from(b'\n'))?;
        self.a.je(complete)?;
        self.a.inc(rbx)?;
        self.a.jmp(scan)?;

        self.a.set_label(&mut bad)?;
        self.a.xor(r12d, r12d)?;
        self.a.mov(dword_ptr(BYTE), u32::from(u16::from_le_bytes(*b"-\n")))?;
        self.a.mov(edi, 1)?;
        self.a.mov(esi, BYTE as u32)?;
        self.a.mov(edx, 2)?;
        self.system_call(WRITE)?;
        self.a.jmp(more)?;

        self.a.set_label(&mut complete)?;
        self.a.lea(rbp, qword_ptr(rbx - 3))?;
        self.a.cmp(byte_ptr(INPUT), i32::from(b'#'))?;
        self.a.jne(bad)?;
        self.a.mov(ebx, (INPUT + 1) as u32)?;
        self.a.cmp(rbp, rbx)?;
        self.a.jbe(bad)?;
        self.a.mov(rsi, rbx)?;
        self.a.mov(rdi, rbp)?;
        self.a.call(check)?;
        self.a.xor(edx, edx)?;
        self.a.set_label(&mut compare)?;
        self.a.mov(ecx, eax)?;
        self.a.shr(ecx, 26)?;
        self.a.add(ecx, 0x30)?;
        self.a.cmp(cl, byte_ptr(rbp + rdx))?;
        self.a.jne(bad)?;
        self.a.shl(eax, 6)?;
        self.a.inc(edx)?;
        self.a.cmp(edx, 3)?;
        self.a.jb(compare)?;
        self.a.xor(r12d, r12d)?;
        self.a.movzx(eax, byte_ptr(rbx))?;
        self.a.cmp(eax, dword_ptr(SEQUENCE))?;
        self.a.je(write_answer)?;
        self.a.mov(dword_ptr(SEQUENCE), eax)?;
        self.a.inc(rbx)?;
        self.a.mov(r15d, (ANSWER + 2) as u32)?;
        self.a.mov(byte_ptr(ANSWER), u32::from(b'+'))?;
        self.a.mov(byte_ptr(ANSWER + 1), al)?;
        self.a.mov(dword_ptr(SLOT), 0xffff)?;

        self.a.set_label(&mut operation)?;
        self.a.cmp(rbx, rbp)?;
        self.a.jae(finish)?;
        self.a.movzx(ecx, byte_ptr(rbx))?;
        self.a.inc(rbx)?;
        self.a.sub(ecx, 0x30)?;
        self.a.mov(edx, ecx)?;
        self.a.shr(edx, 4)?;
        self.a.and(ecx, 15)?;
        self.a.cmp(edx, 1)?;
        self.a.jb(same_port)?;
        self.a.je(next_port)?;
        self.a.mov(r9d, 3)?;
        self.a.call(number)?;
        self.a.mov(word_ptr(SLOT), ax)?;
        self.a.jmp(same_port)?;
        self.a.set_label(&mut next_port)?;
        self.a.inc(word_ptr(SLOT))?;
        self.a.set_label(&mut same_port)?;
        self.a.lea(rax, ptr(value_symbols))?;
        self.a.movzx(r9d, byte_ptr(rax + rcx))?;
        self.a.call(number)?;
        // Kinds 9, 10 and 11 are 4, 5 and 6 with the value 0.
        self.a.cmp(ecx, 9)?;
        self.a.jb(valued)?;
        self.a.sub(ecx, 5)?;
        self.a.set_label(&mut valued)?;
        self.a.mov(byte_ptr(SLOT + 2), cl)?;
        self.a.mov(dword_ptr(SLOT + 4), eax)?;
        self.a.mov(edi, SLOT as u32)?;
        self.a.call(execute)?;
        self.a.movzx(ecx, byte_ptr(SLOT + 2))?;
        self.a.lea(rax, ptr(read_symbols))?;
        self.a.movzx(r9d, byte_ptr(rax + rcx))?;
        self.a.test(r9d, r9d)?;
        self.a.jz(operation)?;
        self.a.mov(eax, dword_ptr(SLOT + 4))?;
        self.a.add(r15, r9)?;
        self.a.mov(rdx, r15)?;
        self.a.set_label(&mut emit)?;
        self.a.dec(rdx)?;
        self.a.mov(r8d, eax)?;
        self.a.and(r8d, 63)?;
        self.a.add(r8d, 0x30)?;
        self.a.mov(byte_ptr(rdx), r8b)?;
        self.a.shr(eax, 6)?;
        self.a.dec(r9d)?;
        self.a.jnz(emit)?;
        self.a.jmp(operation)?;
        self.a.set_label(&mut finish)?;
        self.answer(more)
    }

    /// Ends the answer, writes it, and goes on with `more`.
    fn answer(&mut self, more: CodeLabel) -> Done {
        let Labels { check, mut write_answer, leave, .. } = self.labels;
        let (mut append, mut write) = (self.a.create_label(), self.a.create_label());
        self.a.mov(esi, (ANSWER + 1) as u32)?;
        self.a.mov(rdi, r15)?;
        self.a.call(check)?;
        self.a.mov(edx, 3)?;
        self.a.set_label(&mut append)?;
        self.a.mov(ecx, eax)?;
        self.a.shr(ecx, 26)?;
        self.a.add(ecx, 0x30)?;
        self.a.mov(byte_ptr(r15), cl)?;
        self.a.inc(r15)?;
        self.a.shl(eax, 6)?;
        self.a.dec(edx)?;
        self.a.jnz(append)?;
        self.a.mov(byte_ptr(r15), u32::from(b'\n'))?;
        self.a.inc(r15)?;
        self.a.sub(r15, ANSWER as i32)?;
        self.a.mov(qword_ptr(ANSWER_LENGTH), r15)?;
        self.a.set_label(&mut write_answer)?;
        self.a.mov(ebx, ANSWER as u32)?;
        self.a.mov(r15, qword_ptr(ANSWER_LENGTH))?;
        self.a.set_label(&mut write)?;
        self.a.mov(edi, 1)?;
        self.a.mov(rsi, rbx)?;
        self.a.mov(rdx, r15)?;
        self.system_call(WRITE)?;
        self.a.test(rax, rax)?;
        self.a.jle(leave)?;
        self.a.add(rbx, rax)?;
        self.a.sub(r15, rax)?;
        self.a.jnz(write)?;
        self.a.jmp(more)
    }

    /// `number`: eax is the number of the next r9d symbols; only r8 and r9 are changed besides.
    /// `check`: eax is FNV-1a over rsi..rdi; ecx and rsi are changed.
    pub(super) fn number_and_check(&mut self) -> Done {
        let Labels { mut number, mut check, .. } = self.labels;
        let (mut symbol, mut end, mut byte, mut hashed) =
            (self.a.create_label(), self.a.create_label(), self.a.create_label(), self.a.create_label());
        self.a.set_label(&mut number)?;
        self.a.xor(eax, eax)?;
        self.a.set_label(&mut symbol)?;
        self.a.test(r9d, r9d)?;
        self.a.jz(end)?;
        self.a.movzx(r8d, byte_ptr(rbx))?;
        self.a.inc(rbx)?;
        self.a.sub(r8d, 0x30)?;
        self.a.and(r8d, 63)?;
        self.a.shl(eax, 6)?;
        self.a.or(eax, r8d)?;
        self.a.dec(r9d)?;
        self.a.jmp(symbol)?;
        self.a.set_label(&mut end)?;
        self.a.ret()?;

        self.a.set_label(&mut check)?;
        self.a.mov(eax, 0x811c_9dc5_u32)?;
        self.a.set_label(&mut byte)?;
        self.a.cmp(rsi, rdi)?;
        self.a.jae(hashed)?;
        self.a.movzx(ecx, byte_ptr(rsi))?;
        self.a.xor(eax, ecx)?;
        self.a.imul_3(eax, eax, 0x0100_0193)?;
        self.a.inc(rsi)?;
        self.a.jmp(byte)?;
        self.a.set_label(&mut hashed)?;
        self.a.ret()
    }
}
