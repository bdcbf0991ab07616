//! See [`vdisk_fuzz::qcow2_explain`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qcow2_explain(bytes));
