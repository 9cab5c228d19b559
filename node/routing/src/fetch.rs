//! Fetches of records that others say they have: bounded, with a deadline, and fair to every peer.
//!
//! Each peer has a queue of its own and they take turns, so that one that answers slowly, or is spoken of a great deal,
//! holds up nobody else. What failed is not tried again for a while, longer each time. Also here: which claims are looked
//! at when nobody asks, at a small rate, those first that a search has shown to somebody. Soft state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dirnode_record::RecordCid;

use crate::action::{Action, Ticket};
use crate::config::{
    FETCH_DEADLINE, MAX_FETCHES, MAX_FETCHES_PER_PEER, MAX_LATER_PER_PEER, MAX_NEGATIVE, MAX_SHOWN,
    MAX_WAITING_FETCHES, MAX_WAITING_PER_PEER, NEGATIVE_FOR, VERIFY_IDLE, VERIFY_RATE,
};
use crate::cx::{Bucket, Cx};
use crate::input::Failure;
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Why a record is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// A peer says that it has it, and its labels are not known.
    Unlabelled,
    /// A claim is to be checked.
    Verify,
    /// Somebody said that its author withdrew it.
    Doubt {
        /// The time of the withdrawal.
        timestamp: Timestamp,
        /// How often the author could not be asked.
        tries: u8,
    },
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub cid: RecordCid,
    pub peer: PeerId,
    pub why: Why,
    pub began: Timestamp,
    deadline: Timestamp,
}

#[derive(Debug, Clone, Copy)]
struct Negative {
    until: Timestamp,
    times: u8,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(RecordCid, Why)>,
    in_flight: usize,
    /// Whether the peer stands in the line.
    in_line: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Fetcher {
    queues: BTreeMap<PeerId, Queue>,
    /// Peers that have something waiting and room for it, in turn.
    line: VecDeque<PeerId>,
    waiting: BTreeSet<(RecordCid, PeerId)>,
    flights: BTreeMap<Ticket, Flight>,
    negative: BTreeMap<(RecordCid, PeerId), Negative>,
    negative_order: BTreeSet<(Timestamp, RecordCid, PeerId)>,
    /// What is to be wanted later: records whose announcement may be on its way, and authors to be asked again.
    later: BTreeMap<(Timestamp, RecordCid, PeerId), Why>,
    /// How many of these each peer has.
    later_of: BTreeMap<PeerId, usize>,
}

impl Fetcher {
    /// Puts a fetch into the queue of its peer; in front when it is `urgent`.
    pub fn want(&mut self, cid: RecordCid, peer: &PeerId, why: Why, urgent: bool, cx: &mut Cx<'_>) {
        let key = (cid, peer.clone());
        // A doubt has pauses of its own.
        let negative = self.negative.get(&key);
        if !urgent && negative.is_some_and(|negative| negative.until > cx.now) {
            cx.counters.fetch_negative += 1;
            return;
        }
        if self.waiting.contains(&key) {
            return;
        }
        let queue = self.queues.entry(peer.clone()).or_default();
        if self.waiting.len() >= MAX_WAITING_FETCHES || queue.waiting.len() >= MAX_WAITING_PER_PEER {
            cx.counters.fetch_dropped += 1;
            self.drop_idle(peer);
            return;
        }
        if urgent {
            queue.waiting.push_front((cid, why));
        } else {
            queue.waiting.push_back((cid, why));
        }
        self.waiting.insert(key);
        self.join_line(peer);
    }

    /// Wants a record later, if it is still worth it then.
    pub fn want_later(&mut self, cid: RecordCid, peer: &PeerId, why: Why, after: Duration, cx: &mut Cx<'_>) {
        let of_peer = self.later_of.get(peer).copied().unwrap_or(0);
        if self.later.len() >= MAX_WAITING_FETCHES || of_peer >= MAX_LATER_PER_PEER {
            cx.counters.fetch_dropped += 1;
            return;
        }
        let key = (cx.now + after, cid, peer.clone());
        if self.later.insert(key, why).is_none() {
            self.later_of.insert(peer.clone(), of_peer + 1);
        }
    }

    /// Something that was to be wanted by now.
    pub fn ripe(&mut self, now: Timestamp) -> Option<(RecordCid, PeerId, Why)> {
        let entry = self.later.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, cid, peer), why) = entry.remove_entry();
        match self.later_of.get_mut(&peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.later_of.remove(&peer)),
        }
        Some((cid, peer, why))
    }

    fn join_line(&mut self, peer: &PeerId) {
        if let Some(queue) = self.queues.get_mut(peer)
            && !queue.in_line
            && queue.in_flight < MAX_FETCHES_PER_PEER
            && !queue.waiting.is_empty()
        {
            queue.in_line = true;
            self.line.push_back(peer.clone());
        }
    }

    fn drop_idle(&mut self, peer: &PeerId) {
        if let Some(queue) = self.queues.get(peer)
            && queue.waiting.is_empty()
            && queue.in_flight == 0
            && !queue.in_line
        {
            self.queues.remove(peer);
        }
    }

    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        while self.flights.len() < MAX_FETCHES {
            let Some(peer) = self.line.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(&peer) else {
                continue;
            };
            queue.in_line = false;
            let Some((cid, why)) = queue.waiting.pop_front() else {
                continue;
            };
            queue.in_flight += 1;
            let ticket = cx.ticket();
            let deadline = cx.now + FETCH_DEADLINE;
            cx.counters.fetches += 1;
            cx.push(Action::Fetch {
                ticket,
                cid,
                peer: peer.clone(),
                deadline,
            });
            self.join_line(&peer);
            self.flights.insert(
                ticket,
                Flight {
                    cid,
                    peer,
                    why,
                    began: cx.now,
                    deadline,
                },
            );
        }
    }

    /// A fetch has ended; gives what it was for.
    pub fn ended(&mut self, ticket: Ticket, failure: Option<Failure>, cx: &mut Cx<'_>) -> Option<Flight> {
        let Some(flight) = self.flights.remove(&ticket) else {
            cx.counters.stale_reports += 1;
            return None;
        };
        let key = (flight.cid, flight.peer.clone());
        self.waiting.remove(&key);
        if let Some(queue) = self.queues.get_mut(&flight.peer) {
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
        self.join_line(&flight.peer);
        self.drop_idle(&flight.peer);
        let before = self.negative.remove(&key);
        if let Some(before) = before {
            self.negative_order
                .remove(&(before.until, flight.cid, flight.peer.clone()));
        }
        match failure {
            None => cx.counters.fetched += 1,
            Some(failure) => {
                cx.counters.fetch_failures += 1;
                cx.counters.fetch_timeouts += u64::from(failure == Failure::TimedOut);
                let times = before.map_or(0, |before| before.times);
                let until = cx.now + NEGATIVE_FOR.saturating_mul(1 << times.min(6));
                self.negative.insert(
                    key,
                    Negative {
                        until,
                        times: times.saturating_add(1),
                    },
                );
                self.negative_order
                    .insert((until, flight.cid, flight.peer.clone()));
                if self.negative.len() > MAX_NEGATIVE
                    && let Some((_, cid, peer)) = self.negative_order.pop_first()
                {
                    self.negative.remove(&(cid, peer));
                }
            }
        }
        Some(flight)
    }

    /// Tickets whose report is overdue.
    pub fn late(&self, now: Timestamp) -> Vec<Ticket> {
        // All have the same deadline and tickets grow with time, so the late ones come first.
        let late = self
            .flights
            .iter()
            .take_while(|(_, flight)| flight.deadline <= now);
        late.map(|(ticket, _)| *ticket).collect()
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        let flight = self.flights.first_key_value().map(|(_, flight)| flight.deadline);
        let later = self.later.first_key_value().map(|((at, ..), _)| *at);
        [flight, later].into_iter().flatten().min()
    }

    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}

/// Picks claims to verify.
#[derive(Debug)]
pub(crate) struct Verifier {
    shown: VecDeque<(RecordCid, PeerId)>,
    listed: BTreeSet<(RecordCid, PeerId)>,
    bucket: Bucket,
    idle_at: Timestamp,
}

impl Verifier {
    pub fn new(now: Timestamp) -> Self {
        Self {
            shown: VecDeque::new(),
            listed: BTreeSet::new(),
            bucket: Bucket::new(VERIFY_RATE, now),
            idle_at: now + VERIFY_IDLE,
        }
    }

    /// A search has shown this row.
    pub fn shown(&mut self, cid: RecordCid, peer: PeerId) {
        if self.shown.len() < MAX_SHOWN && self.listed.insert((cid, peer.clone())) {
            self.shown.push_back((cid, peer));
        }
    }

    /// The next row to verify, if it is time for one. `some` picks one that nobody asked for.
    pub fn next(
        &mut self,
        cx: &mut Cx<'_>,
        some: impl FnOnce(&mut Cx<'_>) -> Option<(RecordCid, PeerId)>,
    ) -> Option<(RecordCid, PeerId)> {
        if !self.shown.is_empty() {
            if !self.bucket.take(cx.now) {
                return None;
            }
            let row = self.shown.pop_front()?;
            self.listed.remove(&row);
            return Some(row);
        }
        if self.idle_at > cx.now {
            return None;
        }
        self.idle_at = cx.now + VERIFY_IDLE;
        some(cx)
    }

    /// When there may be something to verify next; `any` says whether there is anything unverified at all.
    pub fn next_wake(&self, any: bool) -> Option<Timestamp> {
        if self.shown.is_empty() {
            any.then_some(self.idle_at)
        } else {
            Some(self.bucket.ready_at())
        }
    }
}
