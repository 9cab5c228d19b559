//! The index inside the store: told with each write, the same after a restart and after a rebuild.

use std::sync::Arc;

use dirnode_record::{Label, Namespace};

use super::{backends, clock, config, eventually, open, record, record_of_size, referrer};
use crate::index::MAX_QUERIES;
use crate::{
    Budget, LabelQuery, NewRecord, Plan, Query, QueryError, QueryErrorKind, QueryKind, RecordCid,
    ReferrerFact, ReferrerFilter, SCAN_REPORT, Severity, Sort, Store, Usage,
};

fn plan(kind: QueryKind, value: &str) -> Plan {
    let value = value.to_owned();
    Plan::parse(&[Query {
        kind,
        value,
        negate: false,
    }])
    .unwrap()
}

fn find(store: &Store, plan: &Plan, sort: Sort) -> Vec<RecordCid> {
    let budget = Budget::default();
    let found = store.search(plan, sort, 0, 0, &budget).unwrap();
    let cids = found.into_cids().unwrap();
    assert_eq!(store.count(plan, &budget).unwrap(), cids.len() as u64);
    cids
}

fn skilled(n: u64, skill: &str) -> NewRecord {
    let mut new = record(n);
    new.summary.skills = vec![(skill.to_owned(), 7)];
    new
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_searched_at_once_and_after_a_restart() {
    for rows in backends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.rows = rows;
        config.referrer_facts = Arc::new(|_| Some(ReferrerFact::scan("mcp", Some(Severity::High), false)));
        let (store, _) = open(&config);
        let mut cids = Vec::new();
        for n in 0..30 {
            // One whose summary is too large for a row.
            let new = if n == 7 {
                record_of_size(n, 70_000)
            } else {
                record(n)
            };
            cids.push(new.cid);
            store.put_record(new).await.unwrap();
        }
        let report = referrer(cids[4], 1, SCAN_REPORT);
        store.put_referrer(report.clone()).await.unwrap();
        store.touch(cids[3], Usage::Pull);
        store.delete_record(cids[29]).await.unwrap();
        store.delete_record(cids[0]).await.unwrap();
        // The same record again is a new one.
        store.put_record(record(0)).await.unwrap();
        // What was found stays when its report goes.
        store
            .delete_referrers(cids[4], ReferrerFilter::default())
            .await
            .unwrap();
        let check = |store: &Store| {
            let mut newest: Vec<_> = cids[1..29].iter().rev().copied().collect();
            newest.insert(0, cids[0]);
            assert_eq!(find(store, &Plan::default(), Sort::Recency), newest);
            assert_eq!(
                find(store, &plan(QueryKind::Name, "*agent-7"), Sort::Recency),
                [cids[7]]
            );
            assert_eq!(
                find(store, &plan(QueryKind::Description, "*xxx"), Sort::Recency),
                [cids[7]]
            );
            assert_eq!(find(store, &plan(QueryKind::Version, "=v29"), Sort::Recency), []);
            assert_eq!(
                find(store, &plan(QueryKind::ScanSeverity, "LOW"), Sort::Recency),
                [cids[4]]
            );
            assert_eq!(find(store, &Plan::default(), Sort::Popularity)[0], cids[3]);
        };
        check(&store);
        store.rebuild_index().unwrap();
        check(&store);
        store.close().await.unwrap();
        // The memory engine reads the report again, which is gone.
        if rows != crate::RowsBackend::Memory {
            let (store, _) = open(&config);
            check(&store);
            store.close().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_record_is_listed_until_it_is_unpublished() {
    for rows in backends() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.rows = rows;
        let (store, _) = open(&config);
        let (one, other) = (skilled(1, "a//b/c"), skilled(2, "a/b"));
        let cids = [one.cid, other.cid];
        for new in [one, other] {
            store.put_record(new.clone()).await.unwrap();
            store.mark_published(new.cid).await.unwrap();
        }
        store.delete_record(cids[0]).await.unwrap();
        store.close().await.unwrap();
        let (store, _) = open(&config);
        let below = LabelQuery::In(Namespace::Skills, "a/b".into());
        let listed = store
            .list_published(std::slice::from_ref(&below), 10, None)
            .unwrap();
        assert_eq!(listed.len(), 2);
        let label = Label::parse("/skills/a/b/c").unwrap();
        assert_eq!(store.listed(&cids[0]).unwrap().unwrap().labels, [label]);
        store.unmark_published(cids[0]).await.unwrap();
        let listed = store.list_published(&[below], 10, None).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].cid, cids[1]);
        store.close().await.unwrap();
    }
}

/// Many records are indexed beside the work; what is written meanwhile is not lost and not found twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn filling_goes_on_beside_writes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (store, _) = open(&config);
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..100 {
                store.put_record(record(lane * 1000 + n)).await.unwrap();
                if n % 3 == 0 {
                    store.delete_record(record(lane * 1000 + n).cid).await.unwrap();
                }
            }
        });
    }
    let rebuilder = store.clone();
    let rebuilt = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            rebuilder.rebuild_index().unwrap();
        }
    });
    while tasks.join_next().await.transpose().unwrap().is_some() {}
    rebuilt.await.unwrap();
    eventually("the index is ready", || store.index_ready()).await;
    let found = find(&store, &Plan::default(), Sort::Recency);
    assert_eq!(found.len() as u64, store.records_len());
    assert_eq!(found.len(), 8 * 66);
    let names = find(&store, &plan(QueryKind::Name, "*agent-*"), Sort::Recency);
    assert_eq!(names, found);
    store.close().await.unwrap();
}

/// Whatever is asked, the answer or the refusal comes within the budget.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_queries_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(config(dir.path()), clock()).unwrap();
    for n in 0..200 {
        store
            .put_record(record_of_size(n, 20_000 + usize::try_from(n).unwrap()))
            .await
            .unwrap();
    }
    let one = |value: String| Query {
        kind: QueryKind::Description,
        value,
        negate: false,
    };
    let many = vec![one("*a*".into()); MAX_QUERIES + 1];
    assert!(matches!(Plan::parse(&many), Err(QueryError::TooMany { .. })));
    let long = [one("x".repeat(1 << 20))];
    assert!(matches!(Plan::parse(&long), Err(QueryError::TooLong { .. })));
    let budget = Budget {
        max_steps: 5_000_000,
        ..Budget::default()
    };
    let stars = Plan::parse(&[one("*?x".repeat(10_000) + "y")]).unwrap();
    let slow = store.search(&stars, Sort::Recency, 20, 0, &budget).unwrap_err();
    assert_eq!(slow.kind(), QueryErrorKind::TooExpensive);
    let wild = Plan::parse(&[one("*?*?*?*".into())]).unwrap();
    assert_eq!(store.count(&wild, &Budget::default()).unwrap(), 200);
    let rows = Budget {
        max_rows: 50,
        ..Budget::default()
    };
    let error = store.count(&wild, &rows).unwrap_err();
    assert!(matches!(error, QueryError::TooExpensive { what: "rows" }));
    let late = Budget {
        expired: Arc::new(|| true),
        ..Budget::default()
    };
    let error = store.count(&wild, &late).unwrap_err();
    assert!(matches!(error, QueryError::TooExpensive { what: "time" }));
    let all = Plan::default();
    let beyond = store.search(&all, Sort::Recency, 0, u32::MAX, &budget).unwrap();
    assert!(beyond.is_empty());
    store.close().await.unwrap();
}
