//! A search from start to end: asks the index under its lock, looks at the descriptions that are left open without it.
//!
//! The lock is held while the index is asked, and for moments to turn numbers into CIDs; never while rows are read.

use super::budget::{Budget, Meter};
use super::eval::{Outcome, Window};
use super::pattern::fold_stored;
use super::query::{Plan, QueryError, Sort, Term};
use super::records::RecordIndex;
use crate::{RecordCid, StoreError};

/// Records turned into CIDs under one lock.
const PAGE: usize = 256;

/// Where a search finds the index and the descriptions.
pub trait Source {
    /// Runs `with` on the index.
    fn with_index<T>(&self, with: impl FnOnce(&RecordIndex) -> T) -> T;

    /// The description of a record; `None` if it has gone meanwhile.
    ///
    /// # Errors
    /// What the store says.
    fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError>;
}

/// Results of a search, in order, as numbers: a million take 4 MB.
#[derive(Debug, Clone, Default)]
pub struct Found {
    ids: Vec<u32>,
    next: usize,
    epoch: u64,
}

impl Found {
    /// How many were found. Some may go before they are read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The next CIDs, at most `count`; records deleted since the search are left out. `None` at the end.
    ///
    /// # Errors
    /// `Unavailable` when the index was rebuilt since the search.
    pub fn next_page(
        &mut self,
        source: &impl Source,
        count: usize,
    ) -> Result<Option<Vec<RecordCid>>, QueryError> {
        let end = self.next.saturating_add(count.max(1)).min(self.ids.len());
        let Some(ids) = self.ids.get(self.next..end).filter(|ids| !ids.is_empty()) else {
            return Ok(None);
        };
        let page = cids(source, ids, self.epoch)?;
        self.next = end;
        Ok(Some(page.into_iter().map(|(_, cid)| cid).collect()))
    }
}

fn cids(source: &impl Source, ids: &[u32], epoch: u64) -> Result<Vec<(u32, RecordCid)>, QueryError> {
    source.with_index(|index| {
        if index.epoch() != epoch {
            return Err(QueryError::NotReady);
        }
        let held = ids.iter().filter_map(|id| Some((*id, index.cid(*id)?)));
        Ok(held.collect())
    })
}

/// Finds the records of `plan`. A limit of zero means all.
///
/// # Errors
/// `Unavailable` while the index is built, `TooExpensive` beyond the budget, `Internal` when a row cannot be read.
pub fn search(
    source: &impl Source,
    plan: &Plan,
    sort: Sort,
    limit: u32,
    offset: u32,
    budget: &Budget,
) -> Result<Found, QueryError> {
    let mut meter = Meter::new(budget);
    let window = Window {
        offset: u64::from(offset),
        limit: (limit > 0).then_some(u64::from(limit)),
    };
    let (outcome, epoch) = source.with_index(|index| {
        let outcome = index.find(plan, sort, window, &mut meter)?;
        Ok((outcome, index.epoch()))
    })?;
    let ids = match outcome {
        Outcome::Exact(ids) => ids,
        Outcome::Unsettled(ids, check) => {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            let limit = match limit {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            };
            let end = offset.saturating_add(limit);
            let mut kept = Vec::new();
            for page in ids.chunks(PAGE) {
                for (id, cid) in cids(source, page, epoch)? {
                    if kept.len() < end && (!check.contains(id) || fits(source, plan, &cid, &mut meter)?) {
                        kept.push(id);
                    }
                }
                if kept.len() >= end {
                    break;
                }
            }
            kept.drain(..offset.min(kept.len()));
            kept
        }
    };
    Ok(Found { ids, next: 0, epoch })
}

/// Counts the records of `plan`.
///
/// # Errors
/// As [`search`].
pub fn count(source: &impl Source, plan: &Plan, budget: &Budget) -> Result<u64, QueryError> {
    let mut meter = Meter::new(budget);
    let ((mut number, outcome), epoch) =
        source.with_index(|index| Ok::<_, QueryError>((index.number(plan, &mut meter)?, index.epoch())))?;
    if let Some(Outcome::Unsettled(ids, _)) = outcome {
        for page in ids.chunks(PAGE) {
            for (_, cid) in cids(source, page, epoch)? {
                number = number.saturating_add(u64::from(fits(source, plan, &cid, &mut meter)?));
            }
        }
    }
    Ok(number)
}

/// True if the description of a record is as the plan wants it.
fn fits(source: &impl Source, plan: &Plan, cid: &RecordCid, meter: &mut Meter) -> Result<bool, QueryError> {
    meter.row()?;
    let Some(description) = source.description(cid).map_err(QueryError::Store)? else {
        return Ok(false);
    };
    let folded = fold_stored(&description);
    let terms = plan.include.iter().map(|term| (term, true));
    for (term, wanted) in terms.chain(plan.exclude.iter().map(|term| (term, false))) {
        let Term::Description(patterns) = term else {
            continue;
        };
        let mut found = false;
        for pattern in patterns {
            found = found || meter.spend(|steps| pattern.matches_within(&folded, steps))?;
        }
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}
