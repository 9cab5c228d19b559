//! Being reachable: which addresses we call ours, what peers say about them, and relays when nobody gets through.
//!
//! Provider records carry external addresses only, so a node needs one before its first provide (p2p-wire §2.4).
//! Configured addresses win. Without any, listen addresses of the local network are taken at their word, as the
//! reference does; loopback ones only when there is nothing else; public ones wait until peers have confirmed them,
//! unless we are told that we are public.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, autonat, relay};
use tokio::time::Instant;

use super::Actor;
use crate::behaviour::relay_status;
use crate::config::{Config, Reachability, peer_of};
use crate::event::NetworkEvent;
use crate::scope::{Scope, scope};
use crate::status::ReachabilityVerdict;

/// Reservations held at once.
const WANTED_RESERVATIONS: usize = 2;

/// Between two attempts at one relay; doubled after each failure.
const FIRST_RETRY: Duration = Duration::from_secs(10);

/// The longest pause between two attempts at one relay.
const LAST_RETRY: Duration = Duration::from_secs(15 * 60);

/// Relays remembered with their pauses.
const MAX_RELAYS: usize = 256;

/// What a peer offers when it relays.
const HOP_PROTOCOL: &str = "/libp2p/circuit/relay/0.2.0/hop";

/// One relay we know.
#[derive(Debug)]
struct Relay {
    addr: Multiaddr,
    listener: Option<ListenerId>,
    confirmed: bool,
    failures: u32,
    next: Instant,
}

/// What is known about our own reachability.
#[derive(Debug)]
pub(super) struct Reach {
    mode: Reachability,
    verdict: ReachabilityVerdict,
    announced: bool,
    /// External addresses that were derived from listen addresses.
    derived: BTreeSet<Multiaddr>,
    relays: BTreeMap<PeerId, Relay>,
    fixed_relays: bool,
}

impl Reach {
    pub(super) fn new(config: &Config) -> Self {
        let now = Instant::now();
        let relays = config
            .static_relays
            .iter()
            .filter_map(|addr| peer_of(addr).map(|peer| (peer, fresh_relay(addr.clone(), now))))
            .collect();
        Self {
            mode: config.reachability,
            verdict: match config.reachability {
                Reachability::Auto => ReachabilityVerdict::Unknown,
                Reachability::Public => ReachabilityVerdict::Public,
                Reachability::Private => ReachabilityVerdict::Private,
            },
            announced: !config.announce.is_empty(),
            derived: BTreeSet::new(),
            relays,
            fixed_relays: !config.static_relays.is_empty(),
        }
    }

    pub(super) fn verdict(&self) -> ReachabilityVerdict {
        self.verdict
    }

    /// Relays that hold a reservation of ours.
    pub(super) fn reserved(&self) -> Vec<PeerId> {
        self.relays
            .iter()
            .filter(|(_, relay)| relay.listener.is_some())
            .map(|(peer, _)| *peer)
            .collect()
    }

    /// Listen addresses that we call external without asking anybody.
    fn derive(&self, listening: &[Multiaddr]) -> BTreeSet<Multiaddr> {
        if self.announced {
            return BTreeSet::new();
        }
        let at = |wanted: Scope| listening.iter().filter(move |addr| scope(addr) == wanted);
        let direct = |addr: &&Multiaddr| !addr.iter().any(|part| matches!(part, Protocol::P2pCircuit));
        let mut taken: BTreeSet<Multiaddr> = at(Scope::Private).filter(direct).cloned().collect();
        if self.mode == Reachability::Public {
            taken.extend(at(Scope::Public).filter(direct).cloned());
        }
        if taken.is_empty() && !at(Scope::Public).any(|addr| direct(&addr)) {
            taken = at(Scope::Loopback).cloned().collect();
        }
        taken
    }

    /// Relays to reserve at now.
    fn due(&mut self, now: Instant) -> Vec<(PeerId, Multiaddr)> {
        if self.verdict != ReachabilityVerdict::Private {
            return Vec::new();
        }
        let held = self
            .relays
            .values()
            .filter(|relay| relay.listener.is_some())
            .count();
        let wanted = WANTED_RESERVATIONS.saturating_sub(held);
        self.relays
            .iter()
            .filter(|(_, relay)| relay.listener.is_none() && relay.next <= now)
            .take(wanted)
            .map(|(peer, relay)| (*peer, relay.addr.clone()))
            .collect()
    }

    fn failed(&mut self, peer: PeerId, now: Instant) {
        if let Some(relay) = self.relays.get_mut(&peer) {
            relay.listener = None;
            relay.confirmed = false;
            relay.failures = relay.failures.saturating_add(1);
            let doublings = relay.failures.saturating_sub(1).min(10);
            relay.next = now + FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
        }
    }

    /// A peer that relays, seen by identify.
    fn offer(&mut self, peer: PeerId, addr: Multiaddr, now: Instant) {
        if self.fixed_relays {
            return;
        }
        if let Some(relay) = self.relays.get_mut(&peer) {
            relay.addr = addr;
            return;
        }
        if self.relays.len() >= MAX_RELAYS {
            // Whoever failed most makes room; peers that only say that they relay would keep out those that do.
            let worst = self
                .relays
                .iter()
                .filter(|(_, relay)| relay.listener.is_none() && relay.failures > 0)
                .max_by_key(|(_, relay)| relay.failures)
                .map(|(peer, _)| *peer);
            let Some(worst) = worst else { return };
            self.relays.remove(&worst);
        }
        self.relays.insert(peer, fresh_relay(addr, now));
    }
}

fn fresh_relay(addr: Multiaddr, now: Instant) -> Relay {
    Relay {
        addr,
        listener: None,
        confirmed: false,
        failures: 0,
        next: now,
    }
}

/// The address with a peer id at its end.
pub(super) fn with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr {
    if peer_of(&addr) == Some(peer) {
        addr
    } else {
        addr.with(Protocol::P2p(peer))
    }
}

impl Actor {
    pub(super) fn on_listening(&mut self, addr: Multiaddr) {
        let addr_with_peer = with_peer(addr, self.id);
        // Operators look for this line to know where the node listens.
        tracing::info!(multiaddr = %addr_with_peer, "listening");
        self.out.emit(NetworkEvent::Listening { addr: addr_with_peer });
        self.derive_external();
    }

    pub(super) fn on_listener_gone(&mut self, addrs: &[Multiaddr]) {
        for addr in addrs {
            tracing::info!(multiaddr = %addr, "no longer listening");
            self.out.emit(NetworkEvent::ListenerGone {
                addr: with_peer(addr.clone(), self.id),
            });
        }
        self.derive_external();
    }

    pub(super) fn add_external(&mut self, addr: Multiaddr) {
        self.swarm.add_external_address(addr.clone());
        self.out.emit(NetworkEvent::ExternalAddressConfirmed { addr });
    }

    fn derive_external(&mut self) {
        let listening: Vec<Multiaddr> = self.swarm.listeners().cloned().collect();
        self.announced_to_link.send_replace(listening.clone());
        let wanted = self.reach.derive(&listening);
        let had = std::mem::replace(&mut self.reach.derived, wanted.clone());
        for addr in had.difference(&wanted) {
            self.swarm.remove_external_address(addr);
            self.out
                .emit(NetworkEvent::ExternalAddressExpired { addr: addr.clone() });
        }
        for addr in wanted.difference(&had) {
            self.add_external(addr.clone());
        }
    }

    pub(super) fn on_autonat(&mut self, event: &autonat::v1::Event) {
        let autonat::v1::Event::StatusChanged { new, .. } = event else {
            return;
        };
        if self.reach.mode != Reachability::Auto {
            return;
        }
        let verdict = match new {
            autonat::v1::NatStatus::Public(_) => ReachabilityVerdict::Public,
            autonat::v1::NatStatus::Private => ReachabilityVerdict::Private,
            autonat::v1::NatStatus::Unknown => ReachabilityVerdict::Unknown,
        };
        if verdict != self.reach.verdict {
            tracing::info!(?verdict, "reachability changed");
            self.reach.verdict = verdict;
            if let Some(server) = self.swarm.behaviour_mut().relay_server.as_mut() {
                server.set_status(Some(relay_status(verdict == ReachabilityVerdict::Public)));
            }
            self.out.emit(NetworkEvent::ReachabilityChanged { verdict });
        }
    }

    /// Holds reservations at relays while nobody can dial us directly.
    pub(super) fn keep_reachable(&mut self, now: Instant) {
        if self.reach.verdict == ReachabilityVerdict::Private {
            self.offer_relays(now);
        }
        for (peer, addr) in self.reach.due(now) {
            let circuit = with_peer(addr, peer).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(circuit) {
                Ok(listener) => {
                    if let Some(relay) = self.reach.relays.get_mut(&peer) {
                        relay.listener = Some(listener);
                    }
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "relay not usable");
                    self.reach.failed(peer, now);
                }
            }
        }
    }

    fn offer_relays(&mut self, now: Instant) {
        for (peer, state) in self.peers.iter() {
            if state.speaks(HOP_PROTOCOL)
                && let Some(addr) = state.addrs.first()
            {
                self.reach.offer(*peer, addr.clone(), now);
            }
        }
    }

    pub(super) fn on_relay_client(&mut self, event: &relay::client::Event) {
        if let relay::client::Event::ReservationReqAccepted {
            relay_peer_id,
            renewal,
            ..
        } = event
        {
            if !renewal {
                tracing::info!(relay = %relay_peer_id, "relay reservation held");
            }
            if let Some(relay) = self.reach.relays.get_mut(relay_peer_id) {
                relay.confirmed = true;
                relay.failures = 0;
            }
        }
    }

    /// A reservation is a listener; when it closes, another one has to be opened.
    pub(super) fn on_listener_closed(&mut self, id: ListenerId) {
        let lost = self
            .reach
            .relays
            .iter()
            .find(|(_, relay)| relay.listener == Some(id))
            .map(|(peer, relay)| (*peer, relay.confirmed));
        if let Some((peer, confirmed)) = lost {
            tracing::info!(relay = %peer, confirmed, "relay reservation lost");
            self.reach.failed(peer, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn derived(config: &Config, listening: &[&str]) -> Vec<String> {
        let listening: Vec<Multiaddr> = listening.iter().map(|text| addr(text)).collect();
        Reach::new(config)
            .derive(&listening)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn loopback_is_taken_only_when_there_is_nothing_else() {
        let config = Config::default();
        let (own, lan, wan) = (
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
        );
        assert_eq!(derived(&config, &[own]), [own]);
        assert_eq!(derived(&config, &[own, lan]), [lan]);
        assert_eq!(derived(&config, &[own, lan, wan]), [lan]);
        assert!(
            derived(&config, &[own, wan]).is_empty(),
            "peers have to confirm it"
        );
    }

    #[test]
    fn a_public_node_believes_its_own_addresses_and_an_announced_one_only_those_announced() {
        let wan = "/ip4/8.8.8.8/tcp/1";
        let public = Config {
            reachability: Reachability::Public,
            ..Config::default()
        };
        assert_eq!(derived(&public, &[wan]), [wan]);
        let announced = Config {
            announce: vec![addr("/dns/dir.example.com/tcp/1")],
            ..public
        };
        assert!(derived(&announced, &[wan, "/ip4/10.0.0.1/tcp/1"]).is_empty());
    }

    #[test]
    fn a_relay_that_failed_makes_room_for_one_that_was_not_tried() {
        let config = Config {
            reachability: Reachability::Private,
            ..Config::default()
        };
        let (mut reach, now) = (Reach::new(&config), Instant::now());
        let at = addr("/ip4/8.8.4.4/tcp/1");
        let first = PeerId::random();
        reach.offer(first, at.clone(), now);
        for _ in 0..2 * MAX_RELAYS {
            reach.offer(PeerId::random(), at.clone(), now);
        }
        assert_eq!(reach.relays.len(), MAX_RELAYS);
        reach.failed(first, now);
        let last = PeerId::random();
        reach.offer(last, at, now);
        assert!(reach.relays.contains_key(&last) && !reach.relays.contains_key(&first));
        assert_eq!(reach.relays.len(), MAX_RELAYS);
        let moved = addr("/ip4/8.8.8.8/tcp/1");
        reach.offer(last, moved.clone(), now);
        assert_eq!(reach.relays[&last].addr, moved);
    }

    #[test]
    fn relays_are_asked_only_when_private_and_pause_after_failing() {
        let peer = PeerId::random();
        let config = |reachability| Config {
            static_relays: vec![addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}"))],
            reachability,
            ..Config::default()
        };
        let now = Instant::now() + Duration::from_secs(1);
        assert!(Reach::new(&config(Reachability::Auto)).due(now).is_empty());
        let mut reach = Reach::new(&config(Reachability::Private));
        assert_eq!(reach.due(now).len(), 1);
        reach.failed(peer, now);
        assert!(reach.due(now).is_empty());
        assert_eq!(reach.due(now + FIRST_RETRY).len(), 1);
        for _ in 0..100 {
            reach.failed(peer, now);
        }
        assert_eq!(reach.due(now + LAST_RETRY).len(), 1);
        reach.offer(PeerId::random(), addr("/ip4/8.8.4.4/tcp/1"), now);
        assert_eq!(reach.relays.len(), 1, "configured relays are the only ones");
    }
}
