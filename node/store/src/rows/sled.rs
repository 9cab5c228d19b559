//! sled 0.34 as a row engine, under the rules that make it safe.
//!
//! - `flush` does not reach the device: after it we call `fdatasync` on our own handle of the `db` file.
//! - Blob files are never synced by sled, so none may come to be: 8 MiB segments, values of at most 64 KiB.
//! - `flush_async` dead-locks with several callers: one flush at a time, under our own lock, and a ticket is
//!   answered by the first round that began after it.
//! - `open` may panic on a damaged folder: the caller catches it (see `open`).
//! - No compression, no transactions, one tree per family, plain inserts.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{EachRow, Family, Op, Rows, RowsStats, Ticket, check_size};
use crate::StoreError;

const SEGMENT_BYTES: usize = 8 << 20;

pub(super) struct SledRows {
    db: sled::Db,
    trees: [sled::Tree; Family::ALL.len()],
    /// Our own handle of the log file, for the sync that sled does not do.
    log: File,
    written: AtomicU64,
    flushed: Mutex<u64>,
    live_bytes: AtomicU64,
}

fn failed(error: &sled::Error) -> StoreError {
    StoreError::Rows(error.to_string())
}

impl SledRows {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let db = sled::Config::new()
            .path(dir)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .open()
            .map_err(|error| failed(&error))?;
        let mut opened = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            opened.push(db.open_tree(family.name()).map_err(|error| failed(&error))?);
        }
        let trees = opened
            .try_into()
            .map_err(|_| StoreError::Rows("a tree is missing".to_owned()))?;
        let path = dir.join("db");
        let log = File::open(&path).map_err(|error| StoreError::io("open", &path, &error))?;
        let rows = Self {
            db,
            trees,
            log,
            written: AtomicU64::new(1),
            flushed: Mutex::new(0),
            live_bytes: AtomicU64::new(0),
        };
        rows.durable(Ticket(1))?;
        // The names made at creation: once is enough, the log file keeps its name for life.
        for folder in [Some(dir), dir.parent()].into_iter().flatten() {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|error| StoreError::io("flush", folder, &error))?;
        }
        let mut live = 0;
        for family in Family::ALL {
            rows.scan(family, &[], &mut |key, value| {
                live += (key.len() + value.len()) as u64;
                ControlFlow::Continue(())
            })?;
        }
        rows.live_bytes.store(live, Ordering::Relaxed);
        Ok(rows)
    }

    fn tree(&self, family: Family) -> Result<&sled::Tree, StoreError> {
        self.trees
            .get(family as usize)
            .ok_or_else(|| StoreError::Rows(format!("no tree for {}", family.name())))
    }
}

impl Rows for SledRows {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.tree(family)?.get(key).map_err(|error| failed(&error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, prefix: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        for row in self.tree(family)?.scan_prefix(prefix) {
            let (key, value) = row.map_err(|error| failed(&error))?;
            if each(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, ops: &[Op]) -> Result<Ticket, StoreError> {
        check_size(ops)?;
        for op in ops {
            match op {
                Op::Put(family, key, value) => {
                    let old = self
                        .tree(*family)?
                        .insert(key, value.as_slice())
                        .map_err(|error| failed(&error))?;
                    let before = old.map_or(0, |old| old.len() + key.len());
                    self.live_bytes
                        .fetch_add((key.len() + value.len()) as u64, Ordering::Relaxed);
                    self.live_bytes.fetch_sub(before as u64, Ordering::Relaxed);
                }
                Op::Remove(family, key) => {
                    let old = self.tree(*family)?.remove(key).map_err(|error| failed(&error))?;
                    let before = old.map_or(0, |old| old.len() + key.len());
                    self.live_bytes.fetch_sub(before as u64, Ordering::Relaxed);
                }
            }
        }
        Ok(Ticket(
            self.written.fetch_add(1, Ordering::SeqCst).saturating_add(1),
        ))
    }

    fn durable(&self, ticket: Ticket) -> Result<(), StoreError> {
        let mut flushed = self.flushed.lock();
        if *flushed >= ticket.0 {
            return Ok(());
        }
        let begun = self.written.load(Ordering::SeqCst);
        self.db.flush().map_err(|error| failed(&error))?;
        self.log
            .sync_data()
            .map_err(|error| StoreError::Rows(format!("flush of the log failed: {error}")))?;
        *flushed = begun;
        Ok(())
    }

    fn stats(&self) -> RowsStats {
        let disk_bytes = self.log.metadata().map_or(0, |meta| meta.len());
        RowsStats {
            disk_bytes,
            live_bytes: self.live_bytes.load(Ordering::Relaxed),
        }
    }
}
