//! The remote label index: what other peers are said to hold, found by label.
//!
//! Soft state (p2p-wire §6.2-6.8): written by whoever judges what peers say, one row for each (record, publisher), and
//! read by searches (grpc-api §4.10). Rows are lost at worst; the network tells them again. Never judges a peer, never
//! reads a clock and never asks the network. It is bounded in every direction, in memory, with a snapshot and a log of
//! changes behind it, so that a restart does not begin with nothing. See `docs/decisions/0003-remote-labels.md`.

mod folder;
mod index;
mod log;
mod matching;
mod names;
mod query;
mod quota;
mod room;
mod share;
mod sorted;
mod state;
mod tables;
#[cfg(test)]
mod tests;
mod tombs;
mod types;
mod writer;

pub use index::{Expired, RemoteIndex};
pub use names::MAX_SEGMENTS;
pub use query::{
    DEFAULT_BUDGET, Hit, MAX_QUERIES, Place, Provider, RemoteHits, RemoteQuery, RemoteQueryKind,
    RemoteSearch, RemoteSearchError,
};
pub use types::{
    Applied, Bytes, Change, Counters, Limits, MAX_PEER_ID_BYTES, PeerId, Refusal, Row, Size, Standing, Tomb,
};
