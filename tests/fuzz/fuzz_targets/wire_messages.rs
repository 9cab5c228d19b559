//! Fuzzes `dirnode_network::wire::fuzz::messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_network::wire::fuzz::messages(data));
