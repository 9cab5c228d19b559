//! Own records: what is published or taken back, what of its news is out, and what is due when.
//!
//! A request is recorded by [`Action::Persist`] and acknowledged only when its report says that it is on disk; everything
//! that follows can be lost and is taken up again from the rows. Per record there is one entry; a later request for the
//! same record takes the place of the earlier one. Holds the memory of ground state. Never talks to peers: `provide` and
//! `announce` take what is due from here and bring back how it went.

mod due;
mod entry;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use dirnode_record::RecordCid;

pub use entry::{News, Progress};

use self::entry::Entry;
use crate::action::{Action, Change, DueRow, Kind, OutboxRow, Refused, RequestId, Ticket};
use crate::config::{Config, MAX_AHEAD, REPROVIDE_INTERVAL, STEP_DEADLINE, TOMBSTONE_TTL};
use crate::cx::Cx;
use crate::input::Failure;
use crate::point::Point;
use crate::time::Timestamp;

/// Most due rows of one action.
const MAX_DUE_ROWS: usize = 1_024;

#[derive(Debug)]
struct Filing {
    /// Who waits for it; nobody when the record has gone and we take it back ourselves.
    request: Option<RequestId>,
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
    /// The same by record: a question about one does not walk them all.
    filed: BTreeSet<(RecordCid, Ticket)>,
    open: usize,
    last_stamp: Timestamp,
    dirty: Vec<DueRow>,
}

impl Outbox {
    /// Takes up the rows of the last run.
    pub fn restore(outbox: Vec<OutboxRow>, published: Vec<DueRow>, now: Timestamp) -> Self {
        let mut me = Self::default();
        // Stamps and due times far ahead can only come from a clock that was wrong; nobody would listen to such stamps.
        let is_sound = |stamp: Timestamp| stamp <= now + MAX_AHEAD;
        for row in published {
            let stamp = if is_sound(row.stamp) {
                row.stamp
            } else {
                Timestamp::EPOCH
            };
            me.last_stamp = me.last_stamp.max(stamp);
            let mut entry = Entry::new(Kind::Publish, stamp, Ticket(0));
            entry.due = row.due.min(now + REPROVIDE_INTERVAL);
            let known = |at: Timestamp| at > Timestamp::EPOCH;
            (entry.provided, entry.announced) = (known(row.provided_at), known(stamp));
            // A stamp is written down once the announcement with it is out.
            (entry.provided_at, entry.announced_at) = (row.provided_at.min(now), stamp);
            // The last run provided it again and was stopped before it told the mesh.
            if row.provided_at > stamp && now.since(stamp) > REPROVIDE_INTERVAL / 2 {
                entry.announce_at = Some(now);
            }
            me.put(row.cid, entry);
        }
        for mut row in outbox {
            let row_stamp = row.stamp;
            if !is_sound(row.stamp) {
                row.stamp = now;
                row.announced = false;
            }
            me.last_stamp = me.last_stamp.max(row.stamp);
            let mut entry = Entry::new(row.kind, row.stamp, Ticket(0));
            entry.row_stamp = row_stamp;
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
            if let Some(before) = me.take(&row.cid) {
                (entry.provided_at, entry.announced_at) = (before.provided_at, before.announced_at);
            }
            me.put(row.cid, entry);
        }
        me
    }

    /// A time for an announcement, later than every one before it. Where that would be so far ahead that nobody listened,
    /// our clock was wrong, and what was said then was not heard.
    pub fn next_stamp(&mut self, now: Timestamp) -> Timestamp {
        let after = self.last_stamp.next();
        self.last_stamp = if after > now + MAX_AHEAD {
            now
        } else {
            now.max(after)
        };
        self.last_stamp
    }

    /// The first request about a record that is not on disk yet.
    fn filing_of(&self, cid: &RecordCid) -> Option<&Filing> {
        let (_, ticket) = self
            .filed
            .range((*cid, Ticket(0))..)
            .next()
            .filter(|(of, _)| of == cid)?;
        self.filings.get(ticket)
    }

    pub fn file(&mut self, request: RequestId, cid: RecordCid, kind: Kind, config: &Config, cx: &mut Cx<'_>) {
        let published = self.is_published(&cid);
        if kind == Kind::Withdraw && !published && self.filing_of(&cid).is_none() {
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
        self.write(Some(request), cid, kind, cx);
    }

    /// Asks the disk for the row of a request.
    fn write(&mut self, request: Option<RequestId>, cid: RecordCid, kind: Kind, cx: &mut Cx<'_>) {
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
        self.filed.insert((cid, ticket));
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
        self.filed.remove(&(row.cid, ticket));
        if let Err(failure) = result {
            cx.counters.refused_storage += 1;
            let outcome = Err(Refused::NotRecorded(failure));
            cx.out
                .extend(request.map(|request| Action::Acknowledge { request, outcome }));
            return;
        }
        let acknowledged = request.map(|request| Action::Acknowledge {
            request,
            outcome: Ok(()),
        });
        if self
            .entries
            .get(&row.cid)
            .is_some_and(|entry| entry.filing > ticket)
        {
            cx.out.extend(acknowledged);
            return;
        }
        let before = self.take(&row.cid);
        let mut entry = Entry::new(row.kind, row.stamp, ticket);
        entry.open = Some(row.filed_at);
        entry.announce_at = Some(cx.now);
        if let Some(before) = before {
            if before.stamp <= cx.now + MAX_AHEAD {
                entry.stamp = entry.stamp.max(before.stamp);
            }
            (entry.providing, entry.announcing) = (before.providing, before.announcing);
            (entry.provided_at, entry.announced_at) = (before.provided_at, before.announced_at);
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
        // Where nobody waits for the answer, somebody may follow the record's news.
        cx.push(acknowledged.unwrap_or(Action::Settled { cid: row.cid }));
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

    /// A published record was deleted: it is taken back, so that nobody looks for it here any more.
    pub fn orphaned(&mut self, cid: &RecordCid, cx: &mut Cx<'_>) {
        if self.is_published(cid) && self.filing_of(cid).is_none() {
            cx.counters.orphans += 1;
            self.write(None, *cid, Kind::Withdraw, cx);
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
        let (kind, stamp, was) = (entry.kind, entry.stamp, entry.row_stamp);
        let ticket = cx.ticket();
        let change = match kind {
            Kind::Publish => Change::Forget { cid: *cid, was },
            // The row stays: it is the tombstone. A withdrawal that was given up is told to those who catch up.
            Kind::Withdraw => Change::Update {
                row: OutboxRow {
                    cid: *cid,
                    kind,
                    stamp,
                    filed_at,
                    announced: true,
                },
                was,
            },
        };
        if done {
            cx.counters.completed += 1;
        } else {
            cx.counters.failed += 1;
        }
        cx.push(Action::Persist { ticket, change });
        self.change(cid, |entry| {
            entry.open = None;
            if kind == Kind::Withdraw {
                entry.row_stamp = stamp;
            }
        });
        cx.push(Action::Settled { cid: *cid });
    }

    /// Forgets withdrawals that cover nothing any more, and requests that the disk never answered; writes due times.
    pub fn tidy(&mut self, cx: &mut Cx<'_>) {
        while let Some((until, cid)) = self.withdrawn_until.first().copied() {
            if until > cx.now {
                break;
            }
            let Some(entry) = self.take(&cid) else {
                self.withdrawn_until.pop_first();
                continue;
            };
            let ticket = cx.ticket();
            cx.push(Action::Persist {
                ticket,
                change: Change::Forget {
                    cid,
                    was: entry.row_stamp,
                },
            });
        }
        while let Some((ticket, filing)) = self.filings.first_key_value() {
            if filing.asked_at + STEP_DEADLINE > cx.now {
                break;
            }
            cx.counters.lost_steps += 1;
            let (ticket, request, cid) = (*ticket, filing.request, filing.row.cid);
            self.filings.remove(&ticket);
            self.filed.remove(&(cid, ticket));
            let outcome = Err(Refused::NotRecorded(Failure::TimedOut));
            cx.out
                .extend(request.map(|request| Action::Acknowledge { request, outcome }));
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
}
