//! How much the rows may take, and which of them go when it is too much. Pure, as the rows are.

use super::state::{State, Steps};
use super::tables::Peer;
use super::tombs::parts;
use super::types::{Limits, PeerId, Refusal};
use crate::RecordCid;

/// Longest label that any limit allows, in bytes: what the log takes.
const MAX_LABEL_BYTES: usize = 16 << 10;

/// Limits that can be kept.
pub(super) fn kept(mut limits: Limits) -> Limits {
    limits.max_label_bytes = limits.max_label_bytes.min(MAX_LABEL_BYTES);
    // Numbers of rows are 32 bits, and two of them mean something else.
    limits.max_rows = limits.max_rows.min(1 << 31);
    limits
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
            max_text_bytes: usize::MAX,
            max_postings: usize::MAX,
            max_tombs: usize::MAX,
            ..limits
        })
    }

    /// Sets the limits, and lets the rows go that were not heard of for longest until all fit.
    pub(super) fn limit_to(&mut self, limits: Limits) {
        self.limits = kept(limits);
        let limits = self.limits.clone();
        let full = |state: &Self| {
            state.rows.len() > limits.max_rows
                || state.labels > limits.max_labels
                || state.postings > limits.max_postings
        };
        let crowded =
            |peer: &Peer| peer.rows > limits.max_rows_per_peer || peer.labels > limits.max_labels_per_peer;
        if full(self) || self.peers.iter().any(crowded) {
            let mut oldest: Vec<(i64, u32)> = (0..self.rows.end())
                .filter_map(|number| Some((self.rows.get(number)?.last_seen_ns, number)))
                .collect();
            oldest.sort_unstable();
            for (_, number) in oldest {
                let peer = self.rows.get(number).and_then(|row| self.peers.get(row.peer));
                let counter = if peer.is_some_and(crowded) {
                    &mut self.counters.evicted_peer
                } else if full(self) {
                    &mut self.counters.evicted_full
                } else {
                    continue;
                };
                *counter = counter.saturating_add(1);
                self.take(number, &mut |_| ());
            }
        }
        while self.tombs.len() > limits.max_tombs
            && let Some((_, first)) = self.tombs.first()
        {
            self.counters.evicted_tombs = self.counters.evicted_tombs.saturating_add(1);
            self.unbury(first, &mut |_| ());
        }
    }

    /// Evicts rows of the peer until a row with these labels fits.
    pub(super) fn make_room(
        &mut self,
        cid: &RecordCid,
        peer: &PeerId,
        labels: &[u32],
        steps: &mut Steps<'_>,
    ) -> Result<(), Refusal> {
        let places = self.names.places(labels).len();
        let postings = places.saturating_add(usize::from(places > 0));
        let limits = &self.limits;
        if labels.len() > limits.max_labels.min(limits.max_labels_per_peer) || postings > limits.max_postings
        {
            return Err(Refusal::RowTooLarge {
                labels: labels.len(),
                postings,
                max_labels: limits.max_labels.min(limits.max_labels_per_peer),
                max_postings: limits.max_postings,
            });
        }
        let same = self.find(cid, peer);
        let old = same.and_then(|row| self.rows.get(row));
        let old_labels = old.map_or(0, |row| row.labels.len());
        let old_postings = old.map_or(0, |row| self.postings_of(&row.labels));
        let more = usize::from(same.is_none());
        loop {
            let limits = &self.limits;
            let known = self.peers.find(peer).and_then(|number| self.peers.get(number));
            let (rows, held) = known.map_or((0, 0), |peer| (peer.rows, peer.labels));
            let with = |all: usize, old: usize, new: usize| all.saturating_sub(old).saturating_add(new);
            let peer_full = rows.saturating_add(more) > limits.max_rows_per_peer
                || with(held, old_labels, labels.len()) > limits.max_labels_per_peer;
            let full = self.rows.len().saturating_add(more) > limits.max_rows
                || with(self.labels, old_labels, labels.len()) > limits.max_labels
                || with(self.postings, old_postings, postings) > limits.max_postings;
            if !peer_full && !full {
                return Ok(());
            }
            let oldest = known.and_then(|peer| {
                let mut rows = peer.order.iter().map(|entry| parts(entry).1);
                rows.find(|row| Some(*row) != same)
            });
            let Some(oldest) = oldest else {
                return Err(Refusal::Full {
                    rows: self.rows.len(),
                    labels: self.labels,
                });
            };
            let counter = if peer_full {
                &mut self.counters.evicted_peer
            } else {
                &mut self.counters.evicted_full
            };
            *counter = counter.saturating_add(1);
            self.take(oldest, steps);
        }
    }
}
