//! The binary `qed` as its users meet it: whole processes on whole images, beside qemu-img and qemu-io.
//!
//! Nothing is skipped when a program is missing: the test fails and names the chore that installs it. Whatever is random
//! prints its seed; `VDISK_SEED` replays it.

#[cfg(test)]
mod check;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod copy_metadata;
#[cfg(test)]
mod corrupt;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod differs;
#[cfg(test)]
mod fragcheck;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod map;
#[cfg(test)]
mod need_check;
#[cfg(test)]
mod plans;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod show;
#[cfg(test)]
mod support;
#[cfg(test)]
mod zerocluster;
