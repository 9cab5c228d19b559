//! Which connections to let go: the connection manager's judgement, without its hands.
//!
//! The library keeps every connection that a stream keeps alive, so a node that meets everybody ends connected to
//! everybody. [`Water`] watches connections come and go and says, when asked, which to close: above the high mark it
//! closes a few at a time, those of least value and then the youngest first, until the low mark is reached. Peers in
//! their grace period and protected peers stay, unless the hard limit is passed. One address may not hold too many.
//!
//! Pure and deterministic: time is passed in, and nothing is closed here. Soft state, bounded by the connections there
//! are and [`MAX_MARKED_PEERS`]. Follows p2p-wire §1.3.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

/// Protects peers given as bootstrap peers.
pub const BOOTSTRAP: &str = "bootstrap";
/// Protects peers in a gossip mesh.
pub const MESH: &str = "mesh";
/// Protects peers of the routing table whose buckets have few others.
pub const ROUTING: &str = "routing";

/// Peers that are protected without being connected. They come from configuration, the mesh and the routing table,
/// which are smaller.
pub const MAX_MARKED_PEERS: usize = 4096;
/// Different tags a peer may have.
pub const MAX_TAGS: usize = 16;

/// The marks and bounds.
#[derive(Debug, Clone)]
pub struct WaterConfig {
    /// Closing ends when so many connections are left.
    pub low: usize,
    /// Closing begins when there are more.
    pub high: usize,
    /// Above this, grace and protection no longer help.
    pub hard: usize,
    /// How long a new connection is left alone.
    pub grace: Duration,
    /// Connections from one address: an IPv4 address, or the first 64 bits of an IPv6 address.
    pub max_per_address: usize,
    /// Loopback, private and link-local addresses are not counted; behind one of them may be a whole cluster.
    pub spare_local: bool,
    /// Most connections closed by one [`Water::tick`]. Closing many at once makes everyone dial again at once.
    pub max_per_tick: usize,
}

impl Default for WaterConfig {
    fn default() -> Self {
        Self {
            low: 50,
            high: 200,
            hard: 400,
            grace: Duration::from_secs(120),
            max_per_address: 16,
            spare_local: true,
            max_per_tick: 8,
        }
    }
}

/// Why a connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// There are more than the high mark, and not yet as few as the low one.
    HighWater,
    /// There are more than the hard limit.
    HardLimit,
    /// Its address has too many.
    Address,
}

/// A connection to be closed. It is not named again while it is closing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// The connection.
    pub connection: ConnectionId,
    /// The peer at the other end.
    pub peer: PeerId,
    /// Why.
    pub reason: CloseReason,
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    since: Duration,
    address: Option<IpAddr>,
    closing: bool,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Peer {
    connections: usize,
    protections: BTreeSet<&'static str>,
    tags: BTreeMap<&'static str, i32>,
}

impl Peer {
    fn value(&self) -> i64 {
        self.tags.values().map(|value| i64::from(*value)).sum()
    }
}

/// The connections and what they are worth. Times are since any fixed moment, the same for all calls.
#[derive(Debug)]
pub struct Water {
    config: WaterConfig,
    connections: BTreeMap<ConnectionId, Connection>,
    peers: BTreeMap<PeerId, Peer>,
    per_address: BTreeMap<IpAddr, usize>,
    closing: usize,
    /// Above the high mark a while ago, and not down to the low one since.
    ebbing: bool,
    marks_refused: u64,
}

impl Water {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(config: WaterConfig) -> Self {
        Self {
            config,
            connections: BTreeMap::new(),
            peers: BTreeMap::new(),
            per_address: BTreeMap::new(),
            closing: 0,
            ebbing: false,
            marks_refused: 0,
        }
    }

    /// A connection was established. Returns it if its address has too many already and the peer is not protected.
    ///
    /// `address` is the remote's as the transport saw it; none for relayed connections and those in memory.
    #[must_use]
    pub fn on_connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: Option<IpAddr>,
        now: Duration,
    ) -> Option<Close> {
        if self.connections.contains_key(&connection) {
            return None;
        }
        let address = address
            .map(block_of)
            .filter(|address| !(self.config.spare_local && is_local(address)));
        let known = self.peers.entry(peer).or_default();
        known.connections = known.connections.saturating_add(1);
        let protected = !known.protections.is_empty();
        let mut crowded = false;
        if let Some(address) = address {
            let count = self.per_address.entry(address).or_default();
            *count = count.saturating_add(1);
            crowded = *count > self.config.max_per_address;
        }
        self.connections.insert(
            connection,
            Connection {
                peer,
                since: now,
                address,
                closing: false,
            },
        );
        (crowded && !protected).then(|| self.close(connection, peer, CloseReason::Address))
    }

    /// A connection is gone, for whatever reason.
    pub fn on_disconnected(&mut self, connection: ConnectionId) {
        let Some(gone) = self.connections.remove(&connection) else {
            return;
        };
        if gone.closing {
            self.closing = self.closing.saturating_sub(1);
        }
        if let Some(address) = gone.address
            && let Some(count) = self.per_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
        if let Some(peer) = self.peers.get_mut(&gone.peer) {
            peer.connections = peer.connections.saturating_sub(1);
            if peer.connections == 0 {
                // What it was worth ends with the connection; a protection does not.
                peer.tags.clear();
            }
        }
        self.forget_idle(&gone.peer);
    }

    /// Keeps a peer's connections, connected or not, until [`Water::unprotect`] with the same name. False if too many
    /// peers that are not connected are protected already.
    pub fn protect(&mut self, peer: PeerId, name: &'static str) -> bool {
        let room = self.peers.len() < self.connections.len().saturating_add(MAX_MARKED_PEERS);
        if !room && !self.peers.contains_key(&peer) {
            self.marks_refused = self.marks_refused.saturating_add(1);
            return false;
        }
        self.peers.entry(peer).or_default().protections.insert(name);
        true
    }

    /// Takes one protection away; others stay.
    pub fn unprotect(&mut self, peer: &PeerId, name: &'static str) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.protections.remove(name);
        }
        self.forget_idle(peer);
    }

    /// Makes `peers` the only ones that are protected by this name: for sets that are read anew now and then, like
    /// the mesh.
    pub fn protect_only(&mut self, name: &'static str, peers: impl IntoIterator<Item = PeerId>) {
        let wanted: BTreeSet<PeerId> = peers.into_iter().collect();
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(peer, known)| known.protections.contains(name) && !wanted.contains(peer))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in gone {
            self.unprotect(&peer, name);
        }
        for peer in wanted {
            self.protect(peer, name);
        }
    }

    /// Gives a connected peer a value under a name, in place of the one it had. Peers of less value go first. Nothing
    /// happens for a peer that is not connected, or has [`MAX_TAGS`] others.
    pub fn tag(&mut self, peer: &PeerId, name: &'static str, value: i32) {
        if let Some(known) = self.peers.get_mut(peer).filter(|known| known.connections > 0)
            && (known.tags.len() < MAX_TAGS || known.tags.contains_key(name))
        {
            known.tags.insert(name, value);
        }
    }

    /// Takes a value away.
    pub fn untag(&mut self, peer: &PeerId, name: &'static str) {
        if let Some(known) = self.peers.get_mut(peer) {
            known.tags.remove(name);
        }
    }

    /// What to close now, at most [`WaterConfig::max_per_tick`]. Ask every few seconds.
    #[must_use]
    pub fn tick(&mut self, now: Duration) -> Vec<Close> {
        let open = self.connections.len().saturating_sub(self.closing);
        if open > self.config.high {
            self.ebbing = true;
        }
        if open <= self.config.low {
            self.ebbing = false;
        }
        let too_many = open.saturating_sub(self.config.hard);
        let goal = if self.ebbing {
            open.saturating_sub(self.config.low)
        } else {
            too_many
        };
        let goal = goal.min(self.config.max_per_tick);
        if goal == 0 {
            return Vec::new();
        }
        let mut candidates: Vec<(Rank, ConnectionId, PeerId)> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.closing)
            .map(|(id, connection)| (self.rank(connection, now), *id, connection.peer))
            .filter(|(rank, _, _)| !rank.spared || too_many > 0)
            .collect();
        candidates.sort_unstable();
        let mut closes = Vec::with_capacity(goal);
        for (rank, connection, peer) in candidates.into_iter().take(goal) {
            let forced = rank.spared;
            if forced && closes.len() >= too_many {
                break;
            }
            let reason = if forced || !self.ebbing {
                CloseReason::HardLimit
            } else {
                CloseReason::HighWater
            };
            closes.push(self.close(connection, peer, reason));
        }
        closes
    }

    fn rank(&self, connection: &Connection, now: Duration) -> Rank {
        let peer = self.peers.get(&connection.peer);
        let protected = peer.is_some_and(|peer| !peer.protections.is_empty());
        let young = now.saturating_sub(connection.since) < self.config.grace;
        Rank {
            spared: protected || young,
            protected,
            // The second connection to a peer is worth less than the only one to another.
            single: peer.is_none_or(|peer| peer.connections < 2),
            value: peer.map_or(0, Peer::value),
            since: std::cmp::Reverse(connection.since),
        }
    }

    fn close(&mut self, connection: ConnectionId, peer: PeerId, reason: CloseReason) -> Close {
        if let Some(known) = self.connections.get_mut(&connection)
            && !known.closing
        {
            known.closing = true;
            self.closing = self.closing.saturating_add(1);
        }
        Close {
            connection,
            peer,
            reason,
        }
    }

    fn forget_idle(&mut self, peer: &PeerId) {
        if let Some(known) = self.peers.get(peer)
            && known.connections == 0
            && known.protections.is_empty()
        {
            self.peers.remove(peer);
        }
    }

    /// Connections there are, those that are closing among them.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Whether the peer is protected by anything.
    #[must_use]
    pub fn is_protected(&self, peer: &PeerId) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|known| !known.protections.is_empty())
    }

    /// How often [`Water::protect`] had no room.
    #[must_use]
    pub fn marks_refused(&self) -> u64 {
        self.marks_refused
    }
}

/// What decides who goes first: the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    spared: bool,
    protected: bool,
    single: bool,
    value: i64,
    since: std::cmp::Reverse<Duration>,
}

/// An address as it is counted: whoever has one IPv6 address has 2^64 of them.
pub(crate) fn block_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        },
    }
}

fn is_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local() || v4.is_unspecified(),
        // The block of ::1 is ::.
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
