//! What all threads of the store share, and how one change is applied to it.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::config::{MAX_ROW_BYTES, SCAN_REPORT, StoreConfig};
use crate::disk::DiskLock;
use crate::fill::ReferrerFact;
use crate::index::published::Published;
use crate::index::{RecordIndex, Scan};
use crate::journal::entry::Change;
use crate::layout::Layout;
use crate::overlay::{Overlay, Place};
use crate::rows::{self, Family, Op, Rows, StoredRecord, StoredReferrer};
use crate::types::UsageRow;
use crate::{Clock, RecordCid, StoreError, Summary};

/// The longest name of a scanner.
const MAX_SCANNER_BYTES: usize = 256;

/// Derived state in memory.
pub(crate) struct Index {
    pub(crate) records: RecordIndex,
    pub(crate) published: Published,
    /// How many records each referrer body belongs to.
    pub(crate) owners: HashMap<RecordCid, u32>,
    pub(crate) usage: HashMap<RecordCid, UsageRow>,
    /// Records whose counters changed since they were last written.
    pub(crate) dirty_usage: HashSet<RecordCid>,
    /// Those of an earlier second whose turn to be written has not come yet.
    pub(crate) late_usage: Vec<RecordCid>,
    /// Records whose manifests, or those of their referrers, changed.
    pub(crate) dirty_manifests: HashSet<RecordCid>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            records: RecordIndex::waiting(),
            published: Published::default(),
            owners: HashMap::new(),
            usage: HashMap::new(),
            dirty_usage: HashSet::new(),
            late_usage: Vec::new(),
            dirty_manifests: HashSet::new(),
        }
    }
}

impl Index {
    /// Counters to be written next, at most `most` of them: the oldest changes come first, so none waits for ever.
    pub(crate) fn take_usage(&mut self, most: usize) -> Vec<(RecordCid, UsageRow)> {
        if self.late_usage.is_empty() {
            self.late_usage.extend(self.dirty_usage.drain());
        }
        let kept = self.late_usage.len().saturating_sub(most);
        let due = self.late_usage.split_off(kept);
        due.into_iter()
            .filter_map(|cid| Some((cid, *self.usage.get(&cid)?)))
            .collect()
    }

    /// How many counters wait to be written.
    pub(crate) fn waiting_usage(&self) -> usize {
        self.dirty_usage.len().saturating_add(self.late_usage.len())
    }

    /// True if the body of `cid` belongs to something.
    pub(crate) fn is_live(&self, cid: &RecordCid) -> bool {
        self.records.contains(cid) || self.owners.contains_key(cid)
    }
}

/// Counters for `stats`.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) groups: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) checkpoint_seq: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
}

/// What wakes the mover, and what it answers.
#[derive(Default)]
pub(crate) struct MoverState {
    /// Move everything now, and say so in `finished`.
    pub(crate) finish: bool,
    pub(crate) finished: bool,
    /// Why the last round failed.
    pub(crate) fault: Option<StoreError>,
}

/// Shared by the handle, the committer and the mover.
pub(crate) struct Shared {
    pub(crate) config: StoreConfig,
    pub(crate) clock: Clock,
    pub(crate) journal_dir: PathBuf,
    pub(crate) rows_dir: PathBuf,
    pub(crate) layout: Layout,
    /// Replaced as a whole when the rows are copied into a new folder; `None` only while that happens.
    pub(crate) rows: RwLock<Option<Arc<dyn Rows>>>,
    pub(crate) generation: AtomicU64,
    pub(crate) index: RwLock<Index>,
    pub(crate) overlay: Overlay,
    pub(crate) counters: Counters,
    pub(crate) mover: Mutex<MoverState>,
    pub(crate) mover_wake: Condvar,
    pub(crate) mover_done: Condvar,
    /// Number and last sequence number of log files that are closed and not condensed yet.
    pub(crate) closed_logs: Mutex<Vec<(u64, u64)>>,
    /// Why no write is accepted any more.
    pub(crate) poison: Mutex<Option<StoreError>>,
    pub(crate) closed: AtomicBool,
    pub(crate) lock: Mutex<Option<Box<dyn DiskLock>>>,
    /// Held by whoever fills the search index.
    pub(crate) filling: Mutex<()>,
}

impl Shared {
    /// Stops all writes for good; the first reason is kept.
    pub(crate) fn poison(&self, error: StoreError) {
        tracing::error!(%error, "store accepts no more writes");
        self.poison.lock().get_or_insert(error);
    }

    /// Runs `with` on the row engine. A copy into a new folder waits for it.
    pub(crate) fn with_rows<T>(
        &self,
        with: impl FnOnce(&dyn Rows) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &*self.rows.read() {
            Some(rows) => with(&**rows),
            None => Err(StoreError::Closed),
        }
    }

    /// The summary of a record, read from its body when it is too large for a row.
    pub(crate) fn summary(&self, cid: &RecordCid, row: &StoredRecord) -> Result<Summary, StoreError> {
        if let Some(summary) = &row.summary {
            return Ok(Summary::clone(summary));
        }
        let body = self
            .read_body(cid)?
            .ok_or(StoreError::MissingBody { cid: *cid })?;
        (self.config.summarise)(&body).ok_or_else(|| StoreError::CorruptRow {
            what: format!("body of {cid}"),
            why: "it does not read as a record".to_owned(),
        })
    }

    /// The verified body under `cid`, wherever it is; `None` if there is none.
    pub(crate) fn read_body(&self, cid: &RecordCid) -> Result<Option<Bytes>, StoreError> {
        use crate::layout::Found;
        use crate::overlay::Pending;
        use std::sync::atomic::Ordering;

        match self.overlay.get(cid) {
            Some(Pending::Removed) => return Ok(None),
            // It was hashed when it came in, and has not left memory since.
            Some(Pending::Body { held: Some(body), .. }) => return Ok(Some(body)),
            Some(Pending::Body { place, held: None }) => {
                let body = place
                    .read()
                    .map_err(|error| StoreError::io("read", &self.journal_dir, &error))?;
                if RecordCid::of(&body) == *cid {
                    return Ok(Some(body));
                }
                return Err(StoreError::CorruptBody { cid: *cid });
            }
            None => {}
        }
        match self.layout.read(cid)? {
            Found::Whole(body) => Ok(Some(body)),
            Found::Missing => Ok(None),
            Found::Damaged => {
                self.counters.quarantined.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%cid, "stored body is damaged, moved to quarantine");
                Err(StoreError::CorruptBody { cid: *cid })
            }
        }
    }

    /// The verified body under `cid`, if it is in memory, ours or the system's; `None` says nothing.
    pub(crate) fn read_body_now(&self, cid: &RecordCid) -> Option<Bytes> {
        use crate::overlay::Pending;
        match self.overlay.get(cid) {
            Some(Pending::Body { held, .. }) => held,
            Some(Pending::Removed) => None,
            None => self.layout.read_cached(cid),
        }
    }

    /// True if a body is in the overlay or the layout.
    pub(crate) fn has_body(&self, cid: &RecordCid) -> Result<bool, StoreError> {
        use crate::overlay::Pending;
        match self.overlay.get(cid) {
            Some(Pending::Body { .. }) => Ok(true),
            Some(Pending::Removed) => Ok(false),
            None => self.layout.has(cid),
        }
    }

    /// Referrers of a record with their positions, in push order.
    pub(crate) fn list_referrers(
        &self,
        record: &RecordCid,
    ) -> Result<Vec<(u64, StoredReferrer)>, StoreError> {
        let mut found = Vec::new();
        let mut fault = Ok(());
        self.with_rows(|rows| {
            rows.scan(Family::Referrers, record.digest(), &mut |key, value| {
                match (rows::number_of(key), rows::decode("referrer", value)) {
                    (Some(position), Ok(row)) => found.push((position, row)),
                    (_, Err(error)) => fault = Err(error),
                    (None, _) => {}
                }
                ControlFlow::Continue(())
            })
        })?;
        fault.map(|()| found)
    }

    /// Applies one change to rows, overlay and index. `place` is where the journal holds the body. With `moved`, the
    /// layout has this change already: bodies are there, and removed ones are gone.
    ///
    /// Applying a run of changes again, on rows that already hold all of them, ends in the same state: each step
    /// is told by what the rows hold, not by what they should hold.
    pub(crate) fn apply(
        &self,
        seq: u64,
        change: Change,
        place: Option<Place>,
        moved: bool,
    ) -> Result<(), StoreError> {
        let place = place.filter(|_| !moved);
        match change {
            Change::Record { cid, row, body } => {
                let summary = self.apply_record(&cid, &row, body.as_deref())?;
                if let (Some(place), Some(body)) = (place, body) {
                    self.overlay.put(seq, cid, place, body);
                }
                let mut index = self.index.write();
                index
                    .records
                    .insert(cid, row.inserted_at_ns, row.size_bytes, &summary);
                index.dirty_manifests.insert(cid);
            }
            Change::DropRecord {
                cid,
                referrers: known,
            } => {
                let referrers = self.list_referrers(&cid)?;
                let scans = self.scan_keys(&cid)?;
                let description = self.description(&cid)?;
                let mut ops = vec![Op::Remove(Family::Records, cid.digest().to_vec())];
                ops.push(Op::Remove(Family::Usage, cid.digest().to_vec()));
                ops.extend(scans.into_iter().map(|key| Op::Remove(Family::Scans, key)));
                let mut gone = Vec::new();
                {
                    let mut index = self.index.write();
                    index.records.remove(&cid, description.as_deref());
                    index.usage.remove(&cid);
                    index.dirty_usage.remove(&cid);
                    index.dirty_manifests.insert(cid);
                    gone.extend((!index.is_live(&cid)).then_some(cid));
                    for (position, row) in &referrers {
                        ops.push(Op::Remove(Family::Referrers, rows::referrer_key(&cid, *position)));
                        ops.push(Op::Remove(Family::Members, rows::member_key(&cid, &row.cid)));
                        gone.extend(release(&mut index, &row.cid));
                    }
                    gone.extend(known.into_iter().filter(|referrer| !index.is_live(referrer)));
                }
                self.with_rows(|rows| rows.write(&ops))?;
                self.remove_bodies(seq, gone, moved);
            }
            Change::Referrer {
                record,
                position,
                row,
                body,
            } => {
                let member = rows::member_key(&record, &row.cid);
                let held = self.with_rows(|rows| rows.get(Family::Members, &member))?;
                if held.is_none() {
                    let key = rows::referrer_key(&record, position);
                    let value = rows::encode("referrer", &row)?;
                    self.with_rows(|rows| {
                        rows.write(&[
                            Op::Put(Family::Referrers, key, value),
                            Op::Put(Family::Members, member, position.to_be_bytes().to_vec()),
                        ])
                    })?;
                }
                let scan = if row.kind == SCAN_REPORT {
                    self.note_scan(&record, &row.cid, body.as_deref())?
                } else {
                    None
                };
                if let (Some(place), Some(body)) = (place, body) {
                    self.overlay.put(seq, row.cid, place, body);
                }
                let mut index = self.index.write();
                if let Some(scan) = scan {
                    index.records.set_scan(&record, scan);
                }
                if held.is_none() {
                    let count = index.owners.entry(row.cid).or_insert(0);
                    *count = count.saturating_add(1);
                }
                index.dirty_manifests.insert(record);
            }
            Change::DropReferrers { record, cids } => {
                let mut gone = Vec::new();
                for cid in cids {
                    let member = rows::member_key(&record, &cid);
                    let Some(position) = self.with_rows(|rows| rows.get(Family::Members, &member))? else {
                        // The rows are ahead of this replay; the body may still be there.
                        gone.extend((!self.index.read().is_live(&cid)).then_some(cid));
                        continue;
                    };
                    let mut ops = vec![Op::Remove(Family::Members, member)];
                    if let Some(position) = rows::number_of(&position) {
                        ops.push(Op::Remove(
                            Family::Referrers,
                            rows::referrer_key(&record, position),
                        ));
                    }
                    self.with_rows(|rows| rows.write(&ops))?;
                    let mut index = self.index.write();
                    gone.extend(release(&mut index, &cid));
                    index.dirty_manifests.insert(record);
                }
                self.remove_bodies(seq, gone, moved);
            }
            Change::Publish { cid, at_ns, labels } => {
                let value = rows::encode_published(at_ns, &labels)?;
                self.put_row(Family::Published, cid.digest(), value)?;
                // Before the index is begun its filling will find the row.
                if !self.index.read().records.is_waiting() {
                    let labels = crate::fill::labels_of(self, &cid, &labels);
                    self.index.write().published.insert(cid, &labels);
                }
            }
            Change::Unpublish { cid } => {
                self.remove_row(Family::Published, cid.digest())?;
                self.index.write().published.remove(&cid);
            }
            Change::Usage(counters) => {
                let mut ops = Vec::with_capacity(counters.len());
                let mut index = self.index.write();
                for (cid, row) in counters {
                    // The record may have gone while its counters were on their way.
                    if !index.records.contains(&cid) {
                        continue;
                    }
                    ops.push(Op::Put(
                        Family::Usage,
                        cid.digest().to_vec(),
                        rows::encode("usage", &row)?,
                    ));
                    let held = index.usage.entry(cid).or_default();
                    held.pull_count = held.pull_count.max(row.pull_count);
                    held.lookup_count = held.lookup_count.max(row.lookup_count);
                    held.last_used_ns = held.last_used_ns.max(row.last_used_ns);
                    let total = held.pull_count.saturating_add(held.lookup_count);
                    index.records.set_usage(&cid, total);
                }
                drop(index);
                self.with_rows(|rows| rows.write(&ops))?;
            }
            Change::Job { id, value } => self.put_row(Family::Jobs, id.as_bytes(), value.to_vec())?,
            Change::DropJob { id } => self.remove_row(Family::Jobs, id.as_bytes())?,
        }
        Ok(())
    }

    fn apply_record(
        &self,
        cid: &RecordCid,
        row: &StoredRecord,
        body: Option<&[u8]>,
    ) -> Result<Summary, StoreError> {
        let mut value = rows::encode("record", row)?;
        if value.len() > MAX_ROW_BYTES {
            value = rows::encode(
                "record",
                &StoredRecord {
                    summary: None,
                    ..row.clone()
                },
            )?;
        }
        self.put_row(Family::Records, cid.digest(), value)?;
        Ok(match (&row.summary, body) {
            (Some(summary), _) => Summary::clone(summary),
            (None, Some(body)) => (self.config.summarise)(body).unwrap_or_default(),
            // A damaged body must not stop the start: the record then goes without a name until it is healed.
            (None, None) => self.summary(cid, row).unwrap_or_default(),
        })
    }

    /// The description of a record, as the index was told it; `None` when it is not held or not known any more.
    pub(crate) fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError> {
        let Some(value) = self.with_rows(|rows| rows.get(Family::Records, cid.digest()))? else {
            return Ok(None);
        };
        let row: StoredRecord = rows::decode("record", &value)?;
        // With a body that does not read, whoever asks must do without.
        Ok(self.summary(cid, &row).ok().map(|summary| summary.description))
    }

    fn scan_keys(&self, record: &RecordCid) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        self.with_rows(|rows| {
            rows.scan(Family::Scans, record.digest(), &mut |key, _| {
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            })
        })?;
        Ok(keys)
    }

    /// Writes what a scan report says into its row. A row outlives its report: deleting a referrer leaves what was
    /// found (grpc-api §4.7), until the record goes or the rows are rebuilt.
    fn note_scan(
        &self,
        record: &RecordCid,
        referrer: &RecordCid,
        body: Option<&[u8]>,
    ) -> Result<Option<Scan>, StoreError> {
        let read;
        let body = match body {
            Some(body) => body,
            // From a condensed journal; a body that is damaged tells nothing.
            None => match self.read_body(referrer).ok().flatten() {
                Some(body) => {
                    read = body;
                    &read
                }
                None => return Ok(None),
            },
        };
        let Some(ReferrerFact::Scan(scan)) = (self.config.referrer_facts)(body) else {
            return Ok(None);
        };
        let value = rows::encode("scan", &scan)?;
        if scan.scanner.len() > MAX_SCANNER_BYTES || value.len() > MAX_ROW_BYTES {
            return Ok(None);
        }
        self.put_row(Family::Scans, &rows::scan_key(record, &scan.scanner), value)?;
        Ok(Some(scan))
    }

    fn put_row(&self, family: Family, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
        self.with_rows(|rows| rows.write(&[Op::Put(family, key.to_vec(), value)]))?;
        Ok(())
    }

    fn remove_row(&self, family: Family, key: &[u8]) -> Result<(), StoreError> {
        self.with_rows(|rows| rows.write(&[Op::Remove(family, key.to_vec())]))?;
        Ok(())
    }

    fn remove_bodies(&self, seq: u64, gone: Vec<RecordCid>, moved: bool) {
        if moved {
            return;
        }
        for cid in gone {
            self.overlay.remove(seq, cid);
        }
    }
}

/// Takes one owner from a referrer body; the CID if nothing else needs the body.
fn release(index: &mut Index, cid: &RecordCid) -> Option<RecordCid> {
    if let Some(count) = index.owners.get_mut(cid) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            index.owners.remove(cid);
        }
    }
    (!index.is_live(cid)).then_some(*cid)
}
