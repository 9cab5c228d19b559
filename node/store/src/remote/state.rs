//! The rows, and every change of them. Pure: no lock, no clock, no file.
//!
//! What a change did is told as steps to whoever keeps the log: the labels that were kept, the rows that had to go. Steps
//! are changes themselves; made in order over an older state, or over one that holds some of them already, they end in
//! this state.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use dirnode_record::Label;
use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::names::Names;
use super::quota;
use super::room::{self, NONE, Slots};
use super::share::Share;
use super::sorted::Sorted;
use super::tables::{Peers, Records};
use super::tombs::{Buried, Tombs, parts, second_after, second_of, slot};
use super::types::{Bytes, Change, Counters, Limits, PeerId, Refusal, Row, Size, Standing, Tomb};
use crate::RecordCid;

/// A row.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: u32,
    pub(super) peer: u32,
    /// The row of the same record behind, and the one in front.
    pub(super) next: u32,
    previous: u32,
    timestamp_ns: i64,
    pub(super) last_seen_ns: i64,
    expires_at_ns: i64,
    /// Where it is in the wheel; an earlier second than that of its end when it was heard of since.
    second: u32,
    pub(super) standing: Standing,
    /// In order of their numbers.
    pub(super) labels: Box<[u32]>,
}

/// The rows and all that finds them.
#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) rows: Slots<Entry>,
    /// Rows by record and peer.
    table: HashTable<u32>,
    pub(super) records: Records,
    pub(super) peers: Peers,
    pub(super) names: Names,
    /// Rows that have a label that can be found.
    pub(super) labelled: Sorted,
    pub(super) tombs: Tombs,
    /// Rows by the second in which they are looked at again.
    wheel: Sorted,
    pub(super) labels: usize,
    pub(super) postings: usize,
    by_standing: [usize; 3],
    pub(super) counters: Counters,
    /// Rows that had to go since this was emptied.
    pub(super) evicted: Vec<(RecordCid, PeerId)>,
    random: RandomState,
}

/// What became of a change that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Changed,
    Same,
    /// There is no row to change.
    Absent,
}

impl Done {
    fn new(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Same }
    }
}

/// Takes the steps of a change.
pub(super) type Steps<'a> = dyn FnMut(&Change) + 'a;

/// What a row is beside its key and its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Facts {
    timestamp_ns: i64,
    last_seen_ns: i64,
    expires_at_ns: i64,
    standing: Standing,
}

fn rank(standing: Standing) -> u32 {
    match standing {
        Standing::Verified => 0,
        Standing::Claimed => 1,
        Standing::Hearsay => 2,
    }
}

/// The upper half of the posting entries of a record's rows: the better standing first, then the first 30 bits of the CID.
pub(super) fn head(standing: Standing, cid: &RecordCid) -> u32 {
    let [a, b, c, d, ..] = *cid.digest();
    (rank(standing) << 30) | (u32::from_be_bytes([a, b, c, d]) >> 2)
}

/// The order of posting entries: standing, CID, number of the row. The entry itself tells it, unless two CIDs begin
/// alike.
fn order(rows: &Slots<Entry>, records: &Records, one: u64, other: u64) -> Ordering {
    let ((head, row), (other_head, other_row)) = (parts(one), parts(other));
    if head != other_head {
        return head.cmp(&other_head);
    }
    if row == other_row {
        return Ordering::Equal;
    }
    let cid = |row: u32| records.get(rows.get(row)?.record).map(|record| &record.cid);
    cid(row).cmp(&cid(other_row)).then(row.cmp(&other_row))
}

/// Lists that name a row with labels at these places: those of the places, and that of all rows that can be found.
pub(super) fn postings(places: &[u32]) -> usize {
    places.len().saturating_add(usize::from(!places.is_empty()))
}

/// The order of a peer's rows: when last seen, CID.
fn age(rows: &Slots<Entry>, records: &Records, one: u64, other: u64) -> Ordering {
    let ((second, row), (other_second, other_row)) = (parts(one), parts(other));
    if second != other_second {
        return second.cmp(&other_second);
    }
    if row == other_row {
        return Ordering::Equal;
    }
    let key = |row: u32| {
        let entry = rows.get(row)?;
        Some((entry.last_seen_ns, records.get(entry.record)?.cid))
    };
    key(row).cmp(&key(other_row))
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        let limits = quota::kept(limits);
        Self {
            limits,
            rows: Slots::default(),
            table: HashTable::new(),
            records: Records::default(),
            peers: Peers::default(),
            names: Names::default(),
            labelled: Sorted::default(),
            tombs: Tombs::default(),
            wheel: Sorted::default(),
            labels: 0,
            postings: 0,
            by_standing: [0; 3],
            counters: Counters::default(),
            evicted: Vec::new(),
            random: RandomState::default(),
        }
    }

    /// Makes a change.
    pub(super) fn apply(&mut self, change: &Change, steps: &mut Steps<'_>) -> Result<Done, Refusal> {
        if let Change::Add { cid, peer, .. } | Change::Refresh { cid, peer, .. } = change
            && self.find(cid, peer).is_none()
        {
            self.counters.absent = self.counters.absent.saturating_add(1);
            return Ok(Done::Absent);
        }
        let done = match change {
            Change::Put(row) => self.put(row, steps),
            Change::Add { cid, peer, labels } => match self.find(cid, peer) {
                Some(row) => self.add(row, cid, peer, labels, steps),
                None => Ok(false),
            },
            Change::Refresh {
                cid,
                peer,
                timestamp_ns,
                last_seen_ns,
                expires_at_ns,
                standing,
            } => Ok(self.find(cid, peer).is_some_and(|row| {
                let changed = self.set_facts(
                    row,
                    Facts {
                        timestamp_ns: *timestamp_ns,
                        last_seen_ns: *last_seen_ns,
                        expires_at_ns: *expires_at_ns,
                        standing: *standing,
                    },
                );
                if changed {
                    self.counters.refreshed = self.counters.refreshed.saturating_add(1);
                    steps(change);
                }
                changed
            })),
            Change::Remove { cid, peer } => Ok(self.find(cid, peer).is_some_and(|row| {
                self.counters.removed = self.counters.removed.saturating_add(1);
                self.take(row, steps)
            })),
            Change::Bury(tomb) => Ok(self.bury(tomb, steps)),
            Change::Forget { cid, peer } => Ok(self.forget(cid, peer, steps)),
            Change::RemovePeer { peer } => {
                let mut removed = false;
                while let Some(row) = self.oldest(peer) {
                    self.counters.removed = self.counters.removed.saturating_add(1);
                    removed |= self.take(row, steps);
                }
                Ok(removed)
            }
        };
        if done.is_err() {
            self.counters.refused = self.counters.refused.saturating_add(1);
        }
        done.map(Done::new)
    }

    /// The row of a record and peer.
    pub(super) fn find(&self, cid: &RecordCid, peer: &PeerId) -> Option<u32> {
        self.row_at(self.records.find(cid)?, self.peers.find(peer)?)
    }

    fn row_at(&self, record: u32, peer: u32) -> Option<u32> {
        let is = |number: &u32| {
            let row = self.rows.get(*number);
            row.is_some_and(|row| (row.record, row.peer) == (record, peer))
        };
        self.table.find(self.random.hash_one((record, peer)), is).copied()
    }

    fn oldest(&self, peer: &PeerId) -> Option<u32> {
        let peer = self.peers.get(self.peers.find(peer)?)?;
        peer.order.first().map(|entry| parts(entry).1)
    }

    /// What all rows take.
    pub(super) fn share(&self) -> Share {
        Share {
            rows: self.rows.len(),
            labels: self.labels,
            postings: self.postings,
            text_bytes: self.names.text_bytes(),
        }
    }

    /// Numbers of the labels that may be kept, in order, each once, had by one row more. Those in `known` are passed over.
    fn acquire(&mut self, labels: &[Label], known: &[u32]) -> Vec<u32> {
        let Limits {
            max_labels_per_row,
            max_label_bytes,
            ..
        } = self.limits;
        let max_text_bytes = Share::of_peer(&self.limits).text_bytes;
        let mut text_bytes = known
            .iter()
            .map(|label| self.names.text(*label).len())
            .fold(0, usize::saturating_add);
        let room = max_labels_per_row.saturating_sub(known.len());
        let mut numbers: Vec<u32> = Vec::with_capacity(labels.len().min(room));
        for label in labels {
            if label.as_str().len() > max_label_bytes || label.namespace().is_none() {
                self.counters.labels_unfit = self.counters.labels_unfit.saturating_add(1);
                continue;
            }
            let Some(number) = self.names.acquire(label) else {
                self.counters.labels_no_room = self.counters.labels_no_room.saturating_add(1);
                continue;
            };
            let more = text_bytes.saturating_add(label.as_str().len());
            match numbers.binary_search(&number) {
                Err(at) if known.binary_search(&number).is_err() => {
                    let counter = if numbers.len() >= room {
                        &mut self.counters.labels_above
                    } else if more > max_text_bytes {
                        &mut self.counters.labels_no_room
                    } else {
                        numbers.insert(at.min(numbers.len()), number);
                        text_bytes = more;
                        continue;
                    };
                    *counter = counter.saturating_add(1);
                }
                _ => {}
            }
            self.names.release(number);
        }
        numbers
    }

    fn hold(&mut self, labels: &[u32]) {
        for label in labels {
            self.names.hold(*label);
        }
    }

    fn release(&mut self, labels: &[u32]) {
        for label in labels {
            self.names.release(*label);
        }
    }

    fn put(&mut self, row: &Row, steps: &mut Steps<'_>) -> Result<bool, Refusal> {
        let facts = Facts {
            timestamp_ns: row.timestamp_ns,
            last_seen_ns: row.last_seen_ns,
            expires_at_ns: row.expires_at_ns,
            standing: row.standing,
        };
        let labels = self.acquire(&row.labels, &[]);
        if let Err(refusal) = self.check_alone(&labels) {
            self.release(&labels);
            return Err(refusal);
        }
        let old = self.find(&row.cid, &row.peer);
        // What was there, if it has to be put back.
        let mut before = None;
        let (number, changed) = match old {
            Some(number) => {
                let same = self
                    .rows
                    .get(number)
                    .is_some_and(|entry| *entry.labels == *labels);
                if same {
                    self.release(&labels);
                } else {
                    before = self.row(number);
                    self.set_labels(number, labels);
                }
                (number, self.set_facts(number, facts) || !same)
            }
            None => (self.insert(row, facts, labels), true),
        };
        if !self.fit(number, steps) {
            match before {
                Some(before) => self.put_back(number, &before),
                None => {
                    self.take(number, &mut |step| {
                        // A new row has not been told of.
                        if old.is_some() {
                            steps(step);
                        }
                    });
                }
            }
            return Err(self.full());
        }
        let forgotten = self.forget(&row.cid, &row.peer, steps);
        if changed {
            self.counters.put = self.counters.put.saturating_add(1);
            if let Some(kept) = self.row(number) {
                steps(&Change::Put(kept));
            }
        }
        Ok(changed || forgotten)
    }

    /// Makes a row what it was.
    fn put_back(&mut self, number: u32, before: &Row) {
        let labels = self.acquire(&before.labels, &[]);
        self.set_labels(number, labels);
        let facts = Facts {
            timestamp_ns: before.timestamp_ns,
            last_seen_ns: before.last_seen_ns,
            expires_at_ns: before.expires_at_ns,
            standing: before.standing,
        };
        self.set_facts(number, facts);
    }

    fn add(
        &mut self,
        number: u32,
        cid: &RecordCid,
        peer: &PeerId,
        labels: &[Label],
        steps: &mut Steps<'_>,
    ) -> Result<bool, Refusal> {
        let known = self
            .rows
            .get(number)
            .map(|row| row.labels.clone())
            .unwrap_or_default();
        let more = self.acquire(labels, &known);
        if more.is_empty() {
            return Ok(false);
        }
        let mut all = [&*known, &*more].concat();
        all.sort_unstable();
        if let Err(refusal) = self.check_alone(&all) {
            self.release(&more);
            return Err(refusal);
        }
        let step = Change::Add {
            cid: *cid,
            peer: peer.clone(),
            labels: self.texts(&more),
        };
        // Held once by the row as it is, and once by the row as it will be.
        self.hold(&known);
        self.set_labels(number, all);
        if !self.fit(number, steps) {
            self.hold(&known);
            self.set_labels(number, known.into());
            return Err(self.full());
        }
        self.counters.refreshed = self.counters.refreshed.saturating_add(1);
        steps(&step);
        Ok(true)
    }

    fn count(&mut self, standing: Standing, more: bool) {
        let place = match standing {
            Standing::Hearsay => 0,
            Standing::Claimed => 1,
            Standing::Verified => 2,
        };
        if let Some(count) = self.by_standing.get_mut(place) {
            *count = if more {
                count.saturating_add(1)
            } else {
                count.saturating_sub(1)
            };
        }
    }

    /// Adds a row, and says its number.
    fn insert(&mut self, row: &Row, facts: Facts, labels: Vec<u32>) -> u32 {
        let record = self.records.acquire(&row.cid);
        let peer = self.peers.acquire(&row.peer);
        let first = self.records.get(record).map_or(NONE, |record| record.first);
        let second = second_after(facts.expires_at_ns);
        let number = self.rows.add(Entry {
            record,
            peer,
            next: first,
            previous: NONE,
            timestamp_ns: facts.timestamp_ns,
            last_seen_ns: facts.last_seen_ns,
            expires_at_ns: facts.expires_at_ns,
            second,
            standing: facts.standing,
            labels: Box::default(),
        });
        if let Some(next) = self.rows.get_mut(first) {
            next.previous = number;
        }
        if let Some(record) = self.records.get_mut(record) {
            record.first = number;
        }
        let (rows, random) = (&self.rows, &self.random);
        let hash_of = |number: &u32| {
            let row = rows.get(*number);
            row.map_or(0, |row| random.hash_one((row.record, row.peer)))
        };
        self.table.insert_unique(hash_of(&number), number, hash_of);
        self.wheel
            .insert(slot(second, number), |one, other| one.cmp(&other));
        self.peers.change(peer, |known| {
            known.share.rows = known.share.rows.saturating_add(1);
        });
        self.place_by_age(number, true);
        self.count(facts.standing, true);
        self.set_labels(number, labels);
        number
    }

    /// Takes a row out; true if it was there.
    pub(super) fn take(&mut self, number: u32, steps: &mut Steps<'_>) -> bool {
        let Some((record, peer)) = self.rows.get(number).map(|row| (row.record, row.peer)) else {
            return false;
        };
        if let (Some(record), Some(peer)) = (self.records.get(record), self.peers.get(peer)) {
            steps(&Change::Remove {
                cid: record.cid,
                peer: peer.id.clone(),
            });
        }
        self.set_labels(number, Vec::new());
        self.place_by_age(number, false);
        let hash = self.random.hash_one((record, peer));
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        let Some(row) = self.rows.take(number) else {
            return false;
        };
        self.wheel
            .remove(slot(row.second, number), |one, other| one.cmp(&other));
        if let Some(next) = self.rows.get_mut(row.next) {
            next.previous = row.previous;
        }
        if let Some(previous) = self.rows.get_mut(row.previous) {
            previous.next = row.next;
        } else if let Some(record) = self.records.get_mut(record) {
            record.first = row.next;
        }
        self.peers.change(peer, |known| {
            known.share.rows = known.share.rows.saturating_sub(1);
        });
        self.count(row.standing, false);
        self.records.release(record);
        self.peers.release(peer);
        true
    }

    /// Puts a row into the order of its peer's rows, or takes it out.
    fn place_by_age(&mut self, number: u32, insert: bool) {
        let Some(row) = self.rows.get(number) else {
            return;
        };
        let entry = slot(second_of(row.last_seen_ns), number);
        let (rows, records) = (&self.rows, &self.records);
        if let Some(peer) = self.peers.get_mut(row.peer) {
            let age = |one, other| age(rows, records, one, other);
            if insert {
                peer.order.insert(entry, age);
            } else {
                peer.order.remove(entry, age);
            }
        }
    }

    /// Gives a row its labels, numbers in order that are already held for it; those it had are released.
    fn set_labels(&mut self, number: u32, labels: Vec<u32>) {
        let Some(row) = self.rows.get_mut(number) else {
            return;
        };
        let (record, peer, standing) = (row.record, row.peer, row.standing);
        let new = self.names.places(&labels);
        let had = std::mem::replace(&mut row.labels, labels.into());
        let old = self.names.places(&had);
        let len = row.labels.len();
        self.labels = self.labels.saturating_sub(had.len()).saturating_add(len);
        let (labels, names) = (&row.labels, &self.names);
        self.peers.change(peer, |peer| {
            // What stays is not given back in between.
            for label in labels.iter().filter(|label| had.binary_search(label).is_err()) {
                peer.hold(*label, names.text(*label).len());
            }
            for label in had.iter().filter(|label| labels.binary_search(label).is_err()) {
                peer.release(*label, names.text(*label).len());
            }
            let share = &mut peer.share;
            share.labels = share.labels.saturating_sub(had.len()).saturating_add(len);
            share.postings = share
                .postings
                .saturating_sub(postings(&old))
                .saturating_add(postings(&new));
        });
        let gone = old.iter().filter(|place| new.binary_search(place).is_err());
        self.unpost(number, standing, gone);
        let come = new.iter().filter(|place| old.binary_search(place).is_err());
        self.post(number, standing, come);
        if old.is_empty() != new.is_empty() {
            self.list(number, standing, !new.is_empty());
            if let Some(record) = self.records.get_mut(record) {
                record.labelled = if new.is_empty() {
                    record.labelled.saturating_sub(1)
                } else {
                    record.labelled.saturating_add(1)
                };
            }
        }
        self.release(&had);
    }

    fn post<'a>(&mut self, number: u32, standing: Standing, places: impl Iterator<Item = &'a u32>) {
        let entry = self.entry(number, standing);
        let (rows, records) = (&self.rows, &self.records);
        for place in places {
            let order = |one, other| order(rows, records, one, other);
            self.names.insert(*place, entry, order);
            self.postings = self.postings.saturating_add(1);
        }
    }

    fn unpost<'a>(&mut self, number: u32, standing: Standing, places: impl Iterator<Item = &'a u32>) {
        let entry = self.entry(number, standing);
        let (rows, records) = (&self.rows, &self.records);
        for place in places {
            let order = |one, other| order(rows, records, one, other);
            self.names.remove(*place, entry, order);
            self.postings = self.postings.saturating_sub(1);
        }
    }

    /// Puts a row into the list of all that can be found, or takes it out.
    fn list(&mut self, number: u32, standing: Standing, insert: bool) {
        let entry = self.entry(number, standing);
        let (rows, records) = (&self.rows, &self.records);
        let order = |one, other| order(rows, records, one, other);
        if insert {
            self.labelled.insert(entry, order);
            self.postings = self.postings.saturating_add(1);
        } else {
            self.labelled.remove(entry, order);
            self.postings = self.postings.saturating_sub(1);
        }
    }

    fn entry(&self, number: u32, standing: Standing) -> u64 {
        let record = self.rows.get(number).and_then(|row| self.records.get(row.record));
        slot(record.map_or(0, |record| head(standing, &record.cid)), number)
    }

    /// Sets all of a row but its labels; false if nothing changed.
    fn set_facts(&mut self, number: u32, facts: Facts) -> bool {
        let Some(row) = self.rows.get(number) else {
            return false;
        };
        let had = Facts {
            timestamp_ns: row.timestamp_ns,
            last_seen_ns: row.last_seen_ns,
            expires_at_ns: row.expires_at_ns,
            standing: row.standing,
        };
        if had == facts {
            return false;
        }
        let (had_second, second) = (row.second, second_after(facts.expires_at_ns));
        if had.standing != facts.standing {
            let places = self.names.places(&row.labels);
            self.unpost(number, had.standing, places.iter());
            self.post(number, facts.standing, places.iter());
            if !places.is_empty() {
                self.list(number, had.standing, false);
                self.list(number, facts.standing, true);
            }
            self.count(had.standing, false);
            self.count(facts.standing, true);
        }
        if had.last_seen_ns != facts.last_seen_ns {
            self.place_by_age(number, false);
        }
        // A later end is found out when the second comes that it has now.
        if second < had_second {
            self.wheel
                .remove(slot(had_second, number), |one, other| one.cmp(&other));
            self.wheel
                .insert(slot(second, number), |one, other| one.cmp(&other));
        }
        if let Some(row) = self.rows.get_mut(number) {
            row.second = row.second.min(second);
            row.timestamp_ns = facts.timestamp_ns;
            row.last_seen_ns = facts.last_seen_ns;
            row.expires_at_ns = facts.expires_at_ns;
            row.standing = facts.standing;
        }
        if had.last_seen_ns != facts.last_seen_ns {
            self.place_by_age(number, true);
        }
        true
    }

    fn bury(&mut self, tomb: &Tomb, steps: &mut Steps<'_>) -> bool {
        if let Some(row) = self.find(&tomb.cid, &tomb.peer) {
            self.counters.removed = self.counters.removed.saturating_add(1);
            self.take(row, steps);
        } else if self.tomb(&tomb.cid, &tomb.peer).as_ref() == Some(tomb) {
            return false;
        }
        self.forget(&tomb.cid, &tomb.peer, steps);
        if self.limits.max_tombs == 0 {
            self.counters.evicted_tombs = self.counters.evicted_tombs.saturating_add(1);
            return true;
        }
        self.tombs.add(Buried {
            record: self.records.acquire(&tomb.cid),
            peer: self.peers.acquire(&tomb.peer),
            timestamp_ns: tomb.timestamp_ns,
            until_ns: tomb.until_ns,
            first_hand: tomb.first_hand,
        });
        steps(&Change::Bury(tomb.clone()));
        while self.tombs.len() > self.limits.max_tombs
            && let Some((_, first)) = self.tombs.first()
        {
            self.counters.evicted_tombs = self.counters.evicted_tombs.saturating_add(1);
            self.unbury(first, steps);
        }
        true
    }

    fn forget(&mut self, cid: &RecordCid, peer: &PeerId, steps: &mut Steps<'_>) -> bool {
        self.tomb_at(cid, peer)
            .is_some_and(|number| self.unbury(number, steps))
    }

    pub(super) fn unbury(&mut self, number: u32, steps: &mut Steps<'_>) -> bool {
        let Some(tomb) = self.tombs.take(number) else {
            return false;
        };
        if let (Some(record), Some(peer)) = (self.records.get(tomb.record), self.peers.get(tomb.peer)) {
            steps(&Change::Forget {
                cid: record.cid,
                peer: peer.id.clone(),
            });
        }
        self.records.release(tomb.record);
        self.peers.release(tomb.peer);
        true
    }

    /// Ends rows and withdrawals; looks at no more than `most` of them. How many ended, and whether more are due.
    pub(super) fn expire(&mut self, now_ns: i64, most: usize, steps: &mut Steps<'_>) -> (usize, bool) {
        let over = second_of(now_ns);
        let mut ended = 0usize;
        for _ in 0..most {
            if let Some((second, number)) = self.wheel.first().map(parts)
                && second <= over
            {
                let end = self
                    .rows
                    .get(number)
                    .map_or(second, |row| second_after(row.expires_at_ns));
                if end <= over {
                    ended = ended.saturating_add(usize::from(self.take(number, steps)));
                    continue;
                }
                self.wheel
                    .remove(slot(second, number), |one, other| one.cmp(&other));
                self.wheel.insert(slot(end, number), |one, other| one.cmp(&other));
                if let Some(row) = self.rows.get_mut(number) {
                    row.second = end;
                }
            } else if let Some((second, number)) = self.tombs.first()
                && second <= over
            {
                ended = ended.saturating_add(usize::from(self.unbury(number, steps)));
            } else {
                break;
            }
        }
        self.counters.expired = self.counters.expired.saturating_add(ended as u64);
        let due = |first: Option<(u32, u32)>| first.is_some_and(|(second, _)| second <= over);
        (
            ended,
            due(self.wheel.first().map(parts)) || due(self.tombs.first()),
        )
    }

    fn texts(&self, labels: &[u32]) -> Vec<Label> {
        let mut labels: Vec<Label> = labels
            .iter()
            .filter_map(|label| Label::parse(self.names.text(*label)))
            .collect();
        labels.sort_unstable();
        labels
    }

    /// A row by its number.
    pub(super) fn row(&self, number: u32) -> Option<Row> {
        let row = self.rows.get(number)?;
        Some(Row {
            cid: self.records.get(row.record)?.cid,
            peer: self.peers.get(row.peer)?.id.clone(),
            labels: self.texts(&row.labels),
            timestamp_ns: row.timestamp_ns,
            last_seen_ns: row.last_seen_ns,
            expires_at_ns: row.expires_at_ns,
            standing: row.standing,
        })
    }

    fn tomb_at(&self, cid: &RecordCid, peer: &PeerId) -> Option<u32> {
        self.tombs.find(self.records.find(cid)?, self.peers.find(peer)?)
    }

    /// The withdrawal of a record and peer.
    pub(super) fn tomb(&self, cid: &RecordCid, peer: &PeerId) -> Option<Tomb> {
        self.tomb_by_number(self.tomb_at(cid, peer)?)
    }

    pub(super) fn tomb_by_number(&self, number: u32) -> Option<Tomb> {
        let tomb = self.tombs.get(number)?;
        Some(Tomb {
            cid: self.records.get(tomb.record)?.cid,
            peer: self.peers.get(tomb.peer)?.id.clone(),
            timestamp_ns: tomb.timestamp_ns,
            first_hand: tomb.first_hand,
            until_ns: tomb.until_ns,
        })
    }

    /// One above the highest number of a withdrawal.
    pub(super) fn tombs_end(&self) -> u32 {
        self.tombs.end()
    }

    /// Numbers of a record's rows.
    pub(super) fn rows_of(&self, record: u32) -> impl Iterator<Item = (u32, &Entry)> {
        let mut next = self.records.get(record).map_or(NONE, |record| record.first);
        std::iter::from_fn(move || {
            let number = next;
            let row = self.rows.get(number)?;
            next = row.next;
            Some((number, row))
        })
    }

    pub(super) fn size(&self) -> Size {
        let (distinct_labels, lists) = self.names.counts();
        Size {
            rows: self.by_standing,
            labels: self.labels,
            distinct_labels,
            text_bytes: self.names.text_bytes(),
            lists,
            postings: self.postings,
            cids: self.records.len(),
            peers: self.peers.len(),
            tombs: self.tombs.len(),
        }
    }

    pub(super) fn bytes(&self) -> Bytes {
        let (labels, postings) = self.names.bytes();
        let (tombs, tomb_wheel) = self.tombs.bytes();
        let lists = self
            .rows
            .iter()
            .filter(|row| !row.labels.is_empty())
            .map(|row| {
                (row.labels.len() as u64)
                    .saturating_mul(4)
                    .saturating_add(room::ALLOCATION)
            })
            .fold(0, u64::saturating_add);
        Bytes {
            rows: self
                .rows
                .bytes()
                .saturating_add(lists)
                .saturating_add(self.table.allocation_size() as u64),
            cids: self.records.bytes(),
            peers: self.peers.bytes(),
            labels,
            postings: postings.saturating_add(self.labelled.bytes()),
            tombs,
            wheel: self.wheel.bytes().saturating_add(tomb_wheel),
        }
    }
}
