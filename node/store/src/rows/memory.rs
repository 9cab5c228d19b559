//! Rows in a sorted map: for tests, and for the crash tests, where every start has to rebuild.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{EachRow, Family, Op, Rows, RowsStats, Ticket, check_size};
use crate::StoreError;

#[derive(Default)]
pub(super) struct MemoryRows {
    rows: RwLock<BTreeMap<(Family, Vec<u8>), Bytes>>,
}

impl Rows for MemoryRows {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.read().get(&(family, key.to_vec())).cloned())
    }

    fn scan(&self, family: Family, prefix: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError> {
        // One row at a time, so that `each` may write.
        let mut from = Bound::Included((family, prefix.to_vec()));
        loop {
            let next = {
                let rows = self.rows.read();
                rows.range((from, Bound::Unbounded))
                    .next()
                    .map(|(key, value)| (key.clone(), value.clone()))
            };
            match next {
                Some((key, value)) if key.0 == family && key.1.starts_with(prefix) => {
                    if each(&key.1, &value).is_break() {
                        return Ok(());
                    }
                    from = Bound::Excluded(key);
                }
                _ => return Ok(()),
            }
        }
    }

    fn write(&self, ops: &[Op]) -> Result<Ticket, StoreError> {
        check_size(ops)?;
        let mut rows = self.rows.write();
        for op in ops {
            match op {
                Op::Put(family, key, value) => {
                    rows.insert((*family, key.clone()), Bytes::copy_from_slice(value));
                }
                Op::Remove(family, key) => {
                    rows.remove(&(*family, key.clone()));
                }
            }
        }
        Ok(Ticket::default())
    }

    fn durable(&self, _: Ticket) -> Result<(), StoreError> {
        Ok(())
    }

    fn stats(&self) -> RowsStats {
        let live = self
            .rows
            .read()
            .iter()
            .map(|(key, value)| (key.1.len() + value.len()) as u64)
            .sum();
        RowsStats {
            disk_bytes: 0,
            live_bytes: live,
        }
    }
}
