//! What the methods promise, on every row engine, before and after a restart.

use std::ops::ControlFlow;

use super::*;
use crate::{Pattern, ReferrerFilter, ReferrerRow, Usage};

const SIGNATURE: &str = "agntcy.dir.sign.v1.Signature";
const KEY: &str = "agntcy.dir.sign.v1.PublicKey";

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_and_survive_both_kinds_of_stop() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.rows = backend;
        let (store, report) = open(&config);
        assert_eq!(report, OpenReport::default(), "{backend:?}");
        let (one, two) = (record(1), record(2));
        assert!(store.put_record(one.clone()).await.unwrap().inserted);
        assert!(!store.put_record(one.clone()).await.unwrap().inserted);
        assert!(store.put_record(two.clone()).await.unwrap().inserted);
        let first = store.record(one.cid).await.unwrap().unwrap();
        let second = store.record(two.cid).await.unwrap().unwrap();
        assert!(first.inserted_at_ns < second.inserted_at_ns);
        assert_eq!(
            (first.summary.clone(), first.size_bytes),
            (one.summary.clone(), one.body.len() as u64)
        );
        store.mark_published(one.cid).await.unwrap();
        store.put_job("sync/1", Bytes::from_static(b"job")).await.unwrap();
        drop(store);

        let (store, report) = open(&config);
        assert_eq!(report.records, 2, "{backend:?}");
        assert_eq!(store.body(one.cid).await.unwrap().unwrap(), one.body);
        assert_eq!(store.record(one.cid).await.unwrap().unwrap(), first);
        assert!(!store.put_record(two.clone()).await.unwrap().inserted);
        let three = record(3);
        store.put_record(three.clone()).await.unwrap();
        store.close().await.unwrap();
        assert_eq!(kind(store.put_record(record(4)).await), StoreErrorKind::Closed);

        let (store, report) = open(&config);
        if backend != RowsBackend::Memory {
            assert_eq!(
                (report.replayed_entries, report.rebuilt),
                (0, None),
                "{backend:?}"
            );
        }
        assert_eq!(store.body(three.cid).await.unwrap().unwrap(), three.body);
        assert!(store.published_row(one.cid).await.unwrap().is_some());
        assert_eq!(store.jobs("sync/").await.unwrap().len(), 1);
        let mut seen = Vec::new();
        store
            .for_each_record(|cid, row| {
                seen.push((cid, row.summary.name.clone()));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen.len(), 3);
        assert!(seen.is_sorted());
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_keep_push_order_and_go_with_their_record() {
    for backend in backends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.rows = backend;
        let (store, _) = open(&config);
        let one = record(1);
        let lost = referrer(one.cid, 0, KEY);
        assert_eq!(kind(store.put_referrer(lost).await), StoreErrorKind::NotFound);
        assert_eq!(store.referrers(one.cid).await.unwrap(), None);
        store.put_record(one.clone()).await.unwrap();
        let pushed = [
            referrer(one.cid, 1, KEY),
            referrer(one.cid, 2, SIGNATURE),
            referrer(one.cid, 3, KEY),
        ];
        for referrer in pushed.iter().chain(&pushed[..1]) {
            store.put_referrer(referrer.clone()).await.unwrap();
        }
        let row = |n: usize| ReferrerRow {
            cid: pushed[n].cid,
            kind: pushed[n].kind.clone(),
        };
        assert_eq!(
            store.referrers(one.cid).await.unwrap().unwrap(),
            [row(0), row(1), row(2)]
        );
        assert_eq!(
            store.referrer_body(pushed[1].cid).await.unwrap().unwrap(),
            pushed[1].body
        );
        assert_eq!(
            store.body(pushed[1].cid).await.unwrap(),
            None,
            "a referrer is no record"
        );

        let none = ReferrerFilter {
            kind: Some(KEY.into()),
            cid: Some(pushed[1].cid),
        };
        assert!(store.delete_referrers(one.cid, none).await.unwrap().is_empty());
        let keys = ReferrerFilter {
            kind: Some(KEY.into()),
            cid: None,
        };
        assert_eq!(
            store.delete_referrers(one.cid, keys).await.unwrap(),
            [pushed[0].cid, pushed[2].cid]
        );
        assert_eq!(store.referrer_body(pushed[0].cid).await.unwrap(), None);
        drop(store);

        let (store, _) = open(&config);
        assert_eq!(store.referrers(one.cid).await.unwrap().unwrap(), [row(1)]);
        assert!(store.delete_record(one.cid).await.unwrap());
        assert!(!store.delete_record(one.cid).await.unwrap());
        assert_eq!(store.referrers(one.cid).await.unwrap(), None);
        assert_eq!(store.referrer_body(pushed[1].cid).await.unwrap(), None);
        assert_eq!(
            kind(store.delete_referrers(one.cid, ReferrerFilter::default()).await),
            StoreErrorKind::NotFound
        );
        store.put_record(one.clone()).await.unwrap();
        assert_eq!(store.referrers(one.cid).await.unwrap().unwrap(), []);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_resolve_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    for n in 0..3 {
        store.put_record(record(n)).await.unwrap();
    }
    let found = store.resolve(&[Pattern::new("example.org/*")], None);
    assert_eq!(
        found.iter().map(|named| named.cid).collect::<Vec<_>>(),
        [record(2).cid, record(1).cid, record(0).cid]
    );
    store.delete_record(record(1).cid).await.unwrap();
    assert!(
        store
            .resolve(&[Pattern::new("Example.org/agent-1")], None)
            .is_empty()
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_kept_and_goes_with_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    let one = record(1);
    store.touch(one.cid, Usage::Pull);
    assert_eq!(
        store.usage(one.cid),
        crate::UsageRow::default(),
        "unknown records are not counted"
    );
    store.put_record(one.clone()).await.unwrap();
    store.touch(one.cid, Usage::Pull);
    store.touch(one.cid, Usage::Pull);
    store.touch(one.cid, Usage::Lookup);
    let before = store.usage(one.cid);
    assert_eq!((before.pull_count, before.lookup_count), (2, 1));
    store.close().await.unwrap();
    let (store, _) = open(&config(dir.path()));
    assert_eq!(store.usage(one.cid), before);
    store.delete_record(one.cid).await.unwrap();
    store.put_record(one.clone()).await.unwrap();
    assert_eq!(store.usage(one.cid), crate::UsageRow::default());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_and_wrong_bodies_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    let mut wrong = record(1);
    wrong.body = Bytes::from_static(b"{}");
    assert_eq!(kind(store.put_record(wrong).await), StoreErrorKind::Corrupt);
    assert_eq!(
        kind(store.put_job(&"x".repeat(300), Bytes::new()).await),
        StoreErrorKind::TooLarge
    );
    assert_eq!(
        kind(store.put_job("x", vec![0; 70_000].into()).await),
        StoreErrorKind::TooLarge
    );
    assert_eq!(
        kind(store.mark_published(record(1).cid).await),
        StoreErrorKind::NotFound
    );
    store.close().await.unwrap();
}

/// The row engine may hold 64 KiB at most: a larger summary is read from the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_summary_too_large_for_a_row_comes_from_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let large = record_of_size(1, 100_000);
    let (store, _) = open(&config(dir.path()));
    store.put_record(large.clone()).await.unwrap();
    assert_eq!(
        store.record(large.cid).await.unwrap().unwrap().summary,
        large.summary
    );
    store.close().await.unwrap();
    let (store, _) = open(&config(dir.path()));
    assert_eq!(
        store.record(large.cid).await.unwrap().unwrap().summary,
        large.summary
    );
    assert_eq!(
        store.resolve(&[Pattern::new("example.org/agent-1")], None).len(),
        1
    );
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_finish_and_share_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64u64 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0..40 {
                store.put_record(record(writer * 1000 + n)).await.unwrap();
                store.put_record(record(n)).await.unwrap();
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), writers.join_all())
        .await
        .expect("writers hang");
    let stats = store.stats();
    assert_eq!(stats.records, 64 * 40);
    assert!(stats.groups < stats.entries, "{stats:?}");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_open_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    let refused = Store::open(config(dir.path()), clock()).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Locked);
    let text = refused.to_string();
    assert!(
        text.contains(&std::process::id().to_string()) && text.contains("--data-dir"),
        "{text}"
    );
    store.close().await.unwrap();
    let (store, _) = open(&config(dir.path()));
    store.close().await.unwrap();
}
