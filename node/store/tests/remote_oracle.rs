//! The remote label index against a plain, slow, obviously right one: random changes and random searches, ends, bounds, and
//! restarts in the middle.
//!
//! `DIRNODE_ORACLE_SEED` and `DIRNODE_ORACLE_STEPS` choose the run; both are printed, and the seed is enough to repeat it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dirnode_generator::Random;
use dirnode_record::{Label, Namespace};
use dirnode_store::RecordCid;
use dirnode_store::remote::{
    Change, Hit, Limits, PeerId, Place, Provider, RemoteIndex, RemoteQuery, RemoteQueryKind, RemoteSearch,
    Row, Standing, Tomb,
};

const SECOND: i64 = 1_000_000_000;
const CHANGES_PER_STEP: u64 = 6;

const LIMITS: Limits = Limits {
    max_rows: 260,
    max_rows_per_peer: 60,
    max_labels: 900,
    max_labels_per_peer: 300,
    max_labels_per_row: 8,
    max_label_bytes: 40,
    max_text_bytes: 1 << 20,
    max_postings: 1 << 20,
    max_tombs: 40,
};

/// Rows and withdrawals in maps, everything found by looking at all of them.
#[derive(Default)]
struct Plain {
    rows: BTreeMap<(RecordCid, PeerId), Row>,
    tombs: BTreeMap<(RecordCid, PeerId), Tomb>,
}

impl Plain {
    fn labels(&self, but: &(RecordCid, PeerId), peer: Option<&PeerId>) -> usize {
        let rows = self.rows.iter().filter(|(key, _)| *key != but);
        rows.filter(|(key, _)| peer.is_none_or(|peer| key.1 == *peer))
            .map(|(_, row)| row.labels.len())
            .sum()
    }

    fn make_room(&mut self, key: &(RecordCid, PeerId), labels: usize) -> bool {
        loop {
            let others = |peer: Option<&PeerId>| {
                let rows = self.rows.keys().filter(|other| *other != key);
                rows.filter(|other| peer.is_none_or(|peer| other.1 == *peer))
                    .count()
            };
            let own = Some(&key.1);
            if others(own) < LIMITS.max_rows_per_peer
                && others(None) < LIMITS.max_rows
                && self.labels(key, own) + labels <= LIMITS.max_labels_per_peer
                && self.labels(key, None) + labels <= LIMITS.max_labels
            {
                return true;
            }
            let of_peer = self
                .rows
                .iter()
                .filter(|(other, _)| other.1 == key.1 && *other != key);
            let oldest = of_peer.min_by_key(|(other, row)| (row.last_seen_ns, other.0));
            let Some((oldest, _)) = oldest else { return false };
            let oldest = oldest.clone();
            self.rows.remove(&oldest);
        }
    }

    fn fitting(labels: &[Label], known: &[Label]) -> Vec<Label> {
        let mut kept = known.to_vec();
        for label in labels {
            if label.as_str().len() <= LIMITS.max_label_bytes
                && !kept.contains(label)
                && kept.len() < LIMITS.max_labels_per_row
            {
                kept.push(label.clone());
            }
        }
        kept.sort();
        kept
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put(row) => {
                let key = (row.cid, row.peer.clone());
                let labels = Self::fitting(&row.labels, &[]);
                if self.make_room(&key, labels.len()) {
                    self.tombs.remove(&key);
                    self.rows.insert(
                        key,
                        Row {
                            labels,
                            ..row.clone()
                        },
                    );
                }
            }
            Change::Add { cid, peer, labels } => {
                let key = (*cid, peer.clone());
                let Some(row) = self.rows.get(&key) else { return };
                let all = Self::fitting(labels, &row.labels);
                if all != row.labels && self.make_room(&key, all.len()) {
                    self.rows.get_mut(&key).unwrap().labels = all;
                }
            }
            Change::Refresh {
                cid,
                peer,
                timestamp_ns,
                last_seen_ns,
                expires_at_ns,
                standing,
            } => {
                if let Some(row) = self.rows.get_mut(&(*cid, peer.clone())) {
                    row.timestamp_ns = *timestamp_ns;
                    row.last_seen_ns = *last_seen_ns;
                    row.expires_at_ns = *expires_at_ns;
                    row.standing = *standing;
                }
            }
            Change::Remove { cid, peer } => {
                self.rows.remove(&(*cid, peer.clone()));
            }
            Change::Bury(tomb) => {
                let key = (tomb.cid, tomb.peer.clone());
                self.rows.remove(&key);
                self.tombs.insert(key, tomb.clone());
                while self.tombs.len() > LIMITS.max_tombs {
                    // Times of ends are distinct here.
                    let first = self.tombs.iter().min_by_key(|(_, tomb)| tomb.until_ns);
                    let first = first.unwrap().0.clone();
                    self.tombs.remove(&first);
                }
            }
            Change::Forget { cid, peer } => {
                self.tombs.remove(&(*cid, peer.clone()));
            }
            Change::RemovePeer { peer } => self.rows.retain(|key, _| key.1 != *peer),
        }
    }

    fn expire(&mut self, now_ns: i64) {
        let over = |at: i64| (at + SECOND - 1).div_euclid(SECOND) <= now_ns.div_euclid(SECOND);
        self.rows.retain(|_, row| !over(row.expires_at_ns));
        self.tombs.retain(|_, tomb| !over(tomb.until_ns));
    }

    fn search(&self, search: &RemoteSearch) -> Vec<Hit> {
        let mut seen = BTreeSet::new();
        let queries: Vec<(u16, &RemoteQuery)> = (0..)
            .zip(&search.queries)
            .filter(|(_, query)| seen.insert((format!("{:?}", query.kind), &query.value)))
            .collect();
        let mut by_cid: BTreeMap<RecordCid, Vec<Provider>> = BTreeMap::new();
        for ((cid, peer), row) in &self.rows {
            let matched: Vec<u16> = queries
                .iter()
                .filter(|(_, query)| matches(row, query))
                .map(|(place, _)| *place)
                .collect();
            let enough = matched.len() >= search.min_score.max(1) as usize;
            if enough && search.exclude.as_ref() != Some(peer) {
                by_cid.entry(*cid).or_default().push(Provider {
                    peer: peer.clone(),
                    standing: row.standing,
                    matched,
                    last_seen_ns: row.last_seen_ns,
                });
            }
        }
        let mut hits: Vec<Hit> = by_cid
            .into_iter()
            .map(|(cid, mut providers)| {
                providers.sort_by_key(|found| {
                    let best = Reverse((found.standing, found.matched.len(), found.last_seen_ns));
                    (best, found.peer.clone())
                });
                let matching = providers.len();
                if search.max_providers > 0 {
                    providers.truncate(search.max_providers);
                }
                let place = Place {
                    standing: providers[0].standing,
                    score: providers[0].score(),
                    cid,
                };
                Hit {
                    place,
                    providers,
                    matching,
                }
            })
            .collect();
        let key = |place: &Place| (Reverse(place.standing), Reverse(place.score), place.cid);
        hits.sort_by_key(|hit| key(&hit.place));
        if let Some(after) = &search.after {
            hits.retain(|hit| key(&hit.place) > key(after));
        }
        if search.limit > 0 {
            hits.truncate(search.limit);
        }
        hits
    }
}

/// Whether one of a row's labels, cleaned, is what the query asks for.
fn matches(row: &Row, query: &RemoteQuery) -> bool {
    row.labels
        .iter()
        .filter_map(Label::cleaned)
        .any(|label| match query.kind {
            RemoteQueryKind::Any => true,
            RemoteQueryKind::Never => false,
            RemoteQueryKind::In(namespace) => {
                let wanted = format!("/{}/{}", namespace.name(), query.value);
                label.as_str() == wanted
                    || namespace != Namespace::Locators && label.as_str().starts_with(&format!("{wanted}/"))
            }
        })
}

struct Making {
    random: Random,
    now: i64,
}

impl Making {
    fn cid(&mut self) -> RecordCid {
        let number = self.random.below(150);
        let mut digest = [0; 32];
        // Some begin alike, so that the order is not told by what a posting entry holds.
        if number.is_multiple_of(3) {
            digest[31] = u8::try_from(number).unwrap();
        } else {
            digest[0] = u8::try_from(number).unwrap();
        }
        RecordCid::from_digest(digest)
    }

    fn peer(&mut self) -> PeerId {
        // The first few say more than the others.
        let number = self.random.below(12).min(self.random.below(12));
        PeerId::from_bytes(&[u8::try_from(number).unwrap(); 38]).unwrap()
    }

    fn value(&mut self) -> String {
        const SEGMENTS: [&str; 9] = ["a", "b", "c", "ab", "a", "a", "", ".", ".."];
        let usual = if self.random.below(8) > 0 { 6 } else { 9 };
        let depth = 1 + self.random.below(3);
        let segments: Vec<&str> = (0..depth).map(|_| SEGMENTS[self.random.place(usual)]).collect();
        segments.join("/")
    }

    fn namespace(&mut self) -> Namespace {
        Namespace::ALL[self.random.place(4)]
    }

    fn labels(&mut self) -> Vec<Label> {
        (0..self.random.below(10))
            .map(|_| {
                let namespace = self.namespace();
                if self.random.below(40) == 0 {
                    return Label::new(namespace, &"long".repeat(20));
                }
                Label::new(namespace, &self.value())
            })
            .collect()
    }

    fn standing(&mut self) -> Standing {
        Standing::BEST_FIRST[self.random.place(3)]
    }

    /// Times to the nanosecond; no two alike, as far as the tests care.
    fn around(&mut self, seconds: i64) -> i64 {
        let part = i64::try_from(self.random.below(1 << 40)).unwrap();
        self.now + (seconds * SECOND).saturating_add(part) % (seconds * SECOND)
    }

    fn change(&mut self) -> Change {
        let (cid, peer) = (self.cid(), self.peer());
        match self.random.below(100) {
            0..50 => Change::Put(Row {
                cid,
                peer,
                labels: self.labels(),
                timestamp_ns: self.around(10),
                last_seen_ns: self.around(20),
                expires_at_ns: self.around(400),
                standing: self.standing(),
            }),
            50..62 => Change::Add {
                cid,
                peer,
                labels: self.labels(),
            },
            62..82 => Change::Refresh {
                cid,
                peer,
                timestamp_ns: self.around(10),
                last_seen_ns: self.around(20),
                expires_at_ns: self.around(400),
                standing: self.standing(),
            },
            82..90 => Change::Remove { cid, peer },
            90..96 => Change::Bury(Tomb {
                cid,
                peer,
                timestamp_ns: self.around(10),
                first_hand: self.random.below(2) == 0,
                until_ns: self.around(300),
            }),
            96..99 => Change::Forget { cid, peer },
            _ if self.random.below(10) == 0 => Change::RemovePeer { peer },
            _ => Change::Remove { cid, peer },
        }
    }

    fn query(&mut self) -> RemoteQuery {
        let kind = match self.random.below(20) {
            0 => RemoteQueryKind::Any,
            1 => RemoteQueryKind::Never,
            _ => RemoteQueryKind::In(self.namespace()),
        };
        RemoteQuery {
            kind,
            value: self.value(),
        }
    }

    fn search(&mut self) -> RemoteSearch {
        let queries = (0..self.random.below(6)).map(|_| self.query()).collect();
        let mut search = RemoteSearch::new(queries);
        search.min_score = u32::try_from(self.random.below(4)).unwrap();
        search.limit = self.random.place(12);
        search.max_providers = self.random.place(4);
        search.exclude = (self.random.below(3) == 0).then(|| self.peer());
        search.after = (self.random.below(3) == 0).then(|| Place {
            standing: self.standing(),
            score: u32::try_from(self.random.below(4)).unwrap(),
            cid: self.cid(),
        });
        search
    }
}

fn rows_of(index: &RemoteIndex) -> BTreeMap<(RecordCid, PeerId), Row> {
    let (mut rows, mut from) = (BTreeMap::new(), Some(0));
    while let Some(at) = from {
        let (part, next) = index.rows_from(at, 50);
        rows.extend(part.into_iter().map(|row| ((row.cid, row.peer.clone()), row)));
        from = next;
    }
    rows
}

fn tombs_of(index: &RemoteIndex) -> BTreeMap<(RecordCid, PeerId), Tomb> {
    let (tombs, _) = index.tombs_from(0, u32::MAX);
    tombs
        .into_iter()
        .map(|tomb| ((tomb.cid, tomb.peer.clone()), tomb))
        .collect()
}

/// Compares whole tables, and prints only what differs.
fn check_same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    found: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
    context: &str,
) {
    let keys: BTreeSet<&K> = found.keys().chain(expected.keys()).collect();
    for key in keys {
        assert_eq!(found.get(key), expected.get(key), "{context}: {key:?}");
    }
}

/// Counts against what they are counts of.
fn check_counts(index: &RemoteIndex, plain: &Plain, making: &mut Making, context: &str) {
    let size = index.size();
    let labels: usize = plain.rows.values().map(|row| row.labels.len()).sum();
    let distinct: BTreeSet<&Label> = plain.rows.values().flat_map(|row| &row.labels).collect();
    let cids: BTreeSet<_> = plain
        .rows
        .keys()
        .chain(plain.tombs.keys())
        .map(|key| key.0)
        .collect();
    assert_eq!(
        (
            size.all_rows(),
            size.labels,
            size.distinct_labels,
            size.cids,
            size.tombs
        ),
        (
            plain.rows.len(),
            labels,
            distinct.len(),
            cids.len(),
            plain.tombs.len()
        ),
        "{context}"
    );
    let cid = making.cid();
    let providers = plain
        .rows
        .values()
        .filter(|row| row.cid == cid && row.labels.iter().any(|label| label.cleaned().is_some()));
    assert_eq!(index.provider_count(&cid), providers.count(), "{context}");
}

fn variable(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn changes_searches_ends_and_restarts_are_those_of_the_plain_one() {
    let seed = variable("DIRNODE_ORACLE_SEED", 1);
    let steps = variable("DIRNODE_ORACLE_STEPS", 10_000);
    println!("seed {seed}, {steps} steps");
    let folder = tempfile::tempdir().unwrap();
    let mut index = RemoteIndex::open(folder.path(), LIMITS, 0).unwrap();
    let mut plain = Plain::default();
    let mut making = Making {
        random: Random::new(seed),
        now: 1_000 * SECOND,
    };
    let (mut hits, mut restarts) = (0, 0);
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        let changes: Vec<Change> = (0..making.random.below(2 * CHANGES_PER_STEP))
            .map(|_| making.change())
            .collect();
        index.apply(&changes);
        changes.iter().for_each(|change| plain.apply(change));
        making.now += i64::try_from(making.random.below(2_000_000_000)).unwrap();
        if making.random.below(4) == 0 {
            while index.expire(making.now, 3).more {}
            plain.expire(making.now);
        }
        if making.random.below(400) == 0 {
            // A start leaves out what has ended.
            index.close().unwrap();
            index = RemoteIndex::open(folder.path(), LIMITS, making.now).unwrap();
            plain.expire(making.now);
            restarts += 1;
            check_same(&rows_of(&index), &plain.rows, &context);
            check_same(&tombs_of(&index), &plain.tombs, &context);
        }
        let search = making.search();
        let found = index.search(&search).unwrap();
        assert!(!found.cut, "{context}");
        let expected = plain.search(&search);
        assert_eq!(found.hits, expected, "{context}: {search:?}");
        hits += expected.len();
        check_counts(&index, &plain, &mut making, &context);
    }
    let counters = index.counters();
    println!("{hits} hits, {restarts} restarts, {counters:?}");
    if steps >= 10_000 {
        assert!(hits > 5_000 && restarts > 5, "the run asked too little");
    }
    check_same(&rows_of(&index), &plain.rows, "at the end");
    check_same(&tombs_of(&index), &plain.tombs, "at the end");
}
