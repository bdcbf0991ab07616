//! A real Linux guest: Debian's kernels and busybox in QEMU, without KVM. The cloud kernel boots in half the time; it has no
//! /dev/port.
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
mod stopped;
#[cfg(test)]
mod ways;
