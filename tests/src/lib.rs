//! What the black-box tests share: nodes inside the process and as the real binary, a gRPC client that knows messages
//! only by their descriptors, the reader of the golden vectors, and waiting with a deadline.
//!
//! Nothing here is part of a node. State: temporary folders that go away with the value that owns them. Layouts follow
//! `vectors/README.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a helper of tests: what does not hold ends the test"
)]

pub mod cluster;
pub mod go_peer;
pub mod grpc;
pub mod judge;
pub mod node;
pub mod p2p;
pub mod program;
pub mod scrape;
pub mod vectors;
pub mod wait;

use std::path::PathBuf;

/// The top of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("the repository has a folder")
}
