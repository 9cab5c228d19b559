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
    pub provide_tries: u8,
    pub announce_tries: u8,
    pub providing: bool,
    pub announcing: bool,
    pub provided: bool,
    pub announced: bool,
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
            provide_tries: 0,
            announce_tries: 0,
            providing: false,
            announcing: false,
            provided: false,
            announced: false,
            failure: None,
            failed: false,
        }
    }

    pub fn digest(&self, cid: &RecordCid) -> u64 {
        crate::catchup::message::row_digest(cid, self.stamp, self.kind == Kind::Withdraw)
    }

    pub fn give_up(&mut self, now: Timestamp) {
        self.failed |= self
            .open
            .is_some_and(|filed_at| now.since(filed_at) > GIVE_UP_AFTER);
    }
}
