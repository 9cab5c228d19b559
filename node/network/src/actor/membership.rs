//! Belonging to the network: bootstrap peers dialled until they answer, the routing table kept filled.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::Actor;
use crate::config::{Config, KAD_PROTOCOL, Role, peer_of};
use crate::event::NetworkEvent;
use crate::mdns::Neighbour;

/// Between the first two dials to a bootstrap peer; doubled after each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest pause between two dials to a bootstrap peer. They are few, and whoever joins through one that was away
/// finds the others only when they are back at it.
const LAST_RETRY: Duration = Duration::from_secs(8);

/// A dial that never reported back is taken as lost after this time.
const DIAL_LOST: Duration = Duration::from_secs(60);

/// Tables up to this size are filled up from connected peers (p2p-wire §2.7).
const LOW_TABLE: usize = 10;

/// Between two looks at a low table.
const REPAIR_INTERVAL: Duration = Duration::from_secs(10);

/// One bootstrap peer.
#[derive(Debug)]
struct Member {
    addrs: Vec<Multiaddr>,
    connected: bool,
    /// Failures in a row.
    failures: u32,
    /// Not dialled before this moment.
    next: Instant,
}

/// What is known about our place in the network.
#[derive(Debug)]
pub(super) struct Membership {
    bootstrap: BTreeMap<PeerId, Member>,
    bootstrapped: bool,
    told: bool,
    table: usize,
    dirty: bool,
    last_repair: Instant,
}

impl Membership {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let mut bootstrap: BTreeMap<PeerId, Member> = BTreeMap::new();
        for addr in &config.bootstrap {
            if let Some(peer) = peer_of(addr) {
                bootstrap
                    .entry(peer)
                    .or_insert_with(|| Member {
                        addrs: Vec::new(),
                        connected: false,
                        failures: 0,
                        next: now,
                    })
                    .addrs
                    .push(addr.clone());
            }
        }
        Self {
            bootstrap,
            bootstrapped: config.role() == Role::Bootstrap,
            told: false,
            table: 0,
            dirty: false,
            last_repair: now,
        }
    }

    pub(super) fn bootstrapped(&self) -> bool {
        self.bootstrapped
    }

    /// Table size when last looked at.
    pub(super) fn table(&self) -> usize {
        self.table
    }

    pub(super) fn table_changed(&mut self) {
        self.dirty = true;
    }

    pub(super) fn on_connected(&mut self, peer: &PeerId) {
        if let Some(member) = self.bootstrap.get_mut(peer) {
            member.connected = true;
            member.failures = 0;
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: &PeerId, now: Instant) {
        self.dirty = true;
        if let Some(member) = self.bootstrap.get_mut(peer) {
            member.connected = false;
            member.next = now + FIRST_RETRY;
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: &PeerId, connected: bool, now: Instant) {
        if let Some(member) = self.bootstrap.get_mut(peer)
            && !connected
        {
            member.failures = member.failures.saturating_add(1);
            member.next = now + back_off(member.failures, rand::random());
        }
    }

    /// Bootstrap peers whose turn it is; each is taken as being dialled from now on.
    fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.bootstrap
            .iter_mut()
            .filter(|(_, member)| !member.connected && member.next <= now)
            .map(|(peer, member)| {
                member.next = now + DIAL_LOST;
                (*peer, member.addrs.clone())
            })
            .collect()
    }

    /// An empty table makes every bootstrap peer due at once.
    fn hurry(&mut self, now: Instant) {
        for member in self.bootstrap.values_mut() {
            if !member.connected && member.failures > 0 {
                member.next = member.next.min(now + FIRST_RETRY);
            }
        }
    }
}

/// The pause after so many failures in a row, up to a quarter of it random so that nodes do not knock in step.
fn back_off(failures: u32, random: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(10);
    let pause = FIRST_RETRY.saturating_mul(1 << doublings).min(LAST_RETRY);
    pause.mul_f64(1.0 + 0.25 * random.clamp(0.0, 1.0))
}

impl Actor {
    /// Dials bootstrap peers whose turn it is and fills a low table.
    pub(super) fn keep_members(&mut self, now: Instant) {
        if self.membership.table == 0
            && now.saturating_duration_since(self.membership.last_repair) >= REPAIR_INTERVAL
        {
            self.membership.hurry(now);
        }
        for (peer, addrs) in self.membership.due(now) {
            let opts = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addrs)
                .extend_addresses_through_behaviour()
                .build();
            let dialled = self.swarm.dial(opts).is_ok();
            self.metrics
                .bootstrap_dial(if dialled { "started" } else { "not_started" });
            if !dialled {
                self.membership.on_dial_failed(&peer, false, now);
            }
        }
        if self.membership.table <= LOW_TABLE
            && now.saturating_duration_since(self.membership.last_repair) >= REPAIR_INTERVAL
        {
            self.membership.last_repair = now;
            self.repair_table();
        }
    }

    /// Puts connected peers that speak the DHT back into the table: an address that failed once takes its peer out.
    fn repair_table(&mut self) {
        let lost: Vec<(PeerId, Vec<Multiaddr>)> = {
            let table = self.table_peers();
            self.peers
                .iter()
                .filter(|(peer, state)| state.speaks(KAD_PROTOCOL.as_ref()) && !table.contains(peer))
                .map(|(peer, state)| (*peer, state.addrs.clone()))
                .collect()
        };
        for (peer, addrs) in lost {
            for addr in addrs {
                self.swarm.behaviour_mut().kad.add_address(&peer, addr);
            }
        }
    }

    /// A peer on the local network: dialled unless it is connected, as the reference does.
    pub(super) fn on_neighbour(&mut self, found: Neighbour) {
        let Neighbour { peer, addresses } = found;
        if peer == self.id {
            return;
        }
        self.swarm
            .behaviour_mut()
            .book
            .remember(peer, addresses.iter().cloned());
        for addr in addresses {
            self.out.emit(NetworkEvent::Discovered { peer, addr });
        }
        let opts = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        if let Err(error) = self.swarm.dial(opts) {
            tracing::trace!(%peer, %error, "neighbour not dialled");
        }
    }

    /// A table refresh has ended.
    pub(super) fn on_refreshed(&mut self) {
        let table = self.table_size();
        if table == 0 {
            return;
        }
        self.membership.bootstrapped = true;
        if !self.membership.told {
            self.membership.told = true;
            tracing::info!(peers = table, "routing table filled");
            self.out.emit(NetworkEvent::Bootstrapped);
        }
    }

    /// Tells when the size of the table has changed.
    pub(super) fn watch_table(&mut self) {
        if !std::mem::take(&mut self.membership.dirty) {
            return;
        }
        let peers = self.table_size();
        if peers != self.membership.table {
            self.membership.table = peers;
            self.out.emit(NetworkEvent::TableChanged { peers });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peers: &[PeerId]) -> Config {
        Config {
            bootstrap: peers
                .iter()
                .map(|peer| format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}").parse().unwrap())
                .collect(),
            ..Config::default()
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        assert_eq!(back_off(1, 0.0), FIRST_RETRY);
        assert_eq!(back_off(3, 0.0), FIRST_RETRY * 4);
        assert_eq!(back_off(u32::MAX, 0.0), LAST_RETRY);
        assert!(back_off(u32::MAX, 1.0) <= LAST_RETRY.mul_f64(1.25));
    }

    #[test]
    fn every_bootstrap_peer_is_dialled_once_at_start_and_again_after_its_pause() {
        let peers = [PeerId::random(), PeerId::random()];
        let now = Instant::now();
        let mut membership = Membership::new(&config(&peers), now);
        assert!(!membership.bootstrapped());
        assert_eq!(membership.due(now).len(), 2);
        assert!(membership.due(now).is_empty(), "under way");
        membership.on_connected(&peers[0]);
        membership.on_dial_failed(&peers[1], false, now);
        assert!(membership.due(now).is_empty());
        let later = membership.due(now + FIRST_RETRY * 2);
        assert_eq!(later.len(), 1);
        assert_eq!(later[0].0, peers[1]);
    }

    #[test]
    fn a_bootstrap_peer_that_left_is_dialled_again() {
        let peer = PeerId::random();
        let now = Instant::now();
        let mut membership = Membership::new(&config(&[peer]), now);
        membership.due(now);
        membership.on_connected(&peer);
        assert!(membership.due(now + LAST_RETRY * 3).is_empty());
        membership.on_disconnected(&peer, now);
        assert_eq!(membership.due(now + FIRST_RETRY).len(), 1);
    }

    #[test]
    fn a_node_without_bootstrap_peers_is_one() {
        let membership = Membership::new(&config(&[]), Instant::now());
        assert!(membership.bootstrapped());
    }
}
