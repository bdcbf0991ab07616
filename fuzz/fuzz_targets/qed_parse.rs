//! See [`vdisk_fuzz::qed_parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qed_parse(bytes));
