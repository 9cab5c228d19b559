//! A node's disk: what is left of it after a kill.
//!
//! Changes of ground state reach the disk in order and some time after they were asked for; a kill may come before,
//! or between the writing and the report. Soft state is kept as the index keeps it, and sometimes lost.

use std::collections::{BTreeMap, VecDeque};

use dirnode_record::{Label, RecordCid};
use dirnode_routing::{
    Change, DueRow, OutboxRow, PeerId, Restored, RestoredClaim, RestoredTomb, Standing, Timestamp,
};

/// A row of the remote label index.
#[derive(Debug, Clone)]
pub struct IndexRow {
    /// Its labels.
    pub labels: Vec<Label>,
    /// What its author said about when.
    pub timestamp: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// What it is worth.
    pub standing: Standing,
}

/// What a node keeps.
#[derive(Debug, Default)]
pub struct Disk {
    /// The outbox.
    pub outbox: BTreeMap<RecordCid, OutboxRow>,
    /// The published set with due times.
    pub published: BTreeMap<RecordCid, DueRow>,
    /// The remote label index.
    pub index: BTreeMap<(RecordCid, PeerId), IndexRow>,
    /// Withdrawals that the index remembers.
    pub tombs: BTreeMap<(RecordCid, PeerId), (Timestamp, bool)>,
    /// Changes that are asked for and not yet written, in order.
    pub waiting: VecDeque<Change>,
}

impl Disk {
    /// Writes the change that has waited longest.
    pub fn write_one(&mut self) {
        let Some(change) = self.waiting.pop_front() else {
            return;
        };
        match change {
            Change::Publish(row) => {
                self.published.entry(row.cid).or_insert(DueRow {
                    cid: row.cid,
                    due: Timestamp::EPOCH,
                    stamp: row.stamp,
                    provided_at: Timestamp::EPOCH,
                });
                self.outbox.insert(row.cid, row);
            }
            Change::Withdraw(row) => {
                self.published.remove(&row.cid);
                self.outbox.insert(row.cid, row);
            }
            Change::Update { row, was } => {
                if self.holds(&row.cid, was) {
                    self.outbox.insert(row.cid, row);
                }
            }
            Change::Forget { cid, was } => {
                if self.holds(&cid, was) {
                    self.outbox.remove(&cid);
                }
            }
        }
    }

    fn holds(&self, cid: &RecordCid, was: Timestamp) -> bool {
        self.outbox.get(cid).is_some_and(|row| row.stamp == was)
    }

    /// Writes due times of records that are still published.
    pub fn write_due(&mut self, rows: Vec<DueRow>) {
        for row in rows {
            if let Some(there) = self.published.get_mut(&row.cid) {
                *there = row;
            }
        }
    }

    /// The node is killed: some of what waits was written, the rest never was.
    pub fn kill(&mut self, written: usize, keep_soft: bool) {
        for _ in 0..written {
            self.write_one();
        }
        self.waiting.clear();
        if !keep_soft {
            self.index.clear();
            self.tombs.clear();
        }
    }

    /// What a starting node reads.
    #[must_use]
    pub fn read(&self) -> Restored {
        Restored {
            outbox: self.outbox.values().cloned().collect(),
            published: self.published.values().cloned().collect(),
            claims: self
                .index
                .iter()
                .map(|((cid, peer), row)| RestoredClaim {
                    cid: *cid,
                    peer: peer.clone(),
                    labels: row.labels.clone(),
                    timestamp: row.timestamp,
                    last_seen: row.last_seen,
                    standing: row.standing,
                })
                .collect(),
            tombs: self
                .tombs
                .iter()
                .map(|((cid, peer), (timestamp, first_hand))| RestoredTomb {
                    cid: *cid,
                    peer: peer.clone(),
                    timestamp: *timestamp,
                    first_hand: *first_hand,
                })
                .collect(),
        }
    }
}
