#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| heirlock_fuzz::record(bytes));
