//! The power goes at any point of a random workload. What was acknowledged must be there, what was deleted must
//! stay away, and the store must open.
//!
//! The rows are in memory, so every start also rebuilds them from the journal.

use std::collections::BTreeMap;

use super::*;
use crate::disk::recording::{Dice, RecordingDisk};
use crate::{ReferrerFilter, Usage};

/// What the callers were told; `None` for what may or may not have happened.
#[derive(Debug, Clone, Default)]
struct Told {
    records: BTreeMap<u64, Option<bool>>,
    referrers: BTreeMap<(u64, u64), Option<bool>>,
    jobs: BTreeMap<u64, Option<bool>>,
}

fn crash_config(disk: &RecordingDisk) -> StoreConfig {
    let mut config = StoreConfig::new("/store");
    config.rows = RowsBackend::Memory;
    config.disk = Arc::new(disk.clone());
    // Small, so that files are rolled, condensed and read back all the time.
    config.segment_bytes = 6000;
    config.overlay_bytes = 2000;
    config
}

const KIND: &str = "agntcy.dir.sign.v1.Signature";

async fn work(store: &Store, told: &mut Told, dice: &mut Dice, steps: u64) {
    for _ in 0..steps {
        let n = dice.below(12);
        let held = told.records.get(&n).copied().flatten();
        let wanted = record_of_size(n, usize::try_from(n * 150).unwrap());
        match dice.below(10) {
            0..=4 => {
                let done = store.put_record(wanted).await.is_ok();
                told.records.insert(n, if done { Some(true) } else { None });
            }
            5 => {
                let done = store.delete_record(wanted.cid).await.is_ok();
                told.records.insert(n, if done { Some(false) } else { None });
                for ((record, _), state) in &mut told.referrers {
                    if *record == n {
                        *state = if done { Some(false) } else { None };
                    }
                }
            }
            6 | 7 if held == Some(true) => {
                let m = dice.below(3);
                let done = store.put_referrer(referrer(wanted.cid, m, KIND)).await.is_ok();
                told.referrers
                    .insert((n, m), if done { Some(true) } else { None });
            }
            8 if held == Some(true) => {
                let m = dice.below(3);
                let which = ReferrerFilter {
                    kind: None,
                    cid: Some(referrer(wanted.cid, m, KIND).cid),
                };
                let done = store.delete_referrers(wanted.cid, which).await.is_ok();
                told.referrers
                    .insert((n, m), if done { Some(false) } else { None });
            }
            9 => {
                let done = store
                    .put_job(&n.to_string(), Bytes::from_static(b"job"))
                    .await
                    .is_ok();
                told.jobs.insert(n, if done { Some(true) } else { None });
            }
            _ => store.touch(wanted.cid, Usage::Pull),
        }
        if dice.below(20) == 0 {
            // Lets the mover work in between.
            store.shared_for_tests().mover_wake.notify_one();
            tokio::task::yield_now().await;
        }
    }
}

async fn check(store: &Store, told: &Told, what: &str) {
    for (n, state) in &told.records {
        let wanted = record_of_size(*n, usize::try_from(n * 150).unwrap());
        let body = store.body(wanted.cid).await;
        let body = body.unwrap_or_else(|error| panic!("{what}: record {n}: {error}"));
        match state {
            Some(true) => {
                assert_eq!(body, Some(wanted.body), "{what}: record {n} is lost");
                let row = store.record(wanted.cid).await.unwrap().unwrap();
                assert_eq!(row.summary, wanted.summary, "{what}");
            }
            Some(false) => assert_eq!(body, None, "{what}: record {n} came back"),
            None => assert!(body.is_none_or(|body| body == wanted.body), "{what}: record {n}"),
        }
    }
    for ((n, m), state) in &told.referrers {
        let wanted = referrer(
            record_of_size(*n, usize::try_from(n * 150).unwrap()).cid,
            *m,
            KIND,
        );
        let body = store.referrer_body(wanted.cid).await;
        let body = body.unwrap_or_else(|error| panic!("{what}: referrer {n}/{m}: {error}"));
        match state {
            Some(true) => assert_eq!(body, Some(wanted.body), "{what}: referrer {n}/{m} is lost"),
            Some(false) => assert_eq!(body, None, "{what}: referrer {n}/{m} came back"),
            None => {}
        }
    }
    for (n, state) in &told.jobs {
        if *state == Some(true) {
            assert!(
                store.job(&n.to_string()).await.unwrap().is_some(),
                "{what}: job {n} is lost"
            );
        }
    }
}

/// Lets both threads see that the power is gone, so that nothing writes to the old disk any more.
async fn abandon(store: Store, disk: &RecordingDisk) {
    let shared = Arc::downgrade(store.shared_for_tests());
    disk.stop_after(0);
    drop(store);
    eventually("threads end", || shared.strong_count() == 0).await;
}

async fn one_life(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut disk = RecordingDisk::default();
    let mut told = Told::default();
    for life in 0..4u64 {
        let what = format!("seed {seed}, life {life}");
        let (store, report) = Store::open(crash_config(&disk), clock())
            .unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
        assert_eq!(report.damaged_files, 0, "{what}: {report:?}");
        check(&store, &told, &what).await;
        // What was not known is settled by what is there.
        for (n, state) in &mut told.records {
            let cid = record_of_size(*n, usize::try_from(*n * 150).unwrap()).cid;
            *state = Some(store.contains(cid));
        }
        for ((n, m), state) in &mut told.referrers {
            let wanted = referrer(
                record_of_size(*n, usize::try_from(*n * 150).unwrap()).cid,
                *m,
                KIND,
            );
            *state = Some(store.referrer_body(wanted.cid).await.unwrap().is_some());
        }
        disk.stop_after(20 + dice.below(400));
        let steps = 20 + dice.below(150);
        work(&store, &mut told, &mut dice, steps).await;
        if dice.below(6) == 0 {
            let _ = store.close().await;
        }
        abandon(store, &disk).await;
        disk = disk.after_power_cut(dice.below(u64::MAX));
    }
    let (store, _) = Store::open(crash_config(&disk), clock()).unwrap();
    check(&store, &told, &format!("seed {seed}, end")).await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_power_cuts_anywhere() {
    let seeds = std::env::var("CRASH_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(40);
    for seed in 0..seeds {
        one_life(seed).await;
    }
}

/// A cut during the start itself: the next start still finds everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_during_the_start_loses_nothing() {
    for seed in 0..20 {
        let mut dice = Dice::new(seed);
        let mut disk = RecordingDisk::default();
        let mut told = Told::default();
        let (store, _) = Store::open(crash_config(&disk), clock()).unwrap();
        work(&store, &mut told, &mut dice, 60).await;
        abandon(store, &disk).await;
        for cut in 0..12 {
            disk = disk.after_power_cut(dice.below(u64::MAX));
            disk.stop_after(dice.below(25));
            match Store::open(crash_config(&disk), clock()) {
                Ok((store, _)) => abandon(store, &disk).await,
                Err(error) => assert_eq!(
                    error.kind(),
                    StoreErrorKind::Io,
                    "seed {seed}, cut {cut}: {error}"
                ),
            }
        }
        disk = disk.after_power_cut(dice.below(u64::MAX));
        let (store, _) = Store::open(crash_config(&disk), clock()).unwrap();
        check(&store, &told, &format!("seed {seed}")).await;
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_store_goes_on() {
    let disk = RecordingDisk::default();
    let (store, _) = Store::open(crash_config(&disk), clock()).unwrap();
    store.put_record(record(1)).await.unwrap();
    disk.set_capacity(Some(disk.used() + 100));
    let large = record_of_size(2, 3_000_000);
    assert_eq!(kind(store.put_record(large.clone()).await), StoreErrorKind::Full);
    assert_eq!(store.body(record(1).cid).await.unwrap().unwrap(), record(1).body);
    assert_eq!(store.body(large.cid).await.unwrap(), None);
    disk.set_capacity(None);
    store.put_record(large.clone()).await.unwrap();
    store.put_record(record(3)).await.unwrap();
    abandon(store, &disk).await;
    let (store, report) = Store::open(crash_config(&disk.after_power_cut(1)), clock()).unwrap();
    assert_eq!((report.records, report.damaged_files), (3, 0));
    assert_eq!(store.body(large.cid).await.unwrap().unwrap(), large.body);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flush_stops_writes_but_not_reads() {
    let disk = RecordingDisk::default();
    let (store, _) = Store::open(crash_config(&disk), clock()).unwrap();
    store.put_record(record(1)).await.unwrap();
    eventually("the first record is moved", || store.stats().checkpoint_seq == 1).await;
    disk.fail_flushes(1);
    assert_eq!(kind(store.put_record(record(2)).await), StoreErrorKind::Internal);
    assert_eq!(kind(store.put_record(record(3)).await), StoreErrorKind::Internal);
    assert_eq!(kind(store.health()), StoreErrorKind::Internal);
    assert_eq!(store.body(record(1).cid).await.unwrap().unwrap(), record(1).body);
    abandon(store, &disk).await;
    let (store, _) = Store::open(crash_config(&disk.after_power_cut(1)), clock()).unwrap();
    assert!(store.contains(record(1).cid));
    store.close().await.unwrap();
}
