//! The one table from what went wrong in a room to a gRPC code, and the names that codes have in logs and metrics.
//!
//! Texts of the wire that are made by the transport library are put into the words that clients of the network know
//! (grpc-api §3.5, §4.0).

use dirnode_network::{ErrorKind as NetworkErrorKind, NetworkError};
use dirnode_store::{QueryError, QueryErrorKind, StoreError, StoreErrorKind};
use tonic::{Code, Status};

use crate::ingest::IngestError;
use crate::policy::Denied;
use crate::queries::SearchError;

/// Codes in numeric order, named as in metrics and logs (operations §5).
pub const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Name of a code.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    usize::try_from(i32::from(code))
        .ok()
        .and_then(|index| CODE_NAMES.get(index))
        .copied()
        .unwrap_or("Unknown")
}

/// Code of a store failure.
#[must_use]
pub fn store_code(error: &StoreError) -> Code {
    match error.kind() {
        StoreErrorKind::NotFound => Code::NotFound,
        StoreErrorKind::Full | StoreErrorKind::Busy => Code::ResourceExhausted,
        StoreErrorKind::TooLarge => Code::InvalidArgument,
        StoreErrorKind::Closed => Code::Unavailable,
        StoreErrorKind::Corrupt => Code::DataLoss,
        _ => Code::Internal,
    }
}

/// A store failure, with the words of the RPC before it.
#[must_use]
pub fn store_status(doing: &str, error: &StoreError) -> Status {
    Status::new(store_code(error), format!("{doing}: {error}"))
}

/// A search that was not answered.
#[must_use]
pub fn search_status(error: &SearchError) -> Status {
    let SearchError::Query(inner) = error else {
        return Status::internal("internal server error");
    };
    let code = match inner.kind() {
        QueryErrorKind::Invalid => Code::InvalidArgument,
        QueryErrorKind::TooExpensive => Code::ResourceExhausted,
        QueryErrorKind::Unavailable => Code::Unavailable,
        QueryErrorKind::Internal => Code::Internal,
    };
    match inner {
        QueryError::Id { .. } => Status::new(code, format!("failed to create filter options: {inner}")),
        _ => Status::new(code, inner.to_string()),
    }
}

/// A question to the network without a good answer.
#[must_use]
pub fn network_status(error: &NetworkError) -> Status {
    let code = match (error, error.kind()) {
        (NetworkError::Timeout { .. }, _) => Code::DeadlineExceeded,
        (_, NetworkErrorKind::Invalid) => Code::InvalidArgument,
        (_, NetworkErrorKind::NotFound) => Code::NotFound,
        (_, NetworkErrorKind::Denied) => Code::PermissionDenied,
        (_, NetworkErrorKind::Busy) => Code::ResourceExhausted,
        (_, NetworkErrorKind::Unavailable) => Code::Unavailable,
        (_, NetworkErrorKind::Corrupt) => Code::DataLoss,
        (_, NetworkErrorKind::Internal) => Code::Internal,
    };
    Status::new(code, error.to_string())
}

impl From<IngestError> for Status {
    fn from(error: IngestError) -> Self {
        let code = match &error {
            IngestError::Nil
            | IngestError::TooLarge { .. }
            | IngestError::Invalid(_)
            | IngestError::NoSchema(_)
            | IngestError::Unreadable(_) => Code::InvalidArgument,
            // The reference answers INTERNAL here, and clients see it (grpc-api §4.1, step 3).
            IngestError::NoSchemaVersion | IngestError::NotJson(_) | IngestError::Validator(_) => {
                Code::Internal
            }
            IngestError::Denied(_) => Code::PermissionDenied,
            IngestError::Store(inner) => store_code(inner),
        };
        Self::new(code, error.to_string())
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::permission_denied(denied.to_string())
    }
}

/// Rewrites what the transport says about messages beyond the limit; leaves every other status alone.
#[must_use]
pub fn in_network_words(status: &Status) -> Option<Status> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let text = status.message();
    let (what, rest) = text
        .strip_prefix("Error, decoded message length too large: found ")
        .map(|rest| ("received message larger", rest))
        .or_else(|| {
            text.strip_prefix("Error, encoded message length too large: found ")
                .map(|rest| ("trying to send message larger", rest))
        })?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(Status::resource_exhausted(format!(
        "grpc: {what} than max ({found} vs. {limit})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oversize_is_said_as_the_network_says_it() {
        let theirs = Status::out_of_range(
            "Error, decoded message length too large: found 4194305 bytes, the limit is: 4194304 bytes",
        );
        let ours = in_network_words(&theirs).unwrap();
        assert_eq!(ours.code(), Code::ResourceExhausted);
        assert_eq!(
            ours.message(),
            "grpc: received message larger than max (4194305 vs. 4194304)"
        );
        assert!(in_network_words(&Status::out_of_range("offset beyond the end")).is_none());
    }

    #[test]
    fn every_code_has_its_name() {
        for (number, name) in (0..).zip(CODE_NAMES) {
            assert_eq!(code_name(Code::from_i32(number)), name);
        }
    }
}
