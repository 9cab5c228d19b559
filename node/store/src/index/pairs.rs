//! Lists whose rows have two texts: a class's name and id, a locator's type and URL, an annotation's key and value.
//!
//! A row is one number, whichever records hold it, so that conditions on both its sides are joined on rows and not on
//! records.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::budget::Meter;
use super::column::{Effort, Part, gather};
use super::dict::{Dict, Fit, Needs};
use super::pattern::{Pattern, folded};
use super::posting::{Postings, insert, set_bytes};
use super::query::QueryError;

/// Names are known by so many of their first segments; deeper patterns go the general way.
const MAX_DEPTH: usize = 8;
/// And up to this length.
const MAX_ANCESTOR_BYTES: usize = 256;

/// The rows of one list.
pub(super) struct Pairs {
    left: Dict,
    right: Dict,
    /// Both texts of each row.
    rows: Vec<(u32, u32)>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
    /// Rows by left and by right text, records by row.
    by_left: Postings,
    by_right: Postings,
    records: Postings,
    /// Records with at least one row.
    present: RoaringBitmap,
    /// For `a/b` the records with a left text below it; only for lists of class names.
    ancestors: Option<HashMap<Box<str>, RoaringBitmap>>,
}

/// The prefixes of `folded` that end before a slash.
fn ancestors_of(folded: &str) -> impl Iterator<Item = &str> {
    folded
        .match_indices('/')
        .take(MAX_DEPTH)
        .filter_map(|(at, _)| folded.get(..at))
        .take_while(|ancestor| ancestor.len() <= MAX_ANCESTOR_BYTES)
}

impl Pairs {
    /// With `classes`, left texts are paths and right texts numbers.
    pub(super) fn new(classes: bool) -> Self {
        let texts = |patterns| {
            Dict::new(Needs {
                patterns,
                order: false,
            })
        };
        Self {
            left: texts(true),
            right: texts(!classes),
            rows: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::new(),
            by_left: Postings::default(),
            by_right: Postings::default(),
            records: Postings::default(),
            present: RoaringBitmap::new(),
            ancestors: classes.then(HashMap::new),
        }
    }

    /// Notes that record `id` has a row; returns the row's number.
    pub(super) fn add(&mut self, id: u32, left: &str, right: &str) -> u32 {
        let pair = (self.left.intern(left).0, self.right.intern(right).0);
        let hash = self.hasher.hash_one(pair);
        let Self { rows, table, .. } = self;
        let held = table.find(hash, |row| rows.get(*row as usize) == Some(&pair));
        let row = match held {
            Some(row) => *row,
            None => self.new_row(hash, pair),
        };
        self.records.add(row, id);
        insert(&mut self.present, id);
        if let Some(ancestors) = &mut self.ancestors {
            for ancestor in ancestors_of(&folded(left)) {
                match ancestors.get_mut(ancestor) {
                    Some(set) => insert(set, id),
                    None => {
                        ancestors.insert(ancestor.into(), RoaringBitmap::from_iter([id]));
                    }
                }
            }
        }
        row
    }

    fn new_row(&mut self, hash: u64, pair: (u32, u32)) -> u32 {
        let row = match self.free.pop() {
            Some(row) => {
                if let Some(place) = self.rows.get_mut(row as usize) {
                    *place = pair;
                }
                row
            }
            None => {
                self.rows.push(pair);
                u32::try_from(self.rows.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        let Self {
            rows, table, hasher, ..
        } = self;
        table.insert_unique(hash, row, |row| hasher.hash_one(at(rows, *row)));
        self.by_left.add(pair.0, row);
        self.by_right.add(pair.1, row);
        row
    }

    /// Takes record `id` from the row with number `row`.
    pub(super) fn remove(&mut self, id: u32, row: u32) {
        let (left, right) = at(&self.rows, row);
        self.present.remove(id);
        if let Some(ancestors) = &mut self.ancestors {
            for ancestor in ancestors_of(&folded(self.left.get(left))) {
                if let Some(set) = ancestors.get_mut(ancestor) {
                    set.remove(id);
                    if set.is_empty() {
                        ancestors.remove(ancestor);
                    }
                }
            }
        }
        if !self.records.remove(row, id) {
            return;
        }
        let hash = self.hasher.hash_one((left, right));
        if let Ok(entry) = self.table.find_entry(hash, |held| *held == row) {
            entry.remove();
            self.free.push(row);
        }
        if self.by_left.remove(left, row) {
            self.left.remove(left);
        }
        if self.by_right.remove(right, row) {
            self.right.remove(right);
        }
    }

    /// The records with a row that has one of `left` and one of `right`; an empty side takes all.
    pub(super) fn part(
        &self,
        left: &[Pattern],
        right: &[Pattern],
        effort: Effort,
        meter: &mut Meter,
    ) -> Result<Part<'_>, QueryError> {
        if let (Some(ancestors), [one], []) = (&self.ancestors, left, right)
            && let Some(ancestor) = one.ancestor()
            && ancestor.len() <= MAX_ANCESTOR_BYTES
            && ancestor.matches('/').count() < MAX_DEPTH
        {
            return Ok(match ancestors.get(ancestor.as_str()) {
                Some(set) => Part::These(Cow::Borrowed(set)),
                None => Part::none(),
            });
        }
        let sides = (
            side(&self.left, &self.by_left, left, effort, meter)?,
            side(&self.right, &self.by_right, right, effort, meter)?,
        );
        let rows = match sides {
            (Part::All, Part::All) => return Ok(Part::These(Cow::Borrowed(&self.present))),
            (Part::Lazy(one), Part::Lazy(other)) => return Ok(Part::Lazy(one.min(other))),
            (Part::These(one), Part::These(other)) => Cow::Owned(&*one & &*other),
            (Part::These(rows), Part::All) | (Part::All, Part::These(rows)) => rows,
            (Part::These(rows), Part::Lazy(_)) | (Part::Lazy(_), Part::These(rows)) => {
                if rows.len() > effort.look {
                    return Ok(Part::Lazy(rows.len()));
                }
                let mut fit = RoaringBitmap::new();
                for row in &*rows {
                    if self.fits(row, left, right, meter)? {
                        fit.insert(row);
                    }
                }
                Cow::Owned(fit)
            }
            (Part::Lazy(count), Part::All) | (Part::All, Part::Lazy(count)) => return Ok(Part::Lazy(count)),
        };
        if rows.len() > effort.gather {
            return Ok(Part::Lazy(rows.len()));
        }
        gather(&self.records, rows.iter().collect(), effort, meter)
    }

    /// True if the row with number `row` fits.
    pub(super) fn fits(
        &self,
        row: u32,
        left: &[Pattern],
        right: &[Pattern],
        meter: &mut Meter,
    ) -> Result<bool, QueryError> {
        let pair = at(&self.rows, row);
        Ok(one_fits(&self.left, pair.0, left, meter)? && one_fits(&self.right, pair.1, right, meter)?)
    }

    pub(super) fn collect(&mut self) {
        self.left.collect();
        self.right.collect();
        self.records.collect();
    }

    pub(super) fn settle(&mut self) {
        self.left.settle();
        self.right.settle();
        self.rows.shrink_to_fit();
        self.by_left.settle();
        self.by_right.settle();
        self.records.settle();
        self.present.optimize();
        for set in self.ancestors.iter_mut().flat_map(HashMap::values_mut) {
            set.optimize();
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let rows = (self.rows.capacity() as u64).saturating_mul(8);
        let table = (self.table.capacity() as u64).saturating_mul(40) / 7;
        let ancestors = self
            .ancestors
            .iter()
            .flatten()
            .map(|(name, set)| set_bytes(set).saturating_add(name.len() as u64))
            .fold(0, u64::saturating_add);
        [
            self.left.bytes(),
            self.right.bytes(),
            rows,
            table,
            self.by_left.bytes(),
            self.by_right.bytes(),
            self.records.bytes(),
            set_bytes(&self.present),
            ancestors,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// The part of [`Pairs::bytes`] that the grams take.
    pub(super) fn gram_bytes(&self) -> u64 {
        self.left.gram_bytes().saturating_add(self.right.gram_bytes())
    }

    /// Number of different texts and rows, for tests.
    pub(super) fn values_len(&self) -> usize {
        self.left
            .len()
            .saturating_add(self.right.len())
            .saturating_add(self.table.len())
    }
}

fn at(rows: &[(u32, u32)], row: u32) -> (u32, u32) {
    rows.get(row as usize).copied().unwrap_or((u32::MAX, u32::MAX))
}

fn one_fits(dict: &Dict, value: u32, patterns: &[Pattern], meter: &mut Meter) -> Result<bool, QueryError> {
    if patterns.is_empty() {
        return Ok(true);
    }
    for pattern in patterns {
        if dict.matches(value, pattern, meter)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rows one side of which fits.
fn side<'a>(
    dict: &Dict,
    rows: &'a Postings,
    patterns: &[Pattern],
    effort: Effort,
    meter: &mut Meter,
) -> Result<Part<'a>, QueryError> {
    if patterns.is_empty() {
        return Ok(Part::All);
    }
    let mut values = Vec::new();
    let mut many: u64 = 0;
    for pattern in patterns {
        match dict.fit(pattern, effort.look, meter)? {
            Fit::All => return Ok(Part::All),
            Fit::Many(count) => many = many.saturating_add(count),
            Fit::These(these) => values.extend(these),
        }
    }
    if many > 0 {
        return Ok(Part::Lazy(many));
    }
    gather(rows, values, effort, meter)
}
