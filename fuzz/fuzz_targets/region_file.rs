//! See [`vdisk_fuzz::region_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::region_file(bytes));
