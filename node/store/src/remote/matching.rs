//! Search: the best hits first, and no more looked at than they need.
//!
//! Each query is one posting list, ordered by standing and CID. The lists are walked together, standing by standing, best
//! first. Within a standing a record is only looked at if enough lists name it to beat what is already found ("weak AND",
//! Broder and others 2003, with all weights one): at first the least score asked for; once as many hits are found as are
//! wanted, one more than the worst of them has, because later CIDs rank behind at the same score. So a single query ends
//! after as many entries as there are hits, and several soon skip along the rarest lists.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;

use super::query::{
    Hit, MAX_QUERIES, Place, Provider, RemoteHits, RemoteQuery, RemoteQueryKind, RemoteSearch,
    RemoteSearchError,
};
use super::sorted::{Pos, Sorted};
use super::state::{Entry, State, head};
use super::tombs::parts;
use super::types::Standing;
use crate::RecordCid;

/// Two lists that a record must both be in are walked side by side, not by seeks, up to this ratio of their lengths.
const ALIKE: usize = 8;

/// Queries, each once, by what answers them.
#[derive(Default)]
struct Asked {
    /// Place in the tree of labels, place in the request; in order of the former.
    places: Vec<(u32, u16)>,
    /// Places in the request of the queries that every row answers.
    any: Vec<u16>,
}

struct Cursor<'a> {
    list: &'a Sorted,
    pos: Pos,
    entry: u64,
    /// Queries that the list answers.
    weight: u32,
}

struct Walk<'a> {
    state: &'a State,
    search: &'a RemoteSearch,
    asked: Asked,
    min_score: u32,
    exclude: Option<u32>,
    /// What may still be spent on finding records, and then on listing their providers.
    left: u64,
    left_to_list: u64,
}

/// What is found of one standing: records by number with the score of their best provider there.
struct Tier {
    found: Vec<(u32, u32)>,
    wanted: usize,
    /// What the next record has to score.
    score: u32,
    /// Records found that score as much.
    enough: usize,
}

/// Answers a search.
pub(super) fn search(state: &State, search: &RemoteSearch) -> Result<RemoteHits, RemoteSearchError> {
    let mut answer = RemoteHits::default();
    let mut walk = Walk {
        state,
        search,
        asked: ask(state, &search.queries)?,
        min_score: search.min_score.max(1),
        exclude: search.exclude.as_ref().and_then(|peer| state.peers.find(peer)),
        left: search.budget,
        left_to_list: search.budget,
    };
    let limit = if search.limit == 0 {
        usize::MAX
    } else {
        search.limit
    };
    for standing in Standing::BEST_FIRST {
        let wanted = limit.saturating_sub(answer.hits.len());
        // Whatever ranks behind is of this standing or a worse one.
        if wanted == 0 || answer.cut || search.after.is_some_and(|after| standing > after.standing) {
            continue;
        }
        let (found, whole) = walk.tier(standing, wanted);
        answer.cut = !whole;
        for (record, score) in found {
            let Some(hit) = walk.hit(record, standing, score) else {
                answer.cut = true;
                break;
            };
            answer.hits.push(hit);
        }
    }
    Ok(answer)
}

fn ask(state: &State, queries: &[RemoteQuery]) -> Result<Asked, RemoteSearchError> {
    let mut seen: HashSet<&RemoteQuery> = HashSet::new();
    let mut asked = Asked::default();
    for (place, query) in queries.iter().enumerate() {
        if !seen.insert(query) {
            continue;
        }
        let place = u16::try_from(place).unwrap_or(u16::MAX);
        if seen.len() > MAX_QUERIES || place == u16::MAX {
            return Err(RemoteSearchError::TooManyQueries { count: queries.len() });
        }
        match query.kind {
            RemoteQueryKind::Any => asked.any.push(place),
            RemoteQueryKind::Never => {}
            RemoteQueryKind::In(namespace) => {
                let node = state.names.place(namespace, &query.value);
                asked.places.extend(node.map(|node| (node, place)));
            }
        }
    }
    asked.places.sort_unstable();
    Ok(asked)
}

fn spend(left: &mut u64, work: usize) -> bool {
    *left = left.saturating_sub(work as u64);
    *left > 0
}

impl Walk<'_> {
    /// Counts work; false when the budget is spent.
    fn spend(&mut self, work: usize) -> bool {
        spend(&mut self.left, work)
    }

    fn cid(&self, row: u32) -> Option<&RecordCid> {
        let row = self.state.rows.get(row)?;
        self.state.records.get(row.record).map(|record| &record.cid)
    }

    /// Order of two entries by standing and record, whatever the row.
    fn by_record(&self, one: u64, other: u64) -> Ordering {
        let ((head, row), (other_head, other_row)) = (parts(one), parts(other));
        head.cmp(&other_head).then_with(|| {
            if row == other_row {
                Ordering::Equal
            } else {
                self.cid(row).cmp(&self.cid(other_row))
            }
        })
    }

    /// Whether an entry is in front of all of a standing, or is of a record not behind `after`.
    fn is_before(&self, entry: u64, standing: Standing, after: Option<&RecordCid>) -> bool {
        let (its, row) = parts(entry);
        match after {
            None => its < head(standing, &RecordCid::from_digest([0; 32])),
            Some(after) => {
                let ordered = its
                    .cmp(&head(standing, after))
                    .then_with(|| self.cid(row).cmp(&Some(after)));
                ordered != Ordering::Greater
            }
        }
    }

    /// The best records of one standing in their order, at most `wanted`; false when the budget was spent before all were
    /// looked at.
    fn tier(&mut self, standing: Standing, wanted: usize) -> (Vec<(u32, u32)>, bool) {
        let mut tier = Tier {
            found: Vec::new(),
            wanted,
            score: self.min_score,
            enough: 0,
        };
        let whole = self.walk(standing, &mut tier).is_some();
        tier.found.sort_by_key(|(_, score)| Reverse(*score));
        tier.found.truncate(wanted);
        (tier.found, whole)
    }

    /// Finds the records of one standing; `None` when the budget is spent.
    fn walk(&mut self, standing: Standing, tier: &mut Tier) -> Option<()> {
        let state = self.state;
        let after = self.search.after.filter(|after| after.standing == standing);
        // At the least score only later CIDs are left, so the walk can begin behind.
        let from = after
            .filter(|after| after.score <= self.min_score)
            .map(|after| after.cid);
        let any = u32::try_from(self.asked.any.len()).unwrap_or(u32::MAX);
        let lists = self
            .asked
            .places
            .iter()
            .map(|(place, _)| (state.names.rows(*place), 1));
        let all = (any > 0).then_some((Some(&state.labelled), any));
        let mut cursors: Vec<Cursor<'_>> = Vec::new();
        for (list, weight) in lists.chain(all) {
            let Some(list) = list else { continue };
            let pos = list.seek(Pos::default(), |entry| {
                self.is_before(entry, standing, from.as_ref())
            });
            cursors.extend(list.get(pos).map(|entry| Cursor {
                list,
                pos,
                entry,
                weight,
            }));
        }
        let last = head(standing, &RecordCid::from_digest([0xff; 32]));
        let mut rows: Vec<(u32, u32)> = Vec::new();
        loop {
            cursors.retain(|cursor| parts(cursor.entry).0 <= last);
            if let [one, other] = cursors.as_mut_slice()
                && tier.score > one.weight.max(other.weight)
                && one.list.is_within(ALIKE, other.list)
            {
                let passed;
                (one.pos, other.pos, passed) = one.list.meet(one.pos, other.list, other.pos, last);
                for cursor in [one, other] {
                    cursor.entry = cursor.list.get(cursor.pos).unwrap_or(u64::MAX);
                }
                if !self.spend(passed.saturating_add(1)) {
                    return None;
                }
                // A list that has ended, or has left the standing, is out.
                cursors.retain(|cursor| parts(cursor.entry).0 <= last);
            }
            cursors.sort_by(|one, other| self.by_record(one.entry, other.entry));
            if !self.spend(cursors.len().max(1)) {
                return None;
            }
            let mut reached = 0u32;
            let Some(pivot) = cursors.iter().find(|cursor| {
                reached = reached.saturating_add(cursor.weight);
                reached >= tier.score
            }) else {
                return Some(());
            };
            let pivot = pivot.entry;
            let front = cursors.first().map_or(pivot, |cursor| cursor.entry);
            if self.by_record(front, pivot) == Ordering::Less {
                // No record in front of the pivot is named by enough lists.
                for cursor in &mut cursors {
                    if self.by_record(cursor.entry, pivot) != Ordering::Less {
                        break;
                    }
                    let seek = |entry| self.by_record(entry, pivot) == Ordering::Less;
                    cursor.pos = cursor.list.seek(cursor.pos, seek);
                    cursor.entry = cursor.list.get(cursor.pos).unwrap_or(u64::MAX);
                }
                continue;
            }
            rows.clear();
            for cursor in &mut cursors {
                while self.by_record(cursor.entry, pivot) == Ordering::Equal {
                    rows.push((parts(cursor.entry).1, cursor.weight));
                    cursor.pos = cursor.list.next(cursor.pos);
                    cursor.entry = cursor.list.get(cursor.pos).unwrap_or(u64::MAX);
                }
            }
            if !self.spend(rows.len()) {
                return None;
            }
            let Some(record) = self.state.rows.get(parts(pivot).1).map(|row| row.record) else {
                continue;
            };
            let score = self.best(&mut rows);
            if score < tier.score {
                continue;
            }
            let behind = after.is_none_or(|after| {
                let place = self.state.records.get(record).map(|record| record.cid);
                (Reverse(score), place) > (Reverse(after.score), Some(after.cid))
            });
            if behind && !self.ranks_better(record, standing)? {
                tier.take(record, score);
            }
        }
    }

    /// The best score of one row among entries of a record.
    fn best(&self, rows: &mut [(u32, u32)]) -> u32 {
        rows.sort_unstable();
        rows.chunk_by(|one, other| one.0 == other.0)
            .filter(|entries| {
                let row = entries.first().and_then(|(row, _)| self.state.rows.get(*row));
                row.is_some_and(|row| self.exclude != Some(row.peer))
            })
            .map(|entries| {
                entries
                    .iter()
                    .map(|(_, weight)| *weight)
                    .fold(0, u32::saturating_add)
            })
            .max()
            .unwrap_or(0)
    }

    /// Whether a record has a provider of a better standing that matches too: then it ranks there. `None` when the budget
    /// is spent.
    fn ranks_better(&mut self, record: u32, standing: Standing) -> Option<bool> {
        if standing == Standing::Verified {
            return Some(false);
        }
        let state = self.state;
        for (_, row) in state.rows_of(record) {
            if !self.spend(1) {
                return None;
            }
            if row.standing > standing {
                if !self.spend(row.labels.len()) {
                    return None;
                }
                if self.matched(row).is_some() {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// Places in the request of the queries that a row matches, if they are enough.
    fn matched(&self, row: &Entry) -> Option<Vec<u16>> {
        if self.exclude == Some(row.peer) {
            return None;
        }
        let mut matched = Vec::new();
        let mut found = false;
        for label in &row.labels {
            for place in self.state.names.above(*label) {
                found = true;
                let known = self
                    .asked
                    .places
                    .binary_search_by_key(&place, |(place, _)| *place);
                let query = known.ok().and_then(|at| self.asked.places.get(at));
                matched.extend(query.map(|(_, query)| *query));
            }
        }
        if found {
            matched.extend_from_slice(&self.asked.any);
        }
        matched.sort_unstable();
        matched.dedup();
        let enough = u32::try_from(matched.len()).is_ok_and(|score| score >= self.min_score);
        enough.then_some(matched)
    }

    /// A record with its providers; `None` when the budget is spent.
    fn hit(&mut self, record: u32, standing: Standing, score: u32) -> Option<Hit> {
        let state = self.state;
        let mut providers = Vec::new();
        for (_, row) in state.rows_of(record) {
            if !spend(&mut self.left_to_list, row.labels.len().saturating_add(1)) {
                return None;
            }
            let (Some(matched), Some(peer)) = (self.matched(row), state.peers.get(row.peer)) else {
                continue;
            };
            providers.push(Provider {
                peer: peer.id.clone(),
                standing: row.standing,
                matched,
                last_seen_ns: row.last_seen_ns,
            });
        }
        providers.sort_unstable_by(|one, other| {
            let key = |provider: &Provider| {
                let score = provider.matched.len();
                Reverse((provider.standing, score, provider.last_seen_ns))
            };
            key(one).cmp(&key(other)).then_with(|| one.peer.cmp(&other.peer))
        });
        let matching = providers.len();
        if self.search.max_providers > 0 {
            providers.truncate(self.search.max_providers);
        }
        let cid = state.records.get(record)?.cid;
        Some(Hit {
            place: Place { standing, score, cid },
            providers,
            matching,
        })
    }
}

impl Tier {
    /// Takes a record that scores enough, and ranks behind all that score the same; asks for more once there are as many as
    /// wanted.
    fn take(&mut self, record: u32, score: u32) {
        self.found.push((record, score));
        self.enough = self.enough.saturating_add(1);
        while self.enough >= self.wanted {
            // Of those with just this score the first may still be wanted, of those below none.
            let least = self.score;
            self.found.retain(|(_, found)| *found >= least);
            self.score = self.score.saturating_add(1);
            self.enough = self.found.iter().filter(|(_, found)| *found > least).count();
        }
    }
}
