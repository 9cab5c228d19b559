//! Telling the mesh: announcements of own records, new ones and those of each round, and withdrawals.
//!
//! Labels are read when they are needed, so that a million own records do not keep theirs in memory. Long lists are cut
//! by [`chunk`](crate::chunk); the parts share one announcement time, and are sent again together if one fails. Soft
//! state: what was on its way is announced again after a restart.

use std::collections::BTreeMap;

use dirnode_record::{Label, RecordCid};

use crate::action::{Action, Kind, Ticket};
use crate::chunk::chunks;
use crate::config::{ANNOUNCE_RATE, MAX_ANNOUNCES, STEP_DEADLINE};
use crate::cx::{Bucket, Cx};
use crate::input::{Announcement, Failure};
use crate::outbox::Outbox;
use crate::time::Timestamp;

#[derive(Debug)]
struct Job {
    cid: RecordCid,
    filing: Ticket,
    /// Parts whose report is waited for; none while the labels are read.
    outstanding: usize,
    failed: Option<Failure>,
    deadline: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Announcer {
    pub mesh: usize,
    jobs: BTreeMap<Ticket, Job>,
    bucket: Bucket,
}

impl Announcer {
    pub fn new(now: Timestamp) -> Self {
        Self {
            mesh: 0,
            jobs: BTreeMap::new(),
            bucket: Bucket::new(ANNOUNCE_RATE, now),
        }
    }

    pub fn pump(&mut self, outbox: &mut Outbox, cx: &mut Cx<'_>) {
        while self.has_room() && self.bucket.take(cx.now) {
            let Some((cid, kind, filing)) = outbox.take_announcement(cx.now) else {
                self.bucket.charge_back();
                break;
            };
            let ticket = cx.ticket();
            let mut job = Job {
                cid,
                filing,
                outstanding: 0,
                failed: None,
                deadline: cx.now + STEP_DEADLINE,
            };
            match kind {
                Kind::Publish => cx.push(Action::LoadLabels { ticket, cid }),
                Kind::Withdraw => {
                    job.outstanding = 1;
                    let timestamp = outbox.next_stamp(cx.now);
                    outbox.stamped(&cid, timestamp);
                    let labels = Vec::new();
                    let announcement = Announcement {
                        cid,
                        labels,
                        timestamp,
                        withdrawn: true,
                    };
                    cx.counters.announced += 1;
                    cx.push(Action::Announce { ticket, announcement });
                }
            }
            self.jobs.insert(ticket, job);
        }
    }

    pub fn labels(
        &mut self,
        ticket: Ticket,
        labels: Result<Option<Vec<Label>>, Failure>,
        outbox: &mut Outbox,
        cx: &mut Cx<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&ticket).filter(|job| job.outstanding == 0) else {
            cx.counters.stale_reports += 1;
            return;
        };
        let (cid, filing) = (job.cid, job.filing);
        if !outbox.is_published(&cid) {
            // Taken back while its labels were read: saying them now would bring it back at others.
            self.jobs.remove(&ticket);
            outbox.announced(&cid, filing, Ok(()), cx);
            return;
        }
        let labels = match labels {
            Ok(Some(labels)) => labels,
            Ok(None) => {
                self.jobs.remove(&ticket);
                outbox.orphaned(&cid, cx);
                outbox.announced(&cid, filing, Err(Failure::NotFound), cx);
                return;
            }
            Err(failure) => {
                self.jobs.remove(&ticket);
                outbox.announced(&cid, filing, Err(failure), cx);
                return;
            }
        };
        let cut = chunks(&labels);
        cx.counters.labels_left_out += u64::try_from(cut.left_out.len()).unwrap_or(0);
        if cut.chunks.is_empty() {
            // Nothing to say by gossip; the provider record says that it is here.
            self.jobs.remove(&ticket);
            outbox.announced(&cid, filing, Ok(()), cx);
            return;
        }
        let timestamp = outbox.next_stamp(cx.now);
        outbox.stamped(&cid, timestamp);
        job.outstanding = cut.chunks.len();
        self.bucket.charge(cut.chunks.len().saturating_sub(1));
        for labels in cut.chunks {
            cx.counters.announced += 1;
            let announcement = Announcement {
                cid,
                labels,
                timestamp,
                withdrawn: false,
            };
            cx.push(Action::Announce { ticket, announcement });
        }
    }

    pub fn sent(
        &mut self,
        ticket: Ticket,
        result: Result<(), Failure>,
        outbox: &mut Outbox,
        cx: &mut Cx<'_>,
    ) {
        let Some(job) = self.jobs.get_mut(&ticket).filter(|job| job.outstanding > 0) else {
            cx.counters.stale_reports += 1;
            return;
        };
        job.outstanding -= 1;
        job.failed = job.failed.or(result.err());
        if job.outstanding == 0
            && let Some(job) = self.jobs.remove(&ticket)
        {
            outbox.announced(&job.cid, job.filing, job.failed.map_or(Ok(()), Err), cx);
        }
    }

    /// Takes steps for lost whose report is overdue.
    pub fn expire(&mut self, outbox: &mut Outbox, cx: &mut Cx<'_>) {
        while let Some((ticket, job)) = self.jobs.first_key_value() {
            if job.deadline > cx.now {
                break;
            }
            cx.counters.lost_steps += 1;
            let (ticket, cid, filing) = (*ticket, job.cid, job.filing);
            self.jobs.remove(&ticket);
            outbox.announced(&cid, filing, Err(Failure::TimedOut), cx);
        }
    }

    pub fn has_room(&self) -> bool {
        self.mesh > 0 && self.jobs.len() < MAX_ANNOUNCES
    }

    /// The earliest moment at which another may go out.
    pub fn ready_at(&self) -> Timestamp {
        self.bucket.ready_at()
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        self.jobs.first_key_value().map(|(_, job)| job.deadline)
    }
}
