//! A real Linux guest: Debian's kernel and busybox in QEMU, without KVM.
#![cfg(all(feature = "qemu", target_os = "linux"))]

#[cfg(test)]
mod guest;
#[cfg(test)]
mod login;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod ways;
