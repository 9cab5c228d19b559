//! Rows about bodies, behind a trait small enough that the engine can be changed.
//!
//! Rows are derived state with a long life: everything in them is in the journal (or its condensed files) too, so
//! an engine that refuses to open costs a rebuild and nothing else. Bodies never go in here.
//!
//! | family | key | value |
//! |---|---|---|
//! | meta | `generation` | 8 bytes, big-endian |
//! | records | record digest (32) | version 1, postcard of `StoredRecord` |
//! | referrers | record digest (32), position (8, big-endian) | version 1, postcard of `StoredReferrer` |
//! | members | record digest (32), referrer digest (32) | position (8, big-endian) |
//! | published | record digest (32) | version 1, postcard of `PublishedRow`, then of the labels to list (may be absent) |
//! | usage | record digest (32) | version 1, postcard of `UsageRow` |
//! | jobs | id, UTF-8 | as given |
//! | scans | record digest (32), scanner, UTF-8 | version 1, postcard of `Scan` |

#[cfg(feature = "fjall")]
mod fjall;
mod memory;
mod sled;
#[cfg(test)]
mod suite;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use dirnode_record::Label;

use crate::config::{MAX_ROW_BYTES, RowsBackend};
use crate::types::PublishedRow;
use crate::{RecordCid, StoreError, Summary};

/// A group of rows with one key form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    Meta,
    Records,
    Referrers,
    Members,
    Published,
    Usage,
    Jobs,
    Scans,
}

impl Family {
    pub(crate) const ALL: [Self; 8] = [
        Self::Meta,
        Self::Records,
        Self::Referrers,
        Self::Members,
        Self::Published,
        Self::Usage,
        Self::Jobs,
        Self::Scans,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Records => "records",
            Self::Referrers => "referrers",
            Self::Members => "members",
            Self::Published => "published",
            Self::Usage => "usage",
            Self::Jobs => "jobs",
            Self::Scans => "scans",
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Family, Vec<u8>, Vec<u8>),
    Remove(Family, Vec<u8>),
}

/// Stands for all writes up to it; larger is later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Ticket(pub(crate) u64);

impl Ticket {
    /// Stands for everything written before the call it is given to.
    pub(crate) fn latest() -> Self {
        Self(u64::MAX)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RowsStats {
    /// Bytes on disk.
    pub(crate) disk_bytes: u64,
    /// Bytes of live keys and values.
    pub(crate) live_bytes: u64,
}

/// Takes key and value of a row.
pub(crate) type EachRow<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What a row engine must do. Every call may block.
pub(crate) trait Rows: Send + Sync {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Calls `each` for the rows whose key begins with `prefix`, in byte order of the keys.
    fn scan(&self, family: Family, prefix: &[u8], each: &mut EachRow<'_>) -> Result<(), StoreError>;
    /// Makes the changes visible, in order, not yet durable. Refuses values over [`MAX_ROW_BYTES`].
    fn write(&self, ops: &[Op]) -> Result<Ticket, StoreError>;
    /// Returns once all writes up to `ticket` are durable.
    fn durable(&self, ticket: Ticket) -> Result<(), StoreError>;
    fn stats(&self) -> RowsStats;
}

/// Opens the engine in `dir`, which it makes. May fail or panic on a damaged folder; see `open::open_rows`.
pub(crate) fn open(backend: RowsBackend, dir: &Path, cache_bytes: u64) -> Result<Arc<dyn Rows>, StoreError> {
    Ok(match backend {
        RowsBackend::Sled => Arc::new(sled::SledRows::open(dir, cache_bytes)?),
        RowsBackend::Memory => Arc::new(memory::MemoryRows::default()),
        #[cfg(feature = "fjall")]
        RowsBackend::Fjall => Arc::new(fjall::FjallRows::open(dir, cache_bytes)?),
    })
}

fn check_size(ops: &[Op]) -> Result<(), StoreError> {
    for op in ops {
        if let Op::Put(_, _, value) = op
            && value.len() > MAX_ROW_BYTES
        {
            return Err(StoreError::TooLarge {
                what: "row",
                size_bytes: value.len() as u64,
                limit_bytes: MAX_ROW_BYTES as u64,
            });
        }
    }
    Ok(())
}

/// What the records family holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredRecord {
    pub(crate) inserted_at_ns: i64,
    pub(crate) size_bytes: u64,
    /// `None` when it is too large for a row: then it is read from the body.
    pub(crate) summary: Option<Box<Summary>>,
}

/// What the referrers family holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredReferrer {
    pub(crate) cid: RecordCid,
    pub(crate) kind: String,
    pub(crate) size_bytes: u64,
}

/// What the published family holds. Rows without labels come from before they were kept, or had too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPublished {
    pub(crate) at_ns: i64,
    pub(crate) labels: Vec<Label>,
}

/// The value of a published row.
pub(crate) fn encode_published(at_ns: i64, labels: &[Label]) -> Result<Vec<u8>, StoreError> {
    let value = encode("published", &PublishedRow { at_ns })?;
    if labels.is_empty() {
        return Ok(value);
    }
    postcard::to_extend(labels, value).map_err(|error| StoreError::CorruptRow {
        what: "published".to_owned(),
        why: error.to_string(),
    })
}

/// Reads the value of a published row.
pub(crate) fn decode_published(bytes: &[u8]) -> Result<StoredPublished, StoreError> {
    let corrupt = |why: String| StoreError::CorruptRow {
        what: "published".to_owned(),
        why,
    };
    let Some((&ROW_VERSION, rest)) = bytes.split_first() else {
        return Err(corrupt("row version is not known".to_owned()));
    };
    let (row, rest) =
        postcard::take_from_bytes::<PublishedRow>(rest).map_err(|error| corrupt(error.to_string()))?;
    let labels = match rest {
        [] => Vec::new(),
        rest => postcard::from_bytes(rest).map_err(|error| corrupt(error.to_string()))?,
    };
    Ok(StoredPublished {
        at_ns: row.at_ns,
        labels,
    })
}

/// The key of a scan row.
pub(crate) fn scan_key(record: &RecordCid, scanner: &str) -> Vec<u8> {
    [record.digest().as_slice(), scanner.as_bytes()].concat()
}

const ROW_VERSION: u8 = 1;

/// A row value: the version byte, then postcard.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, StoreError> {
    postcard::to_extend(value, vec![ROW_VERSION]).map_err(|error| StoreError::CorruptRow {
        what: what.to_owned(),
        why: error.to_string(),
    })
}

/// Reads a row value.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    let corrupt = |why: String| StoreError::CorruptRow {
        what: what.to_owned(),
        why,
    };
    match bytes.split_first() {
        Some((&ROW_VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| corrupt(error.to_string())),
        Some((version, _)) => Err(corrupt(format!("row version {version} is not known"))),
        None => Err(corrupt("row is empty".to_owned())),
    }
}

pub(crate) fn referrer_key(record: &RecordCid, position: u64) -> Vec<u8> {
    [record.digest().as_slice(), &position.to_be_bytes()].concat()
}

pub(crate) fn member_key(record: &RecordCid, referrer: &RecordCid) -> Vec<u8> {
    [record.digest().as_slice(), referrer.digest()].concat()
}

/// The CID in the first 32 bytes of a key.
pub(crate) fn cid_of(key: &[u8]) -> Option<RecordCid> {
    Some(RecordCid::from_digest(*key.first_chunk()?))
}

/// The CID in the last 32 bytes of a key.
pub(crate) fn last_cid_of(key: &[u8]) -> Option<RecordCid> {
    Some(RecordCid::from_digest(*key.last_chunk()?))
}

/// The big-endian number in the last 8 bytes.
pub(crate) fn number_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.last_chunk()?))
}
