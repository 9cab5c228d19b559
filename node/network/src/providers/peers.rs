//! Providers by number, each with the addresses it last gave and a count of its records.
//!
//! Pure. A peer is kept as long as it has a record and its number is then used again. Addresses are soft state: the
//! last list that is not empty counts.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use libp2p::{Multiaddr, PeerId};

use super::{MAX_ADDRESS_BYTES, MAX_ADDRESSES};

#[derive(Debug)]
struct Row {
    peer: PeerId,
    records: u32,
    addresses: Box<[Multiaddr]>,
    /// In which life of the log these addresses were handed to it.
    written: Option<u64>,
}

/// The peers and their numbers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    rows: Vec<Option<Row>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    address_bytes: usize,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn find(&self, peer: &PeerId) -> Option<u32> {
        let hash = self.hasher.hash_one(peer);
        self.index
            .find(hash, |at| self.row(*at).is_some_and(|row| row.peer == *peer))
            .copied()
    }

    fn row(&self, at: u32) -> Option<&Row> {
        self.rows.get(usize::try_from(at).ok()?)?.as_ref()
    }

    fn row_mut(&mut self, at: u32) -> Option<&mut Row> {
        self.rows.get_mut(usize::try_from(at).ok()?)?.as_mut()
    }

    /// The peer's number, a new one if it has none. None when numbers have run out.
    pub(super) fn number(&mut self, peer: PeerId) -> Option<u32> {
        if let Some(at) = self.find(&peer) {
            return Some(at);
        }
        let row = Some(Row {
            peer,
            records: 0,
            addresses: Box::default(),
            written: None,
        });
        let at = if let Some(at) = self.free.pop() {
            *self.rows.get_mut(usize::try_from(at).ok()?)? = row;
            at
        } else {
            let at = u32::try_from(self.rows.len()).ok()?;
            self.rows.push(row);
            at
        };
        let hash = self.hasher.hash_one(peer);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hash, at, |at| {
            usize::try_from(*at)
                .ok()
                .and_then(|at| rows.get(at)?.as_ref())
                .map_or(0, |row| hasher.hash_one(row.peer))
        });
        Some(at)
    }

    pub(super) fn peer(&self, at: u32) -> Option<(PeerId, &[Multiaddr])> {
        self.row(at).map(|row| (row.peer, &*row.addresses))
    }

    pub(super) fn records(&self, at: u32) -> u32 {
        self.row(at).map_or(0, |row| row.records)
    }

    /// Replaces the addresses by the first few that are short enough, unless there are none.
    pub(super) fn set_addresses(&mut self, at: u32, addresses: &[Multiaddr]) {
        let kept: Box<[Multiaddr]> = addresses
            .iter()
            .filter(|address| !address.is_empty() && address.len() <= MAX_ADDRESS_BYTES)
            .take(MAX_ADDRESSES)
            .cloned()
            .collect();
        let after = bytes_of(&kept);
        let Some(row) = self.row_mut(at) else { return };
        if kept.is_empty() || kept == row.addresses {
            return;
        }
        let before = bytes_of(&row.addresses);
        row.addresses = kept;
        row.written = None;
        self.address_bytes = self.address_bytes.saturating_add(after).saturating_sub(before);
    }

    /// The addresses if the log, in its `life`, was not handed them yet; empty otherwise.
    pub(super) fn unwritten(&self, at: u32, life: u64) -> Vec<Multiaddr> {
        let row = self.row(at).filter(|row| row.written != Some(life));
        row.map_or_else(Vec::new, |row| row.addresses.to_vec())
    }

    /// The log was handed the peer's addresses in this life of it.
    pub(super) fn set_written(&mut self, at: u32, life: u64) {
        if let Some(row) = self.row_mut(at) {
            row.written = Some(life);
        }
    }

    pub(super) fn add_record(&mut self, at: u32) {
        if let Some(row) = self.row_mut(at) {
            row.records = row.records.saturating_add(1);
        }
    }

    /// One record less; the last one takes the peer with it.
    pub(super) fn drop_record(&mut self, at: u32) {
        if let Some(row) = self.row_mut(at) {
            row.records = row.records.saturating_sub(1);
        }
        self.forget_idle(at);
    }

    /// Forgets a peer without records.
    pub(super) fn forget_idle(&mut self, at: u32) {
        let Some(row) = self.row(at).filter(|row| row.records == 0) else {
            return;
        };
        let (hash, bytes) = (self.hasher.hash_one(row.peer), bytes_of(&row.addresses));
        if let Ok(found) = self.index.find_entry(hash, |found| *found == at) {
            found.remove();
        }
        if let Some(row) = usize::try_from(at).ok().and_then(|at| self.rows.get_mut(at)) {
            *row = None;
        }
        self.address_bytes = self.address_bytes.saturating_sub(bytes);
        self.free.push(at);
    }

    /// Bytes held, allocator overhead not counted.
    pub(super) fn bytes(&self) -> usize {
        self.rows
            .capacity()
            .saturating_mul(size_of::<Option<Row>>())
            .saturating_add(self.free.capacity().saturating_mul(size_of::<u32>()))
            .saturating_add(self.index.allocation_size())
            .saturating_add(self.address_bytes)
    }
}

fn bytes_of(addresses: &[Multiaddr]) -> usize {
    addresses
        .iter()
        .map(|address| size_of::<Multiaddr>().saturating_add(address.len()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_goes_with_its_last_record_and_its_number_is_used_again() {
        let mut peers = Peers::default();
        let (one, two) = (PeerId::random(), PeerId::random());
        let at = peers.number(one).unwrap();
        assert_eq!(peers.number(one), Some(at));
        peers.add_record(at);
        peers.add_record(at);
        peers.drop_record(at);
        assert_eq!(peers.find(&one), Some(at));
        peers.drop_record(at);
        assert_eq!((peers.find(&one), peers.len()), (None, 0));
        assert_eq!(peers.number(two), Some(at));
        assert_eq!(peers.peer(at).unwrap().0, two);
    }

    #[test]
    fn addresses_are_few_and_short_and_the_last_list_counts() {
        let mut peers = Peers::default();
        let at = peers.number(PeerId::random()).unwrap();
        let address = |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        let many: Vec<Multiaddr> = (1..50).map(address).collect();
        peers.set_addresses(at, &many);
        assert_eq!(peers.peer(at).unwrap().1.len(), MAX_ADDRESSES);
        peers.set_addresses(at, &[]);
        assert_eq!(peers.peer(at).unwrap().1.len(), MAX_ADDRESSES);
        let long: Multiaddr = format!("/dns4/{}/tcp/1", "a".repeat(300)).parse().unwrap();
        peers.set_addresses(at, &[long, Multiaddr::empty(), address(9)]);
        assert_eq!(peers.peer(at).unwrap().1, [address(9)]);
        peers.forget_idle(at);
        assert_eq!(peers.address_bytes, 0);
    }

    #[test]
    fn addresses_are_handed_to_each_life_of_the_log_once_and_again_when_they_change() {
        let mut peers = Peers::default();
        let at = peers.number(PeerId::random()).unwrap();
        let address = |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        assert!(peers.unwritten(at, 0).is_empty());
        peers.set_addresses(at, &[address(1)]);
        assert_eq!(peers.unwritten(at, 0), [address(1)]);
        peers.set_written(at, 0);
        peers.set_addresses(at, &[address(1)]);
        assert!(peers.unwritten(at, 0).is_empty());
        assert_eq!(peers.unwritten(at, 1), [address(1)]);
        peers.set_addresses(at, &[address(2)]);
        assert_eq!(peers.unwritten(at, 0), [address(2)]);
    }
}
