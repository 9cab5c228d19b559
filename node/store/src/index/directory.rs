//! The records held, by CID and by a dense number that grows with the time of insertion.
//!
//! Also the store's answer to "is this record here", from the first moment of a start.

use hashbrown::HashTable;
use roaring::RoaringBitmap;

use super::hash::hash;
use super::posting::{ID_LIMIT, insert, set_bytes};
use super::room;
use crate::RecordCid;

/// The records.
#[derive(Default)]
pub(crate) struct Directory {
    cids: Vec<RecordCid>,
    inserted_at_ns: Vec<i64>,
    sizes_bytes: Vec<u32>,
    table: HashTable<u32>,
    live: RoaringBitmap,
    newest_ns: Option<i64>,
    /// An older record came after a newer one: numbers do not follow time until the next sort.
    disordered: bool,
}

impl Directory {
    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn contains(&self, cid: &RecordCid) -> bool {
        self.id(cid).is_some()
    }

    /// The record's number.
    pub(crate) fn id(&self, cid: &RecordCid) -> Option<u32> {
        self.table
            .find(hash(cid), |id| self.cids.get(*id as usize) == Some(cid))
            .copied()
    }

    /// The record with a number, if it is still held.
    pub(crate) fn cid(&self, id: u32) -> Option<RecordCid> {
        let cid = self.cids.get(id as usize)?;
        self.live.contains(id).then_some(*cid)
    }

    /// Insertion time and body size of a record.
    pub(crate) fn get(&self, cid: &RecordCid) -> Option<(i64, u64)> {
        let at = self.id(cid)? as usize;
        Some((
            self.inserted_at_ns.get(at).copied()?,
            u64::from(self.sizes_bytes.get(at).copied()?),
        ))
    }

    /// The latest insertion time of what is held.
    pub(crate) fn newest_ns(&self) -> i64 {
        self.newest_ns.unwrap_or(i64::MIN)
    }

    /// All records' numbers.
    pub(crate) fn live(&self) -> &RoaringBitmap {
        &self.live
    }

    /// All records, in no order.
    pub(crate) fn cids(&self) -> impl Iterator<Item = RecordCid> + '_ {
        self.live
            .iter()
            .filter_map(|id| self.cids.get(id as usize).copied())
    }

    /// Adds a record, or notes its new size. It keeps its number if its time is the same.
    pub(crate) fn insert(&mut self, cid: RecordCid, inserted_at_ns: i64, size_bytes: u64) -> Option<u32> {
        let size = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        if let Some(id) = self.id(&cid) {
            if self.inserted_at_ns.get(id as usize) == Some(&inserted_at_ns) {
                if let Some(place) = self.sizes_bytes.get_mut(id as usize) {
                    *place = size;
                }
                return Some(id);
            }
            self.remove(&cid);
        }
        let id = u32::try_from(self.cids.len()).ok().filter(|id| *id < ID_LIMIT)?;
        room::push(&mut self.cids, cid);
        room::push(&mut self.inserted_at_ns, inserted_at_ns);
        room::push(&mut self.sizes_bytes, size);
        let Self { cids, table, .. } = self;
        // Every number in the table has a CID.
        table.insert_unique(hash(&cid), id, |id| cids.get(*id as usize).map_or(0, hash));
        insert(&mut self.live, id);
        self.disordered |= self.newest_ns.is_some_and(|newest| inserted_at_ns <= newest);
        self.newest_ns = self.newest_ns.max(Some(inserted_at_ns));
        Some(id)
    }

    /// Forgets a record; its number is not given again before the next sort.
    pub(crate) fn remove(&mut self, cid: &RecordCid) -> Option<u32> {
        let Self {
            cids, table, live, ..
        } = self;
        let entry = table
            .find_entry(hash(cid), |id| cids.get(*id as usize) == Some(cid))
            .ok()?;
        let (id, _) = entry.remove();
        live.remove(id);
        Some(id)
    }

    /// True when numbers do not follow time.
    pub(crate) fn is_disordered(&self) -> bool {
        self.disordered
    }

    /// Numbers all records anew, by insertion time, those of one time so that the smaller CID text comes out first
    /// when numbers are walked downwards.
    pub(crate) fn sort(&mut self) {
        let mut rows: Vec<(i64, RecordCid, u64)> = self
            .live
            .iter()
            .filter_map(|id| {
                let at = id as usize;
                let size = u64::from(self.sizes_bytes.get(at).copied()?);
                Some((self.inserted_at_ns.get(at).copied()?, *self.cids.get(at)?, size))
            })
            .collect();
        rows.sort_unstable_by(|one, other| {
            let texts = || other.1.to_string().cmp(&one.1.to_string());
            one.0.cmp(&other.0).then_with(texts)
        });
        let mut sorted = Self {
            newest_ns: self.newest_ns,
            ..Self::default()
        };
        sorted.cids.reserve(rows.len());
        sorted.inserted_at_ns.reserve(rows.len());
        sorted.sizes_bytes.reserve(rows.len());
        for (at, cid, size) in rows {
            sorted.insert(cid, at, size);
        }
        sorted.disordered = false;
        *self = sorted;
    }

    pub(crate) fn bytes(&self) -> u64 {
        let per_id = (self.cids.capacity() as u64)
            .saturating_mul(32)
            .saturating_add((self.inserted_at_ns.capacity() as u64).saturating_mul(8))
            .saturating_add((self.sizes_bytes.capacity() as u64).saturating_mul(4));
        per_id
            .saturating_add((self.table.capacity() as u64).saturating_mul(40) / 7)
            .saturating_add(set_bytes(&self.live))
    }
}
