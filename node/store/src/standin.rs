//! Until the record crate has these.
use serde::{Deserialize, Serialize};
use sha2::Digest;
use std::collections::BTreeMap;

/// A record's CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordCid([u8; 32]);
impl RecordCid {
    /// Hash.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
    /// From digest.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }
    /// Hex.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
    /// Parse.
    #[must_use]
    pub fn parse(_text: &str) -> Option<Self> {
        None
    }
}
impl std::fmt::Display for RecordCid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.digest_hex())
    }
}
/// Summary.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Schema.
    pub schema_version: String,
    /// Created.
    pub created_at: String,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}
