//! Which values hold which three bytes in a row: narrows a pattern to the values worth a look.
//!
//! Every text stands between marks (one before, two after), so that starts and ends are told apart, and each one or two
//! bytes of it are the beginning of some gram. An answer may hold too many values, never too few: values too long
//! to be taken apart are in every answer.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use roaring::RoaringBitmap;

use super::pattern::Pattern;
use super::posting::{compact, insert, set_bytes};

/// Longer values are candidates of every pattern: what a value costs stays bounded.
const MAX_TEXT_BYTES: usize = 1024;
/// Different grams of one column. Values that would bring more are treated as too long.
const MAX_GRAMS: usize = 1 << 18;
/// Grams looked up at most for a piece of one or two bytes.
const MAX_RANGE: usize = 4096;
/// Grams of a pattern looked at at most.
const MAX_NEEDS: usize = 256;
/// Sets put together at most: the rarest few narrow enough.
const MAX_INTERSECTED: usize = 8;

const START: u8 = 2;
const END: u8 = 3;

/// Values that wait for the sets at most, in a build.
const MAX_PENDING: usize = 1 << 16;

/// Spreads the 24 bits of a gram; the keys are bounded in number, so no secret is needed.
#[derive(Default)]
pub(super) struct GramHasher(u64);

impl Hasher for GramHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = u64::from(value)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

/// The sets.
#[derive(Default)]
pub(super) struct Grams {
    slots: HashMap<u32, u32, BuildHasherDefault<GramHasher>>,
    /// The keys of `slots`, in order.
    keys: BTreeSet<u32>,
    sets: Vec<RoaringBitmap>,
    long: RoaringBitmap,
    /// While many values are added at once: those that are not in `sets` yet, by slot.
    pending: Option<Pending>,
}

/// Values come to each set one by one, but to a list much faster; sets take lists whole.
#[derive(Default)]
struct Pending {
    lists: Vec<Vec<u32>>,
    values: usize,
}

/// What a pattern asks of the grams.
pub(super) struct Narrowed<'a> {
    /// At most so many values, as far as one look tells; `None` if the pattern asks nothing.
    pub(super) estimate: Option<u64>,
    needs: Vec<(u64, Vec<&'a RoaringBitmap>)>,
    long: &'a RoaringBitmap,
}

fn key(gram: &[u8]) -> u32 {
    gram.iter().fold(0, |key, byte| (key << 8) | u32::from(*byte))
}

fn marked(folded: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(folded.len().saturating_add(3));
    text.push(START);
    text.extend_from_slice(folded.as_bytes());
    text.extend_from_slice(&[END, END]);
    text
}

impl Grams {
    pub(super) fn insert(&mut self, value: u32, folded: &str) {
        if folded.len() > MAX_TEXT_BYTES || self.slots.len() >= MAX_GRAMS {
            self.long.insert(value);
            return;
        }
        for gram in marked(folded).windows(3) {
            let key = key(gram);
            let next = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
            let slot = *self.slots.entry(key).or_insert(next);
            if slot == next {
                self.keys.insert(key);
                self.sets.push(RoaringBitmap::new());
            }
            if let Some(pending) = &mut self.pending {
                pending.add(slot, value);
            } else if let Some(set) = self.sets.get_mut(slot as usize) {
                insert(set, value);
            }
        }
        if let Some(pending) = &mut self.pending {
            pending.values = pending.values.saturating_add(1);
            if pending.values >= MAX_PENDING {
                self.flush();
            }
        }
    }

    /// From now on many values are added, and nothing is asked until [`Grams::settle`].
    pub(super) fn collect(&mut self) {
        self.pending.get_or_insert_default();
    }

    fn flush(&mut self) {
        let Some(pending) = &mut self.pending else { return };
        pending.values = 0;
        for (set, list) in self.sets.iter_mut().zip(&mut pending.lists) {
            if list.is_empty() {
                continue;
            }
            // Numbers that were used before may come in between.
            list.sort_unstable();
            list.dedup();
            match RoaringBitmap::from_sorted_iter(list.drain(..)) {
                Ok(more) => *set |= more,
                Err(_) => tracing::error!("values of a gram are not in order"),
            }
        }
    }

    pub(super) fn remove(&mut self, value: u32, folded: &str) {
        if self.pending.as_ref().is_some_and(|pending| pending.values > 0) {
            self.flush();
        }
        if self.long.remove(value) {
            return;
        }
        for gram in marked(folded).windows(3) {
            if let Some(slot) = self.slots.get(&key(gram))
                && let Some(set) = self.sets.get_mut(*slot as usize)
            {
                set.remove(value);
            }
        }
    }

    fn set(&self, key: u32) -> Option<&RoaringBitmap> {
        self.sets.get(*self.slots.get(&key)? as usize)
    }

    /// The values a pattern may match.
    pub(super) fn narrow(&self, pattern: &Pattern) -> Narrowed<'_> {
        let mut needs: Vec<(u64, Vec<&RoaringBitmap>)> = Vec::new();
        for run in pattern.runs() {
            let mut text = Vec::with_capacity(run.text.len().saturating_add(3));
            text.extend(run.at_start.then_some(START));
            text.extend_from_slice(run.text.as_bytes());
            if run.at_end {
                text.extend_from_slice(&[END, END]);
            }
            if text.len() >= 3 {
                for gram in text.windows(3).take(MAX_NEEDS.saturating_sub(needs.len())) {
                    let sets: Vec<_> = self.set(key(gram)).into_iter().collect();
                    needs.push((sets.first().map_or(0, |set| set.len()), sets));
                }
            } else if needs.len() < MAX_NEEDS {
                needs.extend(self.range(&text));
            }
        }
        needs.sort_by_key(|(len, _)| *len);
        Narrowed {
            estimate: needs.first().map(|(len, _)| len.saturating_add(self.long.len())),
            needs,
            long: &self.long,
        }
    }

    /// The sets of all grams that begin with one or two bytes; `None` if there are too many to help.
    fn range(&self, start: &[u8]) -> Option<(u64, Vec<&RoaringBitmap>)> {
        let missing = 3usize.saturating_sub(start.len());
        let bits = u32::try_from(missing.saturating_mul(8)).unwrap_or(0);
        let first = key(start).checked_shl(bits)?;
        let last = first | 1u32.checked_shl(bits)?.saturating_sub(1);
        let mut len: u64 = 0;
        let mut sets = Vec::new();
        for key in self.keys.range(first..=last) {
            if sets.len() >= MAX_RANGE {
                return None;
            }
            let set = self.set(*key)?;
            len = len.saturating_add(set.len());
            sets.push(set);
        }
        Some((len, sets))
    }

    pub(super) fn settle(&mut self) {
        self.flush();
        self.pending = None;
        for set in &mut self.sets {
            compact(set);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let keys = (self.keys.len() as u64).saturating_mul(32);
        self.sets
            .iter()
            .map(set_bytes)
            .fold(keys.saturating_add(set_bytes(&self.long)), u64::saturating_add)
    }
}

impl Pending {
    fn add(&mut self, slot: u32, value: u32) {
        let at = slot as usize;
        if self.lists.len() <= at {
            self.lists.resize_with(at.saturating_add(1), Vec::new);
        }
        if let Some(list) = self.lists.get_mut(at)
            && list.last() != Some(&value)
        {
            list.push(value);
        }
    }
}

impl Narrowed<'_> {
    /// The values that hold the rarest grams together, and those too long to tell.
    pub(super) fn values(&self) -> RoaringBitmap {
        let mut found: Option<RoaringBitmap> = None;
        for (_, sets) in self.needs.iter().take(MAX_INTERSECTED) {
            found = Some(match (found, sets.as_slice()) {
                (None, []) => RoaringBitmap::new(),
                (None, [one]) => (*one).clone(),
                (Some(mut held), [one]) => {
                    held &= *one;
                    held
                }
                (held, many) => {
                    let mut union = RoaringBitmap::new();
                    for set in many {
                        union |= *set;
                    }
                    match held {
                        Some(held) => held & union,
                        None => union,
                    }
                }
            });
            if found.as_ref().is_some_and(|found| found.len() < 256) {
                break;
            }
        }
        found.unwrap_or_default() | self.long
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::index::pattern::fold_stored;

    proptest! {
        /// No value that matches is missing, and one that was taken out is gone.
        #[test]
        fn never_too_few(
            texts in proptest::collection::vec("[abcé]{0,8}", 1..30),
            pattern in "[abcé*?]{0,7}",
        ) {
            let mut grams = Grams::default();
            for (value, text) in (0..).zip(&texts) {
                grams.insert(value, &fold_stored(text));
            }
            let pattern = Pattern::new(&pattern);
            grams.remove(0, &fold_stored(&texts[0]));
            let narrowed = grams.narrow(&pattern);
            let found = narrowed.values();
            if let Some(estimate) = narrowed.estimate {
                prop_assert!(found.len() <= estimate);
                prop_assert!(!found.contains(0));
                for (value, text) in (0..).zip(&texts).skip(1) {
                    prop_assert!(found.contains(value) || !pattern.matches(&fold_stored(text)));
                }
            }
        }
    }

    #[test]
    fn long_texts_are_always_candidates() {
        let mut grams = Grams::default();
        grams.insert(7, &"x".repeat(5000));
        grams.insert(8, "abc");
        let found = grams.narrow(&Pattern::new("*abc*")).values();
        assert!(found.contains(7) && found.contains(8));
        grams.remove(7, &"x".repeat(5000));
        assert!(!grams.narrow(&Pattern::new("*abc*")).values().contains(7));
    }
}
