//! See [`vdisk_fuzz::qed_scrub`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qed_scrub(bytes));
