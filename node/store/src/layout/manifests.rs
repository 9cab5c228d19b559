//! Keeps manifests and `index.json` in step with the rows. Derived and lazy: nothing waits for it, and a start
//! compares `index.json` with the rows once before it trusts its own memory of what is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::manifest::{self, CREATED, Descriptor, INDEX_TYPE, MANIFEST_TYPE, REF_NAME};
use crate::rows::{self, Family, StoredRecord};
use crate::state::Shared;
use crate::{RecordCid, StoreError};

/// Manifests written at once.
const GROUP_LEN: usize = 1000;
/// A larger `index.json` is not read back, but made anew.
const MAX_INDEX_BYTES: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    manifest: RecordCid,
    size: u64,
    /// When the record, or the record of the referrer, was inserted.
    created_ns: i64,
    /// The record, if this is a referrer.
    record: Option<RecordCid>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexFile {
    schema_version: u32,
    media_type: String,
    manifests: Vec<Descriptor>,
}

const RECORD_NOTE: &str = "org.agntcy.dir/subject";

/// What is written.
#[derive(Default)]
pub(crate) struct Manifests {
    /// By tag, which is the CID of the record or referrer.
    entries: BTreeMap<RecordCid, Entry>,
    referrers: HashMap<RecordCid, HashSet<RecordCid>>,
    /// Whether `entries` was compared with the rows since the start.
    compared: bool,
}

fn bad(error: &serde_json::Error) -> StoreError {
    StoreError::CorruptRow {
        what: "OCI manifest".to_owned(),
        why: error.to_string(),
    }
}

impl Manifests {
    /// True until the first comparison with the rows.
    pub(crate) fn is_stale(&self) -> bool {
        !self.compared
    }

    fn insert(&mut self, tag: RecordCid, entry: Entry) {
        if let Some(record) = entry.record {
            self.referrers.entry(record).or_default().insert(tag);
        }
        self.entries.insert(tag, entry);
    }

    fn remove(&mut self, tag: &RecordCid) -> Option<RecordCid> {
        let entry = self.entries.remove(tag)?;
        if let Some(record) = entry.record
            && let Some(tags) = self.referrers.get_mut(&record)
        {
            tags.remove(tag);
            if tags.is_empty() {
                self.referrers.remove(&record);
            }
        }
        Some(entry.manifest)
    }

    /// Loads what `index.json` names, for a check that writes nothing.
    pub(crate) fn compare_only(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let mut dirty = HashSet::new();
        self.compare(shared, &mut dirty)?;
        shared.index.write().dirty_manifests.extend(dirty);
        Ok(())
    }

    /// Whether a manifest of this record or referrer is written.
    pub(crate) fn names(&self, tag: &RecordCid) -> bool {
        self.entries.contains_key(tag)
    }

    /// Digests of all manifests.
    pub(crate) fn digests(&self) -> HashSet<RecordCid> {
        self.entries.values().map(|entry| entry.manifest).collect()
    }

    /// Brings manifests of changed records, and then `index.json`, up to date.
    pub(crate) fn write(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let mut dirty = std::mem::take(&mut shared.index.write().dirty_manifests);
        let result = self.write_dirty(shared, &mut dirty);
        if result.is_err() {
            shared.index.write().dirty_manifests.extend(dirty);
        }
        result
    }

    fn write_dirty(&mut self, shared: &Shared, dirty: &mut HashSet<RecordCid>) -> Result<(), StoreError> {
        let mut changed = false;
        if !self.compared {
            changed = self.compare(shared, dirty)?;
        }
        if dirty.is_empty() && !changed {
            self.compared = true;
            return Ok(());
        }
        let empty = RecordCid::of(manifest::EMPTY_CONFIG);
        if !shared.layout.has(&empty)? {
            shared
                .layout
                .apply(&[(empty, Bytes::from_static(manifest::EMPTY_CONFIG))], &[])?;
        }
        let (mut fresh, mut gone) = (Vec::new(), Vec::new());
        for record in dirty.iter() {
            self.renew(shared, *record, &mut fresh, &mut gone)?;
            if fresh.len() >= GROUP_LEN {
                shared.layout.apply(&std::mem::take(&mut fresh), &[])?;
            }
        }
        shared.layout.apply(&fresh, &[])?;
        self.write_index(shared)?;
        // Only now: nothing names them any more. A body of ours is never one of them.
        gone.retain(|cid| !shared.index.read().is_live(cid));
        shared.layout.apply(&[], &gone)?;
        self.compared = true;
        Ok(())
    }

    /// Makes the manifests of one record and its referrers anew.
    fn renew(
        &mut self,
        shared: &Shared,
        record: RecordCid,
        fresh: &mut Vec<(RecordCid, Bytes)>,
        gone: &mut Vec<RecordCid>,
    ) -> Result<(), StoreError> {
        let mut old: HashSet<RecordCid> = self.referrers.get(&record).cloned().unwrap_or_default();
        old.insert(record);
        let before: Vec<RecordCid> = old.iter().filter_map(|tag| self.remove(tag)).collect();
        let value = shared.with_rows(|rows| rows.get(Family::Records, record.digest()))?;
        if let Some(value) = value {
            let row: StoredRecord = rows::decode("record", &value)?;
            // A damaged body without a summary: the manifest waits until it is healed.
            if let Ok(summary) = shared.summary(&record, &row) {
                let bytes =
                    Bytes::from(manifest::of_record(&record, &row, &summary).map_err(|error| bad(&error))?);
                let own = RecordCid::of(&bytes);
                let subject = Descriptor::plain(MANIFEST_TYPE, &own, bytes.len() as u64);
                let size = bytes.len() as u64;
                let created_ns = row.inserted_at_ns;
                self.insert(
                    record,
                    Entry {
                        manifest: own,
                        size,
                        created_ns,
                        record: None,
                    },
                );
                fresh.push((own, bytes));
                for (_, referrer) in shared.list_referrers(&record)? {
                    let Ok(Some(body)) = shared.read_body(&referrer.cid) else {
                        continue;
                    };
                    let bytes = manifest::of_referrer(&referrer, &body, subject.clone());
                    let bytes = Bytes::from(bytes.map_err(|error| bad(&error))?);
                    let own = RecordCid::of(&bytes);
                    let size = bytes.len() as u64;
                    self.insert(
                        referrer.cid,
                        Entry {
                            manifest: own,
                            size,
                            created_ns,
                            record: Some(record),
                        },
                    );
                    fresh.push((own, bytes));
                }
            }
        }
        let kept: HashSet<RecordCid> = fresh.iter().map(|(cid, _)| *cid).collect();
        gone.extend(before.into_iter().filter(|cid| !kept.contains(cid)));
        Ok(())
    }

    /// Loads `index.json` and marks as dirty what differs from the rows. True if it has to be written in any case.
    fn compare(&mut self, shared: &Shared, dirty: &mut HashSet<RecordCid>) -> Result<bool, StoreError> {
        self.entries.clear();
        self.referrers.clear();
        let path = shared.layout.root().join("index.json");
        let read = shared.layout.disk().read(&path, MAX_INDEX_BYTES);
        let file: Option<IndexFile> = read
            .ok()
            .flatten()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let missing = file.is_none();
        for descriptor in file.map(|file| file.manifests).unwrap_or_default() {
            if let Some((tag, entry)) = entry_of(&descriptor) {
                self.insert(tag, entry);
            }
        }
        let mut members: HashMap<RecordCid, HashSet<RecordCid>> = HashMap::new();
        let mut seen = HashSet::new();
        shared.with_rows(|rows| {
            rows.scan(Family::Members, &[], &mut |key, _| {
                if let (Some(record), Some(referrer)) = (rows::cid_of(key), rows::last_cid_of(key)) {
                    members.entry(record).or_default().insert(referrer);
                }
                ControlFlow::Continue(())
            })?;
            rows.scan(Family::Records, &[], &mut |key, value| {
                let row = rows::decode::<StoredRecord>("record", value);
                if let (Some(cid), Ok(row)) = (rows::cid_of(key), row) {
                    seen.insert(cid);
                    let fits = self.entries.get(&cid).is_some_and(|entry| {
                        manifest::timestamp(entry.created_ns) == manifest::timestamp(row.inserted_at_ns)
                    });
                    if !fits || members.get(&cid) != self.referrers.get(&cid) {
                        dirty.insert(cid);
                    }
                }
                ControlFlow::Continue(())
            })
        })?;
        for (tag, entry) in &self.entries {
            let record = entry.record.unwrap_or(*tag);
            if !seen.contains(&record) {
                dirty.insert(record);
            }
        }
        Ok(missing)
    }

    fn write_index(&self, shared: &Shared) -> Result<(), StoreError> {
        let path = shared.layout.root().join("index.json");
        let temp = shared.layout.root().join("index.json.tmp");
        let disk = shared.layout.disk();
        let failed = |error: std::io::Error| StoreError::io("write", &path, &error);
        let file = disk.create(&temp).map_err(failed)?;
        let mut at = 0;
        let mut buffer =
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_TYPE}","manifests":["#).into_bytes();
        let mut first = true;
        for (tag, entry) in &self.entries {
            if !first {
                buffer.push(b',');
            }
            first = false;
            serde_json::to_writer(&mut buffer, &descriptor_of(tag, entry)).map_err(|error| bad(&error))?;
            if buffer.len() >= 1 << 20 {
                file.write_at(at, &buffer).map_err(failed)?;
                at = at.saturating_add(buffer.len() as u64);
                buffer.clear();
            }
        }
        buffer.extend_from_slice(b"]}");
        file.write_at(at, &buffer)
            .and_then(|()| file.sync_data())
            .map_err(failed)?;
        disk.rename(&temp, &path)
            .and_then(|()| disk.sync_dir(shared.layout.root()))
            .map_err(failed)
    }
}

fn descriptor_of(tag: &RecordCid, entry: &Entry) -> Descriptor {
    let mut descriptor = Descriptor::plain(MANIFEST_TYPE, &entry.manifest, entry.size);
    descriptor.artifact_type = Some(MANIFEST_TYPE.to_owned());
    descriptor
        .annotations
        .insert(REF_NAME.to_owned(), tag.to_string());
    descriptor
        .annotations
        .insert(CREATED.to_owned(), manifest::timestamp(entry.created_ns));
    if let Some(record) = entry.record {
        descriptor
            .annotations
            .insert(RECORD_NOTE.to_owned(), record.to_string());
    }
    descriptor
}

fn entry_of(descriptor: &Descriptor) -> Option<(RecordCid, Entry)> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;

    let tag = RecordCid::parse(descriptor.annotations.get(REF_NAME)?)?;
    let manifest = super::from_hex(descriptor.digest.strip_prefix("sha256:")?)?;
    let created = OffsetDateTime::parse(descriptor.annotations.get(CREATED)?, &Rfc3339).ok()?;
    let created_ns = i64::try_from(created.unix_timestamp_nanos()).ok()?;
    let record = match descriptor.annotations.get(RECORD_NOTE) {
        Some(text) => Some(RecordCid::parse(text)?),
        None => None,
    };
    Some((
        tag,
        Entry {
            manifest,
            size: descriptor.size,
            created_ns,
            record,
        },
    ))
}
