//! Numbers in an order given from outside, in blocks: adding one moves at most one block, and a place is found again by
//! halving.
//!
//! Holds what posting lists, the order of a peer's rows and the wheel are made of. A short list is one allocation.
//! The order is a function handed to each call, since the numbers alone do not tell it; it must be the same each time.

use std::cmp::Ordering;

use super::room;

/// Entries of a block; a list up to this long is one block.
const BLOCK: usize = 256;
/// A block this short is joined to its neighbour, if the two are not more than three quarters of a block.
const SHORT: usize = BLOCK / 4;

/// The list.
#[derive(Debug)]
pub(super) enum Sorted {
    One(Vec<u64>),
    /// Two blocks or more, none of them empty.
    Many(Vec<Vec<u64>>),
}

/// A place in a list, good until the list changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pos {
    block: usize,
    at: usize,
}

impl Default for Sorted {
    fn default() -> Self {
        Self::One(Vec::new())
    }
}

impl Sorted {
    fn block(&self, number: usize) -> Option<&[u64]> {
        match self {
            Self::One(entries) => (number == 0).then_some(entries),
            Self::Many(blocks) => blocks.get(number).map(Vec::as_slice),
        }
    }

    #[cfg(test)]
    fn is_empty(&self) -> bool {
        matches!(self, Self::One(entries) if entries.is_empty())
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.get(Pos::default())
    }

    pub(super) fn last(&self) -> Option<u64> {
        match self {
            Self::One(entries) => entries.last().copied(),
            Self::Many(blocks) => blocks.last()?.last().copied(),
        }
    }

    /// Puts another entry, which the order does not tell from the one that is there, into a place.
    pub(super) fn set(&mut self, pos: Pos, entry: u64) {
        let block = match self {
            Self::One(entries) => (pos.block == 0).then_some(entries),
            Self::Many(blocks) => blocks.get_mut(pos.block),
        };
        if let Some(there) = block.and_then(|entries| entries.get_mut(pos.at)) {
            *there = entry;
        }
    }

    /// The entry at a place; `None` behind the last.
    pub(super) fn get(&self, pos: Pos) -> Option<u64> {
        self.block(pos.block)?.get(pos.at).copied()
    }

    /// The place behind a place that has an entry.
    pub(super) fn next(&self, pos: Pos) -> Pos {
        let at = pos.at.saturating_add(1);
        if self.block(pos.block).is_some_and(|block| at < block.len()) {
            return Pos { at, ..pos };
        }
        Pos {
            block: pos.block.saturating_add(1),
            at: 0,
        }
    }

    /// The first place at or behind `from` whose entry is not `below`. All entries that are below come before all that
    /// are not. Costs the logarithm of the distance.
    pub(super) fn seek(&self, from: Pos, mut below: impl FnMut(u64) -> bool) -> Pos {
        if self.get(from).is_none_or(|entry| !below(entry)) {
            return from;
        }
        let mut ends_below = |number: usize| {
            let last = self.block(number).and_then(|block| block.last());
            last.is_some_and(|last| below(*last))
        };
        let mut block = from.block;
        if ends_below(block) {
            // Blocks up to `block` end below; doubled steps find one that does not, halving the first of them.
            let mut step = 1usize;
            while ends_below(block.saturating_add(step)) {
                block = block.saturating_add(step);
                step = step.saturating_mul(2);
            }
            let (mut low, mut high) = (block.saturating_add(1), block.saturating_add(step));
            while low < high {
                let middle = low.midpoint(high);
                if ends_below(middle) {
                    low = middle.saturating_add(1);
                } else {
                    high = middle;
                }
            }
            block = low;
        }
        let start = if block == from.block { from.at } else { 0 };
        let rest = self.block(block).and_then(|entries| entries.get(start..));
        let skipped = rest.map_or(0, |rest| rest.partition_point(|entry| below(*entry)));
        Pos {
            block,
            at: start.saturating_add(skipped),
        }
    }

    /// Entries from a place to the end of its block; `None` behind the last.
    fn rest(&self, pos: Pos) -> Option<&[u64]> {
        self.block(pos.block)?
            .get(pos.at..)
            .filter(|rest| !rest.is_empty())
    }

    /// Whether the longer of two lists has at most so many times the blocks of the other.
    pub(super) fn is_within(&self, times: usize, other: &Self) -> bool {
        let blocks = |list: &Self| match list {
            Self::One(_) => 1,
            Self::Many(blocks) => blocks.len(),
        };
        let (one, other) = (blocks(self), blocks(other));
        one.max(other) <= one.min(other).saturating_mul(times)
    }

    /// Steps along two lists, in the order of their upper halves, to the first places whose entries have the same upper half,
    /// or of which one is above `last`, or has no entry. Says how many entries it passed.
    ///
    /// One step costs less than a step of two seeks, since nothing has to be foreseen; where one list is much longer, seeks
    /// cost less.
    pub(super) fn meet(&self, mut at: Pos, other: &Self, mut other_at: Pos, last: u32) -> (Pos, Pos, usize) {
        let last = u64::from(last);
        let mut passed = 0usize;
        while let (Some(these), Some(those)) = (self.rest(at), other.rest(other_at)) {
            let (mut here, mut there) = (0usize, 0usize);
            let mut met = false;
            while let (Some(one), Some(two)) = (these.get(here), those.get(there)) {
                let (one, two) = (*one >> 32, *two >> 32);
                if one == two || one.max(two) > last {
                    met = true;
                    break;
                }
                here += usize::from(one < two);
                there += usize::from(two < one);
            }
            passed = passed.saturating_add(here).saturating_add(there);
            at = self.ahead(at, here);
            other_at = other.ahead(other_at, there);
            if met {
                break;
            }
        }
        (at, other_at, passed)
    }

    /// The place so many entries ahead, which is in the same block or the first of the next one.
    fn ahead(&self, pos: Pos, entries: usize) -> Pos {
        let at = pos.at.saturating_add(entries);
        if self.block(pos.block).is_some_and(|block| at >= block.len()) {
            return Pos {
                block: pos.block.saturating_add(1),
                at: 0,
            };
        }
        Pos { at, ..pos }
    }

    /// Adds an entry; false if it is there.
    pub(super) fn insert(&mut self, entry: u64, mut order: impl FnMut(u64, u64) -> Ordering) -> bool {
        let mut pos = self.seek(Pos::default(), |other| order(other, entry) == Ordering::Less);
        if self
            .get(pos)
            .is_some_and(|other| order(other, entry) == Ordering::Equal)
        {
            return false;
        }
        let entries = match self {
            Self::One(entries) => {
                if pos.block > 0 {
                    pos = Pos {
                        block: 0,
                        at: entries.len(),
                    };
                }
                entries
            }
            Self::Many(blocks) => {
                // Behind all entries means at the end of the last block.
                if pos.block >= blocks.len() {
                    pos.block = blocks.len().saturating_sub(1);
                    pos.at = blocks.last().map_or(0, Vec::len);
                }
                let Some(entries) = blocks.get_mut(pos.block) else {
                    return false;
                };
                entries
            }
        };
        pos.at = pos.at.min(entries.len());
        if entries.len() < BLOCK {
            room::grow_tightly(entries);
            entries.insert(pos.at, entry);
            return true;
        }
        // What grows at its end leaves full blocks behind.
        let behind = if pos.at == BLOCK {
            vec![entry]
        } else {
            let mut behind = entries.split_off(BLOCK / 2);
            entries.shrink_to_fit();
            let (half, at) = match pos.at.checked_sub(BLOCK / 2) {
                Some(at) => (&mut behind, at),
                None => (entries, pos.at),
            };
            room::grow_tightly(half);
            half.insert(at.min(half.len()), entry);
            behind
        };
        match self {
            Self::One(entries) => *self = Self::Many(vec![std::mem::take(entries), behind]),
            Self::Many(blocks) => {
                room::grow(blocks);
                let at = pos.block.saturating_add(1).min(blocks.len());
                blocks.insert(at, behind);
            }
        }
        true
    }

    /// Takes an entry out; false if it is not there.
    pub(super) fn remove(&mut self, entry: u64, mut order: impl FnMut(u64, u64) -> Ordering) -> bool {
        let pos = self.seek(Pos::default(), |other| order(other, entry) == Ordering::Less);
        if self
            .get(pos)
            .is_none_or(|other| order(other, entry) != Ordering::Equal)
        {
            return false;
        }
        match self {
            Self::One(entries) => {
                take(entries, pos.at);
            }
            Self::Many(blocks) => {
                if let Some(entries) = blocks.get_mut(pos.block) {
                    take(entries, pos.at);
                }
                join(blocks, pos.block);
                if let [only] = blocks.as_mut_slice() {
                    *self = Self::One(std::mem::take(only));
                }
            }
        }
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut pos = Pos::default();
        std::iter::from_fn(move || {
            let entry = self.get(pos)?;
            pos = self.next(pos);
            Some(entry)
        })
    }

    /// Memory outside of the value itself.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::One(entries) => room::bytes(entries),
            Self::Many(blocks) => blocks
                .iter()
                .map(room::bytes)
                .fold(room::bytes(blocks), u64::saturating_add),
        }
    }
}

/// Takes an entry out of a block, and gives back room when most of it is empty.
fn take(entries: &mut Vec<u64>, at: usize) {
    if at < entries.len() {
        entries.remove(at);
    }
    if entries.len() < entries.capacity() / 2 {
        let len = entries.len();
        entries.shrink_to(len.saturating_add(len / 8));
    }
}

/// Joins a short block to the one behind it, or else to the one in front.
fn join(blocks: &mut Vec<Vec<u64>>, number: usize) {
    let len = |number: usize| blocks.get(number).map_or(BLOCK, Vec::len);
    if len(number) == 0 {
        blocks.remove(number);
    } else if len(number) < SHORT {
        let pairs = [number.checked_sub(1), Some(number)];
        let fits = |first: &usize| len(*first).saturating_add(len(first.saturating_add(1))) <= BLOCK / 4 * 3;
        let Some(first) = pairs.into_iter().flatten().find(fits) else {
            return;
        };
        let second = blocks.remove(first.saturating_add(1));
        if let Some(entries) = blocks.get_mut(first) {
            entries.reserve_exact(second.len());
            entries.extend(second);
        }
    }
    if blocks.len() < blocks.capacity() / 2 {
        let len = blocks.len();
        blocks.shrink_to(len.saturating_add(len / 8));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn order(one: u64, other: u64) -> Ordering {
        one.cmp(&other)
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_set(
            ops in prop::collection::vec((0u8..10, 0u64..3_000), 1..6_000),
            removes_more in any::<bool>(),
        ) {
            let (mut list, mut set) = (Sorted::default(), BTreeSet::new());
            let limit = if removes_more { 5 } else { 2 };
            let start: u64 = if removes_more { 3_000 } else { 0 };
            for entry in 0..start {
                prop_assert_eq!(list.insert(entry, order), set.insert(entry));
            }
            for (what, entry) in ops {
                if what < limit {
                    prop_assert_eq!(list.remove(entry, order), set.remove(&entry));
                } else if what < 8 && !removes_more {
                    prop_assert_eq!(list.insert(entry, order), set.insert(entry));
                } else {
                    let found = list.get(list.seek(Pos::default(), |other| other < entry));
                    prop_assert_eq!(found, set.range(entry..).next().copied());
                }
            }
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(list.is_empty(), set.is_empty());
            prop_assert_eq!(list.first(), set.first().copied());
            prop_assert_eq!(list.last(), set.last().copied());
            if let Sorted::Many(blocks) = &list {
                prop_assert!(blocks.len() > 1 && blocks.iter().all(|block| (1..=BLOCK).contains(&block.len())));
            }
        }

        #[test]
        fn a_seek_goes_on_from_where_it_was(mut targets in prop::collection::vec(0u64..200_000, 1..50)) {
            let mut list = Sorted::default();
            for entry in (0..100_000u64).map(|entry| entry * 2) {
                list.insert(entry, order);
            }
            targets.sort_unstable();
            let mut pos = Pos::default();
            for target in targets {
                pos = list.seek(pos, |entry| entry < target);
                let expected = target.next_multiple_of(2);
                prop_assert_eq!(list.get(pos), (expected < 200_000).then_some(expected));
            }
        }
    }

    proptest! {
        #[test]
        fn lists_meet_where_both_go_on_alike(
            one in prop::collection::btree_set(0u64..4_000, 0..1_500),
            other in prop::collection::btree_set(0u64..4_000, 0..1_500),
            last in 0u32..5_000,
        ) {
            // The lower halves differ, as the numbers of rows do.
            let list = |heads: &BTreeSet<u64>, low: u64| {
                let mut list = Sorted::default();
                for head in heads {
                    list.insert(head << 32 | low, order);
                }
                list
            };
            let (left, right) = (list(&one, 1), list(&other, 2));
            let expected: Vec<u64> =
                one.intersection(&other).copied().take_while(|head| *head <= u64::from(last)).collect();
            let (mut at, mut other_at) = (Pos::default(), Pos::default());
            let (mut met, mut all) = (Vec::new(), 0);
            loop {
                let passed;
                (at, other_at, passed) = left.meet(at, &right, other_at, last);
                all += passed;
                let (Some(this), Some(that)) = (left.get(at), right.get(other_at)) else { break };
                if (this >> 32).max(that >> 32) > u64::from(last) {
                    break;
                }
                prop_assert_eq!(this >> 32, that >> 32);
                met.push(this >> 32);
                (at, other_at) = (left.next(at), right.next(other_at));
            }
            prop_assert!(all + 2 * met.len() <= one.len() + other.len());
            prop_assert_eq!(met, expected);
        }
    }

    #[test]
    fn what_is_added_in_order_or_emptied_keeps_no_room() {
        let mut list = Sorted::default();
        for entry in 0..100_000 {
            list.insert(entry, order);
        }
        let full = list.bytes();
        assert!(full < 100_000 * 10, "{full} bytes");
        for entry in 0..99_000 {
            assert!(list.remove(entry, order));
        }
        assert!(list.bytes() < 1_000 * 16, "{} bytes", list.bytes());
        for entry in 99_000..100_000 {
            assert!(list.remove(entry, order));
        }
        assert!(list.is_empty() && list.bytes() < 100, "{} bytes", list.bytes());
    }
}
