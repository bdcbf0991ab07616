//! See [`vdisk_fuzz::qcow2_scrub`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qcow2_scrub(bytes));
