//! Real nodes in one process over loopback: what they must be able to do together.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests, which fail by panicking and run their nodes as plain tasks"
)]

mod common;
mod connecting;
mod dht;
mod floods;
mod frames;
mod hostile;
mod labels;
mod library;
mod raw;
mod reach;
mod repeats;
mod rpc;
mod stopping;
mod victim;
