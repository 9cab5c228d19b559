//! How much the rows may take, and which of them go when it is too much. Pure, as the rows are.

use super::share::Share;
use super::state::{State, Steps, postings};
use super::tombs::parts;
use super::types::{Limits, Refusal};

/// Longest label that any limit allows, in bytes: what the log takes.
const MAX_LABEL_BYTES: usize = 16 << 10;

/// Limits that can be kept.
pub(super) fn kept(mut limits: Limits) -> Limits {
    limits.max_label_bytes = limits.max_label_bytes.min(MAX_LABEL_BYTES);
    // Numbers of rows are 32 bits, and two of them mean something else.
    limits.max_rows = limits.max_rows.min(1 << 31);
    limits
}

/// Whose bound was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Peer,
    All,
}

impl State {
    /// To be filled with steps of a log: what all rows may take together is bounded only by
    /// [`State::limit_to`], because between two steps there may be rows of a later time, or rows that had ended,
    /// and no other row must go for them.
    pub(super) fn restoring(limits: Limits) -> Self {
        Self::new(Limits {
            max_rows: usize::MAX,
            max_rows_per_peer: usize::MAX,
            max_labels: usize::MAX,
            max_labels_per_peer: usize::MAX,
            max_text_bytes_per_peer: usize::MAX,
            max_postings_per_peer: usize::MAX,
            max_text_bytes: usize::MAX,
            max_postings: usize::MAX,
            max_tombs: usize::MAX,
            ..limits
        })
    }

    /// Sets the limits, and lets rows go until all fit: of each peer those that were not heard of for longest.
    pub(super) fn limit_to(&mut self, limits: Limits) {
        self.limits = kept(limits);
        let (each, all) = (Share::of_peer(&self.limits), Share::of_all(&self.limits));
        for number in 0..self.peers.end() {
            while self.is_above(number, &each) && self.evict(number, None, Bound::Peer, &mut |_| ()) {}
        }
        while let Some(kind) = self.share().above(&all) {
            let largest = self.peers.largest(kind);
            if !largest.is_some_and(|peer| self.evict(peer, None, Bound::All, &mut |_| ())) {
                break;
            }
        }
        self.evicted.clear();
        while self.tombs.len() > self.limits.max_tombs
            && let Some((_, first)) = self.tombs.first()
        {
            self.counters.evicted_tombs = self.counters.evicted_tombs.saturating_add(1);
            self.unbury(first, &mut |_| ());
        }
    }

    /// Whether labels fit into the share of one peer that has nothing else.
    pub(super) fn check_alone(&self, labels: &[u32]) -> Result<(), Refusal> {
        let most = Share::of_peer(&self.limits);
        let postings = postings(&self.names.places(labels));
        if labels.len() <= most.labels && postings <= most.postings {
            return Ok(());
        }
        Err(Refusal::RowTooLarge {
            labels: labels.len(),
            postings,
            max_labels: most.labels,
            max_postings: most.postings,
        })
    }

    /// Lets rows go until all bounds are kept: of this row's peer while that one is above its own, then of whoever takes
    /// most of what is full. False if that is this row's peer, and it has no other row.
    pub(super) fn fit(&mut self, row: u32, steps: &mut Steps<'_>) -> bool {
        let (each, all) = (Share::of_peer(&self.limits), Share::of_all(&self.limits));
        let Some(own) = self.rows.get(row).map(|entry| entry.peer) else {
            return false;
        };
        loop {
            let (peer, bound) = if self.is_above(own, &each) {
                (own, Bound::Peer)
            } else if let Some(kind) = self.share().above(&all) {
                (self.peers.largest(kind).unwrap_or(own), Bound::All)
            } else {
                return true;
            };
            if !self.evict(peer, Some(row), bound, steps) {
                return false;
            }
        }
    }

    pub(super) fn full(&self) -> Refusal {
        Refusal::Full {
            rows: self.rows.len(),
            labels: self.labels,
        }
    }

    fn is_above(&self, peer: u32, bound: &Share) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.share.above(bound).is_some())
    }

    /// Takes out the row of a peer that was not heard of for longest, but not `keep`; false if there is none.
    fn evict(&mut self, peer: u32, keep: Option<u32>, bound: Bound, steps: &mut Steps<'_>) -> bool {
        let Some(known) = self.peers.get(peer) else {
            return false;
        };
        let oldest = {
            let mut rows = known.order.iter().map(|entry| parts(entry).1);
            rows.find(|row| Some(*row) != keep)
        };
        let Some(oldest) = oldest else {
            return false;
        };
        let record = self.rows.get(oldest).and_then(|row| self.records.get(row.record));
        let key = record.map(|record| (record.cid, known.id.clone()));
        self.evicted.extend(key);
        let counter = match bound {
            Bound::Peer => &mut self.counters.evicted_peer,
            Bound::All => &mut self.counters.evicted_full,
        };
        *counter = counter.saturating_add(1);
        self.take(oldest, steps)
    }
}
