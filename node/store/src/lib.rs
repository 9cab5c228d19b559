//! Ground state of a node: bodies by CID, the rows about them, the published set, jobs, usage; and the index
//! derived from it.
//!
//! What an acknowledgement waits for is one append-only journal, and one device flush per group of
//! writes. A background thread moves bodies from there into an OCI image layout, and rows into a row engine that
//! can always be rebuilt. See `docs/decisions/0001-store.md`.
//!
//! The store never judges content or peers, reads no clock (it is given one), and never serves a body that does
//! not hash to its CID.

mod adopt;
mod commit;
mod config;
pub mod disk;
mod error;
mod fill;
pub mod index;
mod journal;
mod layout;
mod mover;
mod open;
mod overlay;
pub mod remote;
mod rows;
mod search;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod verify;

pub use dirnode_record::{RecordCid, Summary};

pub use config::{
    MAX_BODY_BYTES, MAX_JOB_ID_BYTES, MAX_REFERRER_KIND_BYTES, MAX_ROW_BYTES, Reader, ReferrerHead,
    RowsBackend, SCAN_REPORT, StoreConfig,
};
pub use error::{StoreError, StoreErrorKind};
pub use fill::ReferrerFact;
pub use index::pattern::{Comparison, NamePattern, Pattern, VersionRule};
pub use index::{
    Budget, IndexBytes, LabelQuery, Listed, Plan, Query, QueryError, QueryErrorKind, QueryKind, Scan,
    Severity, Sort,
};
pub use remote::RemoteIndex;
pub use search::Hits;
pub use store::{Clock, Store};
pub use types::{
    Named, NewRecord, NewReferrer, OpenReport, PublishedRow, PutRecord, RecordRow, ReferrerFilter,
    ReferrerRow, StoreStats, Usage, UsageRow,
};
pub use verify::{Progress, VerifyReport, verify};
