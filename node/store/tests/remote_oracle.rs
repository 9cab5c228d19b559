//! The remote label index against a plain, slow, obviously right one: random changes and random searches, ends, bounds, and
//! restarts in the middle.
//!
//! `DIRNODE_ORACLE_SEED` and `DIRNODE_ORACLE_STEPS` choose the run; both are printed, and the seed is enough to repeat it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use dirnode_generator::Random;
use dirnode_record::{Label, Namespace};
use dirnode_store::RecordCid;
use dirnode_store::remote::{
    Applied, Change, Counters, Hit, Limits, PeerId, Place, Provider, RemoteIndex, RemoteQuery,
    RemoteQueryKind, RemoteSearch, Row, Standing, Tomb,
};

const SECOND: i64 = 1_000_000_000;
const CHANGES_PER_STEP: u64 = 6;

/// Bounds that nobody reaches here, but for those of labels.
const WIDE: Limits = Limits {
    max_rows: 1 << 20,
    max_rows_per_peer: 1 << 20,
    max_labels: 1 << 20,
    max_labels_per_peer: 1 << 20,
    max_text_bytes_per_peer: 1 << 20,
    max_postings_per_peer: 1 << 20,
    max_labels_per_row: 8,
    max_label_bytes: 40,
    max_text_bytes: 1 << 20,
    max_postings: 1 << 20,
    max_tombs: 40,
};

/// What runs are bounded by: rows and labels; texts; posting lists; and all of it so tightly that rows are refused.
const BOUNDS: [Limits; 4] = [
    Limits {
        max_rows: 260,
        max_rows_per_peer: 27,
        max_labels: 900,
        max_labels_per_peer: 96,
        ..WIDE
    },
    Limits {
        max_text_bytes: 2_500,
        max_text_bytes_per_peer: 500,
        ..WIDE
    },
    Limits {
        max_postings: 1_200,
        max_postings_per_peer: 130,
        ..WIDE
    },
    Limits {
        max_rows: 9,
        max_rows_per_peer: 2,
        max_labels: 20,
        max_labels_per_peer: 12,
        max_text_bytes: 300,
        max_text_bytes_per_peer: 160,
        max_postings: 45,
        max_postings_per_peer: 22,
        ..WIDE
    },
];

type Key = (RecordCid, PeerId);

/// Rows and withdrawals in maps, everything found by looking at all of them.
struct Plain {
    limits: Limits,
    rows: BTreeMap<Key, Row>,
    tombs: BTreeMap<Key, Tomb>,
    /// Lists that name a row with these labels, as far as they were counted.
    lists: RefCell<HashMap<Vec<Label>, usize>>,
}

/// What became of changes, as [`Applied`] tells it.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    refused: Vec<usize>,
    absent: Vec<usize>,
    evicted: Vec<Key>,
}

/// Places of labels in the tree, and the list of all rows that can be found.
fn lists(labels: &[Label]) -> usize {
    let mut places = BTreeSet::new();
    for label in labels.iter().filter_map(Label::cleaned) {
        let text = label.as_str();
        places.insert(text.to_owned());
        if label.namespace() != Some(Namespace::Locators) {
            let ends = text.match_indices('/').map(|(at, _)| at).skip(2);
            places.extend(ends.map(|end| text[..end].to_owned()));
        }
    }
    places.len() + usize::from(!places.is_empty())
}

impl Plain {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            rows: BTreeMap::new(),
            tombs: BTreeMap::new(),
            lists: RefCell::default(),
        }
    }

    /// Rows, labels, entries of lists and bytes of distinct labels, of a peer or of all.
    fn share(&self, peer: Option<&PeerId>) -> [usize; 4] {
        let mut share = [0; 4];
        let mut texts = HashSet::new();
        for (key, row) in &self.rows {
            if peer.is_some_and(|peer| key.1 != *peer) {
                continue;
            }
            share[0] += 1;
            share[1] += row.labels.len();
            let mut known = self.lists.borrow_mut();
            if !known.contains_key(&row.labels) {
                known.insert(row.labels.clone(), lists(&row.labels));
            }
            share[2] += known[&row.labels];
            texts.extend(row.labels.iter().map(Label::as_str));
        }
        share[3] = texts.iter().map(|text| text.len()).sum();
        share
    }

    fn of_all(&self) -> [usize; 4] {
        let limits = &self.limits;
        [
            limits.max_rows,
            limits.max_labels,
            limits.max_postings,
            limits.max_text_bytes,
        ]
    }

    fn of_peer(&self) -> [usize; 4] {
        let limits = &self.limits;
        [
            limits.max_rows_per_peer,
            limits.max_labels_per_peer,
            limits.max_postings_per_peer,
            limits.max_text_bytes_per_peer,
        ]
    }

    /// Lets rows go until all bounds are kept; false if the row itself is too much.
    fn fit(&mut self, key: &Key, evicted: &mut Vec<Key>) -> bool {
        let above = |share: [usize; 4], bound: [usize; 4]| (0..4).find(|kind| share[*kind] > bound[*kind]);
        let alone = self.rows[key].labels.clone();
        let most = self.of_peer();
        if alone.len() > most[1] || lists(&alone) > most[2] {
            return false;
        }
        loop {
            let giving = if above(self.share(Some(&key.1)), self.of_peer()).is_some() {
                key.1.clone()
            } else if let Some(kind) = above(self.share(None), self.of_all()) {
                let peers: BTreeSet<PeerId> = self.rows.keys().map(|key| key.1.clone()).collect();
                let largest = peers
                    .into_iter()
                    .max_by_key(|peer| (self.share(Some(peer))[kind], peer.clone()));
                largest.unwrap()
            } else {
                return true;
            };
            let rows = self.rows.iter();
            let oldest = rows
                .filter(|(other, _)| other.1 == giving && *other != key)
                .min_by_key(|(other, row)| (row.last_seen_ns, other.0));
            let Some((oldest, _)) = oldest else { return false };
            let oldest = oldest.clone();
            self.rows.remove(&oldest);
            evicted.push(oldest);
        }
    }

    /// Puts a row in, or puts back what was there.
    fn set(&mut self, key: &Key, row: Row, evicted: &mut Vec<Key>) -> bool {
        let before = self.rows.insert(key.clone(), row);
        if self.fit(key, evicted) {
            return true;
        }
        self.rows.remove(key);
        self.rows.extend(before.map(|row| (key.clone(), row)));
        false
    }

    fn fitting(&self, labels: &[Label], known: &[Label]) -> Vec<Label> {
        let mut kept = known.to_vec();
        for label in labels {
            if label.as_str().len() <= self.limits.max_label_bytes
                && !kept.contains(label)
                && kept.len() < self.limits.max_labels_per_row
            {
                kept.push(label.clone());
            }
        }
        kept.sort();
        kept
    }

    fn apply(&mut self, changes: &[Change]) -> Outcome {
        let mut outcome = Outcome::default();
        for (place, change) in changes.iter().enumerate() {
            if let Change::Add { cid, peer, .. } | Change::Refresh { cid, peer, .. } = change
                && !self.rows.contains_key(&(*cid, peer.clone()))
            {
                outcome.absent.push(place);
            } else if !self.make(change, &mut outcome.evicted) {
                outcome.refused.push(place);
            }
        }
        outcome
    }

    /// Makes a change; false if it is refused.
    fn make(&mut self, change: &Change, evicted: &mut Vec<Key>) -> bool {
        match change {
            Change::Put(row) => {
                let key = (row.cid, row.peer.clone());
                let labels = self.fitting(&row.labels, &[]);
                let row = Row {
                    labels,
                    ..row.clone()
                };
                if !self.set(&key, row, evicted) {
                    return false;
                }
                self.tombs.remove(&key);
            }
            Change::Add { cid, peer, labels } => {
                let key = (*cid, peer.clone());
                let row = self.rows[&key].clone();
                let labels = self.fitting(labels, &row.labels);
                if labels != row.labels {
                    return self.set(&key, Row { labels, ..row }, evicted);
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
                while self.tombs.len() > self.limits.max_tombs {
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
        true
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
    let share = plain.share(None);
    assert!(
        share
            .iter()
            .zip(plain.of_all())
            .all(|(taken, most)| *taken <= most),
        "{context}: {share:?}"
    );
    assert_eq!(
        (
            size.all_rows(),
            size.labels,
            size.distinct_labels,
            [size.all_rows(), size.labels, size.postings, size.text_bytes],
            size.cids,
            size.tombs
        ),
        (
            plain.rows.len(),
            labels,
            distinct.len(),
            share,
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

fn outcome(applied: &Applied) -> Outcome {
    Outcome {
        refused: applied.refused.iter().map(|(place, _)| *place).collect(),
        absent: applied.absent.clone(),
        evicted: applied.evicted.clone(),
    }
}

/// What a run met, so that one that asks too little is seen.
#[derive(Debug, Default)]
struct Met {
    hits: usize,
    restarts: usize,
    counters: Counters,
}

fn run(limits: &Limits, seed: u64, steps: u64) -> Met {
    let folder = tempfile::tempdir().unwrap();
    let mut index = RemoteIndex::open(folder.path(), limits.clone(), 0).unwrap();
    let mut plain = Plain::new(limits.clone());
    let mut making = Making {
        random: Random::new(seed),
        now: 1_000 * SECOND,
    };
    let mut met = Met::default();
    let count = |met: &mut Met, counters: Counters| {
        met.counters.evicted_peer += counters.evicted_peer;
        met.counters.evicted_full += counters.evicted_full;
        met.counters.refused += counters.refused;
        met.counters.absent += counters.absent;
    };
    for step in 0..steps {
        let context = format!("seed {seed}, step {step}");
        let changes: Vec<Change> = (0..making.random.below(2 * CHANGES_PER_STEP))
            .map(|_| making.change())
            .collect();
        let applied = index.apply(&changes);
        assert_eq!(outcome(&applied), plain.apply(&changes), "{context}");
        making.now += i64::try_from(making.random.below(2_000_000_000)).unwrap();
        if making.random.below(4) == 0 {
            while index.expire(making.now, 3).more {}
            plain.expire(making.now);
        }
        if making.random.below(400) == 0 {
            // A start leaves out what has ended.
            index.close().unwrap();
            count(&mut met, index.counters());
            index = RemoteIndex::open(folder.path(), limits.clone(), making.now).unwrap();
            plain.expire(making.now);
            met.restarts += 1;
            check_same(&rows_of(&index), &plain.rows, &context);
            check_same(&tombs_of(&index), &plain.tombs, &context);
        }
        let search = making.search();
        let found = index.search(&search).unwrap();
        assert!(!found.cut, "{context}");
        let expected = plain.search(&search);
        assert_eq!(found.hits, expected, "{context}: {search:?}");
        met.hits += expected.len();
        check_counts(&index, &plain, &mut making, &context);
    }
    count(&mut met, index.counters());
    check_same(&rows_of(&index), &plain.rows, "at the end");
    check_same(&tombs_of(&index), &plain.tombs, "at the end");
    met
}

#[test]
fn changes_searches_ends_and_restarts_are_those_of_the_plain_one() {
    let seed = variable("DIRNODE_ORACLE_SEED", 1);
    let steps = variable("DIRNODE_ORACLE_STEPS", 10_000);
    println!("seed {seed}, {steps} steps");
    for (number, limits) in (0..).zip(&BOUNDS) {
        let met = run(limits, seed + number, steps / BOUNDS.len() as u64);
        println!("bounds {number}: {met:?}");
        if steps >= 10_000 {
            let counters = &met.counters;
            // The run asked enough, and met what it is about.
            assert!(met.restarts > 1 && (met.hits > 1_000 || number == 3));
            assert!(counters.evicted_peer > 100 && counters.evicted_full > 100);
            assert!(counters.absent > 100 && (number != 3 || counters.refused > 100));
        }
    }
}
