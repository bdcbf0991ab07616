//! The processor's own port instructions, for a process that the system lets use them.
#![expect(unsafe_code, reason = "port instructions have no safe form")]

use std::arch::asm;
use std::io;

use crate::instruction::PortWidth;

/// The right to every port, of the thread that asked for it: it cannot be given to another.
#[derive(Debug)]
pub(crate) struct AllPorts(std::marker::PhantomData<*const ()>);

impl AllPorts {
    /// Asks the kernel for all ports, for this thread.
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: it changes nothing but what this thread may do with ports. Memory is reached through them by devices
        // alone, whose state is what the caller asks to change.
        let answer = unsafe { nix::libc::iopl(3) };
        if answer == 0 { Ok(Self(std::marker::PhantomData)) } else { Err(io::Error::last_os_error()) }
    }

    /// Reads a port.
    pub(crate) fn read(&self, port: u16, width: PortWidth) -> u32 {
        let mut value = 0_u32;
        // SAFETY: `self` proves that this thread may; the instructions touch no memory of the process.
        unsafe {
            match width {
                PortWidth::Byte => {
                    let byte: u8;
                    asm!("in al, dx", out("al") byte, in("dx") port, options(nomem, nostack, preserves_flags));
                    value |= u32::from(byte);
                }
                PortWidth::Word => {
                    let word: u16;
                    asm!("in ax, dx", out("ax") word, in("dx") port, options(nomem, nostack, preserves_flags));
                    value |= u32::from(word);
                }
                PortWidth::Long => {
                    asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack, preserves_flags));
                }
            }
        }
        value
    }

    /// Writes a port. What the width has no room for is left out.
    pub(crate) fn write(&self, port: u16, width: PortWidth, value: u32) {
        // SAFETY: `self` proves that this thread may; the instructions touch no memory of the process.
        unsafe {
            match width {
                PortWidth::Byte => {
                    let byte = value as u8;
                    asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags));
                }
                PortWidth::Word => {
                    let word = value as u16;
                    asm!("out dx, ax", in("dx") port, in("ax") word, options(nomem, nostack, preserves_flags));
                }
                PortWidth::Long => {
                    asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags));
                }
            }
        }
    }
}
