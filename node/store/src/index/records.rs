//! The records of a node with all that is searched: the directory, which is complete from the start, and the search
//! index, which may be filled later.

use super::budget::Meter;
use super::directory::Directory;
use super::eval::{Outcome, Tuning, Window};
use super::facts::Scan;
use super::pattern::{Pattern, VersionRule};
use super::query::{Plan, QueryError, Sort};
use super::search::{IndexBytes, SearchIndex};
use super::split::WordList;
use crate::types::Named;
use crate::{RecordCid, Summary};

/// How far the search index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Only the directory is kept.
    Waiting,
    /// New records are searched, old ones follow.
    Filling,
    /// All records are searched.
    Ready,
}

/// A record's texts, taken apart so that little is left to do while the index is locked.
#[derive(Debug)]
pub struct Prepared {
    summary: Summary,
    words: WordList,
}

impl Prepared {
    /// Takes a summary apart.
    #[must_use]
    pub fn new(summary: Summary) -> Self {
        Self {
            words: WordList::of(&summary.description),
            summary,
        }
    }
}

/// The records.
pub struct RecordIndex {
    directory: Directory,
    search: SearchIndex,
    phase: Phase,
    epoch: u64,
    /// Parts that [`RecordIndex::finish_part`] is done with.
    finished: usize,
}

impl Default for RecordIndex {
    /// Empty and ready.
    fn default() -> Self {
        Self {
            directory: Directory::default(),
            search: SearchIndex::default(),
            phase: Phase::Ready,
            epoch: 0,
            finished: 0,
        }
    }
}

impl std::fmt::Debug for RecordIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordIndex")
            .field("records", &self.len())
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl RecordIndex {
    /// An index that keeps only the directory until [`RecordIndex::begin`].
    #[must_use]
    pub fn waiting() -> Self {
        Self {
            phase: Phase::Waiting,
            ..Self::default()
        }
    }

    /// Sets when one way of answering gives place to another.
    pub fn tune(&mut self, tuning: Tuning) {
        self.search.tuning = tuning;
    }

    /// Numbers the records by time and drops what was indexed; what is known of records beside their texts stays.
    /// From now on insertions are searched. Records from before are to be brought by [`RecordIndex::fill`].
    pub fn begin(&mut self) {
        let mut kept = Vec::new();
        for id in self.directory.live() {
            let Some(cid) = self.directory.cid(id) else {
                continue;
            };
            let facts = &self.search.facts;
            let scans = facts.scans(id).to_vec();
            let flags = (facts.verified.contains(id), facts.trusted.contains(id));
            let counts = (self.search.popularity.get(id), self.search.providers.get(id));
            if flags != (false, false) || counts != (0, 0) || !scans.is_empty() {
                kept.push((cid, flags, counts, scans));
            }
        }
        self.directory.sort();
        self.search = SearchIndex {
            tuning: self.search.tuning,
            ..SearchIndex::default()
        };
        self.search.collect();
        self.phase = Phase::Filling;
        self.epoch = self.epoch.saturating_add(1);
        self.finished = 0;
        for (cid, (verified, trusted), (usage, providers), scans) in kept {
            self.set_verified(&cid, verified);
            self.set_trusted(&cid, trusted);
            self.set_usage(&cid, usage);
            self.set_provider_count(&cid, providers);
            for scan in scans {
                self.set_scan(&cid, scan);
            }
        }
    }

    /// Indexes a record the directory holds, unless it is indexed.
    pub fn fill(&mut self, cid: &RecordCid, record: &Prepared) {
        if let Some(id) = self.directory.id(cid)
            && !self.search.contains(id)
        {
            self.search.insert(id, &record.summary, &record.words);
        }
    }

    /// Everything has been brought.
    pub fn finish(&mut self) {
        while self.finish_part() {}
    }

    /// Everything has been brought: does one part of what is left to do, so that nobody waits for all of it. False after the
    /// last.
    pub fn finish_part(&mut self) -> bool {
        if self.phase != Phase::Filling {
            return false;
        }
        let more = self.search.settle(self.finished);
        self.finished = self.finished.saturating_add(1);
        if !more {
            self.phase = Phase::Ready;
        }
        more
    }

    /// True when searches are answered.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// True before [`RecordIndex::begin`].
    pub(crate) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// Changes when all numbers do.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.directory.len()
    }

    /// True if there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the record is held.
    #[must_use]
    pub fn contains(&self, cid: &RecordCid) -> bool {
        self.directory.contains(cid)
    }

    /// Insertion time, in unix nanoseconds, and body size, in bytes.
    #[must_use]
    pub fn get(&self, cid: &RecordCid) -> Option<(i64, u64)> {
        self.directory.get(cid)
    }

    /// The latest insertion time seen, in unix nanoseconds.
    #[must_use]
    pub fn newest_ns(&self) -> i64 {
        self.directory.newest_ns()
    }

    /// All records, in no order.
    pub fn cids(&self) -> impl Iterator<Item = RecordCid> + '_ {
        self.directory.cids()
    }

    /// Adds or replaces a record. Insertion times should grow; an older one than the last is put in its place by the
    /// next [`RecordIndex::begin`].
    pub fn insert(&mut self, cid: RecordCid, inserted_at_ns: i64, size_bytes: u64, summary: &Summary) {
        if self.phase == Phase::Waiting {
            self.insert_waiting(cid, inserted_at_ns, size_bytes);
            return;
        }
        let words = WordList::of(&summary.description);
        let before = self.directory.id(&cid);
        let id = self.directory.insert(cid, inserted_at_ns, size_bytes);
        if let Some(before) = before {
            if id == Some(before) {
                self.search.replace(before, summary, &words);
                return;
            }
            self.search.remove(before, None);
        }
        match id {
            Some(id) => self.search.insert(id, summary, &words),
            None => tracing::error!(%cid, "record has no number in the index; rebuild the index"),
        }
    }

    /// Adds a record to the directory only, before [`RecordIndex::begin`].
    pub fn insert_waiting(&mut self, cid: RecordCid, inserted_at_ns: i64, size_bytes: u64) {
        self.directory.insert(cid, inserted_at_ns, size_bytes);
    }

    /// Drops a record with all that is known of it; true if it was there. `description` is the one it was inserted with;
    /// without it the removal takes a walk over all words.
    pub fn remove(&mut self, cid: &RecordCid, description: Option<&str>) -> bool {
        let Some(id) = self.directory.remove(cid) else {
            return false;
        };
        self.search.remove(id, description);
        true
    }

    /// The record with a number, if it is held.
    pub(crate) fn cid(&self, id: u32) -> Option<RecordCid> {
        self.directory.cid(id)
    }

    pub(crate) fn find(
        &self,
        plan: &Plan,
        sort: Sort,
        window: Window,
        meter: &mut Meter,
    ) -> Result<Outcome, QueryError> {
        self.must_be_ready()?;
        self.search.find(plan, sort, window, meter)
    }

    pub(crate) fn number(
        &self,
        plan: &Plan,
        meter: &mut Meter,
    ) -> Result<(u64, Option<Outcome>), QueryError> {
        self.must_be_ready()?;
        self.search.number(plan, meter)
    }

    fn must_be_ready(&self) -> Result<(), QueryError> {
        if self.is_ready() {
            Ok(())
        } else {
            Err(QueryError::NotReady)
        }
    }

    /// Records whose name matches any of `names` and whose version fits: newest insertion first, then by CID.
    ///
    /// # Errors
    /// `Unavailable` while the index is built, `TooExpensive` beyond the budget.
    pub fn resolve(
        &self,
        names: &[Pattern],
        version: Option<&VersionRule>,
        budget: &super::Budget,
    ) -> Result<Vec<Named>, QueryError> {
        self.must_be_ready()?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ids = self.search.named(names, version, &mut Meter::new(budget))?;
        Ok(ids
            .into_iter()
            .filter_map(|id| {
                let (name, version) = self.search.name_and_version(id)?;
                Some(Named {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    cid: self.cid(id)?,
                })
            })
            .collect())
    }

    /// Whether the record's name is verified.
    pub fn set_verified(&mut self, cid: &RecordCid, verified: bool) {
        if let Some(id) = self.directory.id(cid) {
            set_flag(&mut self.search.facts.verified, id, verified);
        }
    }

    /// Whether a verified signer stands behind the record.
    pub fn set_trusted(&mut self, cid: &RecordCid, trusted: bool) {
        if let Some(id) = self.directory.id(cid) {
            set_flag(&mut self.search.facts.trusted, id, trusted);
        }
    }

    /// Adds a scan, or replaces the one of the same scanner.
    pub fn set_scan(&mut self, cid: &RecordCid, scan: Scan) {
        if let Some(id) = self.directory.id(cid) {
            self.search.facts.set_scan(id, scan);
        }
    }

    /// Forgets the scans of a record.
    pub fn clear_scans(&mut self, cid: &RecordCid) {
        if let Some(id) = self.directory.id(cid) {
            self.search.facts.clear_scans(id);
        }
    }

    /// Pulls and lookups together.
    pub fn set_usage(&mut self, cid: &RecordCid, count: u64) {
        if let Some(id) = self.directory.id(cid) {
            self.search.popularity.set(id, count);
        }
    }

    /// How many peers provide the record.
    pub fn set_provider_count(&mut self, cid: &RecordCid, count: u64) {
        if let Some(id) = self.directory.id(cid) {
            self.search.providers.set(id, count);
        }
    }

    /// True when an older record came after a newer one.
    #[must_use]
    pub fn is_disordered(&self) -> bool {
        self.directory.is_disordered()
    }

    /// Bytes taken, counted.
    #[must_use]
    pub fn bytes(&self) -> IndexBytes {
        IndexBytes {
            directory: self.directory.bytes(),
            ..self.search.bytes()
        }
    }

    /// Number of different values indexed: nothing is left behind when it is zero without records.
    #[must_use]
    pub fn values_len(&self) -> usize {
        self.search.values_len()
    }
}

fn set_flag(set: &mut roaring::RoaringBitmap, id: u32, holds: bool) {
    if holds {
        set.insert(id);
    } else {
        set.remove(id);
    }
}
