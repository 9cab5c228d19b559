//! Walks along records in the order asked until a page is full: the way of answering that costs the page, not the store
//! (see `eval`).

use roaring::RoaringBitmap;

use super::budget::Meter;
use super::column::Part;
use super::dict::Bounds;
use super::eval::Condition;
use super::query::{QueryError, Sort, Term};
use super::ranks::Ranks;
use super::search::SearchIndex;

impl SearchIndex {
    pub(super) fn bounds(&self, look: u64) -> Bounds {
        Bounds {
            // To look at a few texts at once costs less than to put them off.
            few: self.tuning.look.min(64),
            most: self.tuning.candidates,
            estimate: look.saturating_mul(8),
        }
    }

    /// Walks, and if that leads too far once more along candidates, which are costlier to know than most walks take.
    pub(super) fn walk_twice(
        &self,
        conditions: &mut [Condition<'_>],
        sort: Sort,
        end: u64,
        meter: &mut Meter,
    ) -> Result<Option<Vec<u32>>, QueryError> {
        if let Some(found) = self.walk(conditions, sort, end, meter)? {
            return Ok(Some(found));
        }
        let bounds = self.bounds(self.tuning.candidates);
        let mut narrower = false;
        for condition in conditions.iter_mut() {
            if let (Term::Text(field, rules), Part::Lazy(_), None, false) = (
                condition.term,
                &condition.part,
                &condition.candidates,
                condition.negate,
            ) {
                condition.candidates = self.field(*field).candidates(rules, &bounds, meter)?;
                narrower |= condition.candidates.is_some();
            }
        }
        if narrower {
            return self.walk(conditions, sort, end, meter);
        }
        Ok(None)
    }

    /// The first `end` results, or all if there are fewer; `None` when that is too far to walk.
    fn walk(
        &self,
        conditions: &[Condition<'_>],
        sort: Sort,
        end: u64,
        meter: &mut Meter,
    ) -> Result<Option<Vec<u32>>, QueryError> {
        let smallest = conditions
            .iter()
            .enumerate()
            .filter(|(_, condition)| !condition.negate)
            .filter_map(|(at, condition)| match &condition.part {
                Part::These(set) => Some((set.len(), at, &**set)),
                _ => None,
            })
            .min_by_key(|(len, _, _)| *len);
        let (driver, skipped) = match smallest {
            Some((_, at, set)) => (set, Some(at)),
            None => (&self.held, None),
        };
        let candidates = conditions
            .iter()
            .filter_map(|condition| condition.candidates.as_deref())
            .min_by_key(|candidates| candidates.len())
            .filter(|candidates| (candidates.len() as u64) < driver.len());
        let ranks = self.ranks(sort);
        let candidate_set: RoaringBitmap;
        let (ids, skipped): (Ordered<'_>, _) = match (candidates, ranks) {
            (Some(candidates), None) => (Box::new(Descending::new(candidates).map(Some)), None),
            (Some(candidates), ranks) => {
                candidate_set = candidates.iter().copied().collect();
                (ordered(&candidate_set, ranks), None)
            }
            (None, ranks) => (ordered(driver, ranks), skipped),
        };
        let mut others: Vec<&Condition<'_>> = conditions
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != skipped)
            .map(|(_, condition)| condition)
            .collect();
        // Looking into a set is cheaper than looking at texts.
        others.sort_by_key(|condition| matches!(condition.part, Part::Lazy(_)));
        let mut left = end.saturating_mul(8).saturating_add(self.tuning.walk_steps);
        let mut found = Vec::new();
        for id in ids {
            let Some(rest) = left.checked_sub(1) else {
                return Ok(None);
            };
            left = rest;
            meter.step(1)?;
            // `None` marks a step of the walk that met no candidate.
            let Some(id) = id else { continue };
            let mut fits = true;
            for condition in &others {
                if !self.holds(id, condition, meter)? {
                    fits = false;
                    break;
                }
            }
            if fits {
                found.push(id);
                if found.len() as u64 >= end {
                    break;
                }
            }
        }
        Ok(Some(found))
    }
}

/// Ids in an order; `None` between them stands for a step that met none.
type Ordered<'a> = Box<dyn Iterator<Item = Option<u32>> + 'a>;

/// Ids that come in no order, the largest first. Only as many as are asked for are put in order.
struct Descending {
    /// The largest are at the end; those from `sorted` on are in order.
    ids: Vec<u32>,
    sorted: usize,
    next: usize,
}

impl Descending {
    fn new(ids: &[u32]) -> Self {
        Self {
            ids: ids.to_vec(),
            sorted: ids.len(),
            next: 64,
        }
    }
}

impl Iterator for Descending {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.sorted >= self.ids.len() {
            let from = self.ids.len().saturating_sub(self.next);
            self.next = self.next.saturating_mul(4);
            if from > 0 {
                self.ids.select_nth_unstable(from);
            }
            self.ids.get_mut(from..)?.sort_unstable();
            self.sorted = from;
        }
        self.ids.pop()
    }
}

/// The ids of `driver` in order.
fn ordered<'a>(driver: &'a RoaringBitmap, ranks: Option<&'a Ranks>) -> Ordered<'a> {
    let Some(ranks) = ranks else {
        return Box::new(driver.iter().rev().map(Some));
    };
    let counted = ranks
        .buckets()
        .flat_map(|bucket| bucket.iter().rev())
        .map(|id| driver.contains(id).then_some(id));
    let rest = driver
        .iter()
        .rev()
        .map(|id| (!ranks.counted().contains(id)).then_some(id));
    Box::new(counted.chain(rest))
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_largest_come_first(ids in proptest::collection::hash_set(any::<u32>(), 0..500)) {
            let ids: Vec<u32> = ids.into_iter().collect();
            let mut expected = ids.clone();
            expected.sort_unstable_by_key(|id| Reverse(*id));
            prop_assert_eq!(Descending::new(&ids).collect::<Vec<_>>(), expected);
        }
    }
}
