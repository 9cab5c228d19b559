//! A column: which records have which text. One text per record, or several (authors).

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::budget::Meter;
use super::dict::{Bounds, Dict, Fit, Needs};
use super::posting::{Ids, Postings};
use super::query::{QueryError, Rules};

/// The records that fit a condition, as far as it is known.
pub(super) enum Part<'a> {
    /// Every record.
    All,
    /// Exactly these.
    These(Cow<'a, RoaringBitmap>),
    /// About so many at most; cheaper to ask record by record.
    Lazy(u64),
}

/// How much work may go into knowing the records of a condition at once.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Texts looked at.
    pub(super) look: u64,
    /// Records gathered.
    pub(super) gather: u64,
}

impl Effort {
    /// Whatever the budget gives.
    pub(super) const ALL: Self = Self {
        look: u64::MAX / 16,
        gather: u64::MAX,
    };
}

/// The column.
pub(super) struct Column {
    pub(super) dict: Dict,
    postings: Postings,
}

impl Column {
    pub(super) fn new(needs: Needs) -> Self {
        Self {
            dict: Dict::new(needs),
            postings: Postings::default(),
        }
    }

    /// Notes that record `id` has `text`; returns the text's number.
    pub(super) fn add(&mut self, id: u32, text: &str) -> u32 {
        let (value, _) = self.dict.intern(text);
        self.postings.add(value, id);
        value
    }

    /// Takes record `id` from the text with number `value`.
    pub(super) fn remove(&mut self, id: u32, value: u32) {
        if self.postings.remove(value, id) {
            self.dict.remove(value);
        }
    }

    /// The records of the texts with numbers `values`.
    pub(super) fn records(
        &self,
        values: Vec<u32>,
        effort: Effort,
        meter: &mut Meter,
    ) -> Result<Part<'_>, QueryError> {
        gather(&self.postings, values, effort, meter)
    }

    /// The records that fit `rules`, which for several texts per record means one of them.
    pub(super) fn part(
        &self,
        rules: &Rules,
        effort: Effort,
        meter: &mut Meter,
    ) -> Result<Part<'_>, QueryError> {
        let mut values = Vec::new();
        let mut many: u64 = 0;
        if !rules.all.is_empty() {
            match self.dict.range(&rules.all, effort.look.saturating_mul(4)) {
                Fit::All => return Ok(Part::All),
                Fit::Many(count) => many = many.saturating_add(count),
                Fit::These(these) => values.extend(these),
            }
        }
        for pattern in &rules.any {
            match self.dict.fit(pattern, effort.look, meter)? {
                Fit::All => return Ok(Part::All),
                Fit::Many(count) => many = many.saturating_add(count),
                Fit::These(these) => values.extend(these),
            }
        }
        if many > 0 {
            return Ok(Part::Lazy(many));
        }
        self.records(values, effort, meter)
    }

    /// Records that may fit `rules`, each once and in no order: every one that fits is among them. `None` if their
    /// texts are not within `bounds`.
    pub(super) fn candidates(
        &self,
        rules: &Rules,
        bounds: &Bounds,
        meter: &mut Meter,
    ) -> Result<Option<Vec<u32>>, QueryError> {
        let ([], [pattern]) = (rules.all.as_slice(), rules.any.as_slice()) else {
            return Ok(None);
        };
        let Some(values) = self.dict.candidates(pattern, bounds, meter)? else {
            return Ok(None);
        };
        meter.step(values.len() / 8)?;
        let mut found = Vec::with_capacity(usize::try_from(values.len()).unwrap_or(0));
        for value in values {
            match self.postings.get(value) {
                Ids::None => {}
                Ids::One(id) => found.push(id),
                Ids::Few(ids) => found.extend_from_slice(ids),
                Ids::Many(_) => return Ok(None),
            }
            if found.len() as u64 > bounds.most {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    /// True if the text with number `value` fits.
    pub(super) fn fits(&self, value: u32, rules: &Rules, meter: &mut Meter) -> Result<bool, QueryError> {
        let text = self.dict.get(value);
        if !rules.all.is_empty() && rules.all.iter().all(|comparison| comparison.matches(text)) {
            return Ok(true);
        }
        for pattern in &rules.any {
            if self.dict.matches(value, pattern, meter)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// See [`Dict::collect`].
    pub(super) fn collect(&mut self) {
        self.dict.collect();
        self.postings.collect();
    }

    pub(super) fn settle(&mut self) {
        self.dict.settle();
        self.postings.settle();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.dict.bytes().saturating_add(self.postings.bytes())
    }
}

/// The ids of `values`, unless putting them together costs more than `effort`.
pub(super) fn gather<'a>(
    postings: &'a Postings,
    mut values: Vec<u32>,
    effort: Effort,
    meter: &mut Meter,
) -> Result<Part<'a>, QueryError> {
    values.sort_unstable();
    values.dedup();
    if let [one] = values.as_slice() {
        return Ok(Part::These(postings.get(*one).to_set()));
    }
    meter.step(values.len() as u64)?;
    let ids: u64 = values.iter().map(|value| postings.len(*value)).sum();
    if ids > effort.gather && values.len() > 1 {
        return Ok(Part::Lazy(ids));
    }
    meter.step(ids / 8)?;
    Ok(Part::These(Cow::Owned(postings.union(values.into_iter()))))
}
