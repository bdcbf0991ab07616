//! See [`vdisk_fuzz::qed_corrupt`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qed_corrupt(bytes));
