//! Tests of the whole store: on the real disk, and on one that loses power.

mod basic;
mod crash;
mod index;
mod layout;
mod recovery;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Clock, NewRecord, NewReferrer, OpenReport, RecordCid, RowsBackend, Store, StoreConfig, StoreError,
    StoreErrorKind, Summary,
};

/// A clock that counts nanoseconds from a date, one for each question.
pub(super) fn clock() -> Clock {
    let now = AtomicI64::new(1_700_000_000_000_000_000);
    Arc::new(move || now.fetch_add(1, Ordering::SeqCst))
}

pub(super) fn config(dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(dir);
    config.rows_cache_bytes = 1 << 20;
    config
}

/// Opens; waits for an earlier holder in this process to let go.
pub(super) fn open(config: &StoreConfig) -> (Store, OpenReport) {
    for _ in 0..2000 {
        match Store::open(config.clone(), clock()) {
            Err(error) if error.kind() == StoreErrorKind::Locked => {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
    panic!("the lock was not released in time");
}

/// A body that reads as a record.
pub(super) fn record(n: u64) -> NewRecord {
    record_of_size(n, 0)
}

pub(super) fn record_of_size(n: u64, pad: usize) -> NewRecord {
    let text = format!(
        r#"{{"description":"{}","name":"example.org/agent-{n}","schema_version":"1.0.0","version":"v{n}"}}"#,
        "x".repeat(pad)
    );
    let summary = Summary {
        name: format!("example.org/agent-{n}"),
        version: format!("v{n}"),
        description: "x".repeat(pad),
        schema_version: "1.0.0".into(),
        annotations: BTreeMap::new(),
        ..Summary::default()
    };
    NewRecord {
        cid: RecordCid::of(text.as_bytes()),
        body: text.into(),
        summary,
    }
}

pub(super) fn referrer(record: RecordCid, n: u64, kind: &str) -> NewReferrer {
    let text =
        format!(r#"{{"annotations":{{"n":"{n}"}},"record_ref":{{"cid":"{record}"}},"type":"{kind}"}}"#);
    NewReferrer {
        record,
        cid: RecordCid::of(text.as_bytes()),
        kind: kind.into(),
        body: Bytes::from(text.into_bytes()),
    }
}

/// Waits for a fact that a background thread brings about.
pub(super) async fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !fact() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

pub(super) fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

pub(super) fn backends() -> Vec<RowsBackend> {
    vec![
        RowsBackend::Memory,
        RowsBackend::Sled,
        #[cfg(feature = "fjall")]
        RowsBackend::Fjall,
    ]
}
