//! Answers a plan: which records, in which order.
//!
//! Two ways lead there. When only the first results are wanted, records are walked in the order asked, starting from the
//! rarest condition, and the others are asked record by record; a popular condition fills a page after few steps,
//! however many records there are. When that takes too many steps, or all results are wanted, every condition
//! becomes a set of records and the sets are joined.

use std::borrow::Cow;
use std::cmp::Reverse;

use roaring::RoaringBitmap;

use super::budget::Meter;
use super::column::{Column, Effort, Part};
use super::query::{Field, Plan, QueryError, RowKind, Rules, Sort, Term};
use super::ranks::Ranks;
use super::search::SearchIndex;
use super::words::Found;

/// When one way of answering gives place to the other. Answers do not depend on it, only their cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Texts looked at to know a condition's records, before it is rather asked record by record.
    pub look: u64,
    /// Records put together for the same end.
    pub gather: u64,
    /// Records that may fit a condition on texts, and are walked rather than all looked at.
    pub candidates: u64,
    /// Results up to which a walk is tried.
    pub walk_results: u64,
    /// Steps of a walk beyond those that fill the page.
    pub walk_steps: u64,
    /// Results up to which counts are sorted, not walked.
    pub sort_results: u64,
}

impl Default for Tuning {
    /// A walk that fails costs about 0.2 ms.
    fn default() -> Self {
        Self {
            look: 2048,
            gather: 4096,
            candidates: 32_768,
            walk_results: 2048,
            walk_steps: 1500,
            sort_results: 4096,
        }
    }
}

/// Which results of an order are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) offset: u64,
    /// `None` for all.
    pub(crate) limit: Option<u64>,
}

impl Window {
    /// Results up to the end of the window.
    fn end(self) -> Option<u64> {
        self.limit.map(|limit| self.offset.saturating_add(limit))
    }
}

/// What the index found.
pub(crate) enum Outcome {
    /// The numbers of the window, in order.
    Exact(Vec<u32>),
    /// All that may be results, in order, not only those of the window; the descriptions of those in the set must be
    /// looked at.
    Unsettled(Vec<u32>, RoaringBitmap),
}

/// A condition with what is known about it.
pub(super) struct Condition<'a> {
    pub(super) term: &'a Term,
    pub(super) negate: bool,
    pub(super) part: Part<'a>,
    /// With a lazy part: every record that fits is among these, which are in no order.
    pub(super) candidates: Option<Vec<u32>>,
}

impl SearchIndex {
    /// The records of `plan` in the order of `sort`.
    pub(crate) fn find(
        &self,
        plan: &Plan,
        sort: Sort,
        window: Window,
        meter: &mut Meter,
    ) -> Result<Outcome, QueryError> {
        meter.step(1)?;
        let end = window.end().filter(|end| *end <= self.tuning.walk_results);
        let (mut conditions, unsettled) = self.conditions(plan, end.is_some(), meter)?;
        if !unsettled.is_empty() {
            let found = self.all(&mut conditions, meter)?;
            let ids = self.page(
                &found,
                sort,
                Window {
                    offset: 0,
                    limit: None,
                },
                meter,
            )?;
            let check = &unsettled & &*found;
            if !check.is_empty() {
                return Ok(Outcome::Unsettled(ids, check));
            }
            let skip = usize::try_from(window.offset).unwrap_or(usize::MAX);
            let take = window.limit.and_then(|limit| usize::try_from(limit).ok());
            let rest = ids.into_iter().skip(skip).take(take.unwrap_or(usize::MAX));
            return Ok(Outcome::Exact(rest.collect()));
        }
        if let Some(end) = end
            && !conditions.is_empty()
            && let Some(mut ids) = self.walk_twice(&mut conditions, sort, end, meter)?
        {
            ids.drain(
                ..ids
                    .len()
                    .min(usize::try_from(window.offset).unwrap_or(usize::MAX)),
            );
            return Ok(Outcome::Exact(ids));
        }
        let found = self.all(&mut conditions, meter)?;
        Ok(Outcome::Exact(self.page(&found, sort, window, meter)?))
    }

    /// How many records fit, or all that may and which of them must be looked at.
    pub(crate) fn number(
        &self,
        plan: &Plan,
        meter: &mut Meter,
    ) -> Result<(u64, Option<Outcome>), QueryError> {
        meter.step(1)?;
        let (mut conditions, unsettled) = self.conditions(plan, false, meter)?;
        let found = self.all(&mut conditions, meter)?;
        let check = &unsettled & &*found;
        if check.is_empty() {
            return Ok((found.len(), None));
        }
        let sure = &*found - &check;
        let ids = check.iter().collect();
        Ok((sure.len(), Some(Outcome::Unsettled(ids, check))))
    }

    /// The conditions of a plan, and the records whose descriptions must be looked at. Candidates are told if the results
    /// may be walked.
    fn conditions<'a>(
        &'a self,
        plan: &'a Plan,
        to_walk: bool,
        meter: &mut Meter,
    ) -> Result<(Vec<Condition<'a>>, RoaringBitmap), QueryError> {
        let little = Effort {
            look: self.tuning.look,
            gather: self.tuning.gather,
        };
        let bounds = self.bounds(self.tuning.look);
        let mut conditions = Vec::new();
        let mut unsettled = RoaringBitmap::new();
        let terms = plan.include.iter().map(|term| (term, false));
        for (term, negate) in terms.chain(plan.exclude.iter().map(|term| (term, true))) {
            if let Term::Text(field, rules) = term
                && to_walk
                && !negate
                && let Some(candidates) = self.field(*field).candidates(rules, &bounds, meter)?
            {
                conditions.push(Condition {
                    term,
                    negate,
                    part: Part::Lazy(candidates.len() as u64),
                    candidates: Some(candidates),
                });
                continue;
            }
            let part = match term {
                Term::Description(patterns) => {
                    let mut sure = RoaringBitmap::new();
                    let mut maybe = RoaringBitmap::new();
                    for pattern in patterns {
                        let found: Found = self.words.find(pattern, &self.held, meter)?;
                        sure |= found.sure;
                        maybe |= found.maybe;
                    }
                    maybe -= &sure;
                    let fit = if negate { sure } else { sure | &maybe };
                    unsettled |= maybe;
                    Part::These(Cow::Owned(fit))
                }
                _ => self.part(term, little, meter)?,
            };
            let part = match part {
                // Nothing to ask.
                Part::All if !negate => continue,
                Part::All => Part::These(Cow::Borrowed(&self.held)),
                part => part,
            };
            conditions.push(Condition {
                term,
                negate,
                part,
                candidates: None,
            });
        }
        Ok((conditions, unsettled))
    }

    fn part<'a>(&'a self, term: &'a Term, effort: Effort, meter: &mut Meter) -> Result<Part<'a>, QueryError> {
        let owned = |set| Ok(Part::These(Cow::Owned(set)));
        let flag = |set: &'a RoaringBitmap, wanted| {
            Ok(Part::These(if wanted {
                Cow::Borrowed(set)
            } else {
                Cow::Owned(&self.held - set)
            }))
        };
        match term {
            Term::Text(field, rules) => self.field(*field).part(rules, effort, meter),
            Term::Author(patterns) => {
                let part = author_part(&self.authors, patterns, effort, meter)?;
                let empty = patterns.iter().any(|pattern| pattern.matches(""));
                Ok(match part {
                    Part::These(set) if empty => Part::These(Cow::Owned(&*set | &self.nobody)),
                    other => other,
                })
            }
            Term::Rows { kind, left, right } => self.pairs(*kind).part(left, right, effort, meter),
            Term::Verified(wanted) => flag(&self.facts.verified, *wanted),
            Term::Trusted(wanted) => flag(&self.facts.trusted, *wanted),
            Term::Safe(wanted) => owned(self.facts.safe(*wanted)),
            Term::Severity(severity) => owned(self.facts.at_least(*severity)),
            // Settled before, and never lazy.
            Term::Description(_) => Ok(Part::All),
        }
    }

    /// True if record `id` meets `term`.
    fn meets(&self, id: u32, term: &Term, meter: &mut Meter) -> Result<bool, QueryError> {
        match term {
            Term::Text(field, rules) => match self.value(id, *field) {
                Some(value) => self.field(*field).fits(value, rules, meter),
                None => Ok(false),
            },
            Term::Author(patterns) => {
                if self.nobody.contains(id) {
                    return Ok(patterns.iter().any(|pattern| pattern.matches("")));
                }
                for value in self.author_values(id) {
                    for pattern in patterns {
                        if self.authors.dict.matches(value, pattern, meter)? {
                            return Ok(true);
                        }
                    }
                }
                Ok(false)
            }
            Term::Rows { kind, left, right } => self.row_meets(id, *kind, left, right, meter),
            _ => Ok(false),
        }
    }

    fn row_meets(
        &self,
        id: u32,
        kind: RowKind,
        left: &[super::pattern::Pattern],
        right: &[super::pattern::Pattern],
        meter: &mut Meter,
    ) -> Result<bool, QueryError> {
        for row in self.row_values(id, kind) {
            if self.pairs(kind).fits(row, left, right, meter)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn holds(
        &self,
        id: u32,
        condition: &Condition<'_>,
        meter: &mut Meter,
    ) -> Result<bool, QueryError> {
        let fits = match &condition.part {
            Part::All => true,
            Part::These(set) => set.contains(id),
            Part::Lazy(_) => self.meets(id, condition.term, meter)?,
        };
        Ok(fits != condition.negate)
    }

    pub(super) fn ranks(&self, sort: Sort) -> Option<&Ranks> {
        match sort {
            Sort::Recency => None,
            Sort::Popularity => Some(&self.popularity),
            Sort::ProviderCount => Some(&self.providers),
        }
    }

    /// All results, in no order.
    fn all<'a>(
        &'a self,
        conditions: &mut Vec<Condition<'a>>,
        meter: &mut Meter,
    ) -> Result<Cow<'a, RoaringBitmap>, QueryError> {
        conditions.sort_by_key(|condition| match &condition.part {
            Part::These(set) => (condition.negate, set.len()),
            Part::Lazy(estimate) => (true, u64::MAX / 2 + estimate / 2),
            Part::All => (true, u64::MAX),
        });
        let mut found: Cow<'a, RoaringBitmap> = Cow::Borrowed(&self.held);
        let mut first = true;
        for condition in conditions.drain(..) {
            meter.step(found.len() / 64)?;
            let set = match condition.part {
                Part::These(set) => set,
                _ if found.len() <= self.tuning.walk_steps => {
                    let mut kept = RoaringBitmap::new();
                    for id in &*found {
                        if self.holds(id, &condition, meter)? {
                            kept.insert(id);
                        }
                    }
                    found = Cow::Owned(kept);
                    first = false;
                    continue;
                }
                _ => match self.part(condition.term, Effort::ALL, meter)? {
                    Part::These(set) => set,
                    // With all effort nothing stays lazy, and what takes all was told before.
                    _ => Cow::Borrowed(&self.held),
                },
            };
            found = match (condition.negate, first) {
                (false, true) => set,
                (false, false) => {
                    let mut held = found.into_owned();
                    held &= &*set;
                    Cow::Owned(held)
                }
                (true, _) => {
                    let mut held = found.into_owned();
                    held -= &*set;
                    Cow::Owned(held)
                }
            };
            first = false;
        }
        Ok(found)
    }

    /// The window of `found`, in order.
    fn page(
        &self,
        found: &RoaringBitmap,
        sort: Sort,
        window: Window,
        meter: &mut Meter,
    ) -> Result<Vec<u32>, QueryError> {
        let len = found.len();
        let limit = window.limit.unwrap_or(len).min(len.saturating_sub(window.offset));
        if window.offset >= len || limit == 0 {
            return Ok(Vec::new());
        }
        meter.step(limit)?;
        let mut taken = Vec::with_capacity(usize::try_from(limit).unwrap_or(0));
        let Some(ranks) = self.ranks(sort) else {
            take(found, window.offset, limit, &mut taken);
            return Ok(taken);
        };
        if len <= self.tuning.sort_results {
            let mut ids: Vec<_> = found.iter().map(|id| Reverse((ranks.get(id), id))).collect();
            ids.sort_unstable();
            let skip = usize::try_from(window.offset).unwrap_or(usize::MAX);
            let count = usize::try_from(limit).unwrap_or(usize::MAX);
            taken.extend(ids.into_iter().skip(skip).take(count).map(|Reverse((_, id))| id));
            return Ok(taken);
        }
        let mut skip = window.offset;
        let rest = found - ranks.counted();
        let mut buckets = ranks.buckets();
        loop {
            let left = limit.saturating_sub(taken.len() as u64);
            if left == 0 {
                break;
            }
            let Some(bucket) = buckets.next() else {
                take(&rest, skip, left, &mut taken);
                break;
            };
            meter.step(1)?;
            let inside = bucket & found;
            if skip >= inside.len() {
                skip = skip.saturating_sub(inside.len());
                continue;
            }
            take(&inside, skip, left, &mut taken);
            skip = 0;
        }
        Ok(taken)
    }
}

/// Appends `limit` ids of a set, largest first, after the `skip` largest. Costs `limit`, not `skip`.
fn take(set: &RoaringBitmap, skip: u64, limit: u64, taken: &mut Vec<u32>) {
    let Some(last) = set.len().checked_sub(1).and_then(|last| last.checked_sub(skip)) else {
        return;
    };
    let Some(first) = u32::try_from(last).ok().and_then(|rank| set.select(rank)) else {
        return;
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    taken.extend(set.range(..=first).rev().take(limit));
}

/// The records one of whose authors fits one of `patterns`.
fn author_part<'a>(
    authors: &'a Column,
    patterns: &[super::pattern::Pattern],
    effort: Effort,
    meter: &mut Meter,
) -> Result<Part<'a>, QueryError> {
    let mut values = Vec::new();
    let mut many: u64 = 0;
    for pattern in patterns {
        match authors.dict.fit(pattern, effort.look, meter)? {
            super::dict::Fit::All => values = authors.dict.values(),
            super::dict::Fit::Many(count) => many = many.saturating_add(count),
            super::dict::Fit::These(these) => values.extend(these),
        }
    }
    if many > 0 {
        return Ok(Part::Lazy(many));
    }
    authors.records(values, effort, meter)
}

impl SearchIndex {
    /// The numbers of the records with one of the names, newest first; for name resolution.
    pub(crate) fn named(
        &self,
        names: &[super::pattern::Pattern],
        version: Option<&super::pattern::VersionRule>,
        meter: &mut Meter,
    ) -> Result<Vec<u32>, QueryError> {
        use super::pattern::VersionRule;
        let any = Rules {
            all: Vec::new(),
            any: names.to_vec(),
        };
        let mut include = vec![Term::Text(Field::Name, any)];
        include.extend(version.map(|rule| {
            let rules = match rule {
                VersionRule::Compare(comparison) => Rules {
                    all: vec![comparison.clone()],
                    any: Vec::new(),
                },
                VersionRule::Match(pattern) => Rules {
                    all: Vec::new(),
                    any: vec![pattern.clone()],
                },
            };
            Term::Text(Field::Version, rules)
        }));
        let plan = Plan {
            include,
            exclude: Vec::new(),
        };
        let window = Window {
            offset: 0,
            limit: None,
        };
        match self.find(&plan, Sort::Recency, window, meter)? {
            Outcome::Exact(ids) | Outcome::Unsettled(ids, _) => Ok(ids),
        }
    }
}
