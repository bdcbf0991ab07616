//! See [`vdisk_fuzz::qcow2_check`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qcow2_check(bytes));
