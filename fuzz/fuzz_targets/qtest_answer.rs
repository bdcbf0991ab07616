//! See [`vdisk_fuzz::qtest_answer`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vdisk_fuzz::qtest_answer(bytes));
