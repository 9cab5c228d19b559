//! Fuzzes `dirnode_identity::fuzz::key_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_identity::fuzz::key_file(data));
