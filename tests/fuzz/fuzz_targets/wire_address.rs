//! Fuzzes `dirnode_network::wire::fuzz::address`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dirnode_network::wire::fuzz::address(data));
