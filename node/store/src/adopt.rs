//! Reads from a body what the rows need, for the day when only the body is left, and takes in the bodies of a
//! layout whose journal is gone. A body that does not read as a record or referrer is simply not adopted.

use std::collections::BTreeMap;

use dirnode_record::{Facts, Referrer, read_struct};

use crate::config::{MAX_ROW_BYTES, ReferrerHead};
use crate::journal::entry::Change;
use crate::layout::Found;
use crate::rows::{StoredRecord, StoredReferrer};
use crate::state::Shared;
use crate::types::OpenReport;
use crate::{RecordCid, StoreError, Summary};

/// The default [`crate::StoreConfig::summarise`].
pub(crate) fn summary_of(body: &[u8]) -> Option<Summary> {
    let record = read_struct(body).ok()??;
    let facts = Facts::read(&record).ok()?;
    Some(Summary::from(&facts))
}

/// The default [`crate::StoreConfig::referrer_head`] (grpc-api §3.4).
pub(crate) fn referrer_head_of(body: &[u8]) -> Option<ReferrerHead> {
    let referrer = Referrer::parse(body).ok()?;
    let record = RecordCid::parse(referrer.record_cid.as_deref()?)?;
    (!referrer.kind.is_empty()).then_some(ReferrerHead {
        record,
        kind: referrer.kind,
    })
}

/// What a body without a row turns out to be.
pub(crate) enum Orphan {
    Record(Box<StoredRecord>),
    Referrer(ReferrerHead),
    /// A manifest, the shared config, or something foreign.
    Other,
}

/// Reads an orphan. A referrer names its record, which no record does.
pub(crate) fn classify(
    config: &crate::StoreConfig,
    body: &[u8],
    modified_ns: i64,
) -> Result<Orphan, StoreError> {
    if let Some(head) = (config.referrer_head)(body) {
        return Ok(Orphan::Referrer(head));
    }
    if crate::layout::manifest::is_manifest(body) || body == crate::layout::manifest::EMPTY_CONFIG {
        return Ok(Orphan::Other);
    }
    let Some(summary) = (config.summarise)(body) else {
        return Ok(Orphan::Other);
    };
    // Any object at all may read as a record of the oldest model; a record has a name or a schema version.
    if summary.name.is_empty() && summary.schema_version.is_empty() {
        return Ok(Orphan::Other);
    }
    let mut row = StoredRecord {
        inserted_at_ns: modified_ns,
        size_bytes: body.len() as u64,
        summary: Some(Box::new(summary)),
    };
    if crate::rows::encode("record", &row)?.len() > MAX_ROW_BYTES {
        row.summary = None;
    }
    Ok(Orphan::Record(Box::new(row)))
}

/// Makes rows for all blobs of the layout that have none: records by the age of their files, then referrers.
///
/// Only for a store whose journal is gone, before its threads start.
pub(crate) fn adopt(shared: &Shared, report: &mut OpenReport) -> Result<(), StoreError> {
    let mut blobs = shared.layout.blobs()?;
    blobs.retain(|(cid, _)| !shared.index.read().is_live(cid));
    blobs.sort_unstable_by_key(|(cid, file)| (file.modified_ns, *cid));
    let mut referrers: BTreeMap<u64, (RecordCid, ReferrerHead, u64)> = BTreeMap::new();
    let mut last_ns = shared.index.read().records.newest_ns();
    for (place, (cid, file)) in (1..).zip(blobs) {
        let body = match shared.layout.read(&cid)? {
            Found::Whole(body) => body,
            Found::Missing => continue,
            Found::Damaged => {
                report.quarantined = report.quarantined.saturating_add(1);
                continue;
            }
        };
        match classify(&shared.config, &body, file.modified_ns)? {
            Orphan::Record(mut row) => {
                row.inserted_at_ns = row.inserted_at_ns.max(last_ns.saturating_add(1));
                last_ns = row.inserted_at_ns;
                // The body goes along for its name only: it is in the layout already.
                shared.apply(
                    0,
                    Change::Record {
                        cid,
                        row: *row,
                        body: Some(body),
                    },
                    None,
                    true,
                )?;
                report.adopted = report.adopted.saturating_add(1);
            }
            Orphan::Referrer(head) => {
                referrers.insert(place, (cid, head, file.len));
            }
            Orphan::Other => {}
        }
    }
    for (position, (cid, head, size_bytes)) in referrers {
        if shared.index.read().records.contains(&head.record) {
            let row = StoredReferrer {
                cid,
                kind: head.kind,
                size_bytes,
            };
            shared.apply(
                0,
                Change::Referrer {
                    record: head.record,
                    position,
                    row,
                    body: None,
                },
                None,
                true,
            )?;
            report.adopted = report.adopted.saturating_add(1);
        }
    }
    Ok(())
}
