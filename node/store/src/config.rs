//! Settings of the store, each with its default beside it. Only the composition root fills them in.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, RealDisk};
use crate::{RecordCid, ReferrerFact, Summary};

/// The largest body accepted. The wire bound is 4 MiB of protobuf; canonical JSON may take six bytes for one
/// (`<` is written as an escape), so 32 MiB leaves room.
pub const MAX_BODY_BYTES: usize = 32 << 20;
/// The longest referrer type.
pub const MAX_REFERRER_KIND_BYTES: usize = 4 << 10;
/// The largest value a row may have: with 8 MiB segments the row engine keeps such a value inside its log.
pub const MAX_ROW_BYTES: usize = 64 << 10;
/// The longest job id.
pub const MAX_JOB_ID_BYTES: usize = 256;

/// Type of the referrers whose content is searched.
pub const SCAN_REPORT: &str = "agntcy.dir.security.v1.ScanReport";

/// The row engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowsBackend {
    /// sled 0.34, under the rules written in `rows::sled`.
    #[default]
    Sled,
    /// A map in memory, rebuilt from the journal at every start. For tests and tiny nodes.
    Memory,
    /// fjall 3.
    #[cfg(feature = "fjall")]
    Fjall,
}

/// Reads what the rows need from a body again, when only the body is left.
pub type Reader<T> = Arc<dyn Fn(&[u8]) -> Option<T> + Send + Sync>;

/// What a referrer's body says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferrerHead {
    /// The record it refers to.
    pub record: RecordCid,
    /// Its type.
    pub kind: String,
}

/// Settings of the store.
#[derive(Clone)]
pub struct StoreConfig {
    /// The data directory; made if it is missing.
    pub dir: PathBuf,
    /// The row engine.
    pub rows: RowsBackend,
    /// Cache of the row engine. Plan three times as much resident memory.
    pub rows_cache_bytes: u64,
    /// A journal file is closed when it passes this size.
    pub segment_bytes: u64,
    /// Bodies kept in memory until they are in the layout; beyond it they are read back from the journal.
    pub overlay_bytes: u64,
    /// Writes wait when this many body bytes are not in the layout yet.
    pub backlog_bytes: u64,
    /// Commands that may wait for the committer.
    pub queue_len: usize,
    /// Whether OCI manifests and `index.json` are kept for registry tools.
    pub manifests: bool,
    /// Reads a summary from a record's canonical bytes.
    pub summarise: Reader<Summary>,
    /// Reads the head of a referrer's canonical bytes.
    pub referrer_head: Reader<ReferrerHead>,
    /// Reads what a referrer of type [`SCAN_REPORT`] says about its record. It is asked when the referrer comes in, and
    /// again when the rows are rebuilt. By default nothing is read.
    pub referrer_facts: Reader<ReferrerFact>,
    /// Where journal and layout live; tests put a recording disk here.
    pub disk: Arc<dyn Disk>,
}

impl StoreConfig {
    /// Defaults for `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            rows: RowsBackend::default(),
            rows_cache_bytes: 256 << 20,
            segment_bytes: 64 << 20,
            overlay_bytes: 64 << 20,
            backlog_bytes: 1 << 30,
            queue_len: 1024,
            manifests: true,
            summarise: Arc::new(crate::adopt::summary_of),
            referrer_head: Arc::new(crate::adopt::referrer_head_of),
            referrer_facts: Arc::new(|_| None),
            disk: Arc::new(RealDisk),
        }
    }
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig")
            .field("dir", &self.dir)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
