//! See [`vdisk_fuzz::instruction_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::instruction_text(bytes));
