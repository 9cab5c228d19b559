//! Which announcements a node without records passes on.
//!
//! A relay cannot know whether labels are true. It can see whether a message is one at all: strict syntax, fresh, not
//! heard before, and not one of a flood by one author. Everything else is not forwarded. Holds soft state within fixed
//! bounds. Reads no clock: the time of receipt comes with the message. Follows p2p-wire §4.2 and §7, items 4 to 6.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};

use dirnode_network::{PeerId, Verdict};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Labels in one announcement (p2p-wire §4.2).
const MAX_LABELS: usize = 100;
/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 1024;
/// The namespaces of labels (p2p-wire §6.1).
const NAMESPACES: [&str; 4] = ["/skills/", "/domains/", "/modules/", "/locators/"];

const SECOND: i64 = 1_000_000_000;
/// Older announcements are replays, or so late that the author's next one will do. The rule of full nodes.
const MAX_AGE: i64 = 60 * 60 * SECOND;
/// Clocks are wrong by minutes, not by more.
const MAX_AHEAD: i64 = 10 * 60 * SECOND;

/// Messages of one author that are passed on at once, and the time after which one more is: 300 a second, as full nodes
/// take them. A publisher of this kind sends 100 a second.
const BURST: i64 = 3_000;
const PAUSE: i64 = SECOND / 300;
/// Authors counted at a time; the older half is forgotten above it.
const MAX_AUTHORS: usize = 4_096;
/// Messages remembered at a time, so that none passes twice; the older half is forgotten above it.
const MAX_REMEMBERED: usize = 131_072;

/// Why a message is or is not passed on; a label of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Passed on.
    Accepted,
    /// Not an announcement at all.
    Malformed,
    /// An announcement with a CID or a label that no record has.
    Unfit,
    /// Its time is too long ago or ahead.
    OutOfTime,
    /// Heard before.
    Replay,
    /// Its author has sent too many.
    Flood,
}

impl Reason {
    /// Every reason, for the counters.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Malformed,
        Self::Unfit,
        Self::OutOfTime,
        Self::Replay,
        Self::Flood,
    ];

    /// Name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Malformed => "malformed",
            Self::Unfit => "unfit",
            Self::OutOfTime => "out_of_time",
            Self::Replay => "replay",
            Self::Flood => "flood",
        }
    }
}

/// A received message, its signature already checked.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Signed author.
    pub publisher: PeerId,
    /// Who carried it here.
    pub forwarder: PeerId,
    /// Nanoseconds since 1970, by our clock.
    pub received_at: i64,
    /// The payload.
    pub data: &'a [u8],
}

/// Gives verdicts. One per process; not shared.
#[derive(Debug)]
pub struct Judge {
    /// Keyed with a secret, so that nobody can make two messages look the same.
    hasher: RandomState,
    remembered: Halves<u64, ()>,
    /// When each author may send its whole burst again, in nanoseconds since 1970.
    rested_at: Halves<PeerId, i64>,
    /// When the older half of what is remembered is next forgotten, in nanoseconds since 1970.
    forget_messages_at: i64,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new()
    }
}

impl Judge {
    /// A judge that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            remembered: Halves::new(MAX_REMEMBERED / 2),
            rested_at: Halves::new(MAX_AUTHORS / 2),
            forget_messages_at: i64::MIN,
        }
    }

    /// The verdict on one message and why.
    ///
    /// A forwarder is blamed only for what no node of the network writes, and only as its author: the reference forwards
    /// whatever is signed, so its nodes carry bad payloads of others in good faith.
    pub fn verdict(&mut self, message: &Heard<'_>) -> (Verdict, Reason) {
        let reason = self.look_at(message);
        let verdict = match reason {
            Reason::Accepted => Verdict::Accept,
            Reason::Malformed if message.publisher == message.forwarder => Verdict::Reject,
            _ => Verdict::Ignore,
        };
        (verdict, reason)
    }

    fn look_at(&mut self, message: &Heard<'_>) -> Reason {
        self.forget(message.received_at);
        // The flood is looked at first: what follows costs more.
        let rested_at = self.rested_at.entry(message.publisher);
        let from = (*rested_at).max(message.received_at);
        if from.saturating_sub(message.received_at) > (BURST - 1) * PAUSE {
            return Reason::Flood;
        }
        *rested_at = from.saturating_add(PAUSE);
        let timestamp = match read(message.data) {
            Ok(timestamp) => timestamp,
            Err(reason) => return reason,
        };
        let age = message.received_at.saturating_sub(timestamp);
        if !(-MAX_AHEAD..=MAX_AGE).contains(&age) {
            return Reason::OutOfTime;
        }
        let mut hasher = self.hasher.build_hasher();
        message.publisher.hash(&mut hasher);
        message.data.hash(&mut hasher);
        if self.remembered.knew(hasher.finish()) {
            return Reason::Replay;
        }
        Reason::Accepted
    }

    /// A message is remembered for one to two of the spans in which its time would still be accepted.
    fn forget(&mut self, now: i64) {
        if now >= self.forget_messages_at {
            self.remembered.turn();
            self.forget_messages_at = now.saturating_add(MAX_AGE + MAX_AHEAD);
        }
    }
}

/// A map of two halves: new entries go to the younger one, and when that is full it becomes the older one.
#[derive(Debug)]
struct Halves<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: std::hash::Hash + Eq, V: Default> Halves<K, V> {
    fn new(limit: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            limit,
        }
    }

    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// The value of `key`, among the young from now on.
    fn entry(&mut self, key: K) -> &mut V {
        if self.young.len() >= self.limit && !self.young.contains_key(&key) {
            self.turn();
        }
        let before = self.old.remove(&key);
        self.young
            .entry(key)
            .or_insert_with(|| before.unwrap_or_default())
    }

    /// Whether `key` was there; it is now.
    fn knew(&mut self, key: K) -> bool {
        if self.young.contains_key(&key) || self.old.contains_key(&key) {
            return true;
        }
        self.entry(key);
        false
    }
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    cid: std::borrow::Cow<'a, str>,
    labels: Vec<String>,
    timestamp: std::borrow::Cow<'a, str>,
    /// Extra fields of our own kind of node: a withdrawal carries no labels (p2p-wire §7, item 20).
    dirnode: Option<serde::de::IgnoredAny>,
}

/// The time of a payload that may pass, in nanoseconds since 1970.
fn read(data: &[u8]) -> Result<i64, Reason> {
    let payload: Payload<'_> = serde_json::from_slice(data).map_err(|_| Reason::Malformed)?;
    let timestamp = OffsetDateTime::parse(&payload.timestamp, &Rfc3339).map_err(|_| Reason::Malformed)?;
    let timestamp = i64::try_from(timestamp.unix_timestamp_nanos()).map_err(|_| Reason::OutOfTime)?;
    let is_withdrawal = payload.labels.is_empty() && payload.dirnode.is_some();
    if payload.labels.len() > MAX_LABELS || (payload.labels.is_empty() && !is_withdrawal) {
        return Err(Reason::Malformed);
    }
    if !is_record_cid(&payload.cid) || !payload.labels.iter().all(|label| is_label(label)) {
        return Err(Reason::Unfit);
    }
    Ok(timestamp)
}

/// A label that some record may have: empty values occur, steps out of the namespace do not.
fn is_label(label: &str) -> bool {
    let Some(value) = NAMESPACES
        .iter()
        .find_map(|namespace| label.strip_prefix(namespace))
    else {
        return false;
    };
    label.len() <= MAX_LABEL_BYTES
        && !label.chars().any(char::is_control)
        && value.split('/').all(|part| part != "." && part != "..")
}

/// CIDv1, codec 1, sha2-256, lower-case base32: `baearei` and 52 more characters, of which the first holds one bit of the
/// head and the last ends with two bits of padding (p2p-wire §2.3).
fn is_record_cid(text: &str) -> bool {
    let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
    let Some(rest) = text.strip_prefix("baearei") else {
        return false;
    };
    let padded = |last: u8| b"aeimquy4".contains(&last);
    let bytes = rest.as_bytes();
    bytes.len() == 52
        && bytes.iter().copied().all(is_base32)
        && bytes.first().is_some_and(|first| (b'a'..=b'h').contains(first))
        && bytes.last().copied().is_some_and(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: i64 = 1_772_600_000 * SECOND;
    const CID: &str = "baeareibdt5m62vphg7dxcr6pkwwqygydbnwx5z2iu5bgsuxzxbjnlkjv4u";

    fn at(seconds: i64) -> String {
        let time = OffsetDateTime::from_unix_timestamp(NOON / SECOND + seconds).unwrap();
        time.format(&Rfc3339).unwrap()
    }

    fn payload(cid: &str, labels: &[&str], time: &str) -> String {
        serde_json::json!({"cid": cid, "labels": labels, "timestamp": time}).to_string()
    }

    fn heard(publisher: PeerId, data: &str) -> Heard<'_> {
        Heard {
            publisher,
            forwarder: PeerId::random(),
            received_at: NOON,
            data: data.as_bytes(),
        }
    }

    fn reason(data: &str) -> Reason {
        Judge::new().verdict(&heard(PeerId::random(), data)).1
    }

    #[test]
    fn what_a_record_announces_passes() {
        let go = format!(
            "{{\"cid\":\"{CID}\",\"labels\":[\"/skills/nlp/summarization\",\"/locators/docker_image\",\"/domains/\"],\
             \"timestamp\":\"2026-03-04T06:53:20.123456789+02:00\",\"more\":{{}}}}"
        );
        assert_eq!(reason(&go), Reason::Accepted, "{go}");
        let withdrawal = format!(
            "{{\"cid\":\"{CID}\",\"labels\":[],\"timestamp\":\"{}\",\"dirnode\":{{\"v\":1}}}}",
            at(0)
        );
        assert_eq!(reason(&withdrawal), Reason::Accepted);
    }

    #[test]
    fn what_is_no_announcement_is_malformed() {
        let many = vec!["/skills/a"; MAX_LABELS + 1];
        for data in [
            String::new(),
            "null".to_owned(),
            "[]".to_owned(),
            payload(CID, &[], &at(0)),
            payload(CID, &many, &at(0)),
            payload(CID, &["/skills/a"], "yesterday"),
            payload(CID, &["/skills/a"], &at(0)) + "x",
            format!("{{\"cid\":\"{CID}\",\"timestamp\":\"{}\"}}", at(0)),
            format!("{{\"x\":{}", "[".repeat(4000)),
        ] {
            assert_eq!(reason(&data), Reason::Malformed, "{data:.200}");
        }
    }

    #[test]
    fn cids_and_labels_that_no_record_has_are_unfit() {
        let last_bits_set = format!("{}v", &CID[..CID.len() - 1]);
        for cid in [
            "hello",
            "x/y",
            "",
            "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
            &last_bits_set,
        ] {
            assert_eq!(
                reason(&payload(cid, &["/skills/a"], &at(0))),
                Reason::Unfit,
                "{cid}"
            );
        }
        for label in [
            "",
            "skills/a",
            "/records/a",
            "/skills/../records/x",
            "/skills/a\u{7}",
            "/skills",
        ] {
            assert_eq!(
                reason(&payload(CID, &["/skills/a", label], &at(0))),
                Reason::Unfit,
                "{label}"
            );
        }
    }

    #[test]
    fn only_fresh_messages_pass_and_each_once() {
        for (seconds, expected) in [
            (-3600, Reason::Accepted),
            (-3601, Reason::OutOfTime),
            (600, Reason::Accepted),
            (601, Reason::OutOfTime),
        ] {
            assert_eq!(
                reason(&payload(CID, &["/skills/a"], &at(seconds))),
                expected,
                "{seconds}"
            );
        }
        let (author, data) = (PeerId::random(), payload(CID, &["/skills/a"], &at(0)));
        let mut judge = Judge::new();
        let first = heard(author, &data);
        assert_eq!(judge.verdict(&first).1, Reason::Accepted);
        // As long as its time would let it pass, it is remembered.
        for minutes in [1, 30, 59, 60] {
            let later = Heard {
                received_at: NOON + minutes * 60 * SECOND,
                ..first
            };
            assert_eq!(
                judge.verdict(&later),
                (Verdict::Ignore, Reason::Replay),
                "{minutes}"
            );
        }
        let too_late = Heard {
            received_at: NOON + 61 * 60 * SECOND,
            ..first
        };
        assert_eq!(judge.verdict(&too_late).1, Reason::OutOfTime);
    }

    #[test]
    fn only_the_author_is_blamed() {
        let author = PeerId::random();
        let carried = heard(author, "nonsense");
        let own = Heard {
            forwarder: author,
            ..carried
        };
        let mut judge = Judge::new();
        assert_eq!(judge.verdict(&carried).0, Verdict::Ignore);
        assert_eq!(judge.verdict(&own).0, Verdict::Reject);
        let unfit = payload("hello", &["/skills/a"], &at(0));
        let own = Heard {
            forwarder: author,
            ..heard(author, &unfit)
        };
        assert_eq!(judge.verdict(&own), (Verdict::Ignore, Reason::Unfit));
    }

    #[test]
    fn a_flood_by_one_author_costs_the_others_nothing() {
        let (loud, quiet) = (PeerId::random(), PeerId::random());
        let mut judge = Judge::new();
        let mut accepted = 0;
        for number in 0..2 * BURST {
            let data = payload(CID, &[&format!("/skills/{number}")], &at(0));
            accepted += i64::from(judge.verdict(&heard(loud, &data)).1 == Reason::Accepted);
        }
        assert_eq!(accepted, BURST);
        let data = payload(CID, &["/skills/a"], &at(0));
        assert_eq!(judge.verdict(&heard(quiet, &data)).1, Reason::Accepted);
        let later = Heard {
            received_at: NOON + PAUSE,
            ..heard(loud, &data)
        };
        assert_eq!(judge.verdict(&later).1, Reason::Accepted);
        // As fast as a publisher of ours sends, for as long as it likes.
        for number in 0..4 * BURST {
            let data = payload(CID, &[&format!("/skills/q{number}")], &at(0));
            let steady = Heard {
                received_at: NOON + number * (SECOND / 100),
                ..heard(quiet, &data)
            };
            assert_eq!(judge.verdict(&steady).1, Reason::Accepted, "{number}");
        }
    }

    #[test]
    fn halves_stay_within_their_bounds() {
        let mut halves = Halves::<u32, ()>::new(10);
        for number in 0..1000 {
            assert!(!halves.knew(number));
            assert!(halves.knew(number));
            assert!(halves.young.len() + halves.old.len() <= 20);
        }
        assert!(halves.knew(995) && !halves.knew(5));
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(data: Vec<u8>, received_at: i64) {
            let peer = PeerId::random();
            let message = Heard { publisher: peer, forwarder: peer, received_at, data: &data };
            Judge::new().verdict(&message);
        }
    }
}
