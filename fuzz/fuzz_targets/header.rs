//! See [`vdisk_fuzz::header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::header(bytes));
