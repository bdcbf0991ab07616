//! See [`vdisk_fuzz::journal`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::journal(bytes));
