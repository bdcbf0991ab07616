//! The binary `qcow2` as its users meet it: whole processes on whole images, beside QEMU's
//! own qcow2.py, qemu-img and qemu-io.
//!
//! Nothing is skipped when a program is missing: the test fails and names the chore that
//! installs it. Whatever is random prints its seed; `VDISK_SEED` replays it.

#[cfg(test)]
mod check;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod differs;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod dropin;
#[cfg(test)]
mod edits;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod fragcheck;
#[cfg(test)]
mod healthy;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod interrupted;
#[cfg(test)]
mod locks;
#[cfg(test)]
mod map;
#[cfg(test)]
mod originals;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod owners;
#[cfg(test)]
mod scrub;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod show;
#[cfg(test)]
mod support;
#[cfg(test)]
mod truncated;
