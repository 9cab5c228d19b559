//! What is due of own records, and what came of it: provides by place in the key space, announcements by time.

use dirnode_record::RecordCid;
use rand::RngExt as _;

use super::Outbox;
use crate::action::{DueRow, Kind, Ticket};
use crate::config::{Config, MAX_AHEAD, REPROVIDE_EARLY};
use crate::cx::Cx;
use crate::input::Failure;
use crate::point::{Point, Prefix};
use crate::time::Timestamp;

impl Outbox {
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
            near.filter(|(point, cid)| {
                let entry = self.entries.get(*cid);
                // What was due once stays due, whatever the clock says now.
                let is_due = |due: Timestamp| due <= ahead || self.ready.contains(point);
                entry.is_some_and(|entry| !entry.providing && is_due(entry.due))
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
            entry.provided_at = now;
            entry.mend();
            // Each round is told to the mesh as well, which is what keeps labels alive at peers that are not near.
            let old = now.since(entry.stamp) > config.interval() / 2 || entry.stamp > now + MAX_AHEAD;
            if entry.open.is_none() && old && entry.announce_at.is_none() {
                entry.announce_at = Some(now);
            }
            row = Some(DueRow {
                cid: *cid,
                due,
                stamp: entry.stamp,
                provided_at: now,
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
                    entry.announced_at = now;
                    entry.mend();
                    if entry.kind == Kind::Publish {
                        row = Some(DueRow {
                            cid: *cid,
                            due: entry.due,
                            stamp: entry.stamp,
                            provided_at: entry.provided_at,
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
}
