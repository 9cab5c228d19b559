//! One own record: what was asked for, and how far its news has come.

use dirnode_record::RecordCid;

use crate::action::{Kind, Ticket};
use crate::config::GIVE_UP_AFTER;
use crate::input::Failure;
use crate::time::Timestamp;

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

/// What is known about the news of one own record, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Whether the record is published, or was taken back.
    pub kind: Kind,
    /// How far its news has come.
    pub progress: Progress,
    /// When the request was made whose news is not out yet: the record's row is in the outbox.
    pub open_since: Option<Timestamp>,
    /// When it was provided last, as far as that is known; kept over a restart.
    pub provided_at: Option<Timestamp>,
    /// When it was announced last, as far as that is known; kept over a restart.
    pub announced_at: Option<Timestamp>,
    /// When it is provided next; in the past while it waits for its turn or for peers. `None` while that goes on, and
    /// for a record that was taken back.
    pub next_provide: Option<Timestamp>,
    /// When it is announced next, if it has to be.
    pub next_announcement: Option<Timestamp>,
    /// Provides that failed since the last one that went through.
    pub provide_tries: u8,
    /// Announcements that failed since the last one that went through.
    pub announce_tries: u8,
    /// Why the last try failed; nothing once both went through.
    pub failure: Option<Failure>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    /// Newest announcement time given out.
    pub stamp: Timestamp,
    /// Next provide.
    pub due: Timestamp,
    /// Next announcement, if one is wanted.
    pub announce_at: Option<Timestamp>,
    /// When the request was filed whose news is not out yet.
    pub open: Option<Timestamp>,
    /// The request that made it so.
    pub filing: Ticket,
    /// The stamp of its row in the outbox, which tells it from the rows of other requests.
    pub row_stamp: Timestamp,
    pub provide_tries: u8,
    pub announce_tries: u8,
    pub providing: bool,
    pub announcing: bool,
    pub provided: bool,
    pub announced: bool,
    /// [`Timestamp::EPOCH`] when it is not known.
    pub provided_at: Timestamp,
    pub announced_at: Timestamp,
    pub failure: Option<Failure>,
    pub failed: bool,
}

impl Entry {
    pub fn new(kind: Kind, stamp: Timestamp, filing: Ticket) -> Self {
        Self {
            kind,
            stamp,
            due: Timestamp::MAX,
            announce_at: None,
            open: None,
            filing,
            row_stamp: stamp,
            provide_tries: 0,
            announce_tries: 0,
            providing: false,
            announcing: false,
            provided: false,
            announced: false,
            provided_at: Timestamp::EPOCH,
            announced_at: Timestamp::EPOCH,
            failure: None,
            failed: false,
        }
    }

    pub fn digest(&self, cid: &RecordCid) -> u64 {
        crate::catchup::message::row_digest(cid, self.stamp, self.kind == Kind::Withdraw)
    }

    /// Nothing that failed is waiting to be tried again.
    pub fn mend(&mut self) {
        if self.provide_tries == 0 && self.announce_tries == 0 {
            self.failure = None;
        }
    }

    pub fn give_up(&mut self, now: Timestamp) {
        self.failed |= self
            .open
            .is_some_and(|filed_at| now.since(filed_at) > GIVE_UP_AFTER);
    }
}
