//! What a node can hand to its peers: the one door from the swarm to the records.
//!
//! The server gives the implementation; this room decodes, bounds and encodes (p2p-wire §5) and judges nothing. A node
//! without records gives none, and then does not offer the protocol at all.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use dirnode_record::{RecordCid, Referrer};
use futures_util::future::BoxFuture;
use libp2p::PeerId;

/// Status codes that travel inside the error text of an answer (p2p-wire §5.4); the names are gRPC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation; gRPC defines them")]
pub enum RpcCode {
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// Every code with its name on the wire.
const CODES: [(RpcCode, &str); 16] = [
    (RpcCode::Canceled, "Canceled"),
    (RpcCode::Unknown, "Unknown"),
    (RpcCode::InvalidArgument, "InvalidArgument"),
    (RpcCode::DeadlineExceeded, "DeadlineExceeded"),
    (RpcCode::NotFound, "NotFound"),
    (RpcCode::AlreadyExists, "AlreadyExists"),
    (RpcCode::PermissionDenied, "PermissionDenied"),
    (RpcCode::ResourceExhausted, "ResourceExhausted"),
    (RpcCode::FailedPrecondition, "FailedPrecondition"),
    (RpcCode::Aborted, "Aborted"),
    (RpcCode::OutOfRange, "OutOfRange"),
    (RpcCode::Unimplemented, "Unimplemented"),
    (RpcCode::Internal, "Internal"),
    (RpcCode::Unavailable, "Unavailable"),
    (RpcCode::DataLoss, "DataLoss"),
    (RpcCode::Unauthenticated, "Unauthenticated"),
];

impl RpcCode {
    /// Name as written into error texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        CODES
            .iter()
            .find(|(code, _)| *code == self)
            .map_or("Unknown", |(_, name)| name)
    }

    /// The code a name stands for; [`RpcCode::Unknown`] for any other text.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        CODES
            .iter()
            .find(|(_, known)| *known == name)
            .map_or(Self::Unknown, |(code, _)| *code)
    }
}

impl fmt::Display for RpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the library does not answer. The text goes to the peer: no path, no address, no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct LibraryError {
    /// Status code.
    pub code: RpcCode,
    /// What the peer reads.
    pub message: String,
}

impl LibraryError {
    /// An error with this code and text.
    #[must_use]
    pub fn new(code: RpcCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// A record as it travels between peers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pulled {
    /// Free annotations; the receiver believes none of them.
    pub annotations: BTreeMap<String, String>,
    /// Canonical record JSON. Unverified when it came from a peer, apart from hashing to the CID asked for.
    pub data: Bytes,
}

/// Names one referrer of a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferrerDescriptor {
    /// CID text of the referrer.
    pub cid: String,
    /// Referrer type, for example `agntcy.dir.sign.v1.Signature`.
    pub kind: String,
}

/// Referrers of one record, at most 1024.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferrerList {
    /// In the order the peer gave them.
    pub referrers: Vec<ReferrerDescriptor>,
    /// Whether there are more than fit.
    pub truncated: bool,
}

/// The records of this node, asked by authenticated peers.
///
/// Each call runs in a task of its own, under a deadline and inside the bounds of [`crate::Limits`]; a panic in it
/// becomes an `Internal` answer. Whether this peer may have that record is decided behind this trait.
pub trait Library: Send + Sync + 'static {
    /// Whether the record is here; the annotations of its manifest.
    fn lookup(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>>;

    /// The record itself.
    fn pull(&self, peer: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>>;

    /// What refers to the record.
    fn list_referrers(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>>;

    /// One referrer of the record.
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
            "catch-up is not offered",
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_go_both_ways() {
        for (code, name) in CODES {
            assert_eq!(code.name(), name);
            assert_eq!(RpcCode::from_name(name), code);
        }
        assert_eq!(RpcCode::from_name("notfound"), RpcCode::Unknown);
    }
}
