//! The shim held against the real multistream-select, against recorded negotiations, and between two swarms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test: what does not hold ends it"
)]

mod cases;
mod pipe;
mod random;
mod swarms;
mod vectors;

use std::sync::Arc;

use dirnode_network::shim::{OwnEndpoints, Renames, Shim, ShimConfig, Taps};
use libp2p::PeerId;

/// A shim with the network's names, a clock that stands, and its peer id.
fn shim() -> (Shim, Taps, PeerId, OwnEndpoints) {
    shim_with(Renames::network())
}

fn shim_with(renames: Renames) -> (Shim, Taps, PeerId, OwnEndpoints) {
    let local_peer = PeerId::random();
    let own = OwnEndpoints::default();
    let (shim, taps) = Shim::new(ShimConfig {
        local_peer,
        renames,
        own: own.clone(),
        book: None,
        clock: Arc::new(|| 1_000),
        deadlines: None,
    });
    (shim, taps, local_peer, own)
}

/// One length-prefixed frame.
fn frame(body: &[u8]) -> Vec<u8> {
    let mut prefix = unsigned_varint::encode::usize_buffer();
    [unsigned_varint::encode::usize(body.len(), &mut prefix), body].concat()
}

/// A protobuf field of bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &frame(value)].concat()
}
