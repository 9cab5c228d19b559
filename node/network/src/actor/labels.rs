//! The labels topic: announcements out, announcements in, and the verdicts owed on them.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::gossipsub::{self, PublishError};
use tokio::time::Instant;

use super::Actor;
use crate::config::MAX_ANNOUNCEMENT;
use crate::error::NetworkError;
use crate::event::{Announced, AnnouncementToken, NetworkEvent, Verdict};
use crate::gossip::{Owed, REFUSED_PENALTY, acceptance, topic};
use crate::handle::AnnounceOutcome;

/// Authors not heard of before that one peer may bring: the time for one, and how many at once. A node that has just joined
/// a large network hears what was announced before by catching up.
const NEWCOMERS: (Duration, u32) = (Duration::from_millis(50), 1_000);

/// Authors that are remembered as heard of; the older half is forgotten above it.
const MAX_AUTHORS: usize = 65_536;

/// Authors heard of: a younger half, which takes the place of the older one when it is full.
#[derive(Debug, Default)]
pub(super) struct Authors {
    young: HashSet<PeerId>,
    old: HashSet<PeerId>,
}

impl Authors {
    fn contains(&mut self, author: &PeerId) -> bool {
        if self.young.contains(author) {
            return true;
        }
        let known = self.old.remove(author);
        if known {
            self.insert(*author);
        }
        known
    }

    fn insert(&mut self, author: PeerId) {
        if self.young.len() >= MAX_AUTHORS / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(author);
    }
}

impl Actor {
    pub(super) fn announce(&mut self, data: Bytes) -> Result<AnnounceOutcome, NetworkError> {
        let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() else {
            return Err(NetworkError::GossipDisabled);
        };
        let (result, outcome) = match gossip.publish(topic().hash(), data) {
            Ok(_) => ("sent", Ok(AnnounceOutcome::Sent)),
            Err(PublishError::NoPeersSubscribedToTopic) => ("no_peers", Ok(AnnounceOutcome::NoPeersYet)),
            Err(PublishError::AllQueuesFull(_)) => ("queues_full", Ok(AnnounceOutcome::QueuesFull)),
            Err(PublishError::MessageTooLarge) => (
                "too_large",
                Err(NetworkError::TooLarge {
                    what: "announcement",
                    size_bytes: MAX_ANNOUNCEMENT,
                    limit_bytes: MAX_ANNOUNCEMENT,
                }),
            ),
            Err(error) => (
                "failed",
                Err(NetworkError::Internal {
                    reason: format!("publishing: {error}"),
                }),
            ),
        };
        self.metrics.announced(result);
        outcome
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => self.on_announcement(propagation_source, message_id, message),
            gossipsub::Event::Subscribed { peer_id, topic: name } if name == topic().hash() => {
                // The router reports every repetition, and one costs a peer a few bytes.
                if let Some(state) = self.peers.get_mut(&peer_id)
                    && !std::mem::replace(&mut state.on_topic, true)
                {
                    self.out.emit(NetworkEvent::PeerSubscribed { peer: peer_id });
                }
            }
            // To come and go is not told: the mesh's size is looked at, and the next subscription adds nothing.
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                tracing::debug!(peer = %peer_id, "peer is too slow for gossip");
            }
            _ => {}
        }
    }

    fn on_announcement(&mut self, forwarder: PeerId, id: gossipsub::MessageId, message: gossipsub::Message) {
        self.metrics.announcement("received");
        let owed = Owed {
            id,
            forwarder,
            is_own: message.source == Some(forwarder),
        };
        // Strict validation lets no message without an author and a sequence number through.
        let (Some(publisher), Some(seqno)) = (message.source, message.sequence_number) else {
            self.metrics.announcement("unsigned");
            self.give_verdict(&owed, Verdict::Reject);
            return;
        };
        if !self.is_heard(publisher, forwarder) {
            self.metrics.announcement("too_many_authors");
            self.give_verdict(&owed, Verdict::Ignore);
            return;
        }
        if !self.out.has_room() {
            self.metrics.event_dropped("announcement");
            self.metrics.announcement("dropped");
            self.give_verdict(&owed, Verdict::Ignore);
            return;
        }
        let Some(token) = self.awaiting.file(owed.clone(), Instant::now()) else {
            self.metrics.announcement("dropped");
            self.give_verdict(&owed, Verdict::Ignore);
            return;
        };
        let announced = Announced {
            token,
            publisher,
            forwarder,
            seqno,
            received_at: (self.runtime.clock)(),
            data: Bytes::from(message.data),
        };
        if !self.out.offer(NetworkEvent::Announced(announced), "announcement") {
            self.awaiting.take(token);
            self.metrics.announcement("dropped");
            self.give_verdict(&owed, Verdict::Ignore);
        }
    }

    /// Whether an announcement of this author is listened to when this peer brings it. An author costs nobody anything, so
    /// a bound on each of them bounds nothing: those not heard of before count against whoever brings them.
    fn is_heard(&mut self, author: PeerId, forwarder: PeerId) -> bool {
        if self.authors.contains(&author) {
            return true;
        }
        let allowed = self
            .peers
            .get_mut(&forwarder)
            .is_some_and(|state| state.newcomers.take(NEWCOMERS, Instant::now()));
        if allowed {
            self.authors.insert(author);
        }
        allowed
    }

    pub(super) fn report(&mut self, token: AnnouncementToken, verdict: Verdict) {
        match self.awaiting.take(token) {
            Some(owed) => {
                self.metrics.verdict(verdict);
                self.give_verdict(&owed, verdict);
                // A forwarder of the reference's kind looks at no payload, so only an author is to blame.
                if verdict == Verdict::Reject && owed.is_own {
                    self.score(owed.forwarder, REFUSED_PENALTY);
                }
            }
            None => self.metrics.announcement("verdict_too_late"),
        }
    }

    pub(super) fn expire_verdicts(&mut self, now: Instant) {
        for owed in self.awaiting.overdue(now) {
            self.metrics.announcement("unjudged");
            self.give_verdict(&owed, Verdict::Ignore);
        }
    }

    fn give_verdict(&mut self, owed: &Owed, verdict: Verdict) {
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut()
            && !gossip.report_message_validation_result(&owed.id, &owed.forwarder, acceptance(verdict))
        {
            self.metrics.announcement("forgotten_by_router");
        }
    }

    pub(super) fn score(&mut self, peer: PeerId, delta: f64) {
        let score = self.scores.add(peer, delta);
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            gossip.set_application_score(&peer, score);
        }
    }

    pub(super) fn fade_scores(&mut self, passed: Duration) {
        let faded = self.scores.fade(passed);
        if let Some(gossip) = self.swarm.behaviour_mut().gossip.as_mut() {
            for (peer, score) in faded {
                gossip.set_application_score(&peer, score);
            }
        }
    }

    /// Peers in our mesh, and connected peers on the topic.
    pub(super) fn gossip_peers(&self) -> (HashSet<PeerId>, HashSet<PeerId>) {
        let Some(gossip) = self.swarm.behaviour().gossip.as_ref() else {
            return (HashSet::new(), HashSet::new());
        };
        let topic = topic().hash();
        let on_topic = gossip
            .all_peers()
            .filter(|(_, topics)| topics.contains(&&topic))
            .map(|(peer, _)| *peer)
            .collect();
        (gossip.mesh_peers(&topic).copied().collect(), on_topic)
    }

    /// How many peers are on the topic, and how many of them in our mesh.
    pub(super) fn topic_counts(&self) -> (usize, usize) {
        let (mesh, on_topic) = self.gossip_peers();
        (on_topic.len(), mesh.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_that_speak_are_remembered_and_their_number_is_bounded() {
        let (mut authors, known) = (Authors::default(), PeerId::random());
        authors.insert(known);
        for _ in 0..2 * MAX_AUTHORS {
            authors.insert(PeerId::random());
            assert!(authors.contains(&known));
            assert!(authors.young.len() + authors.old.len() <= MAX_AUTHORS);
        }
    }
}
