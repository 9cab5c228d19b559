//! Lists whose rows have two texts: a class's name and id, a locator's type and URL, an annotation's key and value.
//!
//! A row is one number, whichever records hold it, so that conditions on both its sides are joined on rows and not on
//! records.

use std::borrow::Cow;

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::ancestors::Ancestors;
use super::budget::Meter;
use super::column::{Effort, Part, gather};
use super::dict::{Dict, Fit, Needs};
use super::hash::hash;
use super::pattern::Pattern;
use super::posting::{Ids, Postings, insert, set_bytes};
use super::query::QueryError;
use super::room;

/// The rows of one list.
pub(super) struct Pairs {
    left: Dict,
    right: Dict,
    /// Both texts of each row.
    rows: Vec<(u32, u32)>,
    free: Vec<u32>,
    /// Rows by both texts, without those that are the only row of their right text: most URLs are of one row.
    table: HashTable<u32>,
    /// Rows there are.
    len: usize,
    /// Rows by left and by right text, records by row.
    by_left: Postings,
    by_right: Postings,
    records: Postings,
    /// Records with at least one row.
    present: RoaringBitmap,
    /// For `a/b` the records with a left text below it; only for lists of class names.
    ancestors: Option<Ancestors>,
}

impl Pairs {
    /// With `classes`, left texts are paths and right texts numbers.
    pub(super) fn new(classes: bool) -> Self {
        let texts = |grams| Dict::new(Needs { grams, order: false });
        Self {
            left: texts(true),
            right: texts(!classes),
            rows: Vec::new(),
            free: Vec::new(),
            table: HashTable::new(),
            len: 0,
            by_left: Postings::default(),
            by_right: Postings::default(),
            records: Postings::default(),
            present: RoaringBitmap::new(),
            ancestors: classes.then(Ancestors::default),
        }
    }

    /// Notes that record `id` has a row; returns the row's number.
    pub(super) fn add(&mut self, id: u32, left: &str, right: &str) -> u32 {
        let (left_value, left_is_new) = self.left.intern(left);
        let pair = (left_value, self.right.intern(right).0);
        let row = match self.find_row(pair) {
            Some(row) => row,
            None => self.new_row(pair),
        };
        self.records.add(row, id);
        insert(&mut self.present, id);
        if let Some(ancestors) = &mut self.ancestors {
            if left_is_new {
                ancestors.define(left_value, left);
            }
            ancestors.add(left_value, id);
        }
        row
    }

    /// The row with both texts.
    fn find_row(&self, pair: (u32, u32)) -> Option<u32> {
        match self.by_right.get(pair.1) {
            Ids::None => None,
            Ids::One(row) => (at(&self.rows, row) == pair).then_some(row),
            _ => self
                .table
                .find(hash(&pair), |row| at(&self.rows, *row) == pair)
                .copied(),
        }
    }

    /// Puts a row in the table, where it is not.
    fn tabulate(&mut self, row: u32) {
        let Self { rows, table, .. } = self;
        table.insert_unique(hash(&at(rows, row)), row, |row| hash(&at(rows, *row)));
    }

    fn new_row(&mut self, pair: (u32, u32)) -> u32 {
        let row = match self.free.pop() {
            Some(row) => {
                if let Some(place) = self.rows.get_mut(row as usize) {
                    *place = pair;
                }
                row
            }
            None => {
                room::push(&mut self.rows, pair);
                u32::try_from(self.rows.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        self.len = self.len.saturating_add(1);
        match self.by_right.get(pair.1) {
            Ids::None => {}
            Ids::One(first) => {
                self.tabulate(first);
                self.tabulate(row);
            }
            _ => self.tabulate(row),
        }
        self.by_left.add(pair.0, row);
        self.by_right.add(pair.1, row);
        row
    }

    /// Takes record `id` from the row with number `row`.
    pub(super) fn remove(&mut self, id: u32, row: u32) {
        let (left, right) = at(&self.rows, row);
        self.present.remove(id);
        if let Some(ancestors) = &mut self.ancestors {
            ancestors.remove(left, id);
        }
        if !self.records.remove(row, id) {
            return;
        }
        self.untabulate(row);
        self.len = self.len.saturating_sub(1);
        if self.by_left.remove(left, row) {
            self.left.remove(left);
            if let Some(ancestors) = &mut self.ancestors {
                ancestors.forget(left);
            }
        }
        if self.by_right.remove(right, row) {
            self.right.remove(right);
        } else if let Ids::One(only) = self.by_right.get(right) {
            self.untabulate(only);
        }
        self.free.push(row);
    }

    fn untabulate(&mut self, row: u32) {
        let hash = hash(&at(&self.rows, row));
        if let Ok(entry) = self.table.find_entry(hash, |held| *held == row) {
            entry.remove();
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
            && let Some(below) = ancestors.below(&ancestor)
        {
            return Ok(Part::These(below));
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
        if let Some(ancestors) = &mut self.ancestors {
            ancestors.collect();
        }
    }

    pub(super) fn settle(&mut self) {
        self.left.settle();
        self.right.settle();
        self.by_left.settle();
        self.by_right.settle();
        self.records.settle();
        self.present.optimize();
        if let Some(ancestors) = &mut self.ancestors {
            ancestors.settle();
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let rows = (self.rows.capacity() as u64).saturating_mul(8);
        let table = (self.table.capacity() as u64).saturating_mul(40) / 7;
        let ancestors = self.ancestors.as_ref().map_or(0, Ancestors::bytes);
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
            .saturating_add(self.len)
            .saturating_add(self.table.len())
            .saturating_add(self.ancestors.as_ref().map_or(0, Ancestors::len))
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
