//! Fuzzes `dirnode_record::fuzz::referrer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_record::fuzz::referrer(data));
