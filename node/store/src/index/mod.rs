//! The derived index: what can be rebuilt from the rows. Answers searches (grpc-api §4.9), name resolution (§4.12) and
//! List (§4.10), all from memory except for what descriptions leave open.
//!
//! Pure: no I/O, no lock, no clock. The store tells it of a record once the record is durable, under one lock; searches
//! share that lock, for a time that their budget bounds.

mod ancestors;
mod budget;
mod column;
mod dict;
mod directory;
mod eval;
mod facts;
mod forward;
mod grams;
mod hash;
mod pairs;
pub mod pattern;
mod posting;
pub(crate) mod published;
mod query;
mod ranks;
mod records;
mod room;
mod run;
mod search;
mod split;
mod texts;
mod walk;
mod words;

pub use budget::Budget;
pub use eval::Tuning;
pub use facts::{Scan, Severity};
pub use published::{LabelQuery, Listed};
pub use query::{MAX_QUERIES, MAX_QUERY_BYTES, Plan, Query, QueryError, QueryErrorKind, QueryKind, Sort};
pub use records::{Prepared, RecordIndex};
pub use run::{Found, Source, count, search};
pub use search::IndexBytes;
