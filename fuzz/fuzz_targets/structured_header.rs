//! See [`vdisk_fuzz::structured_header`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::structured_header(bytes));
