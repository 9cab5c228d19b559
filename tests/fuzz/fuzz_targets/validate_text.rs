//! Fuzzes `dirnode_record::fuzz::validate_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_record::fuzz::validate_text(data));
