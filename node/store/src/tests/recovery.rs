//! Damage and loss of parts of the directory.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::verify::verify_with;
use crate::{ReferrerRow, VerifyReport};

const KIND: &str = "agntcy.dir.sign.v1.Signature";

fn blob(dir: &Path, cid: RecordCid) -> PathBuf {
    dir.join("oci/blobs/sha256").join(cid.digest_hex())
}

async fn fill(dir: &Path, count: u64) -> RecordCid {
    let mut config = config(dir);
    // Small files, so that condensed ones exist too.
    config.segment_bytes = 4000;
    let (store, _) = open(&config);
    for n in 0..count {
        store.put_record(record(n)).await.unwrap();
    }
    let first = record(0).cid;
    store.put_referrer(referrer(first, 1, KIND)).await.unwrap();
    store.put_referrer(referrer(first, 2, KIND)).await.unwrap();
    store.delete_record(record(1).cid).await.unwrap();
    store.mark_published(first).await.unwrap();
    store.put_job("a", Bytes::from_static(b"1")).await.unwrap();
    store.touch(first, crate::Usage::Pull);
    store.close().await.unwrap();
    first
}

async fn check_all(store: &Store, count: u64, first: RecordCid, with_ground: bool) {
    for n in (0..count).filter(|n| *n != 1) {
        assert_eq!(store.body(record(n).cid).await.unwrap().unwrap(), record(n).body);
        assert_eq!(
            store.record(record(n).cid).await.unwrap().unwrap().summary.name,
            record(n).summary.name
        );
    }
    assert_eq!(store.records_len(), count - 1);
    let referrers = store.referrers(first).await.unwrap().unwrap();
    assert_eq!(referrers.len(), 2);
    if with_ground {
        let wanted = [1, 2].map(|n| ReferrerRow {
            cid: referrer(first, n, KIND).cid,
            kind: KIND.into(),
        });
        assert_eq!(referrers, wanted);
        assert!(store.published_row(first).await.unwrap().is_some());
        assert!(store.job("a").await.unwrap().is_some());
        assert_eq!(store.usage(first).pull_count, 1);
    }
}

/// The row engine panics or fails on damaged files; nothing may be lost by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_row_store_is_rebuilt_with_nothing_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = fill(dir.path(), 60).await;
    let db = dir.path().join("rows/db");
    let mut bytes = fs::read(&db).unwrap();
    for (at, byte) in bytes.iter_mut().enumerate() {
        if at % 3 == 0 {
            *byte ^= 0xa5;
        }
    }
    fs::write(&db, bytes).unwrap();
    fs::write(dir.path().join("rows/conf"), b"nonsense").unwrap();
    let (store, report) = open(&config(dir.path()));
    assert!(report.rebuilt.is_some(), "{report:?}");
    assert!(dir.path().join("rows.broken-1").exists());
    check_all(&store, 60, first, true).await;
    store.close().await.unwrap();
    let (store, report) = open(&config(dir.path()));
    assert_eq!(report.rebuilt, None);
    check_all(&store, 60, first, true).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_store_of_another_life_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let first = fill(dir.path(), 10).await;
    let other = tempfile::tempdir().unwrap();
    fill(other.path(), 30).await;
    fs::remove_dir_all(dir.path().join("rows")).unwrap();
    fs::rename(other.path().join("rows"), dir.path().join("rows")).unwrap();
    let (store, report) = open(&config(dir.path()));
    assert!(report.rebuilt.is_some());
    check_all(&store, 10, first, true).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_alone_are_enough_for_records_and_referrers() {
    let dir = tempfile::tempdir().unwrap();
    let first = fill(dir.path(), 20).await;
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    fs::remove_dir_all(dir.path().join("rows")).unwrap();
    for _ in 0..2 {
        let (store, report) = open(&config(dir.path()));
        assert!(report.adopted == 21 || report.adopted == 0, "{report:?}");
        check_all(&store, 20, first, false).await;
        store.close().await.unwrap();
        fs::remove_dir_all(dir.path().join("rows")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_is_never_served_and_a_push_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = record(1);
    let (store, _) = open(&config(dir.path()));
    store.put_record(one.clone()).await.unwrap();
    let inserted = store.record(one.cid).await.unwrap().unwrap().inserted_at_ns;
    let path = blob(dir.path(), one.cid);
    eventually("the body is moved", || {
        path.exists() && store.stats().overlay_bodies == 0
    })
    .await;
    fs::write(&path, b"something else").unwrap();
    assert_eq!(kind(store.body(one.cid).await), StoreErrorKind::Corrupt);
    assert_eq!(kind(store.body(one.cid).await), StoreErrorKind::Corrupt);
    assert!(dir.path().join("quarantine").join(one.cid.digest_hex()).exists());
    assert_eq!(store.stats().quarantined, 1);
    store.put_record(one.clone()).await.unwrap();
    assert_eq!(store.body(one.cid).await.unwrap().unwrap(), one.body);
    assert_eq!(
        store.record(one.cid).await.unwrap().unwrap().inserted_at_ns,
        inserted
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_body_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let one = record(1);
    let (store, _) = open(&config(dir.path()));
    store.put_record(one.clone()).await.unwrap();
    let path = blob(dir.path(), one.cid);
    eventually("the body is moved", || path.exists()).await;
    store.delete_record(one.cid).await.unwrap();
    eventually("the file is gone", || !path.exists()).await;
    store.put_record(one.clone()).await.unwrap();
    store.delete_record(one.cid).await.unwrap();
    store.close().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_gives_space_back_and_keeps_the_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    store.put_record(record(1)).await.unwrap();
    for round in 0..500u32 {
        store
            .put_job(&format!("job-{round}"), vec![7; 60_000].into())
            .await
            .unwrap();
    }
    for round in 4..500u32 {
        assert!(store.delete_job(&format!("job-{round}")).await.unwrap());
    }
    eventually("rows are durable", || {
        store.stats().checkpoint_seq == store.stats().journal_seq
    })
    .await;
    let before = store.stats();
    assert!(store.compact_rows().await.unwrap());
    let after = store.stats();
    assert!(
        after.rows_disk_bytes < before.rows_disk_bytes,
        "{before:?} {after:?}"
    );
    assert_eq!(store.jobs("").await.unwrap().len(), 4);
    store.put_record(record(2)).await.unwrap();
    store.close().await.unwrap();
    let (store, report) = open(&config(dir.path()));
    assert_eq!((report.records, report.rebuilt), (2, None));
    store.close().await.unwrap();
}

/// Bodies leave the journal, and what is left is condensed: a long life does not mean a long journal.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_condensed() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.segment_bytes = 100_000;
    let (store, _) = open(&config);
    for n in 0..40 {
        store.put_record(record_of_size(n, 20_000)).await.unwrap();
    }
    store.close().await.unwrap();
    let (store, _) = open(&config);
    store.put_record(record(1000)).await.unwrap();
    store.close().await.unwrap();
    let names: Vec<String> = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.ends_with(".rows")), "{names:?}");
    assert!(
        names.iter().filter(|name| name.ends_with(".log")).count() <= 2,
        "{names:?}"
    );
    fs::remove_dir_all(dir.path().join("rows")).unwrap();
    let (store, report) = open(&config);
    assert_eq!(report.records, 41);
    let seventh = record_of_size(7, 20_000);
    assert_eq!(store.body(seventh.cid).await.unwrap().unwrap(), seventh.body);
    store.close().await.unwrap();
}

fn check(dir: &Path, repair: bool) -> VerifyReport {
    verify_with(config(dir), clock(), repair, &mut |_| {}).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_and_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let first = fill(dir.path(), 10).await;
    let clean = check(dir.path(), false);
    assert!(
        clean.is_clean() && clean.orphans.is_empty() && clean.adoptable.is_empty(),
        "{clean:?}"
    );
    assert_eq!((clean.records, clean.referrers), (9, 2));

    // As after a kill between manifests and index: they are no strangers.
    fs::remove_file(dir.path().join("oci").join("index.json")).unwrap();
    let behind = check(dir.path(), false);
    assert_eq!((&behind.orphans[..], behind.unlisted_manifests), (&[][..], 11));
    assert!(check(dir.path(), true).is_clean());
    assert_eq!(check(dir.path(), false).unlisted_manifests, 0);

    let (damaged, missing) = (record(2), record(3));
    fs::write(blob(dir.path(), damaged.cid), b"x").unwrap();
    fs::remove_file(blob(dir.path(), missing.cid)).unwrap();
    let stray = Bytes::from_static(b"not a record");
    fs::write(blob(dir.path(), RecordCid::of(&stray)), &stray).unwrap();
    let adopted = record(77);
    fs::write(blob(dir.path(), adopted.cid), &adopted.body).unwrap();

    let found = check(dir.path(), false);
    assert_eq!(
        (&found.damaged[..], &found.missing[..]),
        (&[damaged.cid][..], &[missing.cid][..])
    );
    assert_eq!(
        (&found.orphans[..], &found.adoptable[..]),
        (&[RecordCid::of(&stray)][..], &[adopted.cid][..])
    );
    assert!(!found.is_clean() && !found.repaired);
    assert!(check(dir.path(), true).repaired);
    let again = check(dir.path(), false);
    assert!(
        again.damaged.is_empty() && again.orphans.is_empty() && again.adoptable.is_empty(),
        "{again:?}"
    );
    assert_eq!(again.missing.len(), 2, "both need a push to come back");

    let (store, _) = open(&config(dir.path()));
    assert_eq!(store.body(adopted.cid).await.unwrap().unwrap(), adopted.body);
    store.put_record(damaged.clone()).await.unwrap();
    store.put_record(missing.clone()).await.unwrap();
    assert_eq!(store.referrers(first).await.unwrap().unwrap().len(), 2);
    assert_eq!(
        verify_with(config(dir.path()), clock(), false, &mut |_| {})
            .unwrap_err()
            .kind(),
        StoreErrorKind::Locked
    );
    store.close().await.unwrap();
    assert!(check(dir.path(), false).is_clean());
}

/// A kill between a deletion and the mover's round: the row engine flushes by its own timer, so the rows may be ahead of
/// the checkpoint and no longer know what hung on the record. Its bodies stayed for good then, and a repair brought the
/// referrers back on a record that was pushed again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_deletion_takes_its_bodies_though_the_rows_are_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (store, _) = open(&config);
    let kept = record(0).cid;
    let gone = record(1).cid;
    for n in 0..2 {
        store.put_record(record(n)).await.unwrap();
        store
            .put_referrer(referrer(record(n).cid, 1, KIND))
            .await
            .unwrap();
        store
            .put_referrer(referrer(record(n).cid, 2, KIND))
            .await
            .unwrap();
    }
    store.close().await.unwrap();
    // What the mover had brought about before the kill.
    let checkpoint = dir.path().join("journal/checkpoint");
    let before = fs::read(&checkpoint).unwrap();
    let bodies: Vec<_> = [
        gone,
        referrer(gone, 1, KIND).cid,
        referrer(gone, 2, KIND).cid,
        referrer(kept, 1, KIND).cid,
    ]
    .map(|cid| (blob(dir.path(), cid), fs::read(blob(dir.path(), cid)).unwrap()))
    .into();

    let (store, _) = open(&config);
    store.delete_record(gone).await.unwrap();
    let one = crate::ReferrerFilter {
        kind: None,
        cid: Some(referrer(kept, 1, KIND).cid),
    };
    store.delete_referrers(kept, one).await.unwrap();
    store.close().await.unwrap();
    for (path, body) in &bodies {
        assert!(!path.exists());
        fs::write(path, body).unwrap();
    }
    fs::write(&checkpoint, before).unwrap();

    let (store, report) = open(&config);
    assert_eq!(report.rebuilt, None, "{report:?}");
    store.close().await.unwrap();
    for (path, _) in &bodies {
        assert!(!path.exists(), "{} is left behind", path.display());
    }
    let (store, _) = open(&config);
    assert_eq!(store.referrers(kept).await.unwrap().unwrap().len(), 1);
    store.close().await.unwrap();
}
