//! What a node can hand to its peers: the one door from the swarm to the records.
//!
//! The server gives the implementation; this room decodes, bounds and encodes (p2p-wire §5) and judges nothing. A node
//! without records gives none, and then does not offer the protocol at all.

use std::collections::BTreeMap;

use bytes::Bytes;
#[cfg(feature = "records")]
use dirnode_record::{RecordCid, Referrer};
use futures_util::future::BoxFuture;
use libp2p::PeerId;

/// Why the library does not answer, as the peer reads it: no path, no address, no secret in its text.
pub use crate::wire::rpc::Status as LibraryError;
pub use crate::wire::rpc::{Code as RpcCode, ReferrerDescriptor, ReferrerList};

/// A record as it travels between peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pulled {
    /// Free annotations; the receiver believes none of them.
    pub annotations: BTreeMap<String, String>,
    /// Canonical record JSON. Unverified when it came from a peer, apart from hashing to the CID asked for.
    pub data: Bytes,
}

/// The records of this node, asked by authenticated peers.
///
/// Each call runs in a task of its own, under a deadline and inside the bounds of [`crate::Limits`]; a panic in it
/// becomes an `Internal` answer. Whether this peer may have that record is decided behind this trait.
pub trait Library: Send + Sync + 'static {
    /// Whether the record is here; the annotations of its manifest.
    #[cfg(feature = "records")]
    fn lookup(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>>;

    /// The record itself.
    #[cfg(feature = "records")]
    fn pull(&self, peer: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>>;

    /// What refers to the record.
    #[cfg(feature = "records")]
    fn list_referrers(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>>;

    /// One referrer of the record.
    #[cfg(feature = "records")]
    fn pull_referrer(
        &self,
        peer: PeerId,
        cid: RecordCid,
        referrer: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>>;

    /// Answers one request of the catch-up exchange, whose bytes belong to `routing`.
    fn catch_up(&self, _peer: PeerId, _request: Bytes) -> BoxFuture<'static, Result<Bytes, LibraryError>> {
        Box::pin(std::future::ready(Err(LibraryError::new(
            RpcCode::Unimplemented,
            "catch-up is not offered here",
        ))))
    }
}
