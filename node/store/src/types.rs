//! The values that go in and come out of the store. Plain data, no I/O.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{RecordCid, Summary};

/// A record to store. `cid` must be the hash of `body`; the store checks.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// The record's CID.
    pub cid: RecordCid,
    /// Canonical bytes, at most [`crate::MAX_BODY_BYTES`].
    pub body: Bytes,
    /// What listings and the index need of the body.
    pub summary: Summary,
}

/// Answer to a put. Whatever it says, the record is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutRecord {
    /// False when the record was already there; its insertion time is then unchanged.
    pub inserted: bool,
}

/// What the store knows of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordRow {
    /// When the record was inserted, unix nanoseconds; strictly increasing over all records of this store.
    pub inserted_at_ns: i64,
    /// Length of the canonical bytes.
    pub size_bytes: u64,
    /// The summary given at the put.
    pub summary: Summary,
}

/// A referrer to store. `cid` must be the hash of `body`; the store checks.
#[derive(Debug, Clone)]
pub struct NewReferrer {
    /// The record it refers to.
    pub record: RecordCid,
    /// The referrer's own CID.
    pub cid: RecordCid,
    /// Its type, such as `agntcy.dir.sign.v1.Signature`; at most [`crate::MAX_REFERRER_KIND_BYTES`].
    pub kind: String,
    /// Canonical bytes.
    pub body: Bytes,
}

/// One entry of a record's referrer list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrerRow {
    /// The referrer's CID.
    pub cid: RecordCid,
    /// Its type.
    pub kind: String,
}

/// Which referrers of a record to take; both empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferrerFilter {
    /// Only this type.
    pub kind: Option<String>,
    /// Only this CID.
    pub cid: Option<RecordCid>,
}

impl ReferrerFilter {
    /// True if `row` is selected; the two conditions are joined by AND.
    #[must_use]
    pub fn takes(&self, row: &ReferrerRow) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == row.kind) && self.cid.is_none_or(|cid| cid == row.cid)
    }
}

/// A record found by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The name as stored.
    pub name: String,
    /// The version as stored; may be empty.
    pub version: String,
    /// The record's CID.
    pub cid: RecordCid,
}

/// What a caller did with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The body was handed out.
    Pull,
    /// The metadata was handed out.
    Lookup,
}

/// Usage counters of a record. May lose the last second before a power cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// Number of pulls.
    pub pull_count: u64,
    /// Number of lookups.
    pub lookup_count: u64,
    /// When the last of either was, unix nanoseconds; zero for never.
    pub last_used_ns: i64,
}

/// When a record was marked as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedRow {
    /// Unix nanoseconds.
    pub at_ns: i64,
}

/// Figures about a running store, all as of the call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Records held.
    pub records: u64,
    /// Distinct referrers held.
    pub referrers: u64,
    /// Sequence number of the last journal entry.
    pub journal_seq: u64,
    /// Sequence number up to which bodies and rows are in their final place.
    pub checkpoint_seq: u64,
    /// Bytes of all journal files.
    pub journal_bytes: u64,
    /// Groups flushed since start; puts divided by groups is the gain of group commit.
    pub groups: u64,
    /// Entries written since start.
    pub entries: u64,
    /// Bodies that wait for the layout.
    pub overlay_bodies: u64,
    /// Bytes of those bodies.
    pub overlay_bytes: u64,
    /// Bodies moved to quarantine since start.
    pub quarantined: u64,
    /// Bytes the row engine uses on disk; zero for the memory engine.
    pub rows_disk_bytes: u64,
    /// Bytes of live keys and values in the row engine.
    pub rows_live_bytes: u64,
    /// Records whose OCI manifests wait to be written.
    pub manifests_behind: u64,
}

/// What `open` found and did. How long it took is for the caller to measure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Records held after the start.
    pub records: u64,
    /// Journal entries applied.
    pub replayed_entries: u64,
    /// Bytes of a torn tail that were cut off.
    pub cut_bytes: u64,
    /// Why the rows were rebuilt from the journal; empty if they were not.
    pub rebuilt: Option<String>,
    /// Journal files with damage before their tail; they were kept beside as `*.damaged`.
    pub damaged_files: u64,
    /// Bodies adopted from the layout because the journal was gone.
    pub adopted: u64,
    /// Files in quarantine.
    pub quarantined: u64,
    /// True if the row store was copied into a new one because it had grown.
    pub rows_compacted: bool,
}
