//! See [`vdisk_fuzz::instruction_binary`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::instruction_binary(bytes));
