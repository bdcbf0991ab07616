//! See [`vdisk_fuzz::plan_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::plan_text(bytes));
