//! Keeping the number of connections in bounds: what the connection manager decides, carried out.
//!
//! [`Water`] judges; this file tells it who matters (bootstrap peers, our gossip mesh, peers of near buckets, relays we
//! hold reservations at) and closes what it names (p2p-wire §1.3).

use std::collections::HashSet;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

use super::Actor;
use super::connections::Link;
use crate::config::{Config, KAD_PROTOCOL};
use crate::limits::ip_of;
use crate::water::{BOOTSTRAP, MESH, ROUTING, Water, WaterConfig};

/// Between two looks at the number of connections.
const PRUNE_INTERVAL: Duration = Duration::from_secs(5);

/// Buckets whose peers are kept: those that share fewer than so many leading bits with us. They are the only ones that
/// lead to their part of the key space.
const FAR_BUCKETS: u32 = 2;

/// Protects the relays that hold our reservations.
const RELAY: &str = "relay";

/// Values of tags, after the reference: a peer on the topic is worth more than one in the table.
const TOPIC_VALUE: i32 = 50;
const DHT_VALUE: i32 = 5;

/// The connection manager and its clock.
#[derive(Debug)]
pub(super) struct Upkeep {
    water: Water,
    began: Instant,
    last: Instant,
}

impl Upkeep {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        let limits = &config.limits;
        let hard = limits
            .established_inbound
            .saturating_add(limits.established_outbound);
        let mut water = Water::new(WaterConfig {
            low: config.low_water,
            high: config.high_water,
            hard: usize::try_from(hard).unwrap_or(usize::MAX),
            grace: config.grace,
            max_per_address: usize::try_from(limits.per_ip).unwrap_or(usize::MAX),
            ..WaterConfig::default()
        });
        for peer in config.bootstrap.iter().filter_map(crate::config::peer_of) {
            water.protect(peer, BOOTSTRAP);
        }
        Self {
            water,
            began: now,
            last: now,
        }
    }

    fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    pub(super) fn on_disconnected(&mut self, link: &Link) {
        self.water.on_disconnected(link.id);
    }
}

impl Actor {
    pub(super) fn admit_connection(&mut self, peer: PeerId, link: &Link) {
        let now = self.upkeep.time(Instant::now());
        let close = self
            .upkeep
            .water
            .on_connected(link.id, peer, ip_of(&link.remote), now);
        if let Some(close) = close {
            tracing::debug!(%peer, reason = ?close.reason, "connection closed");
            self.metrics.pruned();
            self.swarm.close_connection(close.connection);
        }
    }

    /// Tells the connection manager who matters now, and closes what it names.
    pub(super) fn prune(&mut self, now: Instant) {
        if now.saturating_duration_since(self.upkeep.last) < PRUNE_INTERVAL {
            return;
        }
        self.upkeep.last = now;
        let (mesh, topic) = self.gossip_peers();
        let far = self.far_peers();
        let relays = self.reach.reserved();
        let water = &mut self.upkeep.water;
        water.protect_only(MESH, mesh);
        water.protect_only(ROUTING, far);
        water.protect_only(RELAY, relays);
        for (peer, state) in self.peers.iter() {
            if state.speaks(KAD_PROTOCOL.as_ref()) {
                water.tag(peer, "dht", DHT_VALUE);
            } else {
                water.untag(peer, "dht");
            }
            if topic.contains(peer) {
                water.tag(peer, "topic", TOPIC_VALUE);
            } else {
                water.untag(peer, "topic");
            }
        }
        for close in water.tick(now.saturating_duration_since(self.upkeep.began)) {
            tracing::debug!(peer = %close.peer, reason = ?close.reason, "connection closed");
            self.metrics.pruned();
            self.swarm.close_connection(close.connection);
        }
    }

    /// Peers of the routing table in the far buckets.
    fn far_peers(&mut self) -> HashSet<PeerId> {
        self.swarm
            .behaviour_mut()
            .kad
            .kbuckets()
            .filter(|bucket| {
                // A bucket's distances all have the same highest bit; 255 for the farthest.
                bucket
                    .range()
                    .1
                    .ilog2()
                    .is_some_and(|bit| bit > 255 - FAR_BUCKETS)
            })
            .flat_map(|bucket| {
                bucket
                    .iter()
                    .map(|entry| *entry.node.key.preimage())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}
