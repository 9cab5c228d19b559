//! fjall 3 as a row engine: the exit from sled, kept working by the shared suite.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{EachRow, Family, Op, Rows, RowsStats, Ticket, check_size};
use crate::StoreError;

pub(super) struct FjallRows {
    database: Database,
    spaces: Vec<Keyspace>,
    written: AtomicU64,
}

fn failed(error: &fjall::Error) -> StoreError {
    StoreError::Rows(error.to_string())
}

impl FjallRows {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, StoreError> {
        let database = Database::builder(dir)
            .cache_size(cache_bytes)
            .open()
            .map_err(|error| failed(&error))?;
        let mut spaces = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            let space = database.keyspace(family.name(), KeyspaceCreateOptions::default);
            spaces.push(space.map_err(|error| failed(&error))?);
        }
        Ok(Self {
            database,
            spaces,
            written: AtomicU64::new(0),
        })
    }

    fn space(&self, family: Family) -> Result<&Keyspace, StoreError> {
        self.spaces
            .get(family as usize)
            .ok_or_else(|| StoreError::Rows(format!("no keyspace for {}", family.name())))
    }
}

impl Rows for FjallRows {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.space(family)?.get(key).map_err(|error| failed(&error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, prefix: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        for row in self.space(family)?.prefix(prefix) {
            let (key, value) = row.into_inner().map_err(|error| failed(&error))?;
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
                Op::Put(family, key, value) => self.space(*family)?.insert(key.as_slice(), value.as_slice()),
                Op::Remove(family, key) => self.space(*family)?.remove(key.as_slice()),
            }
            .map_err(|error| failed(&error))?;
        }
        Ok(Ticket(
            self.written.fetch_add(1, Ordering::SeqCst).saturating_add(1),
        ))
    }

    fn durable(&self, _: Ticket) -> Result<(), StoreError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|error| failed(&error))
    }

    /// It gives space back by itself, so all that is on disk counts as live.
    fn stats(&self) -> RowsStats {
        let disk_bytes = self.database.disk_space().unwrap_or(0);
        RowsStats {
            disk_bytes,
            live_bytes: disk_bytes,
        }
    }
}
