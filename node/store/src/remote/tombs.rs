//! Withdrawals: few, bounded, each until it ends. They are here only to be read back after a restart.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::room::Slots;
use super::sorted::Sorted;

/// A withdrawal, by the numbers of its record and peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Buried {
    pub(super) record: u32,
    pub(super) peer: u32,
    pub(super) timestamp_ns: i64,
    pub(super) until_ns: i64,
    pub(super) first_hand: bool,
}

/// The withdrawals.
#[derive(Debug, Default)]
pub(super) struct Tombs {
    slots: Slots<Buried>,
    table: HashTable<u32>,
    /// By when they end.
    wheel: Sorted,
    random: RandomState,
}

/// Unix seconds, rounded up, of an end: what ends within a second ends with it.
pub(super) fn second_after(nanos: i64) -> u32 {
    let seconds = nanos.div_euclid(1_000_000_000);
    let part = i64::from(nanos.rem_euclid(1_000_000_000) > 0);
    u32::try_from(seconds.saturating_add(part).max(0)).unwrap_or(u32::MAX)
}

/// Unix seconds that are over.
pub(super) fn second_of(nanos: i64) -> u32 {
    u32::try_from(nanos.div_euclid(1_000_000_000).max(0)).unwrap_or(u32::MAX)
}

/// An entry of a wheel.
pub(super) fn slot(second: u32, number: u32) -> u64 {
    (u64::from(second) << 32) | u64::from(number)
}

/// Second and number of an entry.
#[expect(clippy::cast_possible_truncation, reason = "two halves of 32 bits")]
pub(super) fn parts(entry: u64) -> (u32, u32) {
    ((entry >> 32) as u32, entry as u32)
}

/// The order of ends: to the nanosecond, then by number.
fn by_end(slots: &Slots<Buried>, one: u64, other: u64) -> Ordering {
    let ((second, number), (other_second, other_number)) = (parts(one), parts(other));
    let end = |number: u32| slots.get(number).map(|tomb| tomb.until_ns);
    second
        .cmp(&other_second)
        .then_with(|| end(number).cmp(&end(other_number)))
        .then(number.cmp(&other_number))
}

impl Tombs {
    pub(super) fn find(&self, record: u32, peer: u32) -> Option<u32> {
        let is = |number: &u32| {
            let tomb = self.slots.get(*number);
            tomb.is_some_and(|tomb| (tomb.record, tomb.peer) == (record, peer))
        };
        self.table.find(self.random.hash_one((record, peer)), is).copied()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Buried> {
        self.slots.get(number)
    }

    /// Adds one; there is none for this record and peer.
    pub(super) fn add(&mut self, tomb: Buried) {
        let number = self.slots.add(tomb);
        let (slots, random) = (&self.slots, &self.random);
        let hash_of = |number: &u32| {
            let tomb = slots.get(*number);
            tomb.map_or(0, |tomb| random.hash_one((tomb.record, tomb.peer)))
        };
        self.table.insert_unique(hash_of(&number), number, hash_of);
        let entry = slot(second_after(tomb.until_ns), number);
        let slots = &self.slots;
        self.wheel.insert(entry, |one, other| by_end(slots, one, other));
    }

    pub(super) fn take(&mut self, number: u32) -> Option<Buried> {
        let tomb = self.slots.get(number)?;
        let hash = self.random.hash_one((tomb.record, tomb.peer));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        let (entry, slots) = (slot(second_after(tomb.until_ns), number), &self.slots);
        self.wheel.remove(entry, |one, other| by_end(slots, one, other));
        self.slots.take(number)
    }

    /// The one that ends first, and the second after which it has.
    pub(super) fn first(&self) -> Option<(u32, u32)> {
        self.wheel.first().map(parts)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn end(&self) -> u32 {
        self.slots.end()
    }

    /// Memory of withdrawals, and of their wheel.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let slots = self.slots.bytes();
        (
            slots.saturating_add(self.table.allocation_size() as u64),
            self.wheel.bytes(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_never_too_early_and_odd_times_are_bounded() {
        for (nanos, after, of) in [
            (0, 0, 0),
            (1, 1, 0),
            (1_000_000_000, 1, 1),
            (1_000_000_001, 2, 1),
            (-1, 0, 0),
            (i64::MIN, 0, 0),
            (i64::MAX, u32::MAX, u32::MAX),
        ] {
            assert_eq!((second_after(nanos), second_of(nanos)), (after, of), "{nanos}");
        }
        assert_eq!(parts(slot(7, u32::MAX)), (7, u32::MAX));
    }
}
