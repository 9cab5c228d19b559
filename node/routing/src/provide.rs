//! Providing own keys: those just published and those whose round has come, near ones together.
//!
//! Takes what is due from the outbox, in order of the key space. One or two keys of a region are looked up one by one;
//! more make a sweep. Everything in flight is bounded and has a deadline. Soft state.

use std::collections::{BTreeMap, VecDeque};

use dirnode_record::RecordCid;

use crate::action::{Action, Ticket};
use crate::config::{Config, MAX_PLAIN_PROVIDES, MAX_SWEEP_KEYS, MAX_SWEEPS, REPLICATION, STEP_DEADLINE};
use crate::cx::Cx;
use crate::input::Failure;
use crate::outbox::Outbox;
use crate::peer::PeerId;
use crate::point::Point;
use crate::sweep::{Outcome, Sweep};
use crate::time::Timestamp;

/// Most keys of a region that are looked up one by one.
const MAX_PLAIN_KEYS: usize = 2;
/// Lookups whose answers the estimate of the network's size is made of.
const ESTIMATES: usize = 16;
/// A round takes along what would be due within this part of the interval.
const AHEAD: f64 = 0.6;

/// How many peers there are, from how near the twentieth nearest was.
#[derive(Debug, Default)]
pub(crate) struct NetworkSize {
    answers: VecDeque<f64>,
}

impl NetworkSize {
    fn learn(&mut self, target: &Point, peers: &[PeerId]) {
        let farthest = peers
            .iter()
            .take(REPLICATION)
            .map(|peer| Point::of_peer(peer).distance(target))
            .max();
        let Some([a, b, c, d, e, f, g, h, ..]) = farthest else {
            return;
        };
        let count = f64::from(u32::try_from(peers.len()).unwrap_or(20));
        let estimate = if peers.len() < REPLICATION {
            count
        } else {
            let part = (u64::from_be_bytes([a, b, c, d, e, f, g, h]) as f64 + 1.0) / 2_f64.powi(64);
            count / part
        };
        if self.answers.len() == ESTIMATES {
            self.answers.pop_front();
        }
        self.answers.push_back(estimate);
    }

    /// The median of the last answers; at least `known`.
    pub fn peers(&self, known: usize) -> usize {
        let mut sorted: Vec<f64> = self.answers.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted
            .get(sorted.len() / 2)
            .copied()
            .unwrap_or(0.0)
            .clamp(0.0, 1e9);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=1e9 above"
        )]
        let median = median as usize;
        median.max(known)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Provider {
    pub table: usize,
    pub size: NetworkSize,
    plain: BTreeMap<Ticket, (RecordCid, Timestamp)>,
    sweeps: BTreeMap<u64, Sweep>,
    next_sweep: u64,
}

impl Provider {
    /// Bits of a region's prefix: as few as leave about two replication sets of peers in it.
    fn region_bits(&self) -> u16 {
        let peers = self.size.peers(self.table);
        let regions = (peers / (2 * REPLICATION)).max(1);
        u16::try_from(regions.ilog2()).unwrap_or(0).min(24)
    }

    pub fn pump(&mut self, outbox: &mut Outbox, config: &Config, cx: &mut Cx<'_>) {
        if self.table == 0 {
            return;
        }
        let ahead = cx.now + config.interval().mul_f64(AHEAD);
        while let Some(point) = outbox.first_ready(cx.now) {
            let region = point.prefix(self.region_bits());
            if config.sweep && outbox.more_ready_than(MAX_PLAIN_KEYS, &region) {
                if self.sweeps.len() >= MAX_SWEEPS {
                    break;
                }
                let keys = outbox.take_region(&region, ahead, MAX_SWEEP_KEYS);
                if keys.is_empty() {
                    break;
                }
                cx.counters.sweeps += 1;
                cx.counters.sweep_keys += u64::try_from(keys.len()).unwrap_or(0);
                self.next_sweep += 1;
                let mut sweep = Sweep::new(keys);
                if let Some(outcome) = sweep.step(cx) {
                    Self::finish(outcome, outbox, config, cx);
                } else {
                    self.sweeps.insert(self.next_sweep, sweep);
                }
            } else {
                if self.plain.len() >= MAX_PLAIN_PROVIDES {
                    break;
                }
                let keys = outbox.take_region(&point.prefix(Point::BITS), cx.now, 1);
                if keys.is_empty() {
                    break;
                }
                for (_, cid) in keys {
                    let ticket = cx.ticket();
                    cx.counters.provides_plain += 1;
                    self.plain.insert(ticket, (cid, cx.now + STEP_DEADLINE));
                    cx.push(Action::Provide { ticket, cid });
                }
            }
        }
    }

    fn finish(outcome: Outcome, outbox: &mut Outbox, config: &Config, cx: &mut Cx<'_>) {
        let due = Outbox::next_round(config, cx);
        for cid in outcome.provided {
            outbox.provided(&cid, due, config, cx);
        }
        for (cid, failure) in outcome.failed {
            outbox.provide_failed(&cid, failure, cx);
        }
    }

    pub fn provided(
        &mut self,
        ticket: Ticket,
        result: Result<(), Failure>,
        outbox: &mut Outbox,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        let Some((cid, _)) = self.plain.remove(&ticket) else {
            cx.counters.stale_reports += 1;
            return;
        };
        match result {
            Ok(()) => {
                let due = Outbox::next_round(config, cx);
                outbox.provided(&cid, due, config, cx);
            }
            Err(failure) => outbox.provide_failed(&cid, failure, cx),
        }
    }

    /// Hands a report to the sweep that waits for it, and lets that sweep go on.
    fn with_sweep(
        &mut self,
        ticket: Ticket,
        outbox: &mut Outbox,
        config: &Config,
        cx: &mut Cx<'_>,
        report: impl FnOnce(&mut Sweep, &mut Cx<'_>),
    ) {
        let Some((id, sweep)) = self.sweeps.iter_mut().find(|(_, sweep)| sweep.owns(ticket)) else {
            cx.counters.stale_reports += 1;
            return;
        };
        let id = *id;
        report(sweep, cx);
        if let Some(outcome) = sweep.step(cx) {
            self.sweeps.remove(&id);
            Self::finish(outcome, outbox, config, cx);
        }
    }

    pub fn closest(
        &mut self,
        ticket: Ticket,
        result: Result<Vec<PeerId>, Failure>,
        outbox: &mut Outbox,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        let target = self.sweeps.values().find_map(|sweep| sweep.target_of(ticket));
        if let (Some(target), Ok(peers)) = (target, &result) {
            self.size.learn(&target, peers);
        }
        self.with_sweep(ticket, outbox, config, cx, |sweep, _| {
            sweep.closest(result.as_deref().map_err(|failure| *failure));
        });
    }

    pub fn sent(
        &mut self,
        ticket: Ticket,
        result: Result<(), Failure>,
        outbox: &mut Outbox,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        self.with_sweep(ticket, outbox, config, cx, |sweep, cx| {
            sweep.sent(ticket, result, cx)
        });
    }

    /// Takes steps for lost whose report is overdue.
    pub fn expire(&mut self, outbox: &mut Outbox, config: &Config, cx: &mut Cx<'_>) {
        let late = self.plain.iter().filter(|(_, (_, deadline))| *deadline <= cx.now);
        for ticket in late.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
            cx.counters.lost_steps += 1;
            self.provided(ticket, Err(Failure::TimedOut), outbox, config, cx);
        }
        let late = self
            .sweeps
            .iter()
            .filter(|(_, sweep)| sweep.next_wake().is_some_and(|at| at <= cx.now));
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            let Some(sweep) = self.sweeps.get_mut(&id) else {
                continue;
            };
            sweep.expire(cx);
            if let Some(outcome) = sweep.step(cx) {
                self.sweeps.remove(&id);
                Self::finish(outcome, outbox, config, cx);
            }
        }
    }

    /// Whether anything more could be begun now.
    pub fn has_room(&self) -> bool {
        self.table > 0 && self.plain.len() < MAX_PLAIN_PROVIDES && self.sweeps.len() < MAX_SWEEPS
    }

    pub fn in_flight(&self) -> (usize, usize) {
        (self.plain.len(), self.sweeps.len())
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        // Tickets grow with time, so the first is the oldest.
        let plain = self.plain.first_key_value().map(|(_, (_, deadline))| *deadline);
        self.sweeps
            .values()
            .filter_map(Sweep::next_wake)
            .chain(plain)
            .min()
    }
}
