//! Our own reading of an announcement: what may enter the index.
//!
//! Stricter than the reference where it lets texts become keys: the CID must be one, spelled as records spell it, and
//! a label must lie in a known namespace and stay there. Labels that do not are left out and counted, because a later
//! version of the network may have namespaces we do not know; an announcement of which nothing is left is refused.

use dirnode_record::{Label, RecordCid};

use super::super::go_text::shorten;
use super::super::timestamp::Timestamp;
use super::{MAX_LABELS, Part, Payload, PayloadError};

/// Longest label that is kept, in bytes. Class names of the schemas take less than 200.
pub const MAX_LABEL_BYTES: usize = 1024;

/// Why an announcement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    /// The reference refuses it too, and it is no withdrawal.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The CID is not that of a record.
    #[error("`{text}` is not the cid of a record")]
    NotRecordCid {
        /// It, shortened.
        text: String,
    },
    /// A withdrawal with labels, which other nodes would take for an announcement.
    #[error("withdrawal has {count} labels, expected none")]
    WithdrawalWithLabels {
        /// How many.
        count: usize,
    },
    /// No label is left.
    #[error("none of {count} labels can be kept, the first because {first}")]
    NothingLeft {
        /// How many there were.
        count: usize,
        /// What is wrong with the first.
        first: Dropped,
    },
}

/// Why a label is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// Not of the four namespaces, or without the slash in front.
    #[error("it is in no known namespace")]
    Namespace,
    /// Nothing follows the namespace.
    #[error("it has no value")]
    NoValue,
    /// A `.` or `..` would lead elsewhere when it becomes a path.
    #[error("it holds a path step")]
    PathStep,
    /// Longer than [`MAX_LABEL_BYTES`].
    #[error("it is longer than {MAX_LABEL_BYTES} bytes")]
    TooLong,
    /// Characters that no class name has and that would disturb a terminal.
    #[error("it holds control characters")]
    Control,
}

/// An announcement that may enter the index. Its author is that of the signed message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// The author provides the record.
    Claim {
        /// The record.
        cid: RecordCid,
        /// 1 to 100 labels, clean, each once, in the order they came.
        labels: Vec<Label>,
        /// When the author says it was made.
        timestamp: Timestamp,
        /// Set when more messages carry the rest of the labels.
        part: Option<Part>,
    },
    /// The author no longer provides the record.
    Withdrawal {
        /// The record.
        cid: RecordCid,
        /// When the author says it was made.
        timestamp: Timestamp,
        /// The number the author gave it.
        sequence: u64,
    },
}

/// An announcement and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What is left.
    pub announcement: Announcement,
    /// Why labels were left out, one entry for each.
    pub dropped: Vec<Dropped>,
}

impl Announcement {
    /// Reads a payload strictly.
    ///
    /// # Errors
    /// [`AdmitError`] says why nothing of it is kept.
    pub fn admit(bytes: &[u8]) -> Result<Admitted, AdmitError> {
        Self::admit_payload(&Payload::read(bytes)?)
    }

    /// As [`Self::admit`], for a payload that was read already.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn admit_payload(payload: &Payload) -> Result<Admitted, AdmitError> {
        let extension = payload.extension.clone().transpose()?.unwrap_or_default();
        if let Some(sequence) = extension.withdrawal {
            return withdrawal(payload, sequence);
        }
        let timestamp = payload.check()?;
        let cid = record_cid(&payload.cid)?;
        let (mut labels, mut dropped) = (Vec::new(), Vec::new());
        for text in payload.labels.iter().take(MAX_LABELS) {
            match clean(text) {
                Ok(label) if labels.contains(&label) => {}
                Ok(label) => labels.push(label),
                Err(why) => dropped.push(why),
            }
        }
        if let (true, Some(first)) = (labels.is_empty(), dropped.first()) {
            return Err(AdmitError::NothingLeft {
                count: dropped.len(),
                first: *first,
            });
        }
        Ok(Admitted {
            announcement: Self::Claim {
                cid,
                labels,
                timestamp,
                part: extension.part,
            },
            dropped,
        })
    }

    /// The record it is about.
    #[must_use]
    pub const fn cid(&self) -> &RecordCid {
        match self {
            Self::Claim { cid, .. } | Self::Withdrawal { cid, .. } => cid,
        }
    }

    /// When the author says it was made.
    #[must_use]
    pub const fn timestamp(&self) -> Timestamp {
        match self {
            Self::Claim { timestamp, .. } | Self::Withdrawal { timestamp, .. } => *timestamp,
        }
    }
}

fn withdrawal(payload: &Payload, sequence: u64) -> Result<Admitted, AdmitError> {
    if !payload.labels.is_empty() {
        return Err(AdmitError::WithdrawalWithLabels {
            count: payload.labels.len(),
        });
    }
    let timestamp = payload
        .timestamp
        .filter(|moment| !moment.is_zero())
        .ok_or(PayloadError::NoTimestamp)?;
    Ok(Admitted {
        announcement: Announcement::Withdrawal {
            cid: record_cid(&payload.cid)?,
            timestamp,
            sequence,
        },
        dropped: Vec::new(),
    })
}

fn record_cid(text: &str) -> Result<RecordCid, AdmitError> {
    RecordCid::parse(text).ok_or_else(|| AdmitError::NotRecordCid {
        text: shorten(text, 80),
    })
}

/// The label as it is kept: doubled and final slashes go, as they do in every node's index.
fn clean(text: &str) -> Result<Label, Dropped> {
    if text.len() > MAX_LABEL_BYTES {
        return Err(Dropped::TooLong);
    }
    let label = Label::parse(text).ok_or(Dropped::Namespace)?;
    if text.split('/').any(|step| matches!(step, "." | "..")) {
        return Err(Dropped::PathStep);
    }
    if text.chars().any(char::is_control) {
        return Err(Dropped::Control);
    }
    label.cleaned().ok_or(Dropped::NoValue)
}
