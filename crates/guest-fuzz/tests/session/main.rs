//! A real Linux guest: Debian's kernel and busybox in QEMU, without KVM.
#![cfg(all(feature = "qemu", target_os = "linux"))]

mod guest;
mod login;
mod ports;
mod recovery;
mod ways;
