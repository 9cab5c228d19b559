//! What can go wrong in this room, sorted by what the caller can do about it.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use crate::library::RpcCode;

/// What the caller can act on; decides retry and gRPC code elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The question itself is wrong.
    Invalid,
    /// Nobody has it.
    NotFound,
    /// The other side does not allow it.
    Denied,
    /// Too much at once; later is better.
    Busy,
    /// Peer, network or task not there (now).
    Unavailable,
    /// The other side answered something that cannot be right.
    Corrupt,
    /// A fault of ours.
    Internal,
}

/// A question to the network that has no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The swarm task has ended or is ending.
    #[error("network is shut down")]
    Closed,
    /// A queue of bounded size is full.
    #[error("network is busy: {what} is full at {limit}")]
    Busy {
        /// Which queue.
        what: &'static str,
        /// Its size.
        limit: usize,
    },
    /// No answer within the deadline.
    #[error("{what} got no answer within {} ms", after.as_millis())]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// No connection, and none could be made.
    #[error("peer {peer} cannot be reached: {reason}")]
    Unreachable {
        /// The peer asked for.
        peer: PeerId,
        /// What the last dial said.
        reason: String,
    },
    /// An address could not be dialled.
    #[error("address {addr} cannot be dialled: {reason}")]
    Dial {
        /// The address asked for.
        addr: Multiaddr,
        /// What the dial said.
        reason: String,
    },
    /// The connection ended while an answer was waited for.
    #[error("peer {peer} went away: {reason}")]
    PeerGone {
        /// The peer asked.
        peer: PeerId,
        /// What the stream said.
        reason: String,
    },
    /// The peer does not speak the protocol.
    #[error("peer {peer} does not support {protocol}")]
    NotSupported {
        /// The peer asked.
        peer: PeerId,
        /// Protocol name.
        protocol: String,
    },
    /// The routing table is empty, so there is nobody to ask or tell.
    #[error("no peers yet")]
    NoPeers,
    /// Nobody could find us: a provider record without an address is dropped by its receivers.
    #[error("no external address is known yet, so peers would drop the provider record")]
    NoExternalAddress,
    /// Gossip is turned off in the configuration.
    #[error("gossip is disabled")]
    GossipDisabled,
    /// Something exceeds a bound that every peer shares.
    #[error("{what} is {size_bytes} bytes, limit is {limit_bytes}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Its size.
        size_bytes: usize,
        /// The bound.
        limit_bytes: usize,
    },
    /// The answering peer reported an error.
    #[error("peer {peer} answered {code}: {message}")]
    Remote {
        /// The peer asked.
        peer: PeerId,
        /// Status code inside the text, [`RpcCode::Unknown`] without one.
        code: RpcCode,
        /// Its text, shortened.
        message: String,
    },
    /// The answer does not parse or contradicts the question.
    #[error("peer {peer} answered wrongly: {reason}")]
    BadReply {
        /// The peer asked.
        peer: PeerId,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration cannot be used; every fault is named.
    #[error("network configuration: {}", faults.join("; "))]
    Config {
        /// One line per fault: key, value, remedy.
        faults: Vec<String>,
    },
    /// A listen address could not be opened.
    #[error(
        "routing.listen_address: cannot listen on {addr}: {reason}; stop what uses it, or set another address"
    )]
    Listen {
        /// The address from the configuration.
        addr: Multiaddr,
        /// What the operating system said.
        reason: String,
    },
    /// A fault of ours.
    #[error("internal: {reason}")]
    Internal {
        /// What happened.
        reason: String,
    },
}

/// Why a peer is unreachable of which no address is known.
pub(crate) const NO_ADDRESS: &str = "no address is known";

impl NetworkError {
    /// Whether a peer could not be reached because nobody has told us where it is. Others may know.
    #[must_use]
    pub fn is_unknown_address(&self) -> bool {
        matches!(self, Self::Unreachable { reason, .. } if reason == NO_ADDRESS)
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config { .. } | Self::TooLarge { .. } | Self::GossipDisabled => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Closed
            | Self::Timeout { .. }
            | Self::Unreachable { .. }
            | Self::Dial { .. }
            | Self::PeerGone { .. }
            | Self::NotSupported { .. }
            | Self::NoPeers
            | Self::NoExternalAddress
            | Self::Listen { .. } => ErrorKind::Unavailable,
            Self::BadReply { .. } => ErrorKind::Corrupt,
            Self::Internal { .. } => ErrorKind::Internal,
            Self::Remote { code, .. } => match code {
                RpcCode::NotFound => ErrorKind::NotFound,
                RpcCode::InvalidArgument | RpcCode::OutOfRange | RpcCode::FailedPrecondition => {
                    ErrorKind::Invalid
                }
                RpcCode::PermissionDenied | RpcCode::Unauthenticated => ErrorKind::Denied,
                RpcCode::ResourceExhausted => ErrorKind::Busy,
                RpcCode::DataLoss => ErrorKind::Corrupt,
                _ => ErrorKind::Unavailable,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_the_other_side_decides_the_kind() {
        let error = |code| NetworkError::Remote {
            peer: PeerId::random(),
            code,
            message: String::new(),
        };
        assert_eq!(error(RpcCode::NotFound).kind(), ErrorKind::NotFound);
        assert_eq!(error(RpcCode::ResourceExhausted).kind(), ErrorKind::Busy);
        assert_eq!(error(RpcCode::Unknown).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn every_fault_of_a_configuration_is_in_the_text() {
        let error = NetworkError::Config {
            faults: vec!["a: wrong".into(), "b: wrong too".into()],
        };
        assert_eq!(error.to_string(), "network configuration: a: wrong; b: wrong too");
    }
}
