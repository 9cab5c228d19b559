//! The bytes of OCI manifests and descriptors (grpc-api §4.13), made from rows alone: the same row gives the same
//! bytes, so no manifest needs storing to be known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rows::{StoredRecord, StoredReferrer};
use crate::{RecordCid, Summary};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The config of every manifest.
pub(crate) const EMPTY_CONFIG: &[u8] = b"{}";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const CREATED: &str = "org.opencontainers.image.created";

/// An OCI descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn plain(media_type: &str, cid: &RecordCid, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", cid.digest_hex()),
            size,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) artifact_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Descriptor>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// True if `body` says that it is an image manifest.
pub(crate) fn is_manifest(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        schema_version: u32,
        media_type: String,
    }
    serde_json::from_slice::<Head>(body)
        .is_ok_and(|head| head.schema_version == 2 && head.media_type == MANIFEST_TYPE)
}

/// The record or referrer that a manifest is of; `None` if `body` is no manifest of ours.
pub(crate) fn tag(body: &[u8]) -> Option<RecordCid> {
    let manifest: Manifest = serde_json::from_slice(body).ok()?;
    let cid = manifest.annotations.get("org.agntcy.dir/cid")?;
    (manifest.media_type == MANIFEST_TYPE).then(|| cid.parse().ok())?
}

/// RFC 3339 in UTC; the epoch for a time that no calendar holds.
pub(crate) fn timestamp(ns: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ns))
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

fn bytes(
    layer: Descriptor,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> serde_json::Result<Vec<u8>> {
    let empty = RecordCid::of(EMPTY_CONFIG);
    serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: MANIFEST_TYPE.to_owned(),
        config: Descriptor::plain(EMPTY_TYPE, &empty, EMPTY_CONFIG.len() as u64),
        layers: vec![layer],
        subject,
        annotations,
    })
}

/// The manifest of a record.
pub(crate) fn of_record(
    cid: &RecordCid,
    row: &StoredRecord,
    summary: &Summary,
) -> serde_json::Result<Vec<u8>> {
    let mut notes = BTreeMap::new();
    let mut note = |key: &str, value: &str| {
        if !value.is_empty() {
            notes.insert(format!("org.agntcy.dir/{key}"), value.to_owned());
        }
    };
    note("type", "record");
    note("cid", &cid.to_string());
    note("oasf-version", &summary.schema_version);
    note("schema-version", &summary.schema_version);
    note("name", &summary.name);
    note("version", &summary.version);
    note("created-at", &summary.created_at);
    note("previous-cid", &summary.previous_record_cid);
    for (key, value) in &summary.annotations {
        notes.insert(format!("org.agntcy.dir/custom.{key}"), value.clone());
    }
    notes.insert(CREATED.to_owned(), timestamp(row.inserted_at_ns));
    bytes(
        Descriptor::plain("application/json", cid, row.size_bytes),
        None,
        notes,
    )
}

/// The manifest of a referrer, whose subject is the manifest of its record.
pub(crate) fn of_referrer(
    row: &StoredReferrer,
    body: &[u8],
    subject: Descriptor,
) -> serde_json::Result<Vec<u8>> {
    #[derive(Default, Deserialize)]
    struct Head {
        #[serde(default)]
        created_at: String,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let head: Head = serde_json::from_slice(body).unwrap_or_default();
    let layer_type = match row.kind.as_str() {
        "agntcy.dir.sign.v1.Signature" => "application/vnd.agntcy.dir.sign.signature.v1+json",
        "agntcy.dir.sign.v1.PublicKey" => "application/vnd.agntcy.dir.sign.publickey.v1+pem",
        _ => "application/vnd.agntcy.dir.referrer.v1+json",
    };
    let mut notes = BTreeMap::new();
    notes.insert("agntcy.dir.referrer.type".to_owned(), row.kind.clone());
    notes.insert("org.agntcy.dir/cid".to_owned(), row.cid.to_string());
    if !head.created_at.is_empty() {
        notes.insert("agntcy.dir.referrer.created_at".to_owned(), head.created_at);
    }
    for (key, value) in head.annotations {
        notes.insert(format!("agntcy.dir.referrer.annotation.{key}"), value);
    }
    bytes(
        Descriptor::plain(layer_type, &row.cid, row.size_bytes),
        Some(subject),
        notes,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_row_gives_the_same_manifest() {
        let summary = Summary {
            name: "a".into(),
            version: "v1".into(),
            ..Summary::default()
        };
        let row = StoredRecord {
            inserted_at_ns: 1_700_000_000_000_000_000,
            size_bytes: 3,
            summary: None,
        };
        let cid = RecordCid::of(b"abc");
        let one = of_record(&cid, &row, &summary).unwrap();
        assert_eq!(one, of_record(&cid, &row, &summary).unwrap());
        assert!(is_manifest(&one) && !is_manifest(b"{}"));
        assert_eq!((tag(&one), tag(b"{}")), (Some(cid), None));
        let read: Manifest = serde_json::from_slice(&one).unwrap();
        assert_eq!(read.annotations[CREATED], "2023-11-14T22:13:20Z");
        assert_eq!(read.annotations["org.agntcy.dir/name"], "a");
        assert_eq!(
            read.config.digest,
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert!(!read.annotations.contains_key("org.agntcy.dir/previous-cid"));
    }
}
