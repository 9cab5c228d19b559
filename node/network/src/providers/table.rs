//! Keys and who provides them, in as few bytes as it takes.
//!
//! An entry lives in an arena of chunks (no doubling, so nothing is ever held twice) and is found through a table of
//! indices. It is 56 bytes with room for one provider; the twenty-first of a crowded key replaces the one that would
//! expire first. Pure; knows neither peers nor clocks.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use libp2p::kad::RecordKey;
use sha2::{Digest as _, Sha256};

use super::MAX_KEY_BYTES;

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;
/// Prefix of a sha2-256 multihash.
const SHA256: [u8; 2] = [0x12, 0x20];

/// A provider key of fixed size: the digest of a sha2-256 multihash as it is, or the hash of any other key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TableKey {
    digest: [u8; 32],
    /// Keeps keys of both kinds apart.
    hashed: bool,
}

impl TableKey {
    /// None for a key that is empty or longer than [`MAX_KEY_BYTES`].
    pub(super) fn new(key: &RecordKey) -> Option<Self> {
        Self::from_bytes(key.as_ref())
    }

    pub(super) fn from_bytes(key: &[u8]) -> Option<Self> {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return None;
        }
        if let Some(digest) = key.strip_prefix(&SHA256)
            && let Ok(digest) = digest.try_into()
        {
            return Some(Self {
                digest,
                hashed: false,
            });
        }
        Some(Self {
            digest: Sha256::digest(key).into(),
            hashed: true,
        })
    }
}

/// One provider of one key: index of the peer, unix seconds when it lapses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) peer: u32,
    pub(super) expires: u32,
}

/// The providers of a key. The second form is taken for more than one, and for none.
#[derive(Debug, Clone)]
enum Slots {
    One(Slot),
    Many(Box<[Slot]>),
}

impl Slots {
    fn as_slice(&self) -> &[Slot] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots,
        }
    }

    fn set(&mut self, slots: Vec<Slot>) {
        *self = match slots.as_slice() {
            [one] => Self::One(*one),
            _ => Self::Many(slots.into_boxed_slice()),
        };
    }
}

#[derive(Debug)]
struct Entry {
    key: TableKey,
    /// The tick this entry is to be looked at next, see `wheel`; entries that are free have none.
    due: u32,
    slots: Slots,
}

const _: () = assert!(size_of::<Entry>() <= 56, "a key with one provider is kept small");

/// What [`Table::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// The provider was known for the key; its expiry is new.
    Renewed,
    /// The provider is new for the key.
    Added,
    /// It is new, and this peer had to go for it.
    Replaced(u32),
}

/// The arena and its index.
#[derive(Debug, Default)]
pub(super) struct Table {
    chunks: Vec<Vec<Entry>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Bytes of the slots that are not inside their entries.
    outside_bytes: usize,
}

impl Table {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Bytes held, allocator overhead not counted.
    pub(super) fn bytes(&self) -> usize {
        self.chunks
            .len()
            .saturating_mul(CHUNK * size_of::<Entry>())
            .saturating_add(self.free.capacity().saturating_mul(size_of::<u32>()))
            .saturating_add(self.index.allocation_size())
            .saturating_add(self.outside_bytes)
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        let at = usize::try_from(at).ok()?;
        self.chunks.get(at >> CHUNK_BITS)?.get(at & (CHUNK - 1))
    }

    fn entry_mut(&mut self, at: u32) -> Option<&mut Entry> {
        let at = usize::try_from(at).ok()?;
        self.chunks.get_mut(at >> CHUNK_BITS)?.get_mut(at & (CHUNK - 1))
    }

    /// Where the key is.
    pub(super) fn find(&self, key: &TableKey) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index
            .find(hash, |at| self.entry(*at).is_some_and(|entry| entry.key == *key))
            .copied()
    }

    /// The providers of the entry, lapsed ones among them.
    pub(super) fn slots(&self, at: u32) -> &[Slot] {
        self.entry(at).map_or(&[], |entry| entry.slots.as_slice())
    }

    /// Adds or renews a provider; with more than `most`, the one that lapses first goes.
    ///
    /// Returns where the entry is, and whether it is new and has to be made due. None if the arena is full, at four
    /// thousand million entries.
    pub(super) fn put(&mut self, key: TableKey, slot: Slot, most: usize) -> Option<(u32, bool, Put)> {
        let Some(at) = self.find(&key) else {
            return Some((self.insert(key, slot)?, true, Put::Added));
        };
        let entry = self.entry_mut(at)?;
        let mut slots = entry.slots.as_slice().to_vec();
        let before = outside(slots.len());
        let put = if let Some(known) = slots.iter_mut().find(|known| known.peer == slot.peer) {
            known.expires = slot.expires;
            Put::Renewed
        } else if slots.len() < most.max(1) {
            slots.push(slot);
            Put::Added
        } else if let Some(first) = slots.iter_mut().min_by_key(|known| known.expires) {
            Put::Replaced(std::mem::replace(first, slot).peer)
        } else {
            slots.push(slot);
            Put::Added
        };
        let after = outside(slots.len());
        entry.slots.set(slots);
        self.outside_bytes = self.outside_bytes.saturating_add(after).saturating_sub(before);
        Some((at, false, put))
    }

    fn insert(&mut self, key: TableKey, slot: Slot) -> Option<u32> {
        let entry = Entry {
            key,
            due: 0,
            slots: Slots::One(slot),
        };
        let at = if let Some(at) = self.free.pop() {
            *self.entry_mut(at)? = entry;
            at
        } else {
            if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK) {
                self.chunks.push(Vec::with_capacity(CHUNK));
            }
            let full = self.chunks.len().saturating_sub(1).saturating_mul(CHUNK);
            let chunk = self.chunks.last_mut()?;
            let at = u32::try_from(full.saturating_add(chunk.len())).ok()?;
            chunk.push(entry);
            at
        };
        let hash = self.hasher.hash_one(key);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.index.insert_unique(hash, at, |at| {
            let at = usize::try_from(*at).unwrap_or(usize::MAX);
            let entry = chunks
                .get(at >> CHUNK_BITS)
                .and_then(|chunk| chunk.get(at & (CHUNK - 1)));
            entry.map_or(0, |entry| hasher.hash_one(entry.key))
        });
        Some(at)
    }

    /// Takes away the providers of the entry that `goes` names and hands each to `gone`. An entry without any is
    /// forgotten; returns when the next of the others lapses.
    pub(super) fn retain(
        &mut self,
        at: u32,
        goes: impl Fn(&Slot) -> bool,
        mut gone: impl FnMut(Slot),
    ) -> Option<u32> {
        let entry = self.entry_mut(at)?;
        let key = entry.key;
        let before = entry.slots.as_slice();
        let (going, staying): (Vec<Slot>, Vec<Slot>) = before.iter().copied().partition(goes);
        let next = staying.iter().map(|slot| slot.expires).min();
        let (were, are) = (outside(before.len()), outside(staying.len()));
        if !going.is_empty() {
            entry.slots.set(staying);
            self.outside_bytes = self.outside_bytes.saturating_add(are).saturating_sub(were);
        }
        going.into_iter().for_each(&mut gone);
        if next.is_none() {
            self.forget(at, &key);
        }
        next
    }

    fn forget(&mut self, at: u32, key: &TableKey) {
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.index.find_entry(hash, |found| *found == at) {
            found.remove();
            if let Some(entry) = self.entry_mut(at) {
                entry.due = 0;
                // Nobody provides it, and nothing is held outside the entry.
                entry.slots.set(Vec::new());
            }
            self.free.push(at);
        }
    }

    /// Says when the entry is to be looked at.
    pub(super) fn set_due(&mut self, at: u32, tick: u32) {
        if let Some(entry) = self.entry_mut(at) {
            entry.due = tick;
        }
    }

    /// Whether the entry is to be looked at in this tick; it may have been forgotten or made due otherwise.
    pub(super) fn is_due(&self, at: u32, tick: u32) -> bool {
        self.entry(at).is_some_and(|entry| entry.due == tick)
    }
}

/// Bytes that so many providers take outside their entry.
fn outside(slots: usize) -> usize {
    if slots == 1 {
        0
    } else {
        slots.saturating_mul(size_of::<Slot>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: u32) -> TableKey {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend(Sha256::digest(of.to_be_bytes()));
        TableKey::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn keys_of_both_kinds_are_kept_apart_and_bounded() {
        let other = TableKey::from_bytes(b"some other key").unwrap();
        let mut alike = vec![0x12, 0x20];
        alike.extend(Sha256::digest(b"some other key"));
        assert_ne!(TableKey::from_bytes(&alike).unwrap(), other);
        assert_eq!(TableKey::from_bytes(b""), None);
        assert_eq!(TableKey::from_bytes(&[1; 81]), None);
        assert!(TableKey::from_bytes(&[1; 80]).is_some());
        assert!(TableKey::from_bytes(&[0x12, 0x20, 1]).is_some());
    }

    #[test]
    fn the_first_to_lapse_makes_room() {
        let mut table = Table::default();
        for peer in 0..3 {
            let slot = Slot {
                peer,
                expires: 100 - peer,
            };
            let (_, fresh, put) = table.put(key(1), slot, 3).unwrap();
            assert_eq!((fresh, put), (peer == 0, Put::Added));
        }
        let slot = Slot { peer: 9, expires: 50 };
        let (at, _, put) = table.put(key(1), slot, 3).unwrap();
        assert_eq!(put, Put::Replaced(2));
        let slot = Slot {
            peer: 9,
            expires: 500,
        };
        assert_eq!(table.put(key(1), slot, 3).unwrap().2, Put::Renewed);
        assert_eq!(table.slots(at).len(), 3);
    }

    #[test]
    fn entries_are_forgotten_and_used_again() {
        let mut table = Table::default();
        let count = 10_000;
        for at in 0..count {
            table
                .put(
                    key(at),
                    Slot {
                        peer: at,
                        expires: at,
                    },
                    20,
                )
                .unwrap();
        }
        assert_eq!(table.len(), 10_000);
        let bytes = table.bytes();
        for at in 0..count {
            let entry = table.find(&key(at)).unwrap();
            assert_eq!(
                table.slots(entry),
                [Slot {
                    peer: at,
                    expires: at
                }]
            );
            let mut gone = Vec::new();
            assert_eq!(table.retain(entry, |_| true, |slot| gone.push(slot.peer)), None);
            assert_eq!(gone, [at]);
            assert_eq!(table.find(&key(at)), None);
        }
        assert_eq!((table.len(), table.outside_bytes), (0, 0));
        for at in 0..count {
            table.put(key(at), Slot { peer: 1, expires: 1 }, 20).unwrap();
        }
        assert!(table.bytes() <= bytes + 10_000 * 4 * 2, "the same entries again");
    }
}
