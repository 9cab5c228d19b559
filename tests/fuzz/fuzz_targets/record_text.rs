//! Fuzzes `dirnode_record::fuzz::record_text`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_record::fuzz::record_text(data));
