//! For class names, which are paths, the records with a name below each path.
//!
//! What stands above a name is worked out once, when the name is new, and kept as numbers beside it.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::quality::RandomState;
use roaring::RoaringBitmap;

use super::pattern::folded;
use super::posting::Postings;

/// Names are known by so many of their first segments; deeper patterns go the general way.
const MAX_DEPTH: usize = 8;
/// And up to this length.
const MAX_ANCESTOR_BYTES: usize = 256;

/// The paths.
#[derive(Default)]
pub(super) struct Ancestors {
    numbers: HashMap<Box<str>, u32, RandomState>,
    /// By number, `None` for a number that is free.
    paths: Vec<Option<Box<str>>>,
    free: Vec<u32>,
    /// The numbers of the paths above each name.
    above: Vec<Box<[u32]>>,
    records: Postings,
}

/// The prefixes of `folded` that end before a slash.
fn prefixes(folded: &str) -> impl Iterator<Item = &str> {
    folded
        .match_indices('/')
        .take(MAX_DEPTH)
        .filter_map(|(at, _)| folded.get(..at))
        .take_while(|path| path.len() <= MAX_ANCESTOR_BYTES)
}

impl Ancestors {
    /// Notes that `value` stands for `name` from now on.
    pub(super) fn define(&mut self, value: u32, name: &str) {
        let above = prefixes(&folded(name)).map(|path| self.number(path)).collect();
        let at = value as usize;
        if self.above.len() <= at {
            self.above.resize_with(at.saturating_add(1), Box::default);
        }
        if let Some(place) = self.above.get_mut(at) {
            *place = above;
        }
    }

    fn number(&mut self, path: &str) -> u32 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.paths.get_mut(number as usize) {
                    *place = Some(path.into());
                }
                number
            }
            None => {
                self.paths.push(Some(path.into()));
                u32::try_from(self.paths.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        self.numbers.insert(path.into(), number);
        number
    }

    /// Notes that record `id` has the name.
    pub(super) fn add(&mut self, value: u32, id: u32) {
        for number in self.above.get(value as usize).into_iter().flatten() {
            self.records.add(*number, id);
        }
    }

    /// Takes record `id`, which is losing all its names, from the paths above this one.
    pub(super) fn remove(&mut self, value: u32, id: u32) {
        for number in self.above.get(value as usize).into_iter().flatten() {
            // Another name of the record may have emptied the path before this one; it is freed once.
            if self.records.remove(*number, id)
                && let Some(path) = self.paths.get_mut(*number as usize).and_then(Option::take)
            {
                self.numbers.remove(&path);
                self.free.push(*number);
            }
        }
    }

    /// Notes that `value` stands for nothing any more.
    pub(super) fn forget(&mut self, value: u32) {
        if let Some(place) = self.above.get_mut(value as usize) {
            *place = Box::default();
        }
    }

    /// The records with a name below `path`; `None` if the path is too deep or too long to be known.
    pub(super) fn below(&self, path: &str) -> Option<Cow<'_, RoaringBitmap>> {
        if path.len() > MAX_ANCESTOR_BYTES || path.matches('/').count() >= MAX_DEPTH {
            return None;
        }
        Some(match self.numbers.get(path) {
            Some(number) => self.records.get(*number).to_set(),
            None => Cow::Owned(RoaringBitmap::new()),
        })
    }

    pub(super) fn collect(&mut self) {
        self.records.collect();
    }

    pub(super) fn settle(&mut self) {
        self.records.settle();
    }

    pub(super) fn bytes(&self) -> u64 {
        let texts = self.paths.iter().flatten();
        // Each text is held twice, and a place in the table takes about 32 bytes.
        let paths = texts.map(|path| (path.len() as u64).saturating_mul(2).saturating_add(64));
        let above = self
            .above
            .iter()
            .map(|above| (above.len() as u64).saturating_mul(4));
        let places = (self.above.capacity() as u64).saturating_mul(16);
        paths
            .chain(above)
            .fold(places.saturating_add(self.records.bytes()), u64::saturating_add)
    }

    /// Number of paths, for tests.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}
