//! The binary `iofuzz` as its users meet it: whole processes, with the QEMU on PATH and without one.
//!
//! Nothing is skipped when a program is missing: the test fails and names the chore that installs it.

#[cfg(test)]
mod classic;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod inside;
#[cfg(test)]
mod login;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod run;
#[cfg(test)]
mod session;
#[cfg(test)]
mod shrink;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod support;
#[cfg(test)]
mod usage;
