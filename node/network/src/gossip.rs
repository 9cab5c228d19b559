//! Gossipsub as this network runs it: settings, and the verdicts owed on received messages (p2p-wire §4).
//!
//! Signatures are checked by the router below; whether content is good is said from outside through a verdict. A
//! verdict that does not come in time is Ignore, so the router's cache never loses a message that somebody still
//! thinks about. Ages and replays are judged by `routing`, which knows authors. Soft state.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::gossipsub::{
    self, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId, MetricsConfig,
    PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams, ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::metrics::Registry;
use tokio::time::Instant;

use crate::config::{
    GOSSIP_BUFFER, LABELS_TOPIC, MAX_ANNOUNCEMENT_FRAME, MAX_AWAITING_VERDICT, VERDICT_DEADLINE,
};
use crate::error::NetworkError;
use crate::event::{AnnouncementToken, Verdict};

/// Ids in one control message of ours: 180 ids of 46 bytes keep an IHAVE below the 10,240 bytes that peers take.
const MAX_CONTROL_IDS: usize = 180;
const _: () = assert!(MAX_CONTROL_IDS * 50 < 10_240);

/// The router's first look at its mesh; the reference waits 100 ms too.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(100);

/// How long a message waits for a slow peer before it is left out. The router's own second for forwarded messages is
/// meant for networks where a late message is worthless; here a late one saves a fetch. Queues stay bounded by count.
const QUEUE_DURATION: Duration = Duration::from_secs(20);

/// How long a message id is remembered (p2p-wire §4.1).
const DUPLICATE_CACHE: Duration = Duration::from_secs(120);

/// Peers whose application score is remembered.
const MAX_SCORED: usize = 4096;

/// Bounds of a peer's application score; the router multiplies it by 10.
const SCORE_RANGE: (f64, f64) = (-100.0, 10.0);

/// What a refused announcement costs its author, if the author sent it to us itself. Nine within a few minutes bring
/// a peer below the router's graylist threshold of -80.
pub(crate) const REFUSED_PENALTY: f64 = -1.0;

/// IHAVE promises a peer may break within a heartbeat or two before it costs anything (P7). Nodes of the reference
/// forward messages that our router refuses unread, so an honest peer cannot keep every promise.
const PROMISES_FORGIVEN: f64 = 6.0;

/// The application score fades by half in this time.
pub(crate) const SCORE_HALF_LIFE: Duration = Duration::from_secs(600);

/// The labels topic.
pub(crate) fn topic() -> IdentTopic {
    IdentTopic::new(LABELS_TOPIC)
}

/// Author bytes followed by the sequence number in eight bytes, as every node of the network names a message.
fn message_id(message: &gossipsub::Message) -> MessageId {
    let mut id = message.source.map_or_else(Vec::new, |source| source.to_bytes());
    id.extend_from_slice(&message.sequence_number.unwrap_or_default().to_be_bytes());
    MessageId::new(&id)
}

/// The behaviour, subscribed to the topic.
///
/// The router's own figures go to `registry`. Topics of others get no series, so that no peer can add one.
pub(crate) fn behaviour(
    keypair: &Keypair,
    registry: &mut Registry,
) -> Result<gossipsub::Behaviour, NetworkError> {
    let internal = |what: &str, error: &dyn std::fmt::Display| NetworkError::Internal {
        reason: format!("gossip {what}: {error}"),
    };
    let topic = topic();
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(message_id)
        .duplicate_cache_time(DUPLICATE_CACHE)
        .heartbeat_initial_delay(FIRST_HEARTBEAT)
        .max_transmit_size(GOSSIP_BUFFER)
        .max_transmit_size_for_topic(MAX_ANNOUNCEMENT_FRAME, topic.hash())
        .max_control_messages_sent(MAX_CONTROL_IDS)
        // Without it a publisher whose mesh is still forming reaches nobody; with it every peer on the topic costs a
        // copy of every announcement. The mesh is filled up from the topic when it is small, which is enough.
        .flood_publish(false)
        .publish_queue_duration(QUEUE_DURATION)
        .forward_queue_duration(QUEUE_DURATION)
        .build()
        .map_err(|error| internal("configuration", &error))?;
    let mut behaviour = gossipsub::Behaviour::new(MessageAuthenticity::Signed(keypair.clone()), config)
        .map_err(|error| internal("behaviour", &error))?
        .with_metrics(
            registry.sub_registry_with_prefix("libp2p_gossipsub_router"),
            metrics_config(),
        );
    behaviour
        .with_peer_score(score_params(topic.hash()), PeerScoreThresholds::default())
        .map_err(|error| internal("scores", &error))?;
    behaviour
        .subscribe(&topic)
        .map_err(|error| internal("subscription", &error))?;
    Ok(behaviour)
}

fn metrics_config() -> MetricsConfig {
    let mut config = MetricsConfig {
        max_topics: 1,
        max_never_subscribed_topics: 0,
        ..MetricsConfig::default()
    };
    config.buckets_using_scoring_thresholds(&PeerScoreThresholds::default());
    config
}

/// Scores for a quiet topic: nothing is expected of a mesh peer, so silence costs nothing (P3, P3b). A crowd behind one
/// address (P6) is not the router's business.
///
/// Neither are invalid messages (P4): the router charges them to whoever forwarded them, and nodes of the reference
/// forward what this router refuses (no sequence number, unknown fields; p2p-wire §4.1) and what our readers refuse.
/// With that charge three such messages of one stranger would cut us off from every honest node for minutes. What a
/// peer itself has written is charged to it by [`REFUSED_PENALTY`].
fn score_params(topic: TopicHash) -> PeerScoreParams {
    let topic_params = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 1.0,
        first_message_deliveries_decay: 0.99,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: 0.0,
        invalid_message_deliveries_decay: 0.99,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic, topic_params)]),
        topic_score_cap: 60.0,
        // Connections from one public address are limited before the router hears of them, and behind a private one
        // may be everybody: a balancer that hides the callers would make the whole network look like one host.
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_threshold: PROMISES_FORGIVEN,
        retain_score: Duration::from_secs(600),
        ..PeerScoreParams::default()
    }
}

/// The router's word for a verdict.
pub(crate) fn acceptance(verdict: Verdict) -> MessageAcceptance {
    match verdict {
        Verdict::Accept => MessageAcceptance::Accept,
        Verdict::Ignore => MessageAcceptance::Ignore,
        Verdict::Reject => MessageAcceptance::Reject,
    }
}

/// A message whose verdict is owed to the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) id: MessageId,
    pub(crate) forwarder: PeerId,
    /// Whether the forwarder wrote it itself.
    pub(crate) is_own: bool,
}

/// Messages whose verdict is owed, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Awaiting {
    owed: BTreeMap<AnnouncementToken, (Owed, Instant)>,
    next: u64,
}

impl Awaiting {
    /// Files a message; `None` when too many wait, and then it has to be ignored at once.
    pub(crate) fn file(&mut self, owed: Owed, now: Instant) -> Option<AnnouncementToken> {
        if self.owed.len() >= MAX_AWAITING_VERDICT {
            return None;
        }
        let token = AnnouncementToken(self.next);
        self.next = self.next.wrapping_add(1);
        self.owed.insert(token, (owed, now + VERDICT_DEADLINE));
        Some(token)
    }

    /// The message a verdict is for, once.
    pub(crate) fn take(&mut self, token: AnnouncementToken) -> Option<Owed> {
        self.owed.remove(&token).map(|(owed, _)| owed)
    }

    /// Messages whose deadline has passed. Tokens grow with time, so only the front is looked at.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Owed> {
        let mut late = Vec::new();
        while let Some(entry) = self.owed.first_entry() {
            if entry.get().1 > now {
                break;
            }
            late.push(entry.remove().0);
        }
        late
    }

    pub(crate) fn len(&self) -> usize {
        self.owed.len()
    }
}

/// Application scores by peer.
#[derive(Debug, Default)]
pub(crate) struct Scores {
    scores: HashMap<PeerId, f64>,
    order: VecDeque<PeerId>,
}

impl Scores {
    /// Adds to a peer's score; the sum within its bounds. The peer first scored longest ago makes room.
    pub(crate) fn add(&mut self, peer: PeerId, delta: f64) -> f64 {
        let delta = if delta.is_finite() { delta } else { 0.0 };
        let known = self.scores.contains_key(&peer);
        let score = self.scores.entry(peer).or_insert(0.0);
        *score = (*score + delta).clamp(SCORE_RANGE.0, SCORE_RANGE.1);
        let score = *score;
        if !known {
            self.order.push_back(peer);
            if self.order.len() > MAX_SCORED
                && let Some(oldest) = self.order.pop_front()
            {
                self.scores.remove(&oldest);
            }
        }
        score
    }

    /// Lets every score fade for the time that has passed; the peers and what they have now.
    pub(crate) fn fade(&mut self, passed: Duration) -> Vec<(PeerId, f64)> {
        let factor = 0.5_f64.powf(passed.as_secs_f64() / SCORE_HALF_LIFE.as_secs_f64());
        for score in self.scores.values_mut() {
            *score *= factor;
            if score.abs() < 0.01 {
                *score = 0.0;
            }
        }
        let now: Vec<(PeerId, f64)> = self.scores.iter().map(|(peer, score)| (*peer, *score)).collect();
        self.scores.retain(|_, score| *score != 0.0);
        let scores = &self.scores;
        self.order.retain(|peer| scores.contains_key(peer));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_named_by_author_bytes_and_eight_bytes_of_sequence() {
        let author = PeerId::random();
        let message = gossipsub::Message {
            source: Some(author),
            data: vec![],
            sequence_number: Some(0x0102),
            topic: topic().hash(),
        };
        let mut expected = author.to_bytes();
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(message_id(&message).0, expected);
    }

    #[tokio::test]
    async fn the_settings_are_taken_by_the_router() {
        let behaviour = behaviour(&Keypair::generate_ed25519(), &mut Registry::default()).unwrap();
        let topics: Vec<String> = behaviour.topics().map(ToString::to_string).collect();
        assert_eq!(topics, ["dir/labels/v1"]);
        score_params(topic().hash()).validate().unwrap();
    }

    #[test]
    fn every_message_gets_one_verdict_at_most() {
        let now = Instant::now();
        let mut awaiting = Awaiting::default();
        let owed = |n: u8| Owed {
            id: MessageId::new(&[n]),
            forwarder: PeerId::random(),
            is_own: false,
        };
        let first = awaiting.file(owed(1), now).unwrap();
        let second = awaiting.file(owed(2), now + Duration::from_secs(1)).unwrap();
        assert_eq!(awaiting.take(first).unwrap().id, MessageId::new(&[1]));
        assert!(awaiting.take(first).is_none());
        assert!(awaiting.overdue(now + VERDICT_DEADLINE).is_empty());
        let late = awaiting.overdue(now + VERDICT_DEADLINE + Duration::from_secs(1));
        assert_eq!(late.len(), 1);
        assert!(awaiting.take(second).is_none());
    }

    #[test]
    fn too_many_messages_without_a_verdict_are_refused_on_arrival() {
        let now = Instant::now();
        let mut awaiting = Awaiting::default();
        let forwarder = PeerId::random();
        for n in 0..MAX_AWAITING_VERDICT {
            let id = MessageId::new(&n.to_be_bytes());
            let owed = Owed {
                id,
                forwarder,
                is_own: true,
            };
            assert!(awaiting.file(owed, now).is_some());
        }
        let owed = Owed {
            id: MessageId::new(b"more"),
            forwarder,
            is_own: true,
        };
        assert!(awaiting.file(owed, now).is_none());
    }

    #[test]
    fn scores_are_bounded_and_fade() {
        let mut scores = Scores::default();
        let peer = PeerId::random();
        assert_eq!(scores.add(peer, -1e9), SCORE_RANGE.0);
        assert_eq!(scores.add(peer, f64::NAN), SCORE_RANGE.0);
        let faded = scores.fade(SCORE_HALF_LIFE);
        assert!((faded[0].1 - SCORE_RANGE.0 / 2.0).abs() < 0.001);
        for _ in 0..40 {
            scores.fade(SCORE_HALF_LIFE);
        }
        assert!(scores.scores.is_empty() && scores.order.is_empty());
    }
}
