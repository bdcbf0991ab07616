//! See [`vdisk_fuzz::plan_inverse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::plan_inverse(bytes));
