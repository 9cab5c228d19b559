//! The typed view of a record: what labels, index, manifest and naming read from it.
//!
//! The record itself stays as it came; this is only a reading of it. Three models are known, chosen by the record's
//! `schema_version`: A for 0.7, B for 0.8, C for 1.x. Holds no state. Follows grpc-api §2.1 and §2.2; the field
//! rules are in `decode`.

use std::collections::BTreeMap;

use dirnode_proto::{Struct, Value};

use crate::decode;

/// Which generation of types a record decodes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Model {
    /// 0.7.x.
    A,
    /// 0.8.x.
    B,
    /// 1.x.y.
    C,
}

impl Model {
    /// The letter the vectors use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// The model of a record: of its `schema_version`, spelled exactly so.
    ///
    /// # Errors
    /// [`FactsError`] for a version that is absent, malformed or not supported.
    pub fn of(record: &Struct) -> Result<Self, FactsError> {
        let version = match record.fields.get("schema_version") {
            None => return Err(FactsError::SchemaVersionMissing),
            Some(Value::String(version)) => version.as_str(),
            // A version that is not text counts as empty text, which is then no version.
            Some(_) => "",
        };
        let Some((major, minor)) = lenient_version(version) else {
            return Err(FactsError::SchemaVersionInvalid {
                version: crate::shorten(version),
            });
        };
        match (major, minor) {
            (0, 7) => Ok(Self::A),
            (0, 8) => Ok(Self::B),
            (1, _) => Ok(Self::C),
            _ => Err(FactsError::SchemaVersionUnsupported {
                version: crate::shorten(version),
            }),
        }
    }
}

/// Why a record has no typed view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FactsError {
    /// No `schema_version`.
    #[error("schema_version is missing")]
    SchemaVersionMissing,
    /// A `schema_version` that is not three parts of a semantic version.
    #[error("schema_version {version:?} is not a version of the form major.minor.patch")]
    SchemaVersionInvalid {
        /// The version, shortened; empty when it was not text.
        version: String,
    },
    /// A version that has no model.
    #[error("schema_version {version:?} is not supported")]
    SchemaVersionUnsupported {
        /// The version, shortened.
        version: String,
    },
    /// A known field of the wrong JSON type.
    #[error("field {field} holds {found}, expected {expected}")]
    FieldType {
        /// Path of the field without list positions, such as `skills.id`.
        field: String,
        /// What was there.
        found: &'static str,
        /// What the model asks for.
        expected: &'static str,
    },
}

impl FactsError {
    /// The name of the failure that the vectors use.
    #[must_use]
    pub fn error_class(&self) -> &'static str {
        match self {
            Self::SchemaVersionMissing => "schema_version_missing",
            Self::SchemaVersionInvalid { .. } => "schema_version_invalid",
            Self::SchemaVersionUnsupported { .. } => "schema_version_unsupported",
            Self::FieldType { .. } => "field_type",
        }
    }

    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::Invalid
    }
}

/// What the typed view of a record says. Absent text is empty, an absent number 0, an absent list or map empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts<'a> {
    /// Which types the record was read with.
    pub model: Model,
    /// The record's name.
    pub name: String,
    /// The record's own version.
    pub version: String,
    /// Free text.
    pub description: String,
    /// As written.
    pub schema_version: String,
    /// `None` when absent or null, which search tells apart from an empty list.
    pub authors: Option<Vec<String>>,
    /// As written; not parsed.
    pub created_at: String,
    /// As written; always empty in model C.
    pub previous_record_cid: String,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
    /// In record order.
    pub skills: Vec<Item>,
    /// In record order.
    pub domains: Vec<Item>,
    /// In record order.
    pub modules: Vec<Module<'a>>,
    /// In record order.
    pub locators: Vec<Locator>,
}

/// A skill or domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Full name with its `/` hierarchy.
    pub name: String,
    /// Class id; 0 when absent.
    pub id: u32,
    /// Empty in model B, which has none.
    pub annotations: BTreeMap<String, String>,
}

/// A module.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Module<'a> {
    /// Full name.
    pub name: String,
    /// Class id; 0 when absent.
    pub id: u32,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
    /// The members of `data`; `None` when absent or null.
    pub data: Option<&'a BTreeMap<String, Value>>,
    /// `artifact.media_type`; model C only.
    pub artifact_media_type: String,
}

/// A locator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Locator {
    /// The kind of place.
    pub kind: String,
    /// `url`, or in model C the first of `urls`.
    pub url: String,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
}

impl<'a> Facts<'a> {
    /// Reads `record`, whose module data is borrowed.
    ///
    /// # Errors
    /// [`FactsError`] as [`Model::of`], or when a known field has the wrong JSON type.
    pub fn read(record: &'a Struct) -> Result<Self, FactsError> {
        decode::record(Model::of(record)?, record)
    }
}

/// Major and minor of a lenient semantic version of exactly three dot-separated parts. Leading zeros are ignored;
/// a pre-release or build suffix is allowed as long as it has no dot.
fn lenient_version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.');
    let (major, minor, rest) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let patch_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (patch, suffix) = rest.split_at_checked(patch_end)?;
    version_number(patch)?;
    let build = match suffix.strip_prefix('-') {
        Some(suffix) => {
            let (pre, build) = suffix
                .split_once('+')
                .map_or((suffix, None), |(pre, build)| (pre, Some(build)));
            identifier(pre)?;
            // Leading zeros are let through in the three numbers, not in a pre-release that is one.
            if pre.len() > 1 && pre.starts_with('0') && pre.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            build
        }
        None if suffix.is_empty() => None,
        None => Some(suffix.strip_prefix('+')?),
    };
    build.map_or(Some(()), identifier)?;
    Some((version_number(major)?, version_number(minor)?))
}

fn version_number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn identifier(text: &str) -> Option<()> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_leniently() {
        for (text, expected) in [
            ("1.0.0", Some((1, 0))),
            ("01.0.0", Some((1, 0))),
            ("0.08.0", Some((0, 8))),
            ("1.0.0-rc1", Some((1, 0))),
            ("1.2.3+b4", Some((1, 2))),
            ("1.0.0-a+b", Some((1, 0))),
            ("1.0.0-rc.1", None),
            ("1.0.0-", None),
            ("1.0.0-0", Some((1, 0))),
            ("1.0.0-01", None),
            ("1.0.0-01a", Some((1, 0))),
            ("1.0.0+", None),
            ("1.0", None),
            ("v1.0.0", None),
            (" 1.0.0", None),
            ("1..0", None),
            ("1.0.0 ", None),
            ("１.0.0", None),
        ] {
            assert_eq!(lenient_version(text), expected, "{text:?}");
        }
    }
}
