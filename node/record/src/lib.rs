//! What a record is: canonical bytes, CID, typed reading, labels, referrers and schema validation.
//!
//! This room owns [`RecordCid`], [`Label`], [`Referrer`], the reader of JSON text and the offline validator. It does no
//! I/O, knows no peers and holds no state besides the embedded schema tables, which are read once. Everything that
//! enters is taken to be hostile: readers are bounded, and no function recurses without looking after its stack.
//! Follows grpc-api §2 and §3, and the validation contract.

mod any_cid;
pub mod canonical;
pub mod cid;
mod decode;
pub mod facts;
#[doc(hidden)]
pub mod fuzz;
pub mod labels;
pub mod referrer;
mod scan;
pub mod summary;
pub mod text;
mod tree;
pub mod validate;
pub mod wire;

pub use canonical::{CanonicalError, to_canonical};
pub use cid::{AnyCid, CidError, RecordCid, decode_any};
pub use facts::{Facts, FactsError, Model};
pub use labels::{Label, Namespace};
pub use referrer::{Referrer, ReferrerError, Violations, is_referrer_type};
pub use summary::Summary;
pub use text::{TextError, read_struct};
pub use validate::{Report, ValidateError, Validator};
pub use wire::record_message;

/// What sort of failure an error of this room is; the caller picks its status by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is at fault.
    Invalid,
    /// The input may be good, but we have no means to judge it.
    Unavailable,
}

/// The first characters of a text from outside, for use in a message.
pub(crate) fn shorten(text: &str) -> String {
    const LIMIT: usize = 160;
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
