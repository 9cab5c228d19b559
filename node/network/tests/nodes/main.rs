//! Real nodes in one process over loopback: what they must be able to do together.

mod common;
mod connecting;
mod dht;
mod labels;
mod rpc;
mod stopping;
