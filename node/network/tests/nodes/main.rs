//! Real nodes in one process over loopback: what they must be able to do together.

mod common;
mod connecting;
mod dht;
mod hostile;
mod labels;
mod raw;
mod reach;
mod rpc;
mod stopping;
