//! The JSON of an announcement, read as the reference's decoder reads it.

use super::super::json::{JsonError, Raw, is_key};
use super::super::timestamp::Timestamp;
use super::{EXTENSION_VERSION, MAX_LABELS, MAX_PAYLOAD_BYTES};

/// Numbers that every JSON reader holds exactly.
const MAX_SEQUENCE: u64 = (1 << 53) - 1;
/// Parts that one announcement may have; 100 labels each are far more than a record has.
const MAX_PARTS: u32 = 1024;

/// Why a payload is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Larger than [`MAX_PAYLOAD_BYTES`].
    #[error("payload is {size_bytes} bytes, limit is {MAX_PAYLOAD_BYTES}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// Not JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A known field has a value of another type.
    #[error("{field} is not {expected}")]
    Type {
        /// Which field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// No `cid`, or an empty one.
    #[error("cid is missing")]
    NoCid,
    /// No `labels`, or none in it.
    #[error("labels are missing")]
    NoLabels,
    /// More labels than one message may have.
    #[error("{count} labels are more than {MAX_LABELS}")]
    TooManyLabels {
        /// How many there are.
        count: usize,
    },
    /// No `timestamp`, or the zero time.
    #[error("timestamp is missing")]
    NoTimestamp,
}

/// The fields of a payload, as far as they are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload {
    /// Not parsed; empty when missing.
    pub cid: String,
    /// As they came.
    pub labels: Vec<String>,
    /// `None` when missing.
    pub timestamp: Option<Timestamp>,
    /// Our extension, when there is one of a version we know. The error, when there is one that is not well formed,
    /// is kept for [`super::Announcement::admit`]: the reference does not look at it.
    pub extension: Option<Result<Extension, PayloadError>>,
}

/// Our extension of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extension {
    /// The number of a withdrawal; `None` when it is none.
    pub withdrawal: Option<u64>,
    /// Which part of a split announcement it is.
    pub part: Option<Part>,
}

/// One part of a split announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// From 0.
    pub index: u32,
    /// At least 1, and more than `index`.
    pub count: u32,
}

impl Payload {
    /// Takes the JSON apart: unknown fields are skipped, keys match in any case, of duplicate keys the last counts,
    /// `null` is a field that is not there.
    ///
    /// # Errors
    /// [`PayloadError`], for whatever the reference's decoder refuses.
    pub fn read(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > MAX_PAYLOAD_BYTES {
            return Err(PayloadError::TooLarge {
                size_bytes: bytes.len(),
            });
        }
        let document = Raw::parse(bytes)?;
        let mut payload = Self::default();
        if document.is_null() {
            return Ok(payload);
        }
        let members = document.members().ok_or(PayloadError::Type {
            field: "payload",
            expected: "an object",
        })?;
        let mut labels = Labels::default();
        for (key, value) in members {
            if is_key(&key, "cid") {
                if !value.is_null() {
                    payload.cid = value.text().ok_or(PayloadError::Type {
                        field: "cid",
                        expected: "a text",
                    })?;
                }
            } else if is_key(&key, "labels") {
                labels.take(value)?;
            } else if is_key(&key, "timestamp") {
                if !value.is_null() {
                    // The reference's time reader looks between the quotes and resolves no escapes.
                    let inside = value.inside_quotes();
                    let moment = inside.and_then(|inside| Timestamp::parse(inside).ok());
                    payload.timestamp = Some(moment.ok_or(PayloadError::Type {
                        field: "timestamp",
                        expected: "an rfc 3339 time",
                    })?);
                }
            } else if key == "dirnode" {
                payload.extension = Extension::read(value).transpose();
            }
        }
        payload.labels = labels.finish();
        Ok(payload)
    }

    /// Applies the reference's rules and returns the timestamp.
    ///
    /// # Errors
    /// [`PayloadError`], for whatever the reference refuses after decoding.
    pub fn check(&self) -> Result<Timestamp, PayloadError> {
        if self.cid.is_empty() {
            return Err(PayloadError::NoCid);
        }
        if self.labels.is_empty() {
            return Err(PayloadError::NoLabels);
        }
        if self.labels.len() > MAX_LABELS {
            return Err(PayloadError::TooManyLabels {
                count: self.labels.len(),
            });
        }
        self.timestamp
            .filter(|moment| !moment.is_zero())
            .ok_or(PayloadError::NoTimestamp)
    }
}

/// The list of labels, which the reference decodes into the memory of the list before: a `null` in a second `labels`
/// leaves the text that stood there.
#[derive(Default)]
struct Labels {
    memory: Vec<String>,
    count: usize,
}

impl Labels {
    fn take(&mut self, value: Raw<'_>) -> Result<(), PayloadError> {
        self.count = 0;
        if value.is_null() {
            self.memory.clear();
            return Ok(());
        }
        let wrong = || PayloadError::Type {
            field: "labels",
            expected: "a list of texts",
        };
        for item in value.items().ok_or_else(wrong)? {
            if self.memory.len() <= self.count {
                self.memory.push(String::new());
            }
            if !item.is_null()
                && let Some(slot) = self.memory.get_mut(self.count)
            {
                *slot = item.text().ok_or_else(wrong)?;
            }
            self.count = self.count.saturating_add(1);
        }
        if self.count == 0 {
            self.memory.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<String> {
        self.memory.truncate(self.count);
        self.memory
    }
}

impl Extension {
    /// `None` for `null` and for versions that are not known.
    fn read(value: Raw<'_>) -> Result<Option<Self>, PayloadError> {
        let wrong = |expected| PayloadError::Type {
            field: "dirnode",
            expected,
        };
        if value.is_null() {
            return Ok(None);
        }
        let (mut version, mut withdraw, mut sequence) = (None, false, None);
        let (mut index, mut count) = (None, None);
        for (key, value) in value.members().ok_or_else(|| wrong("an object"))? {
            let number = || {
                value
                    .integer()
                    .ok_or_else(|| wrong("an object with whole numbers"))
            };
            match key.as_str() {
                "v" => version = Some(number()?),
                "withdraw" => {
                    withdraw = value
                        .boolean()
                        .ok_or_else(|| wrong("an object with a true withdraw"))?
                }
                "seq" => sequence = Some(number()?),
                "part" => index = Some(number()?),
                "parts" => count = Some(number()?),
                _ => {}
            }
        }
        if version != Some(EXTENSION_VERSION) {
            return Ok(None);
        }
        let withdrawal = match (withdraw, sequence) {
            (false, None) => None,
            (true, Some(sequence)) if sequence <= MAX_SEQUENCE => Some(sequence),
            _ => return Err(wrong("an object with both withdraw and seq, or neither")),
        };
        let part = match (index, count) {
            (None, None) => None,
            (Some(index), Some(count)) if index < count && count <= u64::from(MAX_PARTS) => Some(Part {
                index: u32::try_from(index).unwrap_or_default(),
                count: u32::try_from(count).unwrap_or_default(),
            }),
            _ => return Err(wrong("an object with a part below parts, or neither")),
        };
        if withdrawal.is_some() && part.is_some() {
            return Err(wrong("either a withdrawal or a part"));
        }
        Ok(Some(Self { withdrawal, part }))
    }
}
