//! Records and peers by number: each is kept once, for as long as a row or a withdrawal speaks of it.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::room::{ALLOCATION, NONE, Slots};
use super::sorted::Sorted;
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
    pub(super) rows: usize,
    /// Labels of its rows.
    pub(super) labels: usize,
    refs: u32,
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
            rows: 0,
            labels: 0,
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter()
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
            })
            .fold(self.slots.bytes(), u64::saturating_add)
            .saturating_add(self.table.allocation_size() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
