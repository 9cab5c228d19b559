//! The different texts of a column, each with a number: found by exact text, by pattern, by range.
//!
//! Numbers of texts that are gone are used again. Texts are kept as they were written; the folded form is made
//! when it is needed, for the few whose folded form differs.

use std::borrow::Cow;
use std::ops::Bound;

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::budget::Meter;
use super::grams::Grams;
use super::hash::hash;
use super::pattern::{Comparison, Pattern, fold_stored, folded};
use super::posting::set_bytes;
use super::query::QueryError;
use super::texts::Texts;

/// Texts in one block of the order.
const BLOCK: usize = 512;
/// Which helpers a column needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    /// It is asked by pattern often, so patterns are narrowed by grams; without them every text is looked at, except that
    /// texts in order are narrowed by what stands before the first letter of a pattern.
    pub(super) grams: bool,
    /// It is asked by comparison.
    pub(super) order: bool,
}

/// The texts.
pub(super) struct Dict {
    texts: Texts,
    free: Vec<u32>,
    table: HashTable<u32>,
    /// Values whose folded form differs.
    unfolded: RoaringBitmap,
    grams: Option<Grams>,
    /// Values in byte order of their texts, in blocks.
    order: Option<Vec<Vec<u32>>>,
    /// In a build the order is left for the end of it.
    collecting: bool,
}

/// When values that may fit a pattern are worth telling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Fewer are rather looked at.
    pub(super) few: u64,
    pub(super) most: u64,
    /// The rarest gram has no more: putting grams together costs as much as they are common.
    pub(super) estimate: u64,
}

/// The values that fit a pattern.
pub(super) enum Fit {
    /// All of them.
    All,
    /// At most so many; too many to look at each.
    Many(u64),
    /// Exactly these.
    These(Vec<u32>),
}

impl Dict {
    pub(super) fn new(needs: Needs) -> Self {
        Self {
            texts: Texts::default(),
            free: Vec::new(),
            table: HashTable::new(),
            unfolded: RoaringBitmap::new(),
            grams: needs.grams.then(Grams::default),
            order: needs.order.then(Vec::new),
            collecting: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, value: u32) -> &str {
        self.texts.get(value)
    }

    /// The numbers of all texts.
    pub(super) fn values(&self) -> Vec<u32> {
        self.table.iter().copied().collect()
    }

    fn folded(&self, value: u32) -> Cow<'_, str> {
        let text = self.texts.get(value);
        if self.unfolded.contains(value) {
            Cow::Owned(fold_stored(text))
        } else {
            Cow::Borrowed(text)
        }
    }

    /// The number of a text, if it is held.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.table
            .find(hash(&*folded(text)), |value| self.texts.get(*value) == text)
            .copied()
    }

    /// The number of a text, which is added if it is new; true with a new one.
    pub(super) fn intern(&mut self, text: &str) -> (u32, bool) {
        let folded = folded(text);
        self.intern_hashed(text, &folded, hash(&*folded))
    }

    /// As [`Dict::intern`], for a text whose folded form is known with its hash.
    pub(super) fn intern_hashed(&mut self, text: &str, folded: &str, text_hash: u64) -> (u32, bool) {
        let Self { texts, table, .. } = self;
        if let Some(value) = table.find(text_hash, |value| texts.get(*value) == text) {
            return (*value, false);
        }
        let value = self.free.pop().unwrap_or_else(|| self.texts.next());
        if let Some(order) = self.order.as_mut().filter(|_| !self.collecting) {
            insert_ordered(order, &self.texts, text, value);
        }
        self.texts.set(value, text);
        let Self {
            texts,
            table,
            unfolded,
            ..
        } = self;
        table.insert_unique(text_hash, value, |value| {
            hash(&*super::pattern::folded(texts.get(*value)))
        });
        if folded != text {
            unfolded.insert(value);
        }
        if let Some(grams) = &mut self.grams {
            grams.insert(value, folded);
        }
        (value, true)
    }

    /// Forgets a text.
    pub(super) fn remove(&mut self, value: u32) {
        let text = self.texts.get(value).to_owned();
        let folded = folded(&text);
        let Ok(entry) = self.table.find_entry(hash(&*folded), |held| *held == value) else {
            return;
        };
        entry.remove();
        if let Some(grams) = &mut self.grams {
            grams.remove(value, &folded);
        }
        if let Some(order) = self.order.as_mut().filter(|_| !self.collecting) {
            remove_ordered(order, &self.texts, &text);
        }
        self.unfolded.remove(value);
        self.texts.clear(value);
        self.free.push(value);
    }

    /// True if the text of `value` fits.
    pub(super) fn matches(
        &self,
        value: u32,
        pattern: &Pattern,
        meter: &mut Meter,
    ) -> Result<bool, QueryError> {
        let folded = self.folded(value);
        meter.spend(|steps| {
            *steps = steps.checked_sub(1)?;
            pattern.matches_within(&folded, steps)
        })
    }

    /// The values whose texts may fit, not looked at, if they are within `bounds`.
    pub(super) fn candidates(
        &self,
        pattern: &Pattern,
        bounds: &Bounds,
        meter: &mut Meter,
    ) -> Result<Option<RoaringBitmap>, QueryError> {
        let Some(grams) = &self.grams else {
            return Ok(None);
        };
        if pattern.is_any() || pattern.is_nothing() || pattern.exact().is_some() {
            return Ok(None);
        }
        let narrowed = grams.narrow(pattern);
        if narrowed
            .estimate
            .is_none_or(|estimate| estimate > bounds.estimate)
        {
            return Ok(None);
        }
        meter.step(narrowed.estimate.unwrap_or(0) / 64)?;
        let values = narrowed.values();
        Ok((bounds.few..=bounds.most)
            .contains(&values.len())
            .then_some(values))
    }

    /// The values whose texts fit, when at most `look` texts must be looked at for it.
    pub(super) fn fit(&self, pattern: &Pattern, look: u64, meter: &mut Meter) -> Result<Fit, QueryError> {
        if pattern.is_any() {
            return Ok(Fit::All);
        }
        if pattern.is_nothing() {
            return Ok(Fit::These(Vec::new()));
        }
        if let Some(exact) = pattern.exact() {
            let held = self.table.iter_hash(hash(exact)).copied();
            return Ok(Fit::These(
                held.filter(|value| self.folded(*value) == exact).collect(),
            ));
        }
        if self.grams.is_none()
            && let Some(order) = &self.order
        {
            return self.fit_in_order(order, pattern, look, meter);
        }
        let narrowed = self.grams.as_ref().map(|grams| grams.narrow(pattern));
        let all = self.table.len() as u64;
        let estimate = narrowed
            .as_ref()
            .and_then(|narrowed| narrowed.estimate)
            .unwrap_or(all)
            .min(all);
        // Sets together may be far smaller than the rarest of them, but putting large ones together has its price.
        if estimate > look.saturating_mul(8) {
            return Ok(Fit::Many(estimate));
        }
        let mut these = Vec::new();
        match narrowed.filter(|narrowed| narrowed.estimate.is_some()) {
            Some(narrowed) => {
                meter.step(estimate / 8)?;
                let values = narrowed.values();
                if values.len() > look {
                    return Ok(Fit::Many(values.len()));
                }
                for value in values {
                    if self.matches(value, pattern, meter)? {
                        these.push(value);
                    }
                }
            }
            None if all > look => return Ok(Fit::Many(all)),
            None => {
                for value in &self.table {
                    if self.matches(*value, pattern, meter)? {
                        these.push(*value);
                    }
                }
            }
        }
        Ok(Fit::These(these))
    }

    /// As [`Dict::fit`], for texts in order without grams: what a pattern says before its first letter bounds a range.
    fn fit_in_order(
        &self,
        order: &[Vec<u32>],
        pattern: &Pattern,
        look: u64,
        meter: &mut Meter,
    ) -> Result<Fit, QueryError> {
        let runs = pattern.runs();
        let first = runs
            .first()
            .filter(|run| run.at_start)
            .map(|run| run.text.as_str());
        let start = caseless(first.unwrap_or_default());
        let from = self.rank(order, |held| held < start);
        let to = self.rank(order, |held| held < start || held.starts_with(start));
        let count = to.saturating_sub(from) as u64;
        if count > look {
            return Ok(Fit::Many(count));
        }
        let mut these = Vec::new();
        for value in slice(order, from, to) {
            if self.matches(value, pattern, meter)? {
                these.push(value);
            }
        }
        Ok(Fit::These(these))
    }

    /// The values that fit all of `comparisons`, or how many there are when they are more than `look`.
    pub(super) fn range(&self, comparisons: &[Comparison], look: u64) -> Fit {
        let Some(order) = &self.order else {
            return Fit::Many(self.table.len() as u64);
        };
        let mut span = (0, total(order));
        for comparison in comparisons {
            let (low, high) = comparison.range();
            let from = match low {
                Bound::Unbounded => 0,
                Bound::Included(text) => self.rank(order, |held| held < text),
                Bound::Excluded(text) => self.rank(order, |held| held <= text),
            };
            let to = match high {
                Bound::Unbounded => span.1,
                Bound::Included(text) => self.rank(order, |held| held <= text),
                Bound::Excluded(text) => self.rank(order, |held| held < text),
            };
            span = (span.0.max(from), span.1.min(to));
        }
        let count = span.1.saturating_sub(span.0);
        if count as u64 > look {
            return Fit::Many(count as u64);
        }
        Fit::These(slice(order, span.0, span.1))
    }

    /// How many texts come before the first that is not `before`.
    fn rank(&self, order: &[Vec<u32>], before: impl Fn(&str) -> bool) -> usize {
        let whole =
            order.partition_point(|block| block.last().is_some_and(|value| before(self.texts.get(*value))));
        let counted: usize = order.iter().take(whole).map(Vec::len).sum();
        let inside = order.get(whole).map_or(0, |block| {
            block.partition_point(|value| before(self.texts.get(*value)))
        });
        counted.saturating_add(inside)
    }

    /// From now on many texts are added, and no pattern is asked until [`Dict::settle`].
    pub(super) fn collect(&mut self) {
        self.collecting = true;
        if let Some(grams) = &mut self.grams {
            grams.collect();
        }
    }

    /// Gives back room, after a build.
    pub(super) fn settle(&mut self) {
        if self.collecting && self.order.is_some() {
            self.order = Some(self.sorted());
        }
        self.collecting = false;
        if let Some(grams) = &mut self.grams {
            grams.settle();
        }
    }

    /// All values in byte order of their texts, in blocks.
    fn sorted(&self) -> Vec<Vec<u32>> {
        // The first bytes beside the value settle most comparisons without a look at the text.
        let mut keys: Vec<([u8; 16], u32)> = self
            .table
            .iter()
            .map(|value| {
                let mut head = [0; 16];
                for (place, byte) in head.iter_mut().zip(self.texts.get(*value).bytes()) {
                    *place = byte;
                }
                (head, *value)
            })
            .collect();
        keys.sort_unstable_by(|one, other| {
            one.0
                .cmp(&other.0)
                .then_with(|| self.texts.get(one.1).cmp(self.texts.get(other.1)))
        });
        keys.chunks(BLOCK * 3 / 4)
            .map(|block| block.iter().map(|(_, value)| *value).collect())
            .collect()
    }

    pub(super) fn bytes(&self) -> u64 {
        let texts = self.texts.bytes();
        let table = (self.table.capacity() as u64).saturating_mul(40) / 7;
        let order = self.order.as_ref().map_or(0, |order| {
            order
                .iter()
                .map(|block| (block.capacity() as u64).saturating_mul(4))
                .sum()
        });
        let grams = self.grams.as_ref().map_or(0, Grams::bytes);
        [texts, table, order, grams, set_bytes(&self.unfolded)]
            .into_iter()
            .fold(0, u64::saturating_add)
    }

    /// The part of [`Dict::bytes`] that the grams take.
    pub(super) fn gram_bytes(&self) -> u64 {
        self.grams.as_ref().map_or(0, Grams::bytes)
    }
}

fn total(order: &[Vec<u32>]) -> usize {
    order.iter().map(Vec::len).sum()
}

/// The values with the ranks from `from` to before `to`.
fn slice(order: &[Vec<u32>], from: usize, to: usize) -> Vec<u32> {
    let count = to.saturating_sub(from);
    let mut skip = from;
    let mut these = Vec::with_capacity(count);
    for block in order {
        if these.len() >= count {
            break;
        }
        if skip >= block.len() {
            skip = skip.saturating_sub(block.len());
            continue;
        }
        let left = count.saturating_sub(these.len());
        these.extend(block.iter().skip(skip).take(left));
        skip = 0;
    }
    these
}

/// The beginning of a folded text that is the same in every text that folds to it: no letter comes by folding from
/// anything but a letter.
fn caseless(folded: &str) -> &str {
    let end = folded
        .bytes()
        .position(|byte| !byte.is_ascii() || byte.is_ascii_alphabetic())
        .unwrap_or(folded.len());
    folded.get(..end).unwrap_or_default()
}

/// The block a text belongs in, and its place there.
fn place(order: &[Vec<u32>], texts: &Texts, text: &str) -> (usize, Result<usize, usize>) {
    let block = order
        .partition_point(|block| block.last().is_some_and(|value| texts.get(*value) < text))
        .min(order.len().saturating_sub(1));
    let at = order.get(block).map_or(Err(0), |values| {
        values.binary_search_by(|value| texts.get(*value).cmp(text))
    });
    (block, at)
}

fn insert_ordered(order: &mut Vec<Vec<u32>>, texts: &Texts, text: &str, value: u32) {
    if order.is_empty() {
        order.push(Vec::new());
    }
    let (block, Err(at)) = place(order, texts, text) else {
        return;
    };
    let Some(values) = order.get_mut(block) else {
        return;
    };
    values.insert(at.min(values.len()), value);
    if values.len() > BLOCK {
        let rest = values.split_off(BLOCK / 2);
        values.shrink_to(BLOCK / 2);
        order.insert(block.saturating_add(1), rest);
    }
}

fn remove_ordered(order: &mut Vec<Vec<u32>>, texts: &Texts, text: &str) {
    let (block, Ok(at)) = place(order, texts, text) else {
        return;
    };
    let Some(values) = order.get_mut(block) else {
        return;
    };
    if at < values.len() {
        values.remove(at);
    }
    if values.is_empty() {
        order.remove(block);
    }
}
