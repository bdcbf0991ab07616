//! See [`vdisk_fuzz::proc_ioports`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::proc_ioports(bytes));
