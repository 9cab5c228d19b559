//! The store as its callers see it. API skeleton: the engine behind it is being written.
#![allow(unused_variables, clippy::unused_async, missing_docs, reason = "skeleton")]
use crate::*;
use bytes::Bytes;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Unix nanoseconds. The store makes insertion times strictly increasing, whatever the clock says.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// A handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<()>,
}

impl Store {
    pub fn open(config: StoreConfig, clock: Clock) -> Result<(Store, OpenReport), StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn put_record(&self, record: NewRecord) -> Result<PutRecord, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn body(&self, cid: RecordCid) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn record(&self, cid: RecordCid) -> Result<Option<RecordRow>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn delete_record(&self, cid: RecordCid) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn put_referrer(&self, referrer: NewReferrer) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn referrers(&self, record: RecordCid) -> Result<Option<Vec<ReferrerRow>>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn referrer_body(&self, cid: RecordCid) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn delete_referrers(
        &self,
        record: RecordCid,
        which: ReferrerFilter,
    ) -> Result<Vec<RecordCid>, StoreError> {
        Err(StoreError::Closed)
    }
    pub fn contains(&self, cid: RecordCid) -> bool {
        false
    }
    pub fn resolve(&self, names: &[NamePattern], version: Option<&VersionRule>) -> Vec<Named> {
        Vec::new()
    }
    pub fn touch(&self, cid: RecordCid, what: Usage) {}
    pub fn usage(&self, cid: RecordCid) -> UsageRow {
        UsageRow::default()
    }
    pub async fn mark_published(&self, cid: RecordCid) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn unmark_published(&self, cid: RecordCid) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn published_row(&self, cid: RecordCid) -> Result<Option<PublishedRow>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn published(&self) -> Result<Vec<(RecordCid, PublishedRow)>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn put_job(&self, id: &str, value: Bytes) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn job(&self, id: &str) -> Result<Option<Bytes>, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn delete_job(&self, id: &str) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn jobs(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, StoreError> {
        Err(StoreError::Closed)
    }
    pub fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
    pub fn health(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    pub fn records_len(&self) -> u64 {
        0
    }
    pub fn for_each_record(
        &self,
        each: impl FnMut(RecordCid, &RecordRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn compact_rows(&self) -> Result<bool, StoreError> {
        Err(StoreError::Closed)
    }
    pub async fn close(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }
}
