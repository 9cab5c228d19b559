//! Questions about own records that change nothing.

use dirnode_record::RecordCid;

use super::{Outbox, Progress};
use crate::action::Kind;
use crate::input::Failure;
use crate::time::Timestamp;

impl Outbox {
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
