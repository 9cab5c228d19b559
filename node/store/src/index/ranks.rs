//! Records by a count, highest first: usage and provider counts. Zero is what is not here.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringBitmap;

use super::posting::set_bytes;

/// The counts.
#[derive(Default)]
pub(super) struct Ranks {
    counts: HashMap<u32, u64>,
    buckets: BTreeMap<u64, RoaringBitmap>,
    counted: RoaringBitmap,
}

impl Ranks {
    pub(super) fn set(&mut self, id: u32, count: u64) {
        let held = if count == 0 {
            self.counts.remove(&id)
        } else {
            self.counts.insert(id, count)
        };
        if held == Some(count) {
            return;
        }
        if let Some(held) = held
            && let Some(bucket) = self.buckets.get_mut(&held)
        {
            bucket.remove(id);
            if bucket.is_empty() {
                self.buckets.remove(&held);
            }
        }
        if count == 0 {
            self.counted.remove(id);
        } else {
            self.buckets.entry(count).or_default().insert(id);
            self.counted.insert(id);
        }
    }

    pub(super) fn get(&self, id: u32) -> u64 {
        self.counts.get(&id).copied().unwrap_or(0)
    }

    /// Records with a count above zero.
    pub(super) fn counted(&self) -> &RoaringBitmap {
        &self.counted
    }

    /// Records of one count each, highest count first, without zero.
    pub(super) fn buckets(&self) -> impl Iterator<Item = &RoaringBitmap> {
        self.buckets.values().rev()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.buckets
            .values()
            .map(|set| set_bytes(set).saturating_add(16))
            .fold(
                (self.counts.capacity() as u64)
                    .saturating_mul(17)
                    .saturating_add(set_bytes(&self.counted)),
                u64::saturating_add,
            )
    }
}
