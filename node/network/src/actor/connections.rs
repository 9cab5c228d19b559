//! Connections: who is connected how, explicit dials, and what peers tell about themselves.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError};
use libp2p::{Multiaddr, PeerId, identify, ping};
use tokio::time::Instant;

use super::{Actor, dial_reason};
use crate::command::Reply;
use crate::config::{KAD_PROTOCOL, peer_of};
use crate::error::NetworkError;
use crate::event::NetworkEvent;
use crate::pending::Waiter;
use crate::scope;
use crate::status::{Direction, PeerView, TransportKind};

/// An explicit dial may take this long, several addresses included.
const DIAL_TIMEOUT: Duration = Duration::from_secs(25);

/// Longest agent version kept.
const MAX_AGENT_CHARS: usize = 128;

/// Protocol names kept of one peer. The reference keeps 1024; ours are for display and choices among known ones.
const MAX_PROTOCOLS: usize = 128;

/// Changes of what a peer says of itself that are taken: the time for one, and how many at once.
const CHANGES: (Duration, u32) = (Duration::from_secs(10), 16);

/// So much at once, and one more after each pause; the pause and the number are the caller's.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// When everything is allowed again; not in the future at the beginning.
    full_at: Option<Instant>,
}

impl Allowance {
    /// Takes one, if there is one left.
    pub(super) fn take(&mut self, (pause, most): (Duration, u32), now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now));
        let taken = full_at.saturating_duration_since(now);
        if taken > pause.saturating_mul(most.saturating_sub(1)) {
            return false;
        }
        self.full_at = Some(full_at + pause);
        true
    }
}

/// Somebody who waits for a dial.
pub(super) struct DialWaiter {
    pub(super) addr: Multiaddr,
    pub(super) reply: Reply<PeerId>,
}

impl DialWaiter {
    /// Ends the wait because its time is over.
    pub(super) fn fail(self, _now: Instant) {
        Waiter::fail(
            self,
            NetworkError::Timeout {
                what: "connect",
                after: DIAL_TIMEOUT,
            },
        );
    }
}

impl Waiter for DialWaiter {
    fn fail(self, error: NetworkError) {
        self.reply.fail(error);
    }

    fn gone(&self) -> bool {
        self.reply.gone()
    }
}

/// One connection.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    pub(super) remote: Multiaddr,
    pub(super) direction: Direction,
    pub(super) transport: TransportKind,
    /// Whether identify has answered on it.
    pub(super) identified: bool,
}

/// What is known about a connected peer.
#[derive(Debug, Default)]
pub(super) struct PeerState {
    pub(super) links: Vec<Link>,
    pub(super) addrs: Vec<Multiaddr>,
    pub(super) protocols: Vec<String>,
    pub(super) agent: String,
    pub(super) rtt: Option<Duration>,
    pub(super) directory_api: Option<String>,
    pub(super) oci: Option<String>,
    /// Whether it told us that it is on the labels topic; to say so again is no news.
    pub(super) on_topic: bool,
    /// How often it may change what it says of itself.
    changes: Allowance,
    /// How many announcements of authors not heard of before it may bring.
    pub(super) newcomers: Allowance,
}

impl PeerState {
    /// Whether the peer told us that it speaks a protocol.
    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known == protocol)
    }
}

/// Connected peers; as many as the connection limits let in.
#[derive(Debug, Default)]
pub(super) struct Peers {
    known: HashMap<PeerId, PeerState>,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn connections(&self) -> usize {
        self.known.values().map(|peer| peer.links.len()).sum()
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&PeerState> {
        self.known.get(peer)
    }

    pub(super) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut PeerState> {
        self.known.get_mut(peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &PeerState)> {
        self.known.iter()
    }

    /// Whether this is the first connection to the peer.
    fn add(&mut self, peer: PeerId, link: Link) -> bool {
        let state = self.known.entry(peer).or_default();
        state.links.push(link);
        state.links.len() == 1
    }

    /// The connection that is gone, and whether it was the last one.
    fn remove(&mut self, peer: &PeerId, id: ConnectionId) -> Option<(Link, bool)> {
        let state = self.known.get_mut(peer)?;
        let at = state.links.iter().position(|link| link.id == id)?;
        let link = state.links.remove(at);
        let last = state.links.is_empty();
        if last {
            self.known.remove(peer);
        }
        Some((link, last))
    }
}

/// Why an inbound connection failed, as a metric names it.
pub(super) fn listen_failure(error: &ListenError) -> &'static str {
    match error {
        ListenError::Aborted => "aborted",
        ListenError::WrongPeerId { .. } => "wrong_peer",
        ListenError::LocalPeerId { .. } => "self",
        ListenError::Denied { .. } => "denied",
        ListenError::Transport(_) => "handshake",
    }
}

impl Actor {
    pub(super) fn connect(&mut self, addr: Multiaddr, reply: Reply<PeerId>) {
        let named = peer_of(&addr);
        if let Some(peer) = named
            && self.peers.get(&peer).is_some()
        {
            let _ = reply.send(Ok(peer));
            return;
        }
        let opts = match named {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(PeerCondition::Always)
                .addresses(vec![addr.clone()])
                .build(),
            None => DialOpts::unknown_peer_id().address(addr.clone()).build(),
        };
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                let waiter = DialWaiter { addr, reply };
                self.dials.insert(id, waiter, Instant::now() + DIAL_TIMEOUT);
            }
            Err(error) => {
                let reason = dial_reason(&error);
                let _ = reply.send(Err(NetworkError::Dial { addr, reason }));
            }
        }
    }

    pub(super) fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let (remote, direction) = match endpoint {
            ConnectedPoint::Dialer { address, .. } => (address.clone(), Direction::Outbound),
            ConnectedPoint::Listener {
                send_back_addr,
                local_addr,
                ..
            } => {
                // A relayed inbound connection shows the relay only in its local address.
                let relayed = TransportKind::of(local_addr) == TransportKind::Relay;
                let remote = if relayed { local_addr } else { send_back_addr };
                (remote.clone(), Direction::Inbound)
            }
        };
        let transport = TransportKind::of(&remote);
        self.metrics.connected(direction, transport, 1);
        if direction == Direction::Outbound {
            self.metrics.dialled("ok");
        }
        let link = Link {
            id,
            remote,
            direction,
            transport,
            identified: false,
        };
        self.admit_connection(peer, &link);
        let first = self.peers.add(peer, link);
        if let Some(waiter) = self.dials.take(id) {
            let _ = waiter.reply.send(Ok(peer));
        }
        self.membership.on_connected(&peer);
        if first {
            self.out.emit(NetworkEvent::PeerConnected { peer });
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: PeerId, id: ConnectionId) {
        let Some((link, last)) = self.peers.remove(&peer, id) else {
            return;
        };
        self.upkeep.on_disconnected(&link);
        self.metrics.connected(link.direction, link.transport, -1);
        if last {
            self.membership.on_disconnected(&peer, Instant::now());
            self.out.emit(NetworkEvent::PeerDisconnected { peer });
        }
    }

    pub(super) fn on_dial_failed(&mut self, id: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        if !matches!(error, DialError::DialPeerConditionFalse(_)) {
            self.metrics.dialled("failed");
            tracing::debug!(?peer, reason = dial_reason(error), "dial failed");
        }
        if let Some(waiter) = self.dials.take(id) {
            let answer = match error {
                // The named peer was connected meanwhile from its own side.
                DialError::DialPeerConditionFalse(_)
                    if peer.is_some_and(|peer| self.peers.get(&peer).is_some()) =>
                {
                    peer.ok_or(NetworkError::Closed)
                }
                _ => Err(NetworkError::Dial {
                    addr: waiter.addr,
                    reason: dial_reason(error),
                }),
            };
            let _ = waiter.reply.send(answer);
        }
        if let Some(peer) = peer {
            let connected = self.peers.get(&peer).is_some();
            self.membership.on_dial_failed(&peer, connected, Instant::now());
        }
    }

    pub(super) fn on_ping(&mut self, event: &ping::Event) {
        if let (Ok(rtt), Some(state)) = (&event.result, self.peers.get_mut(&event.peer)) {
            state.rtt = Some(*rtt);
        }
    }

    pub(super) fn on_identify(&mut self, event: identify::Event) {
        let (peer, connection, info) = match event {
            identify::Event::Received {
                peer_id,
                connection_id,
                info,
            } => (peer_id, connection_id, info),
            identify::Event::Error { peer_id, error, .. } => {
                tracing::debug!(peer = %peer_id, %error, "identify failed");
                return;
            }
            _ => return,
        };
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        let place = state.links.iter().position(|link| link.id == connection);
        let Some(link) = state.links.get_mut(place.unwrap_or(0)) else {
            return;
        };
        let first = !std::mem::replace(&mut link.identified, true);
        let addrs = scope::usable(&peer, &link.remote, info.listen_addrs);
        let protocols: Vec<String> = info
            .protocols
            .iter()
            .take(MAX_PROTOCOLS)
            .map(ToString::to_string)
            .collect();
        let speaks_dht = info.protocols.contains(&KAD_PROTOCOL);
        let agent: String = info.agent_version.chars().take(MAX_AGENT_CHARS).collect();
        let changed = (&state.addrs, &state.protocols, &state.agent) != (&addrs, &protocols, &agent);
        if !first && !changed {
            return;
        }
        // A push costs a peer nothing; what it says costs us the table, an event and a look by everybody who reads it.
        if !first && !state.changes.take(CHANGES, Instant::now()) {
            self.metrics.event_dropped("identify");
            return;
        }
        state.addrs.clone_from(&addrs);
        state.protocols.clone_from(&protocols);
        state.agent.clone_from(&agent);
        let behaviour = self.swarm.behaviour_mut();
        behaviour.book.remember(peer, addrs.clone());
        if speaks_dht {
            for addr in &addrs {
                behaviour.kad.add_address(&peer, addr.clone());
            }
        } else {
            // A peer that stopped serving the DHT would stay in the table for ever.
            behaviour.kad.remove_peer(&peer);
        }
        self.membership.table_changed();
        self.out.emit(NetworkEvent::PeerIdentified {
            peer,
            agent,
            protocols,
            addrs,
        });
    }

    /// Every connected peer, in the order of their ids.
    pub(super) fn peer_views(&mut self) -> Vec<PeerView> {
        let table = self.table_peers();
        let (mesh, on_topic) = self.gossip_peers();
        let gossip = self.swarm.behaviour().gossip.as_ref();
        let mut views: Vec<PeerView> = self
            .peers
            .iter()
            .map(|(peer, state)| PeerView {
                peer: *peer,
                connections: state
                    .links
                    .iter()
                    .map(|link| (link.remote.clone(), link.direction, link.transport))
                    .collect(),
                addrs: state.addrs.clone(),
                protocols: state.protocols.clone(),
                agent: state.agent.clone(),
                rtt: state.rtt,
                directory_api: state.directory_api.clone(),
                oci: state.oci.clone(),
                in_table: table.contains(peer),
                in_mesh: mesh.contains(peer),
                on_topic: on_topic.contains(peer),
                score: gossip.and_then(|gossip| gossip.peer_score(peer)),
            })
            .collect();
        views.sort_by_key(|view| view.peer);
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_much_at_once_and_one_more_after_each_pause() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        let rate = (Duration::from_secs(10), 3);
        let taken = |allowance: &mut Allowance, at: u64| {
            let now = now + Duration::from_secs(at);
            (0..10).filter(|_| allowance.take(rate, now)).count()
        };
        assert_eq!(taken(&mut allowance, 0), 3);
        assert_eq!(taken(&mut allowance, 9), 0);
        assert_eq!(taken(&mut allowance, 10), 1);
        assert_eq!(taken(&mut allowance, 1_000), 3);
    }
}
