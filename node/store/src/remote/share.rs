//! What rows take of each thing that is bounded, and which peer takes most of it.
//!
//! When something is full, whoever takes most of it gives way, so that nobody can fill the index for the others. A text
//! counts for every peer that has a row with it: in whole, and once however many rows. So nobody's share hangs on what
//! others say, and nobody gets room by saying it under another name. Peers that take as much are told apart by their ids.

use std::cmp::Ordering;

use super::sorted::Sorted;
use super::tombs::{parts, slot};
use super::types::{Limits, PeerId};

/// Things that are bounded.
const KINDS: usize = 4;

/// What some rows take, or may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    pub(super) rows: usize,
    pub(super) labels: usize,
    /// Entries of posting lists.
    pub(super) postings: usize,
    /// Bytes of distinct labels.
    pub(super) text_bytes: usize,
}

impl Share {
    /// What all rows may take.
    pub(super) fn of_all(limits: &Limits) -> Self {
        Self {
            rows: limits.max_rows,
            labels: limits.max_labels,
            postings: limits.max_postings,
            text_bytes: limits.max_text_bytes,
        }
    }

    /// What the rows of one peer may take: never more than all may.
    pub(super) fn of_peer(limits: &Limits) -> Self {
        Self {
            rows: limits.max_rows_per_peer.min(limits.max_rows),
            labels: limits.max_labels_per_peer.min(limits.max_labels),
            postings: limits.max_postings_per_peer.min(limits.max_postings),
            text_bytes: limits.max_text_bytes_per_peer.min(limits.max_text_bytes),
        }
    }

    fn kinds(&self) -> [usize; KINDS] {
        [self.rows, self.labels, self.postings, self.text_bytes]
    }

    /// The first kind of which there is more than there may be.
    pub(super) fn above(&self, bound: &Self) -> Option<usize> {
        let mut pairs = self.kinds().into_iter().zip(bound.kinds());
        pairs.position(|(taken, most)| taken > most)
    }
}

/// Peers in the order of what they take, for each kind; those that take nothing are not there.
#[derive(Debug, Default)]
pub(super) struct Largest([Sorted; KINDS]);

impl Largest {
    /// A peer takes something else than before. Costs the logarithm of the number of peers.
    pub(super) fn update<'a>(
        &mut self,
        number: u32,
        before: &Share,
        now: &Share,
        id: impl Fn(u32) -> Option<&'a PeerId>,
    ) {
        let order = |one: u64, other: u64| -> Ordering {
            let ((taken, peer), (other_taken, other_peer)) = (parts(one), parts(other));
            taken.cmp(&other_taken).then_with(|| {
                if peer == other_peer {
                    Ordering::Equal
                } else {
                    id(peer).cmp(&id(other_peer))
                }
            })
        };
        let entry = |taken: usize| slot(u32::try_from(taken).unwrap_or(u32::MAX), number);
        let values = before.kinds().into_iter().zip(now.kinds());
        for (peers, (before, now)) in self.0.iter_mut().zip(values) {
            if before == now {
                continue;
            }
            if before > 0 {
                peers.remove(entry(before), order);
            }
            if now > 0 {
                peers.insert(entry(now), order);
            }
        }
    }

    /// The peer that takes most of a kind.
    pub(super) fn of(&self, kind: usize) -> Option<u32> {
        self.0.get(kind)?.last().map(|entry| parts(entry).1)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(Sorted::bytes).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_most_is_known_for_each_kind() {
        let ids: Vec<PeerId> = [3u8, 1, 2]
            .map(|byte| PeerId::from_bytes(&[byte]).unwrap())
            .into();
        let id = |number: u32| ids.get(number as usize);
        let share = |rows, text_bytes| Share {
            rows,
            text_bytes,
            ..Share::default()
        };
        let nothing = Share::default();
        let mut largest = Largest::default();
        for (number, now) in [(0, share(2, 9)), (1, share(5, 1)), (2, share(5, 0))] {
            largest.update(number, &nothing, &now, id);
        }
        let all = |largest: &Largest| [0, 1, 2, 3].map(|kind| largest.of(kind));
        // Of two that take as much it is the greater id.
        assert_eq!(all(&largest), [Some(2), None, None, Some(0)]);
        largest.update(2, &share(5, 0), &share(4, 0), id);
        largest.update(0, &share(2, 9), &nothing, id);
        assert_eq!(all(&largest), [Some(1), None, None, Some(1)]);
        largest.update(1, &share(5, 1), &nothing, id);
        largest.update(2, &share(4, 0), &nothing, id);
        assert_eq!(all(&largest), [None; 4]);
    }

    #[test]
    fn the_first_kind_above_its_bound_is_told() {
        let bound = Share {
            rows: 1,
            labels: 2,
            postings: 3,
            text_bytes: 4,
        };
        assert_eq!(bound.above(&bound), None);
        let more = |change: fn(&mut Share)| {
            let mut share = bound;
            change(&mut share);
            share.above(&bound)
        };
        assert_eq!(more(|share| share.rows = 2), Some(0));
        assert_eq!(more(|share| share.postings = 4), Some(2));
        assert_eq!(more(|share| (share.labels, share.text_bytes) = (3, 5)), Some(1));
        assert_eq!(more(|share| share.text_bytes = usize::MAX), Some(3));
    }
}
