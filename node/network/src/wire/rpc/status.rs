//! Errors as they travel: a gRPC status inside a text.
//!
//! `rpc error: code = NotFound desc = ...`; the code is nowhere else. Pure. Follows p2p-wire §5.4.

use std::fmt;

use super::super::go_text::shorten;

const HEAD: &str = "rpc error: code = ";
const MIDDLE: &str = " desc = ";

/// Most characters of a peer's error text that are kept.
const MAX_MESSAGE_CHARS: usize = 1024;

/// The gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of gRPC")]
pub enum Code {
    Ok,
    Canceled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Code {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::Canceled,
        Self::Unknown,
        Self::InvalidArgument,
        Self::DeadlineExceeded,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::FailedPrecondition,
        Self::Aborted,
        Self::OutOfRange,
        Self::Unimplemented,
        Self::Internal,
        Self::Unavailable,
        Self::DataLoss,
        Self::Unauthenticated,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The wire names are those of the variants, but for one.
        match self {
            Self::Ok => f.write_str("OK"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// A failed call: its code and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{HEAD}{code}{MIDDLE}{message}")]
pub struct Status {
    /// The code.
    pub code: Code,
    /// Why, for people.
    pub message: String,
}

impl Status {
    /// A status with this code.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// Reads a status from its text. A text of another form is of code Unknown, as gRPC has it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let parts = text
            .strip_prefix(HEAD)
            .and_then(|rest| rest.split_once(MIDDLE))
            .and_then(|(name, message)| {
                let code = Code::ALL.into_iter().find(|code| code.to_string() == name)?;
                Some((code, message))
            });
        let (code, message) = parts.unwrap_or((Code::Unknown, text));
        Self::new(code, shorten(message, MAX_MESSAGE_CHARS))
    }

    /// The record of a Lookup or Pull is not there.
    #[must_use]
    pub fn record_not_found(cid: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("failed to lookup: record not found: {cid}"),
        )
    }

    /// The record of a ListReferrers is not there. The reference's text holds the address of its registry; this one and
    /// the next do not.
    #[must_use]
    pub fn listed_record_not_found(cid: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("failed to list referrers: record not found: {cid}"),
        )
    }

    /// The record of a PullReferrer is not there.
    #[must_use]
    pub fn referred_record_not_found(cid: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("failed to pull referrer: record not found: {cid}"),
        )
    }

    /// The record is there and the referrer is not.
    #[must_use]
    pub fn referrer_not_found(referrer: &str, record: &str) -> Self {
        Self::new(
            Code::NotFound,
            format!("referrer {referrer} not found for record {record}"),
        )
    }

    /// Too many calls at once.
    #[must_use]
    pub fn busy() -> Self {
        Self::new(Code::ResourceExhausted, "too many calls, try again later")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back() {
        for code in Code::ALL {
            let status = Status::new(code, "a desc = b");
            assert_eq!(Status::parse(&status.to_string()), status);
        }
        assert_eq!(
            Status::record_not_found("x").to_string(),
            "rpc error: code = NotFound desc = failed to lookup: record not found: x"
        );
    }

    #[test]
    fn other_texts_are_of_unknown_code() {
        for text in [
            "",
            "gone",
            "rpc error: code = Nope desc = x",
            "rpc error: code = NotFound",
        ] {
            assert_eq!(Status::parse(text), Status::new(Code::Unknown, text));
        }
    }
}
