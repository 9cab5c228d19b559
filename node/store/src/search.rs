//! The searching side of the store: queries over records, the published set, and what is known of records beside their
//! texts.
//!
//! All of it answers from memory, except that descriptions may have to be read from rows; a search holds the index's
//! lock for as long as its budget gives, in practice well under a millisecond, and not while it reads rows or while its
//! caller takes the results.

use std::sync::Arc;

use crate::index::pattern::{NamePattern, VersionRule};
use crate::index::{
    Budget, Found, IndexBytes, LabelQuery, Listed, Plan, QueryError, RecordIndex, Scan, Sort, Source,
};
use crate::state::Shared;
use crate::types::Named;
use crate::{RecordCid, Store, StoreError, fill};

struct FromShared<'a>(&'a Shared);

impl Source for FromShared<'_> {
    fn with_index<T>(&self, with: impl FnOnce(&RecordIndex) -> T) -> T {
        with(&self.0.index.read().records)
    }

    fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError> {
        self.0.description(cid)
    }
}

/// Results of a search, in order. Holds numbers, 4 bytes for each, and no lock.
#[derive(Clone)]
pub struct Hits {
    shared: Arc<Shared>,
    found: Found,
}

impl std::fmt::Debug for Hits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hits").field("found", &self.found.len()).finish()
    }
}

impl Hits {
    /// How many were found.
    #[must_use]
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// True if nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The next CIDs in order, at most `count`; `None` at the end. Records deleted since the search are left out, so a page
    /// may be short or empty.
    ///
    /// # Errors
    /// `Unavailable` when the index was rebuilt since the search.
    pub fn next_page(&mut self, count: usize) -> Result<Option<Vec<RecordCid>>, QueryError> {
        self.found.next_page(&FromShared(&self.shared), count)
    }

    /// All CIDs that are left.
    ///
    /// # Errors
    /// As [`Hits::next_page`].
    pub fn into_cids(mut self) -> Result<Vec<RecordCid>, QueryError> {
        let mut cids = Vec::with_capacity(self.found.len());
        while let Some(page) = self.next_page(1024)? {
            cids.extend(page);
        }
        Ok(cids)
    }
}

impl Store {
    /// Finds the records of `plan`, in the order of `sort`; a limit of zero means all. May block for a moment, longer with
    /// descriptions: call it off the async workers.
    ///
    /// # Errors
    /// `Unavailable` while the index is built, `TooExpensive` beyond the budget, `Internal` when a row cannot be read.
    pub fn search(
        &self,
        plan: &Plan,
        sort: Sort,
        limit: u32,
        offset: u32,
        budget: &Budget,
    ) -> Result<Hits, QueryError> {
        let source = FromShared(&self.shared);
        let found = crate::index::search(&source, plan, sort, limit, offset, budget)?;
        Ok(Hits {
            shared: Arc::clone(&self.shared),
            found,
        })
    }

    /// Counts the records of `plan`; otherwise as [`Store::search`].
    ///
    /// # Errors
    /// As [`Store::search`].
    pub fn count(&self, plan: &Plan, budget: &Budget) -> Result<u64, QueryError> {
        crate::index::count(&FromShared(&self.shared), plan, budget)
    }

    /// Records whose name matches any of `names` and whose version fits: newest insertion first, then by CID.
    ///
    /// # Errors
    /// `Unavailable` while the index is built, `TooExpensive` beyond the budget.
    pub fn try_resolve(
        &self,
        names: &[NamePattern],
        version: Option<&VersionRule>,
        budget: &Budget,
    ) -> Result<Vec<Named>, QueryError> {
        self.shared.index.read().records.resolve(names, version, budget)
    }

    /// Published records that meet all of `queries`, in the byte order of CID texts, at most `limit` after `after`: for
    /// long lists, ask page by page. A record that was deleted but not unpublished is among them.
    ///
    /// # Errors
    /// `Invalid` with too many or too long queries, `Unavailable` while the index is built.
    pub fn list_published(
        &self,
        queries: &[LabelQuery],
        limit: usize,
        after: Option<&RecordCid>,
    ) -> Result<Vec<Listed>, QueryError> {
        let index = self.shared.index.read();
        if !index.records.is_ready() {
            return Err(QueryError::NotReady);
        }
        index.published.list(queries, limit, after)
    }

    /// The listed labels of one published record; `None` if it is not published.
    ///
    /// # Errors
    /// `Unavailable` while the index is built.
    pub fn listed(&self, cid: &RecordCid) -> Result<Option<Listed>, QueryError> {
        let index = self.shared.index.read();
        if !index.records.is_ready() {
            return Err(QueryError::NotReady);
        }
        Ok(index.published.get(cid))
    }

    /// Number of published records; counted up while the index is built.
    #[must_use]
    pub fn published_len(&self) -> u64 {
        self.shared.index.read().published.len() as u64
    }

    /// True when searches and lists are answered. Until then the node answers by CID.
    #[must_use]
    pub fn index_ready(&self) -> bool {
        self.shared.index.read().records.is_ready()
    }

    /// Bytes the index takes, counted.
    #[must_use]
    pub fn index_bytes(&self) -> IndexBytes {
        self.shared.index.read().records.bytes()
    }

    /// Fills the index again from the rows. Searches end as `Unavailable` meanwhile. Blocks: call it off the async workers.
    ///
    /// # Errors
    /// `Corrupt` when a row does not parse, `Internal` when the row engine fails, `Closed`.
    pub fn rebuild_index(&self) -> Result<(), StoreError> {
        let _one = self.shared.filling.lock();
        fill::begin(&self.shared)?;
        fill::fill(&self.shared)
    }

    /// Begins the index of a store that was just opened. Few records are indexed at once, many in a thread.
    pub(crate) fn start_index(&self) -> Result<(), StoreError> {
        if self.shared.index.read().records.len() <= fill::INLINE_RECORDS {
            return self.rebuild_index();
        }
        fill::begin(&self.shared)?;
        let shared = Arc::clone(&self.shared);
        // Whoever waits for the index after this finds the thread at work.
        let (at_work, begun) = std::sync::mpsc::sync_channel(1);
        let started = std::thread::Builder::new()
            .name("store-index".to_owned())
            .spawn(move || {
                let _one = shared.filling.lock();
                // There is room for the one message.
                let _ = at_work.send(());
                match fill::fill(&shared) {
                    Ok(()) => tracing::info!("search index is ready"),
                    Err(StoreError::Closed) => {}
                    Err(error) => tracing::error!(%error, "search index was not built; rebuild it"),
                }
            })
            .map_err(|error| StoreError::io("start thread in", &self.shared.config.dir, &error));
        if started.is_ok() {
            // An error would mean that the thread has ended, and there is nothing to wait for.
            let _ = begun.recv();
        }
        started.map(|_| ())
    }

    /// Waits until the filling of the index that a start began has ended, well or not. Blocks: call it off the async workers.
    pub fn wait_for_index(&self) {
        drop(self.shared.filling.lock());
    }

    /// Whether the record's name is verified. In memory: it is to be told again after a start.
    pub fn set_verified(&self, cid: RecordCid, verified: bool) {
        self.shared.index.write().records.set_verified(&cid, verified);
    }

    /// Whether a verified signer stands behind the record. In memory: it is to be told again after a start.
    pub fn set_trusted(&self, cid: RecordCid, trusted: bool) {
        self.shared.index.write().records.set_trusted(&cid, trusted);
    }

    /// How many peers provide the record. In memory: it is to be told again after a start.
    pub fn set_provider_count(&self, cid: RecordCid, count: u64) {
        self.shared.index.write().records.set_provider_count(&cid, count);
    }

    /// Adds a scan or replaces the one of the same scanner, in memory only; those of referrers come by
    /// [`crate::StoreConfig::referrer_facts`] and stay.
    pub fn set_scan(&self, cid: RecordCid, scan: Scan) {
        self.shared.index.write().records.set_scan(&cid, scan);
    }

    /// Forgets the scans of a record, in memory only.
    pub fn clear_scans(&self, cid: RecordCid) {
        self.shared.index.write().records.clear_scans(&cid);
    }
}
