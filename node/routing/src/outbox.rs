//! Own records: what is published or taken back, what of its news is out, and what is due when.
//!
//! A request is recorded by [`Action::Persist`] and acknowledged only when its report says that it is on disk; everything
//! that follows can be lost and is taken up again from the rows. Per record there is one entry; a later request for the
//! same record takes the place of the earlier one. Holds the memory of ground state. Never talks to peers: `provide` and
//! `announce` take what is due from here and bring back how it went.

use std::collections::{BTreeMap, BTreeSet};

use dirnode_record::RecordCid;
use rand::RngExt as _;

use crate::action::{Action, Change, DueRow, Kind, OutboxRow, Refused, RequestId, Ticket};
use crate::config::{Config, GIVE_UP_AFTER, REPROVIDE_EARLY, STEP_DEADLINE, TOMBSTONE_TTL};
use crate::cx::Cx;
use crate::input::Failure;
use crate::point::{Point, Prefix};
use crate::time::Timestamp;

/// Most due rows of one action.
const MAX_DUE_ROWS: usize = 1_024;

/// How far a publication or withdrawal has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was tried yet; with the reason when there is nobody to tell.
    Pending(Option<Failure>),
    /// On its way; with the last failure when it is tried again.
    InProgress(Option<Failure>),
    /// The news is out.
    Completed,
    /// The news did not get out for a day; the republisher goes on.
    Failed(Failure),
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// Newest announcement time given out.
    stamp: Timestamp,
    /// Next provide.
    due: Timestamp,
    /// Next announcement, if one is wanted.
    announce_at: Option<Timestamp>,
    /// When the request was filed whose news is not out yet.
    open: Option<Timestamp>,
    /// The request that made it so.
    filing: Ticket,
    provide_tries: u8,
    announce_tries: u8,
    providing: bool,
    announcing: bool,
    provided: bool,
    announced: bool,
    failure: Option<Failure>,
    failed: bool,
}

#[derive(Debug)]
struct Filing {
    request: RequestId,
    row: OutboxRow,
    asked_at: Timestamp,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<RecordCid, Entry>,
    by_point: BTreeMap<Point, RecordCid>,
    /// Published records by when they are due; those that are due already are in `ready`.
    later: BTreeSet<(Timestamp, Point)>,
    ready: BTreeSet<Point>,
    announce_due: BTreeSet<(Timestamp, RecordCid)>,
    /// Own rows in order of announcement time, for those who catch up.
    by_stamp: BTreeSet<(Timestamp, RecordCid)>,
    digest: u64,
    withdrawn_until: BTreeSet<(Timestamp, RecordCid)>,
    filings: BTreeMap<Ticket, Filing>,
    open: usize,
    last_stamp: Timestamp,
    dirty: Vec<DueRow>,
}

impl Outbox {
    /// Takes up the rows of the last run.
    pub fn restore(outbox: Vec<OutboxRow>, published: Vec<DueRow>, now: Timestamp) -> Self {
        let mut me = Self::default();
        for row in published {
            me.last_stamp = me.last_stamp.max(row.stamp);
            let mut entry = Entry::new(Kind::Publish, row.stamp, Ticket(0));
            // A due time far ahead can only come from a clock that was wrong.
            entry.due = row.due.min(now + crate::config::REPROVIDE_INTERVAL);
            (entry.provided, entry.announced) = (true, true);
            me.put(row.cid, entry);
        }
        for row in outbox {
            me.last_stamp = me.last_stamp.max(row.stamp);
            let mut entry = Entry::new(row.kind, row.stamp, Ticket(0));
            match row.kind {
                Kind::Publish => {
                    entry.open = Some(row.filed_at);
                    entry.due = now;
                    entry.announce_at = Some(now);
                }
                Kind::Withdraw => {
                    entry.announced = row.announced;
                    if !row.announced {
                        entry.open = Some(row.filed_at);
                        entry.announce_at = Some(now);
                    }
                }
            }
            me.take(&row.cid);
            me.put(row.cid, entry);
        }
        me
    }

    /// A time for an announcement, later than every one before it.
    pub fn next_stamp(&mut self, now: Timestamp) -> Timestamp {
        self.last_stamp = now.max(self.last_stamp.next());
        self.last_stamp
    }

    pub fn file(&mut self, request: RequestId, cid: RecordCid, kind: Kind, config: &Config, cx: &mut Cx<'_>) {
        let published = self.is_published(&cid);
        if kind == Kind::Withdraw && !published && !self.filings.values().any(|filing| filing.row.cid == cid)
        {
            cx.push(Action::Acknowledge {
                request,
                outcome: Ok(()),
            });
            return;
        }
        let open = self.open + self.filings.len();
        let full = open >= config.max_open || (!published && self.by_point.len() >= config.max_published);
        // Taking back must always be possible: it makes room.
        if full && kind == Kind::Publish {
            cx.counters.refused_full += 1;
            let limit = config.max_open.min(config.max_published);
            cx.push(Action::Acknowledge {
                request,
                outcome: Err(Refused::Full { open, limit }),
            });
            return;
        }
        let row = OutboxRow {
            cid,
            kind,
            stamp: self.next_stamp(cx.now),
            filed_at: cx.now,
            announced: false,
        };
        let ticket = cx.ticket();
        let change = match kind {
            Kind::Publish => Change::Publish(row.clone()),
            Kind::Withdraw => Change::Withdraw(row.clone()),
        };
        let asked_at = cx.now;
        self.filings.insert(
            ticket,
            Filing {
                request,
                row,
                asked_at,
            },
        );
        cx.push(Action::Persist { ticket, change });
    }

    pub fn persisted(&mut self, ticket: Ticket, result: Result<(), Failure>, cx: &mut Cx<'_>) {
        // Rows that only tidy up are not waited for.
        let Some(Filing { request, row, .. }) = self.filings.remove(&ticket) else {
            return;
        };
        if let Err(failure) = result {
            cx.counters.refused_storage += 1;
            let outcome = Err(Refused::NotRecorded(failure));
            cx.push(Action::Acknowledge { request, outcome });
            return;
        }
        cx.push(Action::Acknowledge {
            request,
            outcome: Ok(()),
        });
        if self
            .entries
            .get(&row.cid)
            .is_some_and(|entry| entry.filing > ticket)
        {
            return;
        }
        let before = self.take(&row.cid);
        let mut entry = Entry::new(row.kind, row.stamp, ticket);
        entry.open = Some(row.filed_at);
        entry.announce_at = Some(cx.now);
        if let Some(before) = before {
            entry.stamp = entry.stamp.max(before.stamp);
            (entry.providing, entry.announcing) = (before.providing, before.announcing);
        }
        match row.kind {
            Kind::Publish => {
                cx.counters.published += 1;
                entry.due = cx.now;
                cx.push(Action::Serve { cid: row.cid });
            }
            Kind::Withdraw => {
                cx.counters.withdrawn += 1;
                cx.push(Action::StopServing { cid: row.cid });
            }
        }
        self.put(row.cid, entry);
    }

    /// Takes an entry out of every list.
    fn take(&mut self, cid: &RecordCid) -> Option<Entry> {
        let entry = self.entries.remove(cid)?;
        let point = Point::of_cid(cid);
        self.by_point.remove(&point);
        self.later.remove(&(entry.due, point));
        self.ready.remove(&point);
        if let Some(at) = entry.announce_at {
            self.announce_due.remove(&(at, *cid));
        }
        self.by_stamp.remove(&(entry.stamp, *cid));
        self.digest ^= entry.digest(cid);
        self.withdrawn_until.remove(&(entry.stamp + TOMBSTONE_TTL, *cid));
        self.open -= usize::from(entry.open.is_some());
        Some(entry)
    }

    /// Puts an entry into the lists that it belongs to.
    fn put(&mut self, cid: RecordCid, entry: Entry) {
        let point = Point::of_cid(&cid);
        match entry.kind {
            Kind::Publish => {
                self.by_point.insert(point, cid);
                if !entry.providing {
                    self.later.insert((entry.due, point));
                }
            }
            Kind::Withdraw => {
                self.withdrawn_until.insert((entry.stamp + TOMBSTONE_TTL, cid));
            }
        }
        if let (Some(at), false) = (entry.announce_at, entry.announcing) {
            self.announce_due.insert((at, cid));
        }
        self.by_stamp.insert((entry.stamp, cid));
        self.digest ^= entry.digest(&cid);
        self.open += usize::from(entry.open.is_some());
        self.entries.insert(cid, entry);
    }

    /// Changes an entry, keeping the lists right.
    fn change(&mut self, cid: &RecordCid, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(mut entry) = self.take(cid) else {
            return false;
        };
        change(&mut entry);
        self.put(*cid, entry);
        true
    }

    /// Moves what is due by now into `ready`.
    fn ripen(&mut self, now: Timestamp) {
        while let Some((due, point)) = self.later.first().copied() {
            if due > now {
                break;
            }
            self.later.pop_first();
            self.ready.insert(point);
        }
    }

    /// The first key that is to be provided now.
    pub fn first_ready(&mut self, now: Timestamp) -> Option<Point> {
        self.ripen(now);
        self.ready.first().copied()
    }

    /// Whether more than `count` keys under `region` are to be provided now.
    pub fn more_ready_than(&self, count: usize, region: &Prefix) -> bool {
        self.ready
            .range(region.first()..=region.last())
            .nth(count)
            .is_some()
    }

    /// Takes keys under `region` to be provided now, and with them, when a round is due anyway, those that would be due
    /// before `ahead`. At most `limit`, in order of their points.
    pub fn take_region(
        &mut self,
        region: &Prefix,
        ahead: Timestamp,
        limit: usize,
    ) -> Vec<(Point, RecordCid)> {
        let ready: Vec<Point> = self
            .ready
            .range(region.first()..=region.last())
            .copied()
            .collect();
        let entry_of = |point: &Point| self.by_point.get(point).and_then(|cid| self.entries.get(cid));
        let is_round = ready
            .iter()
            .any(|point| entry_of(point).is_some_and(|entry| entry.open.is_none()));
        let mut taken: Vec<(Point, RecordCid)> = if is_round {
            let near = self.by_point.range(region.first()..=region.last());
            near.filter(|(_, cid)| {
                let entry = self.entries.get(*cid);
                entry.is_some_and(|entry| !entry.providing && entry.due <= ahead)
            })
            .map(|(point, cid)| (*point, *cid))
            .collect()
        } else {
            let with_cid = |point: &Point| self.by_point.get(point).map(|cid| (*point, *cid));
            ready.iter().filter_map(with_cid).collect()
        };
        taken.truncate(limit);
        for (point, cid) in &taken {
            self.ready.remove(point);
            if let Some(entry) = self.entries.get_mut(cid) {
                entry.providing = true;
                self.later.remove(&(entry.due, *point));
            }
        }
        taken
    }

    /// A key was provided; the next time is `due`.
    pub fn provided(&mut self, cid: &RecordCid, due: Timestamp, config: &Config, cx: &mut Cx<'_>) {
        cx.counters.provided_keys += 1;
        let now = cx.now;
        let mut row = None;
        self.change(cid, |entry| {
            entry.providing = false;
            if entry.kind != Kind::Publish {
                return;
            }
            entry.due = due;
            entry.provide_tries = 0;
            entry.provided = true;
            // Each round is told to the mesh as well, which is what keeps labels alive at peers that are not near.
            if entry.open.is_none()
                && now.since(entry.stamp) > config.interval() / 2
                && entry.announce_at.is_none()
            {
                entry.announce_at = Some(now);
            }
            row = Some(DueRow {
                cid: *cid,
                due,
                stamp: entry.stamp,
            });
        });
        self.dirty.extend(row);
        self.settle(cid, cx);
    }

    /// A key was not provided.
    pub fn provide_failed(&mut self, cid: &RecordCid, failure: Failure, cx: &mut Cx<'_>) {
        cx.counters.provide_failures += 1;
        let tries = self.entries.get(cid).map_or(0, |entry| entry.provide_tries);
        let again = cx.now + cx.pause(tries);
        let now = cx.now;
        self.change(cid, |entry| {
            entry.providing = false;
            entry.due = again;
            entry.provide_tries = tries.saturating_add(1);
            entry.failure = Some(failure);
            entry.give_up(now);
        });
        self.settle(cid, cx);
    }

    /// The next due time for keys provided together.
    pub fn next_round(config: &Config, cx: &mut Cx<'_>) -> Timestamp {
        let part = 1.0 - cx.rng.random_range(0.0..=REPROVIDE_EARLY);
        cx.now + config.interval().mul_f64(part)
    }

    /// Takes the first record to be announced now, with what its entry says.
    pub fn take_announcement(&mut self, now: Timestamp) -> Option<(RecordCid, Kind, Ticket)> {
        let (at, cid) = self.announce_due.first().copied()?;
        if at > now {
            return None;
        }
        self.announce_due.pop_first();
        let entry = self.entries.get_mut(&cid)?;
        entry.announcing = true;
        Some((cid, entry.kind, entry.filing))
    }

    /// A record is about to be announced with this time.
    pub fn stamped(&mut self, cid: &RecordCid, stamp: Timestamp) {
        self.change(cid, |entry| entry.stamp = stamp);
    }

    /// An announcement has gone out, or not. `filing` is what it was made for: if the record was published or taken back
    /// again since, the news is still to be told.
    pub fn announced(
        &mut self,
        cid: &RecordCid,
        filing: Ticket,
        result: Result<(), Failure>,
        cx: &mut Cx<'_>,
    ) {
        let tries = self.entries.get(cid).map_or(0, |entry| entry.announce_tries);
        let (now, again) = (cx.now, cx.now + cx.pause(tries));
        let mut row = None;
        self.change(cid, |entry| {
            entry.announcing = false;
            if entry.filing != filing {
                return;
            }
            match result {
                Ok(()) => {
                    entry.announce_at = None;
                    entry.announce_tries = 0;
                    entry.announced = true;
                    if entry.kind == Kind::Publish {
                        row = Some(DueRow {
                            cid: *cid,
                            due: entry.due,
                            stamp: entry.stamp,
                        });
                    }
                }
                Err(failure) => {
                    entry.announce_at = Some(again);
                    entry.announce_tries = tries.saturating_add(1);
                    entry.failure = Some(failure);
                    entry.give_up(now);
                }
            }
        });
        match result {
            Ok(()) => self.dirty.extend(row),
            Err(_) => cx.counters.announce_failures += 1,
        }
        self.settle(cid, cx);
    }

    /// A published record is no longer in the published set.
    pub fn orphaned(&mut self, cid: &RecordCid, cx: &mut Cx<'_>) {
        cx.counters.orphans += 1;
        if self.take(cid).is_some() {
            let ticket = cx.ticket();
            cx.push(Action::Persist {
                ticket,
                change: Change::Forget(*cid),
            });
            cx.push(Action::StopServing { cid: *cid });
        }
    }

    /// Tidies up behind an entry whose news is out, or was given up.
    fn settle(&mut self, cid: &RecordCid, cx: &mut Cx<'_>) {
        let Some(entry) = self.entries.get(cid) else {
            return;
        };
        let done = entry.announced && (entry.provided || entry.kind == Kind::Withdraw);
        let Some(filed_at) = entry.open.filter(|_| done || entry.failed) else {
            return;
        };
        let (kind, stamp) = (entry.kind, entry.stamp);
        let ticket = cx.ticket();
        let change = match kind {
            Kind::Publish => Change::Forget(*cid),
            // The row stays: it is the tombstone. A withdrawal that was given up is told to those who catch up.
            Kind::Withdraw => Change::Update(OutboxRow {
                cid: *cid,
                kind,
                stamp,
                filed_at,
                announced: true,
            }),
        };
        if done {
            cx.counters.completed += 1;
        } else {
            cx.counters.failed += 1;
        }
        cx.push(Action::Persist { ticket, change });
        self.change(cid, |entry| entry.open = None);
    }

    /// Forgets withdrawals that cover nothing any more, and requests that the disk never answered; writes due times.
    pub fn tidy(&mut self, cx: &mut Cx<'_>) {
        while let Some((until, cid)) = self.withdrawn_until.first().copied() {
            if until > cx.now {
                break;
            }
            self.take(&cid);
            let ticket = cx.ticket();
            cx.push(Action::Persist {
                ticket,
                change: Change::Forget(cid),
            });
        }
        while let Some((ticket, filing)) = self.filings.first_key_value() {
            if filing.asked_at + STEP_DEADLINE > cx.now {
                break;
            }
            cx.counters.lost_steps += 1;
            let (ticket, request) = (*ticket, filing.request);
            self.filings.remove(&ticket);
            let outcome = Err(Refused::NotRecorded(Failure::TimedOut));
            cx.push(Action::Acknowledge { request, outcome });
        }
        while !self.dirty.is_empty() {
            let rows = self
                .dirty
                .split_off(self.dirty.len().saturating_sub(MAX_DUE_ROWS));
            cx.push(Action::PersistDue { rows });
        }
    }

    /// When something is due next, of what does not wait for others.
    pub fn next_wake(&self, can_provide: bool) -> Option<Timestamp> {
        let provide = self.later.first().map(|(due, _)| *due).filter(|_| can_provide);
        let forget = self.withdrawn_until.first().map(|(until, _)| *until);
        let filing = self
            .filings
            .first_key_value()
            .map(|(_, filing)| filing.asked_at + STEP_DEADLINE);
        [provide, forget, filing].into_iter().flatten().min()
    }

    /// When a record is to be announced next.
    pub fn next_announcement(&self) -> Option<Timestamp> {
        self.announce_due.first().map(|(at, _)| *at)
    }

    pub fn is_published(&self, cid: &RecordCid) -> bool {
        self.entries
            .get(cid)
            .is_some_and(|entry| entry.kind == Kind::Publish)
    }

    pub fn published(&self) -> usize {
        self.by_point.len()
    }

    pub fn withdrawn(&self) -> usize {
        self.withdrawn_until.len()
    }

    pub fn open(&self) -> usize {
        self.open + self.filings.len()
    }

    /// Keys that should have been provided by now.
    pub fn overdue(&self) -> usize {
        self.ready.len()
    }

    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Own rows behind (since, after): record, announcement time, whether taken back.
    pub fn rows_behind(
        &self,
        since: Timestamp,
        after: RecordCid,
    ) -> impl Iterator<Item = (RecordCid, Timestamp, bool)> + '_ {
        let bounds = (
            std::ops::Bound::Excluded((since, after)),
            std::ops::Bound::Unbounded,
        );
        self.by_stamp.range(bounds).map(|(stamp, cid)| {
            let entry = self.entries.get(cid);
            (
                *cid,
                *stamp,
                entry.is_some_and(|entry| entry.kind == Kind::Withdraw),
            )
        })
    }

    /// How many own rows there are, and the newest announcement time.
    pub fn summary(&self) -> (usize, Timestamp) {
        let newest = self.by_stamp.last().map_or(Timestamp::EPOCH, |(stamp, _)| *stamp);
        (self.by_stamp.len(), newest)
    }

    pub fn progress(&self, cid: &RecordCid, alone: bool) -> Option<Progress> {
        if self.filings.values().any(|filing| filing.row.cid == *cid) {
            return Some(Progress::Pending(None));
        }
        let entry = self.entries.get(cid)?;
        let done = entry.announced && (entry.provided || entry.kind == Kind::Withdraw);
        Some(if entry.failed && !done {
            Progress::Failed(entry.failure.unwrap_or(Failure::TimedOut))
        } else if entry.open.is_none() {
            Progress::Completed
        } else if entry.providing
            || entry.announcing
            || entry.failure.is_some()
            || entry.provided
            || entry.announced
        {
            Progress::InProgress(entry.failure)
        } else {
            Progress::Pending(alone.then_some(Failure::NoPeers))
        })
    }
}

impl Entry {
    fn new(kind: Kind, stamp: Timestamp, filing: Ticket) -> Self {
        Self {
            kind,
            stamp,
            due: Timestamp::MAX,
            announce_at: None,
            open: None,
            filing,
            provide_tries: 0,
            announce_tries: 0,
            providing: false,
            announcing: false,
            provided: false,
            announced: false,
            failure: None,
            failed: false,
        }
    }

    fn digest(&self, cid: &RecordCid) -> u64 {
        crate::catchup::message::row_digest(cid, self.stamp, self.kind == Kind::Withdraw)
    }

    fn give_up(&mut self, now: Timestamp) {
        self.failed |= self
            .open
            .is_some_and(|filed_at| now.since(filed_at) > GIVE_UP_AFTER);
    }
}
