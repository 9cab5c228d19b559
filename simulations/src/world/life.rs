//! Starts, kills, faults, and the clients that ask for publications.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes and records are made here and never taken away"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use dirnode_routing::{Brain, Input, RequestId};
use rand::RngExt as _;

use super::{BEGIN, BOOTSTRAP, CLIENT_RETRY, REFRESH, World};
use crate::message::Event;
use crate::scenario::Victim;

impl World {
    pub(super) fn start(&mut self, number: u32) {
        let now = self.now;
        let node = &mut self.nodes[number as usize];
        if node.is_up() || node.dead {
            return;
        }
        node.epoch += 1;
        node.up_since = now;
        node.serving = node.disk.published.keys().copied().collect();
        let rows = node.disk.read();
        node.brain = Some(Brain::restore(
            self.config.clone(),
            node.peer.clone(),
            rows,
            now,
            &mut node.rng,
        ));
        if self.nodes[number as usize].table.is_empty() {
            for other in (0..BOOTSTRAP).filter(|other| *other != number) {
                let Some(point) = self.nodes.get(other as usize).map(|other| other.point) else {
                    continue;
                };
                self.nodes[number as usize].table.insert(point, other);
            }
        }
        self.told(number);
        self.feed(number, Input::Wake);
        self.maintain_soon(number, Duration::from_millis(300));
        let refresh = if now == BEGIN
            || self.nodes[number as usize].joined_at == BEGIN && now < BEGIN + Duration::from_secs(2)
        {
            self.within(REFRESH)
        } else {
            Duration::from_millis(100)
        };
        self.schedule(number, refresh, Event::Refresh);
        // A client whose request was not answered asks again.
        for record in 0..self.records.len() {
            let entry = &self.records[record];
            if entry.publisher != number {
                continue;
            }
            let record = u32::try_from(record).unwrap_or(u32::MAX);
            if entry.withdraw_asked_at.is_some() && entry.withdrawn_at.is_none() {
                self.schedule(number, CLIENT_RETRY, Event::Withdraw(record));
            } else if entry.asked_at.is_some() && entry.acked_at.is_none() {
                self.schedule(number, CLIENT_RETRY, Event::Publish(record));
            }
        }
    }

    pub(super) fn kill(&mut self, number: u32, again: Option<i64>) {
        let waiting = self.nodes[number as usize].disk.waiting.len();
        let written = self.rng.random_range(0..=waiting);
        let keep_soft = self.rng.random_bool(0.9);
        let mesh: Vec<u32> = self.nodes[number as usize].mesh.iter().copied().collect();
        let node = &mut self.nodes[number as usize];
        if !node.is_up() {
            return;
        }
        node.forget();
        node.disk.kill(written, keep_soft);
        match again {
            Some(after) => {
                let after = Duration::from_nanos(u64::try_from(after).unwrap_or(0));
                self.schedule(number, after, Event::Start);
            }
            None => node.dead = true,
        }
        for other in mesh {
            self.nodes[number as usize].mesh.insert(other);
            self.disconnect(other, number);
        }
    }

    pub(super) fn ask_publish(&mut self, record: u32) {
        let entry = &mut self.records[record as usize];
        let (publisher, cid) = (entry.publisher, entry.cid);
        if entry.acked_at.is_some() || self.nodes[publisher as usize].dead {
            return;
        }
        if entry.asked_at.is_none() {
            entry.asked_at = Some(self.now);
            entry.split = self.split;
        }
        if self.nodes[publisher as usize].is_up() {
            let request = RequestId(2 * u64::from(record));
            self.feed(publisher, Input::Publish { request, cid });
        } else {
            self.schedule(publisher, CLIENT_RETRY, Event::Publish(record));
        }
    }

    pub(super) fn ask_withdraw(&mut self, record: u32) {
        let entry = &mut self.records[record as usize];
        let (publisher, cid) = (entry.publisher, entry.cid);
        if entry.withdrawn_at.is_some() || self.nodes[publisher as usize].dead {
            return;
        }
        entry.withdraw_asked_at = entry.withdraw_asked_at.or(Some(self.now));
        if self.nodes[publisher as usize].is_up() {
            let request = RequestId(2 * u64::from(record) + 1);
            self.feed(publisher, Input::Unpublish { request, cid });
        } else {
            self.schedule(publisher, CLIENT_RETRY, Event::Withdraw(record));
        }
    }

    pub(super) fn acknowledged(&mut self, request: RequestId, good: bool) {
        let Some(record) = usize::try_from(request.0 / 2)
            .ok()
            .and_then(|place| self.records.get_mut(place))
        else {
            return;
        };
        match (request.0 % 2, good) {
            (0, true) => record.acked_at = record.acked_at.or(Some(self.now)),
            (1, true) => record.withdrawn_at = record.withdrawn_at.or(Some(self.now)),
            _ => {}
        }
    }

    pub(super) fn fault(&mut self, number: u32) {
        let fault = self.faults[number as usize].clone();
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        if fault.kill == Some(Victim::Publisher) {
            self.killed_at = self.now;
            let publishers: BTreeSet<u32> = self.records.iter().map(|record| record.publisher).collect();
            for publisher in publishers {
                self.kill(publisher, None);
            }
        }
        if let Some(part) = fault.partition {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a part of a u32"
            )]
            let at = (f64::from(count) * part.clamp(0.0, 1.0)) as u32;
            self.links.split(Some(at));
            self.split = true;
            for node in 0..count {
                let mesh: Vec<u32> = self.nodes[node as usize].mesh.iter().copied().collect();
                for other in mesh {
                    if !self.links.reaches(node, other) {
                        self.disconnect(node, other);
                    }
                }
            }
        }
        if fault.heal {
            self.links.split(None);
            self.split = false;
            self.healed_at = self.now;
            for node in 0..count {
                let after = self.within(Duration::from_secs(30));
                self.schedule(node, after, Event::Refresh);
            }
        }
        for _ in 0..fault.join.unwrap_or(0) {
            let node = self.add_node();
            let after = self.within(Duration::from_secs(1));
            self.schedule(node, after, Event::Start);
        }
        if let Some(part) = fault.withdraw {
            for record in 0..self.records.len() {
                let there = self.records[record].acked_at.is_some()
                    && self.records[record].withdraw_asked_at.is_none();
                if there && self.rng.random_bool(part.clamp(0.0, 1.0)) {
                    let publisher = self.records[record].publisher;
                    let number = u32::try_from(record).unwrap_or(u32::MAX);
                    self.schedule(publisher, Duration::ZERO, Event::Withdraw(number));
                }
            }
        }
        let down = i64::try_from(fault.down_for.as_nanos()).unwrap_or(i64::MAX);
        if let Some(between) = fault.restart_each {
            for node in 0..count {
                self.schedule(node, between * node, Event::Kill(Some(down)));
            }
        }
        if let Some(every) = fault.churn_every {
            let victim = self.rng.random_range(0..count);
            if !self.records.iter().any(|record| record.publisher == victim) {
                self.kill(victim, Some(down));
            }
            self.schedule(u32::MAX, every, Event::Fault(number));
        }
    }
}
