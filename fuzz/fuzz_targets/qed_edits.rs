//! See [`vdisk_fuzz::qed_edits`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qed_edits(bytes));
