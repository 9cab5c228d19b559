//! One sweep: many own keys of one region are provided with few lookups and one stream per peer.
//!
//! Looking up each key on its own asks the same peers again and again. A sweep looks up one key, learns for which prefix
//! it now knows every peer, gives all keys under it their twenty nearest peers, and goes on with the first key that is
//! left. Where a prefix holds fewer than twenty peers, the prefix beside it is looked at, so that the two can be joined.
//! No answer is stretched: a key is given peers only from a prefix that is known whole, unless the sweep has used up its
//! lookups, which is counted. Soft state: a sweep that a stop interrupts begins again, since its keys are still due.

use std::collections::{BTreeMap, VecDeque};

use dirnode_record::RecordCid;

use crate::action::{Action, Ticket};
use crate::config::{
    MAX_SWEEP_LOOKUPS, MAX_SWEEP_STREAMS, MIN_REPLICA_PART, PROVIDE_BATCH, REPLICATION, STEP_DEADLINE,
};
use crate::coverage::Coverage;
use crate::cx::Cx;
use crate::input::Failure;
use crate::peer::PeerId;
use crate::point::{Point, Prefix};
use crate::time::Timestamp;

/// Lookups that may fail before a sweep ends.
const MAX_FAILED_LOOKUPS: u8 = 3;
/// Failed streams after which a peer gets nothing more from this sweep.
const MAX_FAILED_STREAMS: u8 = 2;
/// Longest prefix for which bytes are searched that hash into it; about a million peers.
const MAX_SEARCHED_BITS: u16 = 16;

#[derive(Debug)]
struct Key {
    point: Point,
    cid: RecordCid,
    planned: bool,
    targets: u8,
    reached: u8,
}

#[derive(Debug)]
struct Lookup {
    ticket: Ticket,
    target: Point,
    /// The key that was looked up, when it is one of ours.
    key: Option<usize>,
    deadline: Timestamp,
}

#[derive(Debug)]
struct Sending {
    peer: PeerId,
    keys: Vec<usize>,
    deadline: Timestamp,
}

/// How a sweep ended for its keys.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub provided: Vec<RecordCid>,
    pub failed: Vec<(RecordCid, Failure)>,
}

#[derive(Debug)]
pub(crate) struct Sweep {
    keys: Vec<Key>,
    unplanned: usize,
    coverage: Coverage,
    lookups: usize,
    failed_lookups: u8,
    lookup: Option<Lookup>,
    /// A prefix to look into before the next key.
    beside: Option<Prefix>,
    plan: BTreeMap<PeerId, Vec<usize>>,
    waiting: VecDeque<(PeerId, Vec<usize>)>,
    sending: BTreeMap<Ticket, Sending>,
    failed_streams: BTreeMap<PeerId, u8>,
    failure: Failure,
}

impl Sweep {
    /// A sweep of `keys`, which are in order of their points.
    pub fn new(keys: Vec<(Point, RecordCid)>) -> Self {
        let key = |(point, cid)| Key {
            point,
            cid,
            planned: false,
            targets: 0,
            reached: 0,
        };
        let keys: Vec<Key> = keys.into_iter().map(key).collect();
        Self {
            unplanned: keys.len(),
            keys,
            coverage: Coverage::default(),
            lookups: 0,
            failed_lookups: 0,
            lookup: None,
            beside: None,
            plan: BTreeMap::new(),
            waiting: VecDeque::new(),
            sending: BTreeMap::new(),
            failed_streams: BTreeMap::new(),
            failure: Failure::NoPeers,
        }
    }

    pub fn owns(&self, ticket: Ticket) -> bool {
        self.lookup.as_ref().is_some_and(|lookup| lookup.ticket == ticket)
            || self.sending.contains_key(&ticket)
    }

    /// What the lookup with this ticket looks for.
    pub fn target_of(&self, ticket: Ticket) -> Option<Point> {
        let lookup = self.lookup.as_ref().filter(|lookup| lookup.ticket == ticket)?;
        Some(lookup.target)
    }

    /// Does what can be done now; gives the outcome when nothing is left.
    pub fn step(&mut self, cx: &mut Cx<'_>) -> Option<Outcome> {
        if self.unplanned > 0 {
            if self.lookup.is_some() {
                return None;
            }
            if self.failed_lookups >= MAX_FAILED_LOOKUPS {
                self.unplanned = 0;
            } else if self.lookups >= MAX_SWEEP_LOOKUPS {
                self.plan_the_rest(cx);
            } else {
                self.look_up(cx);
                return None;
            }
        }
        for (peer, keys) in std::mem::take(&mut self.plan) {
            for batch in keys.chunks(PROVIDE_BATCH) {
                self.waiting.push_back((peer.clone(), batch.to_vec()));
            }
        }
        while self.sending.len() < MAX_SWEEP_STREAMS {
            let Some((peer, keys)) = self.waiting.pop_front() else {
                break;
            };
            if self
                .failed_streams
                .get(&peer)
                .is_some_and(|failed| *failed >= MAX_FAILED_STREAMS)
            {
                continue;
            }
            let ticket = cx.ticket();
            let cids: Vec<RecordCid> = keys
                .iter()
                .filter_map(|key| Some(self.keys.get(*key)?.cid))
                .collect();
            cx.counters.sweep_records += u64::try_from(cids.len()).unwrap_or(0);
            let deadline = cx.now + STEP_DEADLINE;
            cx.push(Action::ProvideMany {
                ticket,
                peer: peer.clone(),
                cids,
            });
            self.sending.insert(ticket, Sending { peer, keys, deadline });
        }
        self.sending.is_empty().then(|| self.outcome())
    }

    fn look_up(&mut self, cx: &mut Cx<'_>) {
        let (target, bytes, key) = match self
            .beside
            .take()
            .and_then(|prefix| self.target_under(&prefix, cx))
        {
            Some(found) => found,
            None => {
                let Some((place, key)) = self.keys.iter().enumerate().find(|(_, key)| !key.planned) else {
                    self.unplanned = 0;
                    return;
                };
                (key.point, key.cid.multihash().to_vec(), Some(place))
            }
        };
        let ticket = cx.ticket();
        self.lookups += 1;
        cx.counters.sweep_lookups += 1;
        let deadline = cx.now + STEP_DEADLINE;
        self.lookup = Some(Lookup {
            ticket,
            target,
            key,
            deadline,
        });
        cx.push(Action::FindClosest { ticket, key: bytes });
    }

    /// Something to look up whose point is under `prefix`: a key of ours, or bytes found by trying.
    fn target_under(&self, prefix: &Prefix, cx: &mut Cx<'_>) -> Option<(Point, Vec<u8>, Option<usize>)> {
        let place = self.keys.partition_point(|key| key.point < prefix.first());
        if let Some(key) = self.keys.get(place).filter(|key| prefix.contains(&key.point)) {
            return Some((key.point, key.cid.multihash().to_vec(), Some(place)));
        }
        if prefix.bits() > MAX_SEARCHED_BITS {
            return None;
        }
        // Eight times as many tries as are needed on average miss once in three thousand; the caller can do without.
        let mut digest = [0_u8; 32];
        for _ in 0..8_u32 << prefix.bits() {
            cx.rng.fill_bytes(&mut digest);
            let bytes = RecordCid::from_digest(digest).multihash();
            let point = Point::of_key(&bytes);
            if prefix.contains(&point) {
                return Some((point, bytes.to_vec(), None));
            }
        }
        None
    }

    /// A lookup has ended.
    pub fn closest(&mut self, result: Result<&[PeerId], Failure>) {
        let Some(lookup) = self.lookup.take() else { return };
        let peers = match result {
            Ok(peers) if !peers.is_empty() => peers,
            Ok(_) | Err(_) => {
                self.failed_lookups += 1;
                self.failure = result.err().unwrap_or(Failure::NoPeers);
                return;
            }
        };
        let peers = peers.get(..REPLICATION).unwrap_or(peers);
        let covered = self.coverage.learn(&lookup.target, peers);
        if let Some(place) = lookup.key {
            self.assign(place, peers.to_vec());
        }
        if self.coverage.is_full(&covered) {
            self.plan_under(&covered);
        } else {
            let under = self.under(&covered);
            let left = self
                .keys
                .get(under)
                .map_or(0, |keys| keys.iter().filter(|key| !key.planned).count());
            // A single key is cheaper looked up by itself than by way of its neighbourhood.
            self.beside = covered.sibling().filter(|_| left >= 2);
        }
    }

    fn under(&self, prefix: &Prefix) -> std::ops::Range<usize> {
        let first = self.keys.partition_point(|key| key.point < prefix.first());
        let end = self.keys.partition_point(|key| key.point <= prefix.last());
        first..end
    }

    fn plan_under(&mut self, prefix: &Prefix) {
        for place in self.under(prefix) {
            let Some(key) = self.keys.get(place).filter(|key| !key.planned) else {
                continue;
            };
            let peers = self.coverage.nearest(&key.point, prefix);
            self.assign(place, peers);
        }
    }

    fn plan_the_rest(&mut self, cx: &mut Cx<'_>) {
        cx.counters.sweep_approximate_keys += u64::try_from(self.unplanned).unwrap_or(0);
        self.plan_under(&Prefix::ALL);
        self.unplanned = 0;
    }

    fn assign(&mut self, place: usize, peers: Vec<PeerId>) {
        let Some(key) = self.keys.get_mut(place).filter(|key| !key.planned) else {
            return;
        };
        key.planned = true;
        key.targets = u8::try_from(peers.len()).unwrap_or(u8::MAX);
        self.unplanned = self.unplanned.saturating_sub(1);
        for peer in peers {
            self.plan.entry(peer).or_default().push(place);
        }
    }

    /// A stream has ended.
    pub fn sent(&mut self, ticket: Ticket, result: Result<(), Failure>, cx: &mut Cx<'_>) {
        let Some(sending) = self.sending.remove(&ticket) else {
            return;
        };
        match result {
            Ok(()) => {
                for place in sending.keys {
                    if let Some(key) = self.keys.get_mut(place) {
                        key.reached = key.reached.saturating_add(1);
                    }
                }
            }
            Err(failure) => {
                cx.counters.sweep_stream_failures += 1;
                self.failure = failure;
                *self.failed_streams.entry(sending.peer.clone()).or_default() += 1;
                // Taken up once more, behind the others; the second failure ends it.
                self.waiting.push_back((sending.peer, sending.keys));
            }
        }
    }

    /// Takes steps for lost whose report is overdue.
    pub fn expire(&mut self, cx: &mut Cx<'_>) {
        if self
            .lookup
            .as_ref()
            .is_some_and(|lookup| lookup.deadline <= cx.now)
        {
            cx.counters.lost_steps += 1;
            self.closest(Err(Failure::TimedOut));
        }
        let late = self
            .sending
            .iter()
            .filter(|(_, sending)| sending.deadline <= cx.now);
        for ticket in late.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            cx.counters.lost_steps += 1;
            self.sent(ticket, Err(Failure::TimedOut), cx);
        }
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        let lookup = self.lookup.as_ref().map(|lookup| lookup.deadline);
        let sending = self.sending.values().map(|sending| sending.deadline).min();
        [lookup, sending].into_iter().flatten().min()
    }

    fn outcome(&mut self) -> Outcome {
        let mut outcome = Outcome::default();
        for key in &self.keys {
            let needed = f64::from(key.targets) * MIN_REPLICA_PART;
            if key.reached > 0 && f64::from(key.reached) >= needed {
                outcome.provided.push(key.cid);
            } else {
                outcome.failed.push((key.cid, self.failure));
            }
        }
        outcome
    }
}
