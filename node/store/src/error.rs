//! What can go wrong in the store, sorted by what the caller can do about it.

use std::io;
use std::path::PathBuf;

use crate::RecordCid;

/// What a caller can act on; the server turns it into a status code in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The record or referrer is not in the store.
    NotFound,
    /// The disk has no room; the write was not accepted, reads go on.
    Full,
    /// Another process holds the data directory.
    Locked,
    /// Stored bytes are not what they were when they were written.
    Corrupt,
    /// Too much work is waiting; try again later.
    Busy,
    /// A value is larger than the store takes.
    TooLarge,
    /// The device or the file system failed.
    Io,
    /// The row engine failed, or a rule of the store itself was broken.
    Internal,
    /// The store has been closed.
    Closed,
}

/// A failed store operation.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No record under this CID.
    #[error("record {0} is not in the store")]
    NotFound(RecordCid),
    /// The file system reported that it, or the quota, is full.
    #[error("no space left in {path}")]
    Full {
        /// The file or folder that could not grow.
        path: PathBuf,
    },
    /// The lock on the data directory is taken.
    #[error("{dir} is in use by process {pid}; stop it or use another --data-dir")]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Process id of the holder as it wrote it down, `unknown` when it did not.
        pid: String,
    },
    /// A stored body does not hash to its CID; it was moved aside and is not served.
    #[error("stored body of {cid} is damaged; push the record again to heal it")]
    CorruptBody {
        /// The CID asked for.
        cid: RecordCid,
    },
    /// A row exists whose body is gone.
    #[error("stored body of {cid} is missing; push the record again to heal it")]
    MissingBody {
        /// The CID asked for.
        cid: RecordCid,
    },
    /// A stored row or file does not parse.
    #[error("{what} does not parse: {why}")]
    CorruptRow {
        /// Which row or file.
        what: String,
        /// What the parser said.
        why: String,
    },
    /// The write queue is full.
    #[error("{waiting} writes are waiting")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// A body, key or value passes its bound.
    #[error("{what} is {size_bytes} bytes, limit is {limit_bytes}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The bound.
        limit_bytes: u64,
    },
    /// An I/O operation failed.
    #[error("{what} {path}: {message}")]
    Io {
        /// The operation, such as `write` or `rename`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        message: String,
    },
    /// An earlier flush failed, so what the device holds is unknown: no write is acknowledged until a restart.
    #[error("journal does not accept writes since a failed flush ({0}); restart the node")]
    Poisoned(String),
    /// The row engine failed.
    #[error("row store: {0}")]
    Rows(String),
    /// The store has been closed.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// Sorts the error by what the caller can do.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        match self {
            Self::NotFound(_) => StoreErrorKind::NotFound,
            Self::Full { .. } => StoreErrorKind::Full,
            Self::Locked { .. } => StoreErrorKind::Locked,
            Self::CorruptBody { .. } | Self::MissingBody { .. } | Self::CorruptRow { .. } => {
                StoreErrorKind::Corrupt
            }
            Self::Busy { .. } => StoreErrorKind::Busy,
            Self::TooLarge { .. } => StoreErrorKind::TooLarge,
            Self::Io { .. } => StoreErrorKind::Io,
            Self::Poisoned(_) | Self::Rows(_) => StoreErrorKind::Internal,
            Self::Closed => StoreErrorKind::Closed,
        }
    }

    /// Wraps an I/O error, telling a full disk from the rest.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, error: &io::Error) -> Self {
        let path = path.into();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io {
                what,
                path,
                message: error.to_string(),
            },
        }
    }
}
