//! Referrers: signatures, public keys and scan reports that point at a record, and the rules of their requests.
//!
//! A referrer's identity is the CID of its own canonical document, which names the record, so one payload on two
//! records is two referrers. Its data is opaque here. Holds no state. Follows grpc-api §1.2, §3.4 and §4.5 to §4.7.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;

use dirnode_proto::{Struct, Value};

use crate::canonical::{CanonicalError, write_string, write_struct};
use crate::cid::length_rule;
use crate::text::{TextError, read_struct};
use crate::{ErrorKind, RecordCid};

/// A public key.
pub const PUBLIC_KEY: &str = "agntcy.dir.sign.v1.PublicKey";
/// A signature.
pub const SIGNATURE: &str = "agntcy.dir.sign.v1.Signature";
/// A security scan report.
pub const SCAN_REPORT: &str = "agntcy.dir.security.v1.ScanReport";

/// Whether `kind` is one of the three known referrer types.
#[must_use]
pub fn is_referrer_type(kind: &str) -> bool {
    matches!(kind, PUBLIC_KEY | SIGNATURE | SCAN_REPORT)
}

/// A document attached to a record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Referrer {
    /// One of the referrer types; field `type` of the document.
    pub kind: String,
    /// `record_ref.cid`: `None` when there is no `record_ref`, empty when it has no `cid`.
    pub record_cid: Option<String>,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
    /// As written; not parsed.
    pub created_at: String,
    /// The payload; `Some` of an empty object differs from `None`.
    pub data: Option<Struct>,
    /// `referrer_ref.cid`, as `record_cid`. Only copies between peers carry it.
    pub referrer_ref: Option<String>,
}

/// Why bytes are not a referrer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferrerError {
    /// Not JSON, or not an object.
    #[error("referrer is not readable")]
    Text(#[from] TextError),
    /// The text `null`.
    #[error("referrer is null")]
    Null,
    /// A field that a referrer does not have, or of the wrong type.
    #[error("referrer field {field:?} is unknown or has the wrong type")]
    Field {
        /// The name of the field, shortened.
        field: String,
    },
}

impl ReferrerError {
    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Referrer {
    /// The canonical document; its hash is the referrer's CID. Empty texts, empty maps and unset messages are left
    /// out.
    ///
    /// # Errors
    /// [`CanonicalError`] when the data holds something JSON cannot say.
    pub fn to_canonical(&self) -> Result<Vec<u8>, CanonicalError> {
        let mut out = Vec::with_capacity(512);
        let mut next = b'{';
        let mut key = |out: &mut Vec<u8>, name: &str| {
            out.push(mem::replace(&mut next, b','));
            write_string(out, name);
            out.push(b':');
        };
        if !self.annotations.is_empty() {
            key(&mut out, "annotations");
            let mut next = b'{';
            for (name, value) in &self.annotations {
                out.push(mem::replace(&mut next, b','));
                write_string(&mut out, name);
                out.push(b':');
                write_string(&mut out, value);
            }
            out.push(b'}');
        }
        if !self.created_at.is_empty() {
            key(&mut out, "created_at");
            write_string(&mut out, &self.created_at);
        }
        if let Some(data) = &self.data {
            key(&mut out, "data");
            write_struct(&mut out, data)?;
        }
        for (name, cid) in [
            ("record_ref", &self.record_cid),
            ("referrer_ref", &self.referrer_ref),
        ] {
            if let Some(cid) = cid {
                key(&mut out, name);
                write_ref(&mut out, cid);
            }
        }
        if !self.kind.is_empty() {
            key(&mut out, "type");
            write_string(&mut out, &self.kind);
        }
        if next == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
        Ok(out)
    }

    /// The CID of the canonical document.
    ///
    /// # Errors
    /// As [`Referrer::to_canonical`].
    pub fn cid(&self) -> Result<RecordCid, CanonicalError> {
        Ok(RecordCid::of(&self.to_canonical()?))
    }

    /// Reads a stored document back. Unknown fields are refused, since they would be lost and change the CID.
    ///
    /// # Errors
    /// [`ReferrerError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ReferrerError> {
        let mut document = read_struct(bytes)?.ok_or(ReferrerError::Null)?;
        let mut referrer = Self::default();
        for (name, value) in &mut document.fields {
            let read = match name.as_str() {
                "type" => take_text(value).map(|text| referrer.kind = text),
                "created_at" => take_text(value).map(|text| referrer.created_at = text),
                "record_ref" => take_ref(value).map(|cid| referrer.record_cid = cid),
                "referrer_ref" => take_ref(value).map(|cid| referrer.referrer_ref = cid),
                "annotations" => take_map(value).map(|map| referrer.annotations = map),
                "data" => match mem::take(value) {
                    Value::Object(fields) => {
                        referrer.data = Some(Struct { fields });
                        Some(())
                    }
                    Value::Null => Some(()),
                    other => {
                        // Back into the document, whose drop does not recurse.
                        *value = other;
                        None
                    }
                },
                _ => None,
            };
            read.ok_or_else(|| ReferrerError::Field {
                field: crate::shorten(name),
            })?;
        }
        Ok(referrer)
    }
}

fn write_ref(out: &mut Vec<u8>, cid: &str) {
    out.push(b'{');
    if !cid.is_empty() {
        out.extend_from_slice(b"\"cid\":");
        write_string(out, cid);
    }
    out.push(b'}');
}

/// Null is the same as absent, here and below.
fn take_text(value: &mut Value) -> Option<String> {
    match value {
        Value::String(text) => Some(mem::take(text)),
        Value::Null => Some(String::new()),
        _ => None,
    }
}

fn take_ref(value: &mut Value) -> Option<Option<String>> {
    let fields = match value {
        Value::Null => return Some(None),
        Value::Object(fields) => fields,
        _ => return None,
    };
    let mut cid = String::new();
    for (name, value) in fields {
        if name != "cid" {
            return None;
        }
        cid = take_text(value)?;
    }
    Some(Some(cid))
}

fn take_map(value: &mut Value) -> Option<BTreeMap<String, String>> {
    match value {
        Value::Null => Some(BTreeMap::new()),
        Value::Object(fields) => fields
            .iter_mut()
            .map(|(key, value)| match value {
                Value::String(text) => Some((key.clone(), mem::take(text))),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// One broken rule of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field.
    pub field: &'static str,
    /// What it must be.
    pub message: &'static str,
}

/// The broken rules of a referrer request, in order of field numbers; never empty. `Display` is the text clients see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// The single violations.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "validation error: {}: {}", only.field, only.message);
        }
        f.write_str("validation errors:")?;
        self.0
            .iter()
            .try_for_each(|one| write!(f, "\n - {}: {}", one.field, one.message))
    }
}

impl std::error::Error for Violations {}

const REQUIRED: &str = "value is required";
const NOT_A_CID: &str = "value must be a valid CID";
const NOT_A_TYPE: &str = "value must be a valid referrer type";

/// Checks a push request: `record_cid` is `record_ref.cid`, `None` when `record_ref` is not set.
///
/// # Errors
/// [`Violations`] with every broken rule.
pub fn check_push(record_cid: Option<&str>, kind: &str) -> Result<(), Violations> {
    let kind = if kind.is_empty() {
        Some(REQUIRED)
    } else {
        wrong_type(kind)
    };
    violations([
        required_ref(record_cid, "record_ref", "record_ref.cid"),
        at("type", kind),
    ])
}

/// Checks a pull request; each `None` is a message or field that is not set.
///
/// # Errors
/// [`Violations`] with every broken rule.
pub fn check_pull(
    record_cid: Option<&str>,
    referrer_type: Option<&str>,
    referrer_cid: Option<&str>,
) -> Result<(), Violations> {
    violations([
        required_ref(record_cid, "record_ref", "record_ref.cid"),
        at("referrer_type", referrer_type.and_then(wrong_type)),
        at("referrer_ref.cid", referrer_cid.and_then(wrong_cid)),
    ])
}

/// Checks a delete request; each `None` is a message or field that is not set.
///
/// # Errors
/// [`Violations`] with every broken rule.
pub fn check_delete(
    record_cid: Option<&str>,
    referrer_cid: Option<&str>,
    referrer_type: Option<&str>,
) -> Result<(), Violations> {
    violations([
        required_ref(record_cid, "record", "record.cid"),
        at("referrer_ref.cid", referrer_cid.and_then(wrong_cid)),
        at("referrer_type", referrer_type.and_then(wrong_type)),
    ])
}

fn violations<const N: usize>(found: [Option<Violation>; N]) -> Result<(), Violations> {
    let found: Vec<Violation> = found.into_iter().flatten().collect();
    if found.is_empty() {
        Ok(())
    } else {
        Err(Violations(found))
    }
}

fn at(field: &'static str, message: Option<&'static str>) -> Option<Violation> {
    message.map(|message| Violation { field, message })
}

fn required_ref(cid: Option<&str>, message: &'static str, field: &'static str) -> Option<Violation> {
    match cid {
        None => at(message, Some(REQUIRED)),
        Some(cid) => at(field, wrong_cid(cid)),
    }
}

fn wrong_cid(cid: &str) -> Option<&'static str> {
    if cid.is_empty() {
        return Some(REQUIRED);
    }
    (!length_rule(cid)).then_some(NOT_A_CID)
}

fn wrong_type(kind: &str) -> Option<&'static str> {
    (!is_referrer_type(kind)).then_some(NOT_A_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_rules_give_the_published_texts() {
        let text = |result: Result<(), Violations>| result.unwrap_err().to_string();
        assert_eq!(check_push(Some("foo"), SIGNATURE), Ok(()));
        assert_eq!(
            text(check_push(Some("foo"), "x")),
            "validation error: type: value must be a valid referrer type"
        );
        assert_eq!(
            text(check_push(None, "")),
            "validation errors:\n - record_ref: value is required\n - type: value is required"
        );
        assert_eq!(
            text(check_pull(Some(""), Some(""), Some(""))),
            "validation errors:\n - record_ref.cid: value is required\n - referrer_type: value must be a valid \
             referrer type\n - referrer_ref.cid: value is required"
        );
        let long = "x".repeat(129);
        assert_eq!(
            text(check_delete(None, Some(&long), Some("x"))),
            "validation errors:\n - record: value is required\n - referrer_ref.cid: value must be a valid CID\n \
             - referrer_type: value must be a valid referrer type"
        );
        assert_eq!(check_delete(Some("c"), None, None), Ok(()));
        assert_eq!(check_pull(Some("c"), Some(SCAN_REPORT), Some("r")), Ok(()));
    }

    #[test]
    fn documents_read_back() {
        let referrer = Referrer {
            kind: SIGNATURE.to_owned(),
            record_cid: Some("c".to_owned()),
            annotations: [("<k>".to_owned(), String::new())].into(),
            created_at: "t".to_owned(),
            data: Some(Struct::default()),
            referrer_ref: Some(String::new()),
        };
        let bytes = referrer.to_canonical().unwrap();
        assert_eq!(Referrer::parse(&bytes).unwrap(), referrer);
        assert_eq!(Referrer::default().to_canonical().unwrap(), b"{}");
        assert_eq!(Referrer::parse(b"{}").unwrap(), Referrer::default());
        for bad in [
            "null",
            "[]",
            "{\"x\":1}",
            "{\"type\":1}",
            "{\"record_ref\":{\"x\":1}}",
            "{\"data\":[[]]}",
        ] {
            assert!(Referrer::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
