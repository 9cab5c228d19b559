use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

const START: u64 = 1_800_000_000;

fn key(of: u32) -> RecordKey {
    let mut bytes = vec![0x12, 0x20];
    bytes.extend(Sha256::digest(of.to_be_bytes()));
    RecordKey::from(bytes)
}

fn store_with(config: ProviderConfig) -> (ProviderStore, Arc<AtomicU64>, PeerId) {
    let now = Arc::new(AtomicU64::new(START));
    let clock: Clock = Arc::new({
        let now = now.clone();
        move || now.load(Ordering::Relaxed)
    });
    let local = PeerId::random();
    (ProviderStore::new(local, config, clock), now, local)
}

fn store() -> (ProviderStore, Arc<AtomicU64>, PeerId) {
    store_with(ProviderConfig::default())
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/10.1.2.3/tcp/{port}").parse().unwrap()
}

fn providers(store: &ProviderStore, key: &RecordKey) -> BTreeSet<PeerId> {
    store
        .providers(key)
        .into_iter()
        .map(|record| record.provider)
        .collect()
}

#[test]
fn values_are_refused_and_nothing_is_iterated() {
    let (mut store, _, local) = store();
    assert!(store.put(Record::new(key(1), vec![1])).is_err());
    assert!(store.get(&key(1)).is_none());
    store.admit(&key(1), PeerId::random(), &[]).unwrap();
    store.admit(&key(1), local, &[]).unwrap();
    assert_eq!(store.records().count(), 0);
    assert_eq!(store.provided().count(), 0);
}

#[test]
fn our_own_come_first_never_lapse_and_go_when_removed() {
    let (mut store, now, local) = store();
    let other = PeerId::random();
    store.admit(&key(1), other, &[address(1)]).unwrap();
    store
        .add_provider(ProviderRecord::new(key(1), local, Vec::new()))
        .unwrap();
    let found = store.providers(&key(1));
    assert_eq!((found[0].provider, found[1].provider), (local, other));
    assert!(found[0].addresses.is_empty(), "filled in by whoever answers");
    assert_eq!(found[1].addresses, [address(1)]);
    now.fetch_add(100 * 3600, Ordering::Relaxed);
    assert_eq!(providers(&store, &key(1)), [local].into());
    store.remove_provider(&key(1), &local);
    assert!(store.providers(&key(1)).is_empty());
    assert_eq!(store.own_count(), 0);
}

#[test]
fn records_lapse_for_readers_at_once_and_for_memory_with_the_sweep() {
    let (mut store, now, _) = store();
    let peer = PeerId::random();
    for at in 0..1000 {
        store.admit(&key(at), peer, &[]).unwrap();
    }
    now.fetch_add(24 * 3600, Ordering::Relaxed);
    for at in 0..500 {
        store.admit(&key(at), peer, &[]).unwrap();
    }
    assert_eq!(store.record_count(), 1000);
    now.fetch_add(24 * 3600, Ordering::Relaxed);
    assert!(store.providers(&key(999)).is_empty());
    assert!(!store.providers(&key(1)).is_empty());
    assert_eq!(store.sweep(100).expired, 0, "not yet its time");
    now.fetch_add(1200, Ordering::Relaxed);
    let first = store.sweep(100);
    assert!(first.behind && first.visited == 100, "{first:?}");
    let mut expired = first.expired;
    loop {
        let swept = store.sweep(100);
        expired += swept.expired;
        if !swept.behind {
            break;
        }
    }
    assert_eq!((expired, store.record_count()), (500, 500));
    now.fetch_add(48 * 3600, Ordering::Relaxed);
    while store.sweep(1000).behind {}
    assert_eq!(
        (store.record_count(), store.table.len(), store.peers.len()),
        (0, 0, 0)
    );
    assert_eq!(store.metrics().expired.get(), 1000);
    assert_eq!(store.metrics().accepted.get(), 1500);
}

#[test]
fn bounds_hold_and_refusals_say_why() {
    let (mut store, _, local) = store_with(ProviderConfig {
        max_per_key: 3,
        max_per_peer: 10,
        max_records: 15,
        max_peers: 5,
        max_own: 2,
        ..ProviderConfig::default()
    });
    let peers: Vec<PeerId> = (0..6).map(|_| PeerId::random()).collect();
    for at in 0..10 {
        store.admit(&key(at), peers[0], &[]).unwrap();
    }
    assert_eq!(store.admit(&key(10), peers[0], &[]), Err(Refusal::PeerFull(10)));
    store.admit(&key(3), peers[0], &[]).unwrap();
    for peer in &peers[1..5] {
        store.admit(&key(100), *peer, &[]).unwrap();
    }
    // One of the four had to go, and with it the peer, which had nothing else.
    assert_eq!(store.providers(&key(100)).len(), 3);
    assert_eq!(store.metrics().evicted.get(), 1);
    assert_eq!(store.peers.len(), 4);
    store.admit(&key(101), peers[4], &[]).unwrap();
    store.admit(&key(101), peers[5], &[]).unwrap();
    assert_eq!(
        store.admit(&key(102), PeerId::random(), &[]),
        Err(Refusal::StoreFull(15))
    );
    store.admit(&key(101), peers[5], &[]).unwrap();
    assert_eq!(
        store.admit(&RecordKey::from(vec![1; 81]), peers[0], &[]),
        Err(Refusal::Key(81))
    );
    assert_eq!(
        store.admit(&RecordKey::from(vec![]), peers[0], &[]),
        Err(Refusal::Key(0))
    );
    store.admit(&key(1), local, &[]).unwrap();
    store.admit(&key(2), local, &[]).unwrap();
    store.admit(&key(2), local, &[]).unwrap();
    assert_eq!(store.admit(&key(3), local, &[]), Err(Refusal::OwnFull(2)));
    let label = |reason| ReasonLabel { reason };
    assert_eq!(store.metrics().refused.get_or_create(&label("key")).get(), 2);
    assert_eq!(store.metrics().refused.get_or_create(&label("own_full")).get(), 1);
}

#[test]
fn peers_are_bounded_too() {
    let (mut store, _, _) = store_with(ProviderConfig {
        max_peers: 2,
        ..ProviderConfig::default()
    });
    store.admit(&key(1), PeerId::random(), &[]).unwrap();
    store.admit(&key(2), PeerId::random(), &[]).unwrap();
    assert_eq!(
        store.admit(&key(3), PeerId::random(), &[]),
        Err(Refusal::PeersFull(2))
    );
    assert!(
        store
            .add_provider(ProviderRecord::new(key(3), PeerId::random(), vec![]))
            .is_err()
    );
}

#[test]
fn keys_of_other_kinds_are_kept_like_any() {
    let (mut store, _, _) = store();
    let peer = PeerId::random();
    for key in [
        RecordKey::from(vec![1]),
        RecordKey::from(vec![9; 80]),
        RecordKey::from(b"/x".to_vec()),
    ] {
        store.admit(&key, peer, &[]).unwrap();
        assert_eq!(providers(&store, &key), [peer].into());
    }
    store.remove_provider(&RecordKey::from(vec![1]), &peer);
    assert_eq!(store.record_count(), 2);
}

/// A log in memory that can be made to fail, and holds its first batch until it is let go.
#[derive(Clone, Default)]
struct TestLog {
    rows: Arc<Mutex<Vec<ProviderRow>>>,
    gate: Arc<Mutex<()>>,
    fail: Arc<AtomicBool>,
    /// Takes nothing before it was asked so many times to make itself smaller.
    full_for: usize,
}

impl ProviderLog for TestLog {
    fn load(&mut self, _: u64, take: &mut dyn FnMut(ProviderRow)) -> io::Result<Loaded> {
        self.rows.lock().iter().cloned().for_each(take);
        Ok(Loaded::default())
    }

    fn append(&mut self, batch: &[ProviderRow]) -> io::Result<()> {
        let _open = self.gate.lock();
        if self.fail.load(Ordering::Relaxed) || self.full_for > 0 {
            return Err(io::Error::other("the test wants it"));
        }
        self.rows.lock().extend_from_slice(batch);
        Ok(())
    }

    fn settle(&mut self, _: u64, _: u64) -> io::Result<bool> {
        match self.full_for {
            0 => Ok(false),
            1 => {
                self.full_for = 0;
                Ok(true)
            }
            _ => {
                self.full_for -= 1;
                Err(io::Error::other("not this time"))
            }
        }
    }
}

#[test]
fn a_restart_forgets_nothing_that_still_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("providers");
    let (mut store, now, local) = store();
    store.restore(Box::new(FileLog::new(&path))).unwrap();
    let peers = [PeerId::random(), PeerId::random()];
    for at in 0..1000 {
        store.admit(&key(at), peers[0], &[address(1)]).unwrap();
    }
    now.fetch_add(47 * 3600, Ordering::Relaxed);
    for at in 0..10 {
        store.admit(&key(at), peers[1], &[address(2)]).unwrap();
    }
    store.admit(&key(1), peers[1], &[address(3)]).unwrap();
    store.admit(&key(1), local, &[]).unwrap();
    store.close();

    let clock = store.clock.clone();
    let mut again = ProviderStore::new(local, ProviderConfig::default(), clock.clone());
    let loaded = again.restore(Box::new(FileLog::new(&path))).unwrap();
    assert_eq!(loaded.rows, 1011);
    assert_eq!(again.record_count(), 1010);
    assert_eq!(providers(&again, &key(1)), peers.into());
    let of_second = again.providers(&key(5));
    assert_eq!(of_second.last().unwrap().addresses, [address(3)]);
    again.close();

    now.fetch_add(2 * 3600, Ordering::Relaxed);
    let mut later = ProviderStore::new(local, ProviderConfig::default(), clock);
    later.restore(Box::new(FileLog::new(&path))).unwrap();
    assert_eq!(later.record_count(), 10);
}

/// The row that carried a peer's addresses lapses first; those that came without them still have them after a restart.
#[test]
fn addresses_outlast_the_row_that_carried_them() {
    let (mut store, now, local) = store();
    let log = TestLog::default();
    store.restore(Box::new(log.clone())).unwrap();
    let peer = PeerId::random();
    store.admit(&key(1), peer, &[address(1)]).unwrap();
    now.fetch_add(40 * 3600, Ordering::Relaxed);
    store.admit(&key(2), peer, &[address(1)]).unwrap();
    store.close();
    assert!(log.rows.lock()[1].addresses.is_empty());
    now.fetch_add(10 * 3600, Ordering::Relaxed);
    let mut again = ProviderStore::new(local, ProviderConfig::default(), store.clock.clone());
    again.restore(Box::new(log.clone())).unwrap();
    assert_eq!(again.record_count(), 1);
    assert_eq!(again.providers(&key(2))[0].addresses, [address(1)]);
    // They are in the log already.
    again.admit(&key(3), peer, &[address(1)]).unwrap();
    again.close();
    assert!(log.rows.lock()[2].addresses.is_empty());
}

#[test]
fn a_slow_log_costs_rows_and_not_the_store() {
    let (mut store, _, _) = store();
    let log = TestLog::default();
    let gate = log.gate.clone();
    let held = gate.lock();
    store.restore(Box::new(log.clone())).unwrap();
    let peer = PeerId::random();
    for at in 0..20_000 {
        store.admit(&key(at), peer, &[]).unwrap();
    }
    let unlogged = store.metrics().unlogged.get();
    assert!(unlogged > 0);
    drop(held);
    store.close();
    assert_eq!(log.rows.lock().len() as u64 + unlogged, 20_000);
    assert_eq!(store.record_count(), 20_000);
}

#[test]
fn a_failing_log_is_counted_and_nothing_else() {
    let (mut store, _, _) = store();
    let log = TestLog {
        fail: Arc::new(AtomicBool::new(true)),
        ..TestLog::default()
    };
    store.restore(Box::new(log)).unwrap();
    store.admit(&key(1), PeerId::random(), &[]).unwrap();
    store.close();
    assert_eq!(store.metrics().log_errors.get(), 1);
    assert_eq!(store.record_count(), 1);
}

/// Waits for the thread behind the store.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("waited too long for: {what}");
}

/// Addresses are written once and not with every record; a row that never came into the log does not count as once.
#[test]
fn addresses_that_got_lost_with_their_row_are_written_again() {
    let (mut store, _, _) = store();
    let log = TestLog::default();
    let gate = log.gate.clone();
    let held = gate.lock();
    store.restore(Box::new(log.clone())).unwrap();
    let (first, late) = (PeerId::random(), PeerId::random());
    let mut admitted = 0;
    while store.metrics().unlogged.get() == 0 {
        store.admit(&key(admitted), first, &[]).unwrap();
        admitted += 1;
    }
    // There is no room for the row with the addresses.
    store.admit(&key(0), late, &[address(1)]).unwrap();
    admitted += 1;
    drop(held);
    until("room in the queue", || {
        store.admit(&key(1), late, &[address(1)]).unwrap();
        admitted += 1;
        log.rows.lock().iter().any(|row| row.peer == late)
    });
    until("an empty queue", || {
        log.rows.lock().len() as u64 + store.metrics().unlogged.get() == u64::from(admitted)
    });
    // The log takes no rows for a while.
    log.fail.store(true, Ordering::Relaxed);
    store.admit(&key(2), late, &[address(2)]).unwrap();
    until("the failure", || store.metrics().log_errors.get() > 0);
    log.fail.store(false, Ordering::Relaxed);
    until("the addresses once more", || {
        store.admit(&key(3), late, &[address(2)]).unwrap();
        log.rows.lock().iter().any(|row| row.addresses == [address(2)])
    });
    store.admit(&key(4), late, &[address(2)]).unwrap();
    store.close();
    let rows = log.rows.lock();
    let told: Vec<_> = rows
        .iter()
        .filter(|row| !row.addresses.is_empty())
        .map(|row| row.addresses[0].clone())
        .collect();
    assert!(rows.last().unwrap().addresses.is_empty(), "not with every record");
    assert_eq!(told, [address(1), address(2)]);
}

#[test]
fn a_full_log_is_asked_again_to_make_itself_smaller_and_then_takes_what_it_refused() {
    let (mut store, _, _) = store();
    let log = TestLog {
        full_for: 3,
        ..TestLog::default()
    };
    store.restore(Box::new(log.clone())).unwrap();
    let peer = PeerId::random();
    for at in 1..=3 {
        assert!(log.rows.lock().is_empty());
        store.admit(&key(at), peer, &[address(1)]).unwrap();
        until("the batch", || {
            store.metrics().log_errors.get() == u64::from(at) || !log.rows.lock().is_empty()
        });
    }
    store.close();
    let rows = log.rows.lock();
    assert_eq!((rows.len(), store.metrics().log_errors.get()), (1, 2));
    assert_eq!(rows[0].addresses, [address(1)]);
}

#[test]
fn rows_of_a_clock_that_was_ahead_do_not_last_longer() {
    let (mut store, now, _) = store();
    let log = TestLog::default();
    log.rows.lock().push(ProviderRow {
        key: key(1).to_vec(),
        peer: PeerId::random(),
        expires: START + 1_000_000,
        addresses: Vec::new(),
    });
    store.restore(Box::new(log)).unwrap();
    assert_eq!(store.record_count(), 1);
    now.fetch_add(48 * 3600 + 1300, Ordering::Relaxed);
    while store.sweep(100).behind {}
    assert_eq!(store.record_count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u32, usize),
    Remove(u32, usize),
    Wait(u64),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u32..12, 0usize..8).prop_map(|(key, peer)| Step::Admit(key, peer)),
        1 => (0u32..12, 0usize..8).prop_map(|(key, peer)| Step::Remove(key, peer)),
        2 => (0u64..40_000).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The store against a map of all records with their expiries.
    #[test]
    fn the_store_says_what_a_plain_map_says(steps in proptest::collection::vec(step(), 1..200)) {
        let (mut store, now, _) = store_with(ProviderConfig { max_per_key: 5, ..ProviderConfig::default() });
        let peers: Vec<PeerId> = (0..8).map(|_| PeerId::random()).collect();
        let mut model: BTreeMap<u32, BTreeMap<PeerId, u64>> = BTreeMap::new();
        for step in steps {
            let at = now.load(Ordering::Relaxed);
            match step {
                Step::Admit(of, peer) => {
                    store.admit(&key(of), peers[peer], &[]).unwrap();
                    let known = model.entry(of).or_default();
                    known.insert(peers[peer], at + 48 * 3600);
                    if known.len() > 5 {
                        // Whom the store keeps of those that lapse at the same time is its own choice.
                        let kept: BTreeSet<PeerId> = store.table.find(&TableKey::new(&key(of)).unwrap())
                            .map(|entry| store.table.slots(entry).iter()
                                .map(|slot| store.peers.peer(slot.peer).unwrap().0).collect())
                            .unwrap_or_default();
                        let gone: Vec<(PeerId, u64)> = known.iter()
                            .map(|(peer, expires)| (*peer, *expires))
                            .filter(|(peer, _)| !kept.contains(peer))
                            .collect();
                        // Lapsed ones may have been swept before; of the others at most one went, the first to lapse.
                        known.retain(|peer, _| kept.contains(peer));
                        let live: Vec<u64> = gone.iter().map(|(_, expires)| *expires).filter(|expires| *expires > at).collect();
                        prop_assert!(live.len() <= 1);
                        prop_assert!(live.iter().all(|gone| known.values().all(|kept| kept >= gone)));
                    }
                }
                Step::Remove(of, peer) => {
                    store.remove_provider(&key(of), &peers[peer]);
                    if let Some(known) = model.get_mut(&of) {
                        known.remove(&peers[peer]);
                    }
                }
                Step::Wait(secs) => {
                    now.fetch_add(secs, Ordering::Relaxed);
                }
                Step::Sweep => {
                    while store.sweep(3).behind {}
                    // What lapsed two ticks ago is gone for certain.
                    for known in model.values_mut() {
                        known.retain(|_, expires| *expires + 1200 > at);
                    }
                    let most: usize = model.values().map(BTreeMap::len).sum();
                    prop_assert!(store.record_count() <= most, "{} of {}", store.record_count(), most);
                }
            }
            let at = now.load(Ordering::Relaxed);
            for (of, known) in &model {
                let live: BTreeSet<PeerId> =
                    known.iter().filter(|(_, expires)| **expires > at).map(|(peer, _)| *peer).collect();
                prop_assert_eq!(providers(&store, &key(*of)), live);
            }
        }
        now.fetch_add(10 * 24 * 3600, Ordering::Relaxed);
        while store.sweep(1000).behind {}
        prop_assert_eq!((store.record_count(), store.table.len(), store.peers.len()), (0, 0, 0));
    }
}

/// Prints what records of others cost; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn memory_per_record() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    for (providers, peers_count) in [(1u32, 50usize), (3, 200)] {
        let (mut store, _, _) = store();
        let peers: Vec<PeerId> = (0..peers_count).map(|_| PeerId::random()).collect();
        let before = resident();
        for at in 0..100_000u32 {
            for provider in 0..providers {
                let peer = peers[(at + provider * 7) as usize % peers.len()];
                store.admit(&key(at), peer, &[address(1), address(2)]).unwrap();
            }
        }
        let records = store.record_count();
        // What the first store gave back is used again, so what is resident says most of the first line.
        println!(
            "{records} records, {providers} a key: {} bytes each counted, {} resident",
            store.bytes() / records,
            resident().saturating_sub(before) / records
        );
    }
}
