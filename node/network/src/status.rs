//! Snapshots of the network, as answered to status questions.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use crate::config::Role;

/// A peer and where it can be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddrs {
    /// The peer.
    pub peer: PeerId,
    /// Its addresses as told by others, at most [`crate::config::MAX_ADDRS_PER_PEER`]; may be empty.
    pub addrs: Vec<Multiaddr>,
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TransportKind {
    /// TCP with TLS or noise, and yamux.
    Tcp,
    /// QUIC version 1.
    Quic,
    /// Through a relay.
    Relay,
    /// Inside the process, tests only.
    Memory,
    /// Something else.
    Other,
}

impl TransportKind {
    /// What an address says about the transport.
    #[must_use]
    pub fn of(addr: &Multiaddr) -> Self {
        use libp2p::multiaddr::Protocol;
        let mut kind = Self::Other;
        for part in addr {
            match part {
                Protocol::P2pCircuit => return Self::Relay,
                Protocol::Tcp(_) => kind = Self::Tcp,
                Protocol::QuicV1 => kind = Self::Quic,
                Protocol::Memory(_) => kind = Self::Memory,
                _ => {}
            }
        }
        kind
    }

    /// Name in metrics and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::Relay => "relay",
            Self::Memory => "memory",
            Self::Other => "other",
        }
    }
}

/// One connected peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// The peer.
    pub peer: PeerId,
    /// Remote address and direction of each connection.
    pub connections: Vec<(Multiaddr, Direction, TransportKind)>,
    /// Listen addresses it told us.
    pub addrs: Vec<Multiaddr>,
    /// Protocols it told us; the DHT's under its inside name.
    pub protocols: Vec<String>,
    /// Agent version, empty before identify.
    pub agent: String,
    /// Last round trip time.
    pub rtt: Option<Duration>,
    /// Directory gRPC endpoint it claims.
    pub directory_api: Option<String>,
    /// OCI endpoint it claims.
    pub oci: Option<String>,
    /// In the routing table.
    pub in_table: bool,
    /// In our gossip mesh.
    pub in_mesh: bool,
    /// Subscribed to the labels topic.
    pub on_topic: bool,
    /// Gossip score, when there is one.
    pub score: Option<f64>,
}

/// What we think of our own reachability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReachabilityVerdict {
    /// Not known yet.
    #[default]
    Unknown,
    /// Others can dial us.
    Public,
    /// Behind a NAT or firewall.
    Private,
}

/// The state of the network at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Our peer id.
    pub peer: PeerId,
    /// What this node is to the network.
    pub role: Role,
    /// Open listen addresses, our peer id at their end.
    pub listening: Vec<Multiaddr>,
    /// Addresses that peers can reach us at.
    pub external: Vec<Multiaddr>,
    /// The table has been filled once; a bootstrap node counts from the start.
    pub bootstrapped: bool,
    /// Connected peers.
    pub peers: usize,
    /// Established connections.
    pub connections: usize,
    /// Peers in the routing table.
    pub table: usize,
    /// Connected peers subscribed to the labels topic.
    pub topic_peers: usize,
    /// Of these, peers in our mesh.
    pub mesh_peers: usize,
    /// What we think of our own reachability.
    pub reachability: ReachabilityVerdict,
    /// DHT queries running and waiting.
    pub queries: (usize, usize),
    /// Provider records kept for others and by us.
    pub provider_records: usize,
    /// Announcements waiting for a verdict.
    pub awaiting_verdict: usize,
    /// Requests of peers being served.
    pub serving: usize,
}
