//! Records and peers by number: each is kept once, for as long as a row or a withdrawal speaks of it.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::room::{ALLOCATION, NONE, Slots};
use super::share::{Largest, Share};
use super::sorted::{Pos, Sorted};
use super::tombs::{parts, slot};
use super::types::PeerId;
use crate::RecordCid;

/// A record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) cid: RecordCid,
    /// The first of its rows; they are chained.
    pub(super) first: u32,
    /// Rows with a label that can be found.
    pub(super) labelled: u32,
    refs: u32,
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// Its rows, the one not heard of for longest first.
    pub(super) order: Sorted,
    /// What its rows take; changed by [`Peers::change`].
    pub(super) share: Share,
    /// Labels of its rows by number, in the upper halves, and how many of its rows have each.
    texts: Sorted,
    refs: u32,
}

impl Peer {
    /// One row more has a label of so many bytes.
    pub(super) fn hold(&mut self, label: u32, text_bytes: usize) {
        let pos = self.place(label);
        match self.texts.get(pos) {
            // Rows are fewer than fit into the lower half.
            Some(entry) if parts(entry).0 == label => self.texts.set(pos, entry.saturating_add(1)),
            _ => {
                self.texts
                    .insert(slot(label, 1), |one, other| parts(one).0.cmp(&parts(other).0));
                self.share.text_bytes = self.share.text_bytes.saturating_add(text_bytes);
            }
        }
    }

    /// One row less has a label of so many bytes.
    pub(super) fn release(&mut self, label: u32, text_bytes: usize) {
        let pos = self.place(label);
        let Some(entry) = self.texts.get(pos).filter(|entry| parts(*entry).0 == label) else {
            return;
        };
        if parts(entry).1 > 1 {
            self.texts.set(pos, entry.saturating_sub(1));
            return;
        }
        self.texts
            .remove(entry, |one, other| parts(one).0.cmp(&parts(other).0));
        self.share.text_bytes = self.share.text_bytes.saturating_sub(text_bytes);
    }

    fn place(&self, label: u32) -> Pos {
        self.texts.seek(Pos::default(), |entry| parts(entry).0 < label)
    }
}

/// The records.
#[derive(Debug, Default)]
pub(super) struct Records {
    slots: Slots<Record>,
    table: HashTable<u32>,
    random: RandomState,
}

/// The peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Slots<Peer>,
    table: HashTable<u32>,
    largest: Largest,
    random: RandomState,
}

impl Records {
    pub(super) fn find(&self, cid: &RecordCid) -> Option<u32> {
        let is = |number: &u32| self.slots.get(*number).is_some_and(|record| record.cid == *cid);
        self.table.find(self.random.hash_one(cid), is).copied()
    }

    /// The number of a record, which is used once more.
    pub(super) fn acquire(&mut self, cid: &RecordCid) -> u32 {
        if let Some(number) = self.find(cid) {
            if let Some(record) = self.slots.get_mut(number) {
                record.refs = record.refs.saturating_add(1);
            }
            return number;
        }
        let number = self.slots.add(Record {
            cid: *cid,
            first: NONE,
            labelled: 0,
            refs: 1,
        });
        let (slots, random) = (&self.slots, &self.random);
        let hash_of = |number: &u32| slots.get(*number).map_or(0, |record| random.hash_one(record.cid));
        self.table.insert_unique(random.hash_one(cid), number, hash_of);
        number
    }

    /// Takes back one [`Records::acquire`].
    pub(super) fn release(&mut self, number: u32) {
        let Some(record) = self.slots.get_mut(number) else {
            return;
        };
        record.refs = record.refs.saturating_sub(1);
        if record.refs > 0 {
            return;
        }
        let hash = self.random.hash_one(record.cid);
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.slots.take(number);
    }

    pub(super) fn get(&self, number: u32) -> Option<&Record> {
        self.slots.get(number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Record> {
        self.slots.get_mut(number)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slots
            .bytes()
            .saturating_add(self.table.allocation_size() as u64)
    }
}

impl Peers {
    pub(super) fn find(&self, peer: &PeerId) -> Option<u32> {
        let is = |number: &u32| self.slots.get(*number).is_some_and(|known| known.id == *peer);
        self.table.find(self.random.hash_one(peer), is).copied()
    }

    /// The number of a peer, which is used once more.
    pub(super) fn acquire(&mut self, peer: &PeerId) -> u32 {
        if let Some(number) = self.find(peer) {
            if let Some(known) = self.slots.get_mut(number) {
                known.refs = known.refs.saturating_add(1);
            }
            return number;
        }
        let number = self.slots.add(Peer {
            id: peer.clone(),
            order: Sorted::default(),
            share: Share::default(),
            texts: Sorted::default(),
            refs: 1,
        });
        let (slots, random) = (&self.slots, &self.random);
        let hash_of = |number: &u32| slots.get(*number).map_or(0, |known| random.hash_one(&known.id));
        self.table.insert_unique(random.hash_one(peer), number, hash_of);
        number
    }

    /// Takes back one [`Peers::acquire`].
    pub(super) fn release(&mut self, number: u32) {
        let Some(known) = self.slots.get_mut(number) else {
            return;
        };
        known.refs = known.refs.saturating_sub(1);
        if known.refs > 0 {
            return;
        }
        let hash = self.random.hash_one(&known.id);
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.slots.take(number);
    }

    pub(super) fn get(&self, number: u32) -> Option<&Peer> {
        self.slots.get(number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Peer> {
        self.slots.get_mut(number)
    }

    /// Changes what a peer takes; who takes most is known afterwards.
    pub(super) fn change(&mut self, number: u32, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.slots.get_mut(number) else {
            return;
        };
        let before = peer.share;
        change(peer);
        let (now, slots) = (peer.share, &self.slots);
        self.largest.update(number, &before, &now, |number| {
            slots.get(number).map(|peer| &peer.id)
        });
    }

    /// The peer that takes most of a kind of what is bounded.
    pub(super) fn largest(&self, kind: usize) -> Option<u32> {
        self.largest.of(kind)
    }

    /// One above the highest number of a peer.
    pub(super) fn end(&self) -> u32 {
        self.slots.end()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.slots
            .iter()
            .map(|peer| {
                let id = (peer.id.as_bytes().len() as u64).saturating_add(16 + ALLOCATION);
                id.saturating_add(peer.order.bytes())
                    .saturating_add(peer.texts.bytes())
            })
            .fold(self.slots.bytes(), u64::saturating_add)
            .saturating_add(self.table.allocation_size() as u64)
            .saturating_add(self.largest.bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// More peers, and more labels of one of them, than a block of a list has.
        #[test]
        fn shares_are_those_of_all_texts_however_many(
            ops in prop::collection::vec((0u32..900, 0u32..700, any::<bool>()), 1..4_000),
        ) {
            let mut peers = Peers::default();
            let ids: Vec<PeerId> = (0..900u32).map(|id| PeerId::from_bytes(&id.to_be_bytes()).unwrap()).collect();
            let numbers: Vec<u32> = ids.iter().map(|id| peers.acquire(id)).collect();
            let mut held: Vec<BTreeMap<u32, usize>> = vec![BTreeMap::new(); ids.len()];
            for (at, label, held_once_more) in ops {
                // Half of it is one peer's.
                let at = if at < 450 { 7 } else { at as usize };
                let bytes = label as usize % 50;
                let mine = &mut held[at];
                peers.change(numbers[at], |peer| if held_once_more {
                    *mine.entry(label).or_default() += 1;
                    peer.hold(label, bytes);
                } else {
                    if let Some(rows) = mine.get_mut(&label) {
                        *rows -= 1;
                    }
                    mine.retain(|_, rows| *rows > 0);
                    peer.release(label, bytes);
                });
            }
            let mut largest = None;
            for (number, mine) in numbers.iter().zip(&held) {
                let text: usize = mine.keys().map(|label| *label as usize % 50).sum();
                let peer = peers.get(*number).unwrap();
                prop_assert_eq!(peer.share.text_bytes, text);
                let entries = mine.iter().map(|(label, rows)| slot(*label, u32::try_from(*rows).unwrap()));
                prop_assert_eq!(peer.texts.iter().collect::<Vec<_>>(), entries.collect::<Vec<_>>());
                // Ids are in the order of the numbers.
                if text > 0 {
                    largest = largest.max(Some((text, *number)));
                }
            }
            prop_assert_eq!(peers.largest(3), largest.map(|(_, number)| number));
        }
    }

    #[test]
    fn what_nothing_speaks_of_is_gone() {
        let (mut records, mut peers) = (Records::default(), Peers::default());
        let (cid, other) = (RecordCid::of(b"a"), RecordCid::of(b"b"));
        let peer = PeerId::from_bytes(b"peer").unwrap();
        let number = records.acquire(&cid);
        assert_eq!(records.acquire(&cid), number);
        assert_ne!(records.acquire(&other), number);
        records.release(number);
        assert_eq!(records.find(&cid), Some(number));
        records.release(number);
        assert_eq!((records.find(&cid), records.len()), (None, 1));
        let number = peers.acquire(&peer);
        assert_eq!(peers.find(&peer), Some(number));
        peers.release(number);
        assert_eq!((peers.find(&peer), peers.len()), (None, 0));
    }

    #[test]
    fn a_text_counts_once_for_a_peer_however_many_rows_have_it() {
        let mut peers = Peers::default();
        let ids = [1, 2].map(|byte| PeerId::from_bytes(&[byte]).unwrap());
        let [one, other] = ids.map(|id| peers.acquire(&id));
        peers.change(one, |peer| {
            for label in [7, 3, 7, 9] {
                peer.hold(label, 10);
            }
        });
        peers.change(other, |peer| peer.hold(7, 10));
        let text = |peers: &Peers, number| peers.get(number).unwrap().share.text_bytes;
        assert_eq!((text(&peers, one), text(&peers, other)), (30, 10));
        assert_eq!((peers.largest(3), peers.largest(0)), (Some(one), None));
        peers.change(one, |peer| {
            peer.release(7, 10);
            peer.release(9, 10);
            peer.release(3, 10);
            peer.release(8, 10);
        });
        assert_eq!(text(&peers, one), 10, "one row still has it");
        peers.change(one, |peer| peer.release(7, 10));
        assert_eq!((text(&peers, one), peers.largest(3)), (0, Some(other)));
        assert!(peers.get(one).unwrap().texts.first().is_none());
    }
}
