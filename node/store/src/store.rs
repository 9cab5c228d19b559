//! The store as its callers see it.
//!
//! Writes go to the committer and come back when they are on disk; reads go to the rows, the overlay and the
//! layout. No method blocks the thread of an async caller.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Answer, Command, Committer, Request};
use crate::config::{MAX_BODY_BYTES, MAX_JOB_ID_BYTES, MAX_REFERRER_KIND_BYTES, MAX_ROW_BYTES};
use crate::index::pattern::{NamePattern, VersionRule};
use crate::layout::manifests::Manifests;
use crate::mover::Mover;
use crate::rows::{self, Family, StoredRecord};
use crate::state::Shared;
use crate::types::{
    Named, NewRecord, NewReferrer, OpenReport, PublishedRow, PutRecord, RecordRow, ReferrerFilter,
    ReferrerRow, StoreStats, Usage, UsageRow,
};
use crate::{RecordCid, StoreConfig, StoreError};

/// Unix nanoseconds. The store makes insertion times strictly increasing, whatever the clock says.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Hashing more than this is left to a blocking thread.
const INLINE_HASH_BYTES: usize = 64 << 10;

/// A handle on an open store; cheap to clone. When the last one goes without [`Store::close`], nothing that was
/// acknowledged is lost, and the next start replays what was under way.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.shared.config.dir)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `config.dir`, making it if need be, and starts its two threads. Blocks while it replays.
    ///
    /// # Errors
    /// `Locked` when another process has the directory; `Io` or `Full` when it cannot be read or written. Damage
    /// is no error, but told in the report.
    pub fn open(config: StoreConfig, clock: Clock) -> Result<(Self, OpenReport), StoreError> {
        let opened = crate::open::open(config, clock)?;
        let shared = opened.shared;
        let (queue, commands) = mpsc::channel(shared.config.queue_len.max(1));
        let committer = Committer {
            shared: Arc::clone(&shared),
            writer: opened.writer,
            next_seq: opened.next_seq,
            last_inserted_ns: opened.last_inserted_ns,
        };
        let mover = Mover {
            shared: Arc::clone(&shared),
            queue: queue.downgrade(),
            manifests: Manifests::default(),
            files: opened.files,
        };
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map(|_| ())
                .map_err(|error| StoreError::io("start thread in", &shared.config.dir, &error))
        };
        spawn("store-commit", Box::new(move || committer.run(commands)))?;
        spawn("store-move", Box::new(move || mover.run()))?;
        let store = Self { shared, queue };
        store.start_index()?;
        Ok((store, opened.report))
    }

    #[cfg(test)]
    pub(crate) fn shared_for_tests(&self) -> &Arc<Shared> {
        &self.shared
    }

    async fn ask(&self, request: Request) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let command = Command {
            request,
            reply: Some(reply),
        };
        self.queue.send(command).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    async fn ask_changed(&self, request: Request) -> Result<bool, StoreError> {
        Ok(matches!(self.ask(request).await?, Answer::Changed(true)))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|error| StoreError::Rows(format!("read did not finish: {error}")))?
    }

    async fn check_body(&self, cid: RecordCid, body: &Bytes) -> Result<(), StoreError> {
        bound("body", body.len(), MAX_BODY_BYTES)?;
        let fits = if body.len() <= INLINE_HASH_BYTES {
            RecordCid::of(body) == cid
        } else {
            let body = body.clone();
            self.blocking(move |_| Ok(RecordCid::of(&body) == cid)).await?
        };
        if fits {
            Ok(())
        } else {
            Err(StoreError::CorruptBody { cid })
        }
    }

    /// Stores a record. The answer means that it is on disk.
    ///
    /// Idempotent: a record that is held keeps its insertion time. One whose body was lost is healed.
    ///
    /// # Errors
    /// `TooLarge`, `Full`, `Busy`, `Closed`; `Corrupt` when the body does not hash to the CID.
    pub async fn put_record(&self, record: NewRecord) -> Result<PutRecord, StoreError> {
        self.check_body(record.cid, &record.body).await?;
        let inserted = self.ask_changed(Request::PutRecord(Box::new(record))).await?;
        Ok(PutRecord { inserted })
    }

    /// The canonical bytes of a record, verified; `None` if it is not held.
    ///
    /// # Errors
    /// `Corrupt` when the stored bytes are damaged or lost; pushing the record again heals it.
    pub async fn body(&self, cid: RecordCid) -> Result<Option<Bytes>, StoreError> {
        // Most bodies are in some memory already; a thread for those would cost more than the read.
        if !self.contains(cid) {
            return Ok(None);
        }
        if let Some(body) = self.shared.read_body_now(&cid) {
            return Ok(Some(body));
        }
        self.blocking(move |shared| {
            live_body(shared, cid, |shared| shared.index.read().records.contains(&cid))
        })
        .await
    }

    /// The row of a record; `None` if it is not held.
    ///
    /// # Errors
    /// `Corrupt` when the row does not parse, `Internal` when the row engine fails.
    pub async fn record(&self, cid: RecordCid) -> Result<Option<RecordRow>, StoreError> {
        if !self.contains(cid) {
            return Ok(None);
        }
        self.blocking(move |shared| {
            let value = shared.with_rows(|rows| rows.get(Family::Records, cid.digest()))?;
            value.map(|value| row_of(shared, cid, &value)).transpose()
        })
        .await
    }

    /// True if the record is held. In memory.
    #[must_use]
    pub fn contains(&self, cid: RecordCid) -> bool {
        self.shared.index.read().records.contains(&cid)
    }

    /// Deletes a record with its referrers and counters; false if it was not held. It stays in the published set.
    ///
    /// # Errors
    /// `Full`, `Closed`, `Internal`.
    pub async fn delete_record(&self, cid: RecordCid) -> Result<bool, StoreError> {
        self.ask_changed(Request::DropRecord(cid)).await
    }

    /// Stores a referrer of a held record. Idempotent: it keeps its first place in the list.
    ///
    /// # Errors
    /// `NotFound` when the record is not held; otherwise as [`Store::put_record`].
    pub async fn put_referrer(&self, referrer: NewReferrer) -> Result<(), StoreError> {
        bound("referrer type", referrer.kind.len(), MAX_REFERRER_KIND_BYTES)?;
        self.check_body(referrer.cid, &referrer.body).await?;
        self.ask(Request::PutReferrer(referrer)).await.map(|_| ())
    }

    /// The referrers of a record in push order; `None` if the record is not held.
    ///
    /// # Errors
    /// `Corrupt` or `Internal`.
    pub async fn referrers(&self, record: RecordCid) -> Result<Option<Vec<ReferrerRow>>, StoreError> {
        if !self.contains(record) {
            return Ok(None);
        }
        self.blocking(move |shared| {
            let rows = shared.list_referrers(&record)?.into_iter();
            Ok(Some(
                rows.map(|(_, row)| ReferrerRow {
                    cid: row.cid,
                    kind: row.kind,
                })
                .collect(),
            ))
        })
        .await
    }

    /// The canonical bytes of a referrer, verified; `None` if it is not held.
    ///
    /// # Errors
    /// As [`Store::body`].
    pub async fn referrer_body(&self, cid: RecordCid) -> Result<Option<Bytes>, StoreError> {
        self.blocking(move |shared| {
            live_body(shared, cid, |shared| {
                shared.index.read().owners.contains_key(&cid)
            })
        })
        .await
    }

    /// Deletes referrers of a record; their CIDs in push order.
    ///
    /// # Errors
    /// `NotFound` when the record is not held; `Full`, `Closed`, `Internal`.
    pub async fn delete_referrers(
        &self,
        record: RecordCid,
        which: ReferrerFilter,
    ) -> Result<Vec<RecordCid>, StoreError> {
        match self.ask(Request::DropReferrers(record, which)).await? {
            Answer::Cids(cids) => Ok(cids),
            Answer::Changed(_) => Ok(Vec::new()),
        }
    }

    /// Records whose name matches any of `names` and whose version fits: newest insertion first, then by CID.
    ///
    /// Empty while the search index is being built, and beyond its budget; [`Store::try_resolve`] tells.
    #[must_use]
    pub fn resolve(&self, names: &[NamePattern], version: Option<&VersionRule>) -> Vec<Named> {
        self.try_resolve(names, version, &crate::Budget::default())
            .inspect_err(|error| tracing::warn!(%error, "name was not resolved"))
            .unwrap_or_default()
    }

    /// Counts a use of a held record. Visible at once, durable within about a second; within a minute or two when a
    /// great many records are read at once.
    pub fn touch(&self, cid: RecordCid, what: Usage) {
        let now = (self.shared.clock)();
        let mut index = self.shared.index.write();
        if !index.records.contains(&cid) {
            return;
        }
        let row = index.usage.entry(cid).or_default();
        match what {
            Usage::Pull => row.pull_count = row.pull_count.saturating_add(1),
            Usage::Lookup => row.lookup_count = row.lookup_count.saturating_add(1),
        }
        row.last_used_ns = row.last_used_ns.max(now);
        let total = row.pull_count.saturating_add(row.lookup_count);
        index.records.set_usage(&cid, total);
        index.dirty_usage.insert(cid);
    }

    /// The counters of a record; zeros if it is not held or was never used.
    #[must_use]
    pub fn usage(&self, cid: RecordCid) -> UsageRow {
        self.shared
            .index
            .read()
            .usage
            .get(&cid)
            .copied()
            .unwrap_or_default()
    }

    /// Puts a held record in the published set; false if it was there.
    ///
    /// # Errors
    /// `NotFound` when the record is not held; `Full`, `Closed`, `Internal`.
    pub async fn mark_published(&self, cid: RecordCid) -> Result<bool, StoreError> {
        self.ask_changed(Request::Publish(cid)).await
    }

    /// Takes a CID out of the published set, held or not; false if it was not there.
    ///
    /// # Errors
    /// `Full`, `Closed`, `Internal`.
    pub async fn unmark_published(&self, cid: RecordCid) -> Result<bool, StoreError> {
        self.ask_changed(Request::Unpublish(cid)).await
    }

    /// When `cid` was published; `None` if it is not in the set.
    ///
    /// # Errors
    /// `Corrupt` or `Internal`.
    pub async fn published_row(&self, cid: RecordCid) -> Result<Option<PublishedRow>, StoreError> {
        self.blocking(move |shared| {
            let value = shared.with_rows(|rows| rows.get(Family::Published, cid.digest()))?;
            value.map(|value| rows::decode("published", &value)).transpose()
        })
        .await
    }

    /// The published set, in byte order of the digests.
    ///
    /// # Errors
    /// `Corrupt` or `Internal`.
    pub async fn published(&self) -> Result<Vec<(RecordCid, PublishedRow)>, StoreError> {
        self.blocking(|shared| {
            let mut found = Vec::new();
            let mut fault = Ok(());
            shared.with_rows(|rows| {
                rows.scan(Family::Published, &[], &mut |key, value| {
                    match (rows::cid_of(key), rows::decode("published", value)) {
                        (Some(cid), Ok(row)) => found.push((cid, row)),
                        (_, Err(error)) => fault = Err(error),
                        (None, _) => {}
                    }
                    ControlFlow::Continue(())
                })
            })?;
            fault.map(|()| found)
        })
        .await
    }

    /// Writes a job row, at most 64 KiB less the frame, under an id of at most [`MAX_JOB_ID_BYTES`].
    ///
    /// # Errors
    /// `TooLarge`, `Full`, `Closed`, `Internal`.
    pub async fn put_job(&self, id: &str, value: Bytes) -> Result<(), StoreError> {
        bound("job id", id.len(), MAX_JOB_ID_BYTES)?;
        bound("job", value.len(), MAX_ROW_BYTES)?;
        self.ask(Request::PutJob(id.to_owned(), value)).await.map(|_| ())
    }

    /// A job row.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn job(&self, id: &str) -> Result<Option<Bytes>, StoreError> {
        let id = id.to_owned();
        self.blocking(move |shared| shared.with_rows(|rows| rows.get(Family::Jobs, id.as_bytes())))
            .await
    }

    /// Deletes a job row; false if there was none.
    ///
    /// # Errors
    /// `Full`, `Closed`, `Internal`.
    pub async fn delete_job(&self, id: &str) -> Result<bool, StoreError> {
        self.ask_changed(Request::DropJob(id.to_owned())).await
    }

    /// Job rows whose id begins with `prefix`, in byte order of the ids.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn jobs(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(move |shared| {
            let mut found = Vec::new();
            shared.with_rows(|rows| {
                rows.scan(Family::Jobs, prefix.as_bytes(), &mut |key, value| {
                    if let Ok(id) = std::str::from_utf8(key) {
                        found.push((id.to_owned(), Bytes::copy_from_slice(value)));
                    }
                    ControlFlow::Continue(())
                })
            })?;
            Ok(found)
        })
        .await
    }

    /// Number of records. In memory.
    #[must_use]
    pub fn records_len(&self) -> u64 {
        self.shared.index.read().records.len() as u64
    }

    /// Calls `each` for every record, in byte order of the digests. Blocks: call it off the async workers.
    ///
    /// # Errors
    /// `Corrupt` when a row does not parse, `Internal` when the row engine fails.
    pub fn for_each_record(
        &self,
        mut each: impl FnMut(RecordCid, &RecordRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut fault = Ok(());
        self.shared.with_rows(|rows| {
            rows.scan(Family::Records, &[], &mut |key, value| {
                let Some(cid) = rows::cid_of(key) else {
                    return ControlFlow::Continue(());
                };
                match row_of(&self.shared, cid, value) {
                    Ok(row) => each(cid, &row),
                    Err(error) => {
                        fault = Err(error);
                        ControlFlow::Break(())
                    }
                }
            })
        })?;
        fault
    }

    /// Figures as of now. Takes two locks for moments.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let waiting = self.shared.overlay.waiting();
        let counters = &self.shared.counters;
        let rows = self.shared.with_rows(|rows| Ok(rows.stats())).unwrap_or_default();
        let index = self.shared.index.read();
        StoreStats {
            records: index.records.len() as u64,
            referrers: index.owners.len() as u64,
            journal_seq: waiting.applied_seq,
            checkpoint_seq: counters.checkpoint_seq.load(Ordering::Relaxed),
            journal_bytes: counters.journal_bytes.load(Ordering::Relaxed),
            groups: counters.groups.load(Ordering::Relaxed),
            entries: counters.entries.load(Ordering::Relaxed),
            overlay_bodies: waiting.bodies,
            overlay_bytes: waiting.bytes,
            quarantined: counters.quarantined.load(Ordering::Relaxed),
            rows_disk_bytes: rows.disk_bytes,
            rows_live_bytes: rows.live_bytes,
            manifests_behind: index.dirty_manifests.len() as u64,
        }
    }

    /// Whether writes are accepted and the background work succeeds.
    ///
    /// # Errors
    /// Why not.
    pub fn health(&self) -> Result<(), StoreError> {
        if let Some(error) = self.shared.poison.lock().clone() {
            return Err(error);
        }
        if self.shared.closed.load(Ordering::SeqCst) {
            return Err(StoreError::Closed);
        }
        match &self.shared.mover.lock().fault {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// True when [`Store::compact_rows`] would give much space back: the row store only grows by itself.
    #[must_use]
    pub fn rows_want_compaction(&self) -> bool {
        let stats = self.stats();
        crate::open::worth_compacting(stats.rows_disk_bytes, stats.rows_live_bytes)
    }

    /// Copies the live rows into a new row store, to give space back. Writes wait meanwhile.
    ///
    /// # Errors
    /// `Full`, `Io`, `Internal`, `Closed`.
    pub async fn compact_rows(&self) -> Result<bool, StoreError> {
        self.ask_changed(Request::CompactRows).await
    }

    /// Finishes what is waiting, writes manifests and checkpoint, stops the threads and lets go of the directory.
    /// Later calls on any handle end as `Closed`.
    ///
    /// # Errors
    /// `Closed` when it was closed before; otherwise what the last round of background work failed with.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.ask(Request::Close).await?;
        self.blocking(|shared| {
            let mut mover = shared.mover.lock();
            while !mover.finished {
                shared.mover_wake.notify_all();
                shared.mover_done.wait_for(&mut mover, Duration::from_millis(50));
            }
            let fault = mover.fault.clone();
            drop(mover);
            // Before the lock goes: the next process must find the row engine's own lock free.
            *shared.rows.write() = None;
            *shared.lock.lock() = None;
            fault.map_or(Ok(()), Err)
        })
        .await
    }
}

fn bound(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size <= limit {
        return Ok(());
    }
    Err(StoreError::TooLarge {
        what,
        size_bytes: size as u64,
        limit_bytes: limit as u64,
    })
}

fn row_of(shared: &Shared, cid: RecordCid, value: &[u8]) -> Result<RecordRow, StoreError> {
    let row: StoredRecord = rows::decode("record", value)?;
    let summary = shared.summary(&cid, &row)?;
    Ok(RecordRow {
        inserted_at_ns: row.inserted_at_ns,
        size_bytes: row.size_bytes,
        summary,
    })
}

/// Reads a body that `is_live` says should be there.
fn live_body(
    shared: &Shared,
    cid: RecordCid,
    is_live: impl Fn(&Shared) -> bool,
) -> Result<Option<Bytes>, StoreError> {
    // A second look settles the race with a mover that has just carried the body over.
    for _ in 0..2 {
        if !is_live(shared) {
            return Ok(None);
        }
        if let Some(body) = shared.read_body(&cid)? {
            return Ok(Some(body));
        }
    }
    if is_live(shared) {
        Err(StoreError::MissingBody { cid })
    } else {
        Ok(None)
    }
}
