//! See [`vdisk_fuzz::mtree`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::mtree(bytes));
