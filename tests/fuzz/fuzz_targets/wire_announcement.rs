//! Fuzzes `dirnode_network::wire::fuzz::announcement`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_network::wire::fuzz::announcement(data));
