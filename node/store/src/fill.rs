//! Fills the search index from the rows, at a start and on demand, while the store goes on working.
//!
//! One thread reads the rows, in 256 parts by the first byte of the digest, and takes their texts apart; another brings them
//! to the index, which is locked for a few records at a time. What was
//! pushed, deleted, published or unpublished meanwhile went to the index by itself; here a row counts only if it is
//! still there under the lock.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};

use dirnode_record::{Label, labels::list_labels};

use crate::index::{Prepared, Scan, Severity};
use crate::rows::{self, Family, StoredPublished, StoredRecord};
use crate::state::Shared;
use crate::{RecordCid, StoreError};

/// Records indexed under one lock; each takes about 10 us.
const BATCH: usize = 32;
/// Records that go from the reading thread to the other at once, and how often that may be before it waits.
const HANDED: usize = 256;
const QUEUE: usize = 8;
/// Up to so many records the index is filled before a start is done; it takes moments.
pub(crate) const INLINE_RECORDS: usize = 20_000;

/// Starts the index anew: numbers follow insertion times, counters and scans are known. Then [`fill`] is to be called.
pub(crate) fn begin(shared: &Shared) -> Result<(), StoreError> {
    let mut scans: Vec<(RecordCid, Scan)> = Vec::new();
    let mut fault = Ok(());
    shared.with_rows(|rows| {
        rows.scan(Family::Scans, &[], &mut |key, value| {
            match (rows::cid_of(key), rows::decode::<Scan>("scan", value)) {
                (Some(cid), Ok(scan)) => scans.push((cid, scan)),
                (_, Err(error)) => fault = Err(error),
                (None, _) => {}
            }
            ControlFlow::Continue(())
        })
    })?;
    fault?;
    let mut index = shared.index.write();
    let index = &mut *index;
    index.records.begin();
    index.published = Default::default();
    for (cid, row) in &index.usage {
        index
            .records
            .set_usage(cid, row.pull_count.saturating_add(row.lookup_count));
    }
    for (cid, scan) in scans {
        index.records.set_scan(&cid, scan);
    }
    Ok(())
}

/// Brings all rows to the index. Ends early when the store is closed.
pub(crate) fn fill(shared: &Shared) -> Result<(), StoreError> {
    fill_records(shared)?;
    for first in 0..=u8::MAX {
        open(shared)?;
        fill_published(shared, first)?;
    }
    while shared.index.write().records.finish_part() {}
    Ok(())
}

fn open(shared: &Shared) -> Result<(), StoreError> {
    if shared.closed.load(Ordering::SeqCst) {
        return Err(StoreError::Closed);
    }
    Ok(())
}

/// Reads the rows of one part of a family.
fn part<T>(
    shared: &Shared,
    family: Family,
    first: u8,
    read: impl Fn(&[u8]) -> Result<T, StoreError>,
) -> Result<Vec<(RecordCid, T)>, StoreError> {
    let mut found = Vec::new();
    let mut fault = Ok(());
    shared.with_rows(|rows| {
        rows.scan(family, &[first], &mut |key, value| {
            match (rows::cid_of(key), read(value)) {
                (Some(cid), Ok(row)) => found.push((cid, row)),
                (_, Err(error)) => fault = Err(error),
                (None, _) => {}
            }
            ControlFlow::Continue(())
        })
    })?;
    fault.map(|()| found)
}

type Batch = Vec<(RecordCid, Prepared)>;

fn fill_records(shared: &Shared) -> Result<(), StoreError> {
    let (batches, arriving) = sync_channel::<Result<Batch, StoreError>>(QUEUE);
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("store-index-rows".to_owned())
            .spawn_scoped(scope, move || {
                if let Err(error) = read_records(shared, &batches) {
                    // The other side has ended for a reason of its own when this does not arrive.
                    let _ = batches.send(Err(error));
                }
            })
            .map_err(|error| StoreError::io("start thread in", &shared.config.dir, &error))?;
        // Gone when this ends early, which ends the other thread too.
        let arriving = arriving;
        while let Ok(batch) = arriving.recv() {
            for part in batch?.chunks(BATCH) {
                let mut index = shared.index.write();
                for (cid, record) in part {
                    index.records.fill(cid, record);
                }
            }
        }
        Ok(())
    })
}

/// Reads all records and hands them over, taken apart. Ends early when nobody takes them.
fn read_records(shared: &Shared, batches: &SyncSender<Result<Batch, StoreError>>) -> Result<(), StoreError> {
    for first in 0..=u8::MAX {
        open(shared)?;
        // Nothing is handed over while the rows are read: that might wait for a lock whose holder waits for the rows.
        let mut rows = part::<StoredRecord>(shared, Family::Records, first, |value| {
            rows::decode("record", value)
        })?
        .into_iter()
        .peekable();
        while rows.peek().is_some() {
            let batch = rows
                .by_ref()
                .take(HANDED)
                .map(|(cid, mut row)| {
                    // A damaged body must not stop the start: the record then goes without texts until it is healed.
                    let summary = match row.summary.take() {
                        Some(summary) => *summary,
                        None => shared.summary(&cid, &row).unwrap_or_default(),
                    };
                    (cid, Prepared::new(summary))
                })
                .collect();
            if batches.send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn fill_published(shared: &Shared, first: u8) -> Result<(), StoreError> {
    let rows = part::<StoredPublished>(shared, Family::Published, first, rows::decode_published)?;
    for batch in rows.chunks(BATCH) {
        let labelled: Vec<(RecordCid, Vec<Label>)> = batch
            .iter()
            .map(|(cid, row)| (*cid, labels_of(shared, cid, &row.labels)))
            .collect();
        let mut index = shared.index.write();
        for (cid, labels) in &labelled {
            let still = shared.with_rows(|rows| rows.get(Family::Published, cid.digest()))?;
            if still.is_some() {
                index.published.insert(*cid, labels);
            }
        }
    }
    Ok(())
}

/// The labels to list for a published record: those of its row, or of the record where the row has none.
pub(crate) fn labels_of(shared: &Shared, cid: &RecordCid, kept: &[Label]) -> Vec<Label> {
    if !kept.is_empty() {
        return kept.to_vec();
    }
    listed_labels(shared, cid).unwrap_or_default()
}

/// The labels List shows for a held record.
pub(crate) fn listed_labels(shared: &Shared, cid: &RecordCid) -> Option<Vec<Label>> {
    let value = shared
        .with_rows(|rows| rows.get(Family::Records, cid.digest()))
        .ok()??;
    let row: StoredRecord = rows::decode("record", &value).ok()?;
    Some(list_labels(&shared.summary(cid, &row).ok()?.labels()))
}

/// What a referrer's body tells the index about its record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReferrerFact {
    /// A scanner's verdict.
    Scan(Scan),
}

impl ReferrerFact {
    /// A scan report.
    #[must_use]
    pub fn scan(scanner: impl Into<String>, severity: Option<Severity>, safe: bool) -> Self {
        Self::Scan(Scan {
            scanner: scanner.into(),
            severity,
            safe,
        })
    }
}
