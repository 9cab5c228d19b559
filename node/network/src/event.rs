//! What the network reports: typed events to the left-hand rooms.
//!
//! Events are hints, delivered in order through a bounded queue; [`crate::NetworkHandle::status`] and
//! [`crate::NetworkHandle::peers`] are the truth to resynchronise with after a drop.

use bytes::Bytes;
use libp2p::{Multiaddr, PeerId};

use crate::status::ReachabilityVerdict;
pub use crate::wire::EndpointKind;

/// Names a received announcement until its verdict is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AnnouncementToken(pub(crate) u64);

/// What becomes of a received announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Forward it.
    Accept,
    /// Do not forward it; nobody is to blame (old, replayed, quota).
    Ignore,
    /// Do not forward it, and hold it against its author if the author sent it to us itself (malformed, forbidden). A
    /// forwarder is not to blame: nodes of the reference forward what they do not understand.
    Reject,
}

/// A signed message of the labels topic, signature already checked (p2p-wire §4).
///
/// Give its verdict within [`crate::config::VERDICT_DEADLINE`] through [`crate::NetworkHandle::report`]; after that it
/// counts as [`Verdict::Ignore`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// To be given back with the verdict.
    pub token: AnnouncementToken,
    /// Signed author.
    pub publisher: PeerId,
    /// Who carried it to us last; not its author.
    pub forwarder: PeerId,
    /// Sequence number the author signed: unix nanoseconds at its start, then counted up, for Go authors.
    pub seqno: u64,
    /// Nanoseconds since 1970, by our clock.
    pub received_at: i64,
    /// The payload, at most [`crate::config::MAX_ANNOUNCEMENT_FRAME`] bytes, unparsed.
    pub data: Bytes,
}

/// An endpoint a peer claims. Unsigned and unproven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSeen {
    /// Whose endpoint it is said to be.
    pub peer: PeerId,
    /// Which endpoint.
    pub kind: EndpointKind,
    /// The decoded value, for example `dir.example.com:443`.
    pub value: String,
    /// Who said so, if not the peer itself: an answer of the DHT carries what others claim.
    pub reporter: Option<PeerId>,
}

/// Something that happened in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkEvent {
    /// An announcement waits for its verdict.
    Announced(Announced),
    /// A peer says it provides a key; sender and provider are the same peer (p2p-wire §2.4).
    ///
    /// Already kept in the provider store, inside its bounds.
    Provided {
        /// The provider.
        peer: PeerId,
        /// Provider key: the multihash bytes, or anything else up to 80 bytes.
        key: Bytes,
        /// Addresses it gave, at most [`crate::config::MAX_ADDRS_PER_PEER`].
        addrs: Vec<Multiaddr>,
        /// Nanoseconds since 1970, by our clock.
        received_at: i64,
    },
    /// First connection to a peer.
    PeerConnected {
        /// The peer.
        peer: PeerId,
    },
    /// Last connection to a peer closed.
    PeerDisconnected {
        /// The peer.
        peer: PeerId,
    },
    /// A peer told about itself.
    PeerIdentified {
        /// The peer.
        peer: PeerId,
        /// Agent version, shortened to 128 characters.
        agent: String,
        /// Protocol names, the DHT's under its inside form.
        protocols: Vec<String>,
        /// Listen addresses, filtered and bounded.
        addrs: Vec<Multiaddr>,
    },
    /// A peer subscribed to the labels topic: announcements can reach it from now on.
    PeerSubscribed {
        /// The peer.
        peer: PeerId,
    },
    /// The routing table grew or shrank.
    TableChanged {
        /// Peers in it now.
        peers: usize,
    },
    /// The first bootstrap (or table refresh) has ended with at least one peer in the table.
    Bootstrapped,
    /// A peer's endpoint was seen in identify or in a provider record.
    EndpointSeen(EndpointSeen),
    /// A listen address is open.
    Listening {
        /// With our peer id at its end.
        addr: Multiaddr,
    },
    /// A listen address is gone.
    ListenerGone {
        /// The address.
        addr: Multiaddr,
    },
    /// Peers can reach us here.
    ExternalAddressConfirmed {
        /// The address.
        addr: Multiaddr,
    },
    /// Peers can no longer reach us here.
    ExternalAddressExpired {
        /// The address.
        addr: Multiaddr,
    },
    /// What we think of our own reachability changed.
    ReachabilityChanged {
        /// The verdict now.
        verdict: ReachabilityVerdict,
    },
    /// A peer was found on the local network.
    Discovered {
        /// The peer.
        peer: PeerId,
        /// Where.
        addr: Multiaddr,
    },
}
