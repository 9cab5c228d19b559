//! The routing brain's ground state as job rows of the store.
//!
//! | job row | holds |
//! |---|---|
//! | `outbox/<cid>` | [`Outbox`]: what is announced about a record, or that it was taken back |
//! | `due/<cid>` | [`Due`]: when the record is provided next |
//!
//! Both are JSON with a version. A row of a newer version, or one that does not read, is passed over and named: the
//! published set is what counts, and an announcement made twice harms nobody.

use bytes::Bytes;
use dirnode_record::RecordCid;
use dirnode_routing::{DueRow, Kind, OutboxRow, Restored, Timestamp};
use dirnode_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const VERSION: u8 = 1;
const OUTBOX: &str = "outbox/";
const DUE: &str = "due/";

#[derive(Debug, Serialize, Deserialize)]
struct Outbox {
    v: u8,
    withdraw: bool,
    stamp: Timestamp,
    filed_at: Timestamp,
    announced: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Due {
    v: u8,
    due: Timestamp,
    stamp: Timestamp,
    /// Rows of earlier releases do not say.
    #[serde(default = "unknown")]
    provided_at: Timestamp,
}

const fn unknown() -> Timestamp {
    Timestamp::EPOCH
}

fn json(value: &impl Serialize) -> Bytes {
    // Numbers and flags always serialise.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

pub(super) fn outbox_key(cid: &RecordCid) -> String {
    format!("{OUTBOX}{cid}")
}

pub(super) fn due_key(cid: &RecordCid) -> String {
    format!("{DUE}{cid}")
}

pub(super) fn outbox_value(row: &OutboxRow) -> Bytes {
    json(&Outbox {
        v: VERSION,
        withdraw: row.kind == Kind::Withdraw,
        stamp: row.stamp,
        filed_at: row.filed_at,
        announced: row.announced,
    })
}

pub(super) fn due_value(row: &DueRow) -> Bytes {
    json(&Due {
        v: VERSION,
        due: row.due,
        stamp: row.stamp,
        provided_at: row.provided_at,
    })
}

pub(super) fn outbox_row(key: &str, value: &[u8]) -> Option<OutboxRow> {
    let cid = RecordCid::parse(key.strip_prefix(OUTBOX)?)?;
    let row: Outbox = serde_json::from_slice(value).ok()?;
    (row.v == VERSION).then_some(OutboxRow {
        cid,
        kind: if row.withdraw {
            Kind::Withdraw
        } else {
            Kind::Publish
        },
        stamp: row.stamp,
        filed_at: row.filed_at,
        announced: row.announced,
    })
}

fn due_row(key: &str, value: &[u8]) -> Option<DueRow> {
    let cid = RecordCid::parse(key.strip_prefix(DUE)?)?;
    let row: Due = serde_json::from_slice(value).ok()?;
    (row.v == VERSION).then_some(DueRow {
        cid,
        due: row.due,
        stamp: row.stamp,
        provided_at: row.provided_at,
    })
}

/// What the last run left, made consistent: a stop may have come between a row and the mark that goes with it.
///
/// Nobody was told yet that such a request is done, so either end would be right; it is brought to the end it was
/// meant for.
///
/// # Errors
/// When the store cannot be read or written.
pub(super) async fn restore(store: &Store) -> Result<Restored, StoreError> {
    let mut published: BTreeMap<RecordCid, DueRow> = store
        .published()
        .await?
        .into_iter()
        .map(|(cid, _)| (cid, unwritten(cid)))
        .collect();
    let mut outbox = Vec::new();
    for (key, value) in store.jobs(OUTBOX).await? {
        let Some(row) = outbox_row(&key, &value) else {
            tracing::warn!(
                component = "routing",
                key,
                "outbox row does not read, it is passed over"
            );
            continue;
        };
        match (row.kind, published.contains_key(&row.cid)) {
            (Kind::Publish, false) if store.contains(row.cid) => {
                store.mark_published(row.cid).await?;
                published.insert(row.cid, unwritten(row.cid));
            }
            // Gone in the meantime: there is nothing left to announce.
            (Kind::Publish, false) => {
                store.delete_job(&key).await?;
                continue;
            }
            (Kind::Withdraw, true) => {
                store.unmark_published(row.cid).await?;
                published.remove(&row.cid);
            }
            (Kind::Publish, true) | (Kind::Withdraw, false) => {}
        }
        outbox.push(row);
    }
    for (key, value) in store.jobs(DUE).await? {
        match due_row(&key, &value) {
            Some(row) => match published.get_mut(&row.cid) {
                Some(held) => *held = row,
                None => drop(store.delete_job(&key).await?),
            },
            None => tracing::warn!(
                component = "routing",
                key,
                "due row does not read, it is passed over"
            ),
        }
    }
    Ok(Restored {
        outbox,
        published: published.into_values().collect(),
        ..Restored::default()
    })
}

fn unwritten(cid: RecordCid) -> DueRow {
    DueRow {
        cid,
        due: Timestamp::EPOCH,
        stamp: Timestamp::EPOCH,
        provided_at: Timestamp::EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back_as_they_were_written() {
        let cid = RecordCid::of(b"x");
        let row = OutboxRow {
            cid,
            kind: Kind::Withdraw,
            stamp: Timestamp::from_nanos(7),
            filed_at: Timestamp::from_nanos(5),
            announced: true,
        };
        assert_eq!(outbox_row(&outbox_key(&cid), &outbox_value(&row)), Some(row));
        let due = DueRow {
            cid,
            due: Timestamp::from_nanos(9),
            stamp: Timestamp::from_nanos(7),
            provided_at: Timestamp::from_nanos(8),
        };
        assert_eq!(due_row(&due_key(&cid), &due_value(&due)), Some(due));
    }

    #[test]
    fn rows_of_another_version_are_not_taken() {
        let key = outbox_key(&RecordCid::of(b"x"));
        let newer = br#"{"v":2,"withdraw":false,"stamp":1,"filed_at":1,"announced":false}"#;
        assert_eq!(outbox_row(&key, newer), None);
        assert_eq!(outbox_row("outbox/what", newer), None);
        assert_eq!(outbox_row(&key, b"{"), None);
    }

    /// A release before this one did not write down when a record was provided.
    #[test]
    fn a_due_row_without_the_time_of_the_last_provide_is_read() {
        let cid = RecordCid::of(b"x");
        let row = due_row(&due_key(&cid), br#"{"v":1,"due":9,"stamp":7}"#).unwrap();
        assert_eq!(
            (row.due, row.provided_at),
            (Timestamp::from_nanos(9), Timestamp::EPOCH)
        );
    }
}
