//! Questions about own records that change nothing.

use dirnode_record::RecordCid;

use super::{News, Outbox, Progress};
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

    pub fn news(&self, cid: &RecordCid, alone: bool) -> Option<News> {
        let progress = self.progress(cid, alone)?;
        let known = |at: Timestamp| Some(at).filter(|at| *at > Timestamp::EPOCH);
        let Some(entry) = self.entries.get(cid) else {
            // Asked for, and not on disk yet.
            let filing = self.filing_of(cid)?;
            return Some(News {
                kind: filing.row.kind,
                progress,
                open_since: Some(filing.row.filed_at),
                provided_at: None,
                announced_at: None,
                next_provide: None,
                next_announcement: None,
                provide_tries: 0,
                announce_tries: 0,
                failure: None,
            });
        };
        Some(News {
            kind: entry.kind,
            progress,
            open_since: entry.open,
            provided_at: known(entry.provided_at),
            announced_at: known(entry.announced_at),
            next_provide: Some(entry.due).filter(|_| entry.kind == Kind::Publish && !entry.providing),
            next_announcement: entry.announce_at.filter(|_| !entry.announcing),
            provide_tries: entry.provide_tries,
            announce_tries: entry.announce_tries,
            failure: entry.failure,
        })
    }

    pub fn progress(&self, cid: &RecordCid, alone: bool) -> Option<Progress> {
        if self.filing_of(cid).is_some() {
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
