//! Which announced records are copied here without being asked for: none, unless their publisher is on the list.
//!
//! One job for each record, holding the peers that announced it; when one of them fails, the next is tried, so that a
//! listed peer that is down does not hide another (p2p-wire §7-26). Bounded, with pauses between tries. Soft state: what a
//! stop interrupts comes back with the next announcement. Never copies anything itself: the server's write door does.

use std::collections::{BTreeMap, BTreeSet};

use dirnode_record::RecordCid;

use crate::action::{Action, Fault, Ticket};
use crate::config::{Config, MAX_SYNC_JOBS, MAX_SYNC_TRIES, MAX_SYNCS, SYNC_DEADLINE};
use crate::cx::Cx;
use crate::input::{Failure, SyncOutcome};
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Most peers of one job.
const MAX_SOURCES: usize = 16;

#[derive(Debug)]
struct Job {
    /// Peers that announced it, with the tries so far.
    sources: BTreeMap<PeerId, u8>,
    /// When it goes on; nothing while it runs.
    due: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(crate) struct Autosync {
    jobs: BTreeMap<RecordCid, Job>,
    due: BTreeSet<(Timestamp, RecordCid)>,
    running: BTreeMap<Ticket, (RecordCid, PeerId, Timestamp)>,
}

impl Autosync {
    /// A publisher says that it has a record.
    pub fn offer(&mut self, cid: RecordCid, publisher: &PeerId, config: &Config, cx: &mut Cx<'_>) {
        if !config.sync_from.contains(publisher) {
            return;
        }
        if let Some(job) = self.jobs.get_mut(&cid) {
            if job.sources.len() < MAX_SOURCES {
                job.sources.entry(publisher.clone()).or_insert(0);
            }
            return;
        }
        if self.jobs.len() >= MAX_SYNC_JOBS {
            cx.counters.syncs_dropped += 1;
            return;
        }
        cx.counters.syncs_queued += 1;
        let sources = BTreeMap::from([(publisher.clone(), 0)]);
        self.jobs.insert(
            cid,
            Job {
                sources,
                due: Some(cx.now),
            },
        );
        self.due.insert((cx.now, cid));
    }

    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        while self.running.len() < MAX_SYNCS {
            let Some((at, cid)) = self.due.first().copied() else {
                break;
            };
            if at > cx.now {
                break;
            }
            self.due.pop_first();
            let Some(job) = self.jobs.get_mut(&cid) else {
                continue;
            };
            job.due = None;
            // The one that failed least; peers tried as often take turns by their order.
            let Some((peer, tries)) = job.sources.iter_mut().min_by_key(|(_, tries)| **tries) else {
                self.jobs.remove(&cid);
                continue;
            };
            *tries += 1;
            let (ticket, peer) = (cx.ticket(), peer.clone());
            cx.counters.syncs_started += 1;
            cx.push(Action::Sync {
                ticket,
                cid,
                peer: peer.clone(),
            });
            self.running.insert(ticket, (cid, peer, cx.now + SYNC_DEADLINE));
        }
    }

    pub fn ended(&mut self, ticket: Ticket, outcome: SyncOutcome, cx: &mut Cx<'_>) {
        let Some((cid, peer, _)) = self.running.remove(&ticket) else {
            cx.counters.stale_reports += 1;
            return;
        };
        let Some(job) = self.jobs.get_mut(&cid) else {
            return;
        };
        match outcome {
            SyncOutcome::Imported | SyncOutcome::AlreadyHeld => {
                cx.counters.syncs_done += 1;
                self.jobs.remove(&cid);
            }
            SyncOutcome::Failed(failure) => {
                // Whoever announces a record and serves other bytes for it lies; what is no record by our schemas may be
                // one by those of others.
                if failure == Failure::Mismatch {
                    cx.push(Action::Score {
                        peer: peer.clone(),
                        fault: Fault::WrongBytes,
                    });
                }
                // Bytes that are wrong, or no record, will not be better at the next try.
                let hopeless = matches!(failure, Failure::Mismatch | Failure::Invalid | Failure::Denied);
                let tries = job.sources.get(&peer).copied().unwrap_or(0);
                if hopeless || tries >= MAX_SYNC_TRIES {
                    job.sources.remove(&peer);
                }
                if job.sources.is_empty() {
                    cx.counters.syncs_failed += 1;
                    self.jobs.remove(&cid);
                    return;
                }
                let at = cx.now + cx.pause(tries.saturating_sub(1));
                job.due = Some(at);
                self.due.insert((at, cid));
            }
        }
    }

    pub fn expire(&mut self, cx: &mut Cx<'_>) {
        while let Some((ticket, (_, _, deadline))) = self.running.first_key_value() {
            if *deadline > cx.now {
                break;
            }
            cx.counters.lost_steps += 1;
            let ticket = *ticket;
            self.ended(ticket, SyncOutcome::Failed(Failure::TimedOut), cx);
        }
    }

    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        let due = self
            .due
            .first()
            .map(|(at, _)| *at)
            .filter(|_| self.running.len() < MAX_SYNCS);
        let running = self
            .running
            .first_key_value()
            .map(|(_, (_, _, deadline))| *deadline);
        [due, running].into_iter().flatten().min()
    }
}
