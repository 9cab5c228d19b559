//! What is to be done: everything that the state machine asks for.
//!
//! The driver carries actions out in the order given, without making the state machine wait, and reports back by the
//! [`Input`](crate::Input) named at each. A report that never comes is taken for a failure after a deadline.

use dirnode_record::{Label, RecordCid};

use crate::catchup::{Reply, Request};
use crate::input::Announcement;
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Names a step of ours until its report; never used twice by one [`Brain`](crate::Brain).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Names something of the driver's that waits for an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Names a caller of the API that waits for an answer of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one page asked of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExchangeId(pub u64);

/// What gossipsub does with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, and passed on.
    Accept,
    /// Not passed on; nobody is to blame.
    Ignore,
    /// Not passed on, and whoever passes on such things is to blame.
    Reject,
}

/// What a publication row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The record is in the published set and its news is not out yet.
    Publish,
    /// The record was taken back; the row lasts as long as its tombstone.
    Withdraw,
}

/// One row of the outbox: ground state, keyed by CID, at most one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// The record.
    pub cid: RecordCid,
    /// What for.
    pub kind: Kind,
    /// Newest announcement time that was given out for this record.
    pub stamp: Timestamp,
    /// When it was asked for.
    pub filed_at: Timestamp,
    /// Whether the withdrawal was announced.
    pub announced: bool,
}

/// When a published record is to be provided next: ground state, keyed by CID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueRow {
    /// The record.
    pub cid: RecordCid,
    /// When; [`Timestamp::EPOCH`] means at once.
    pub due: Timestamp,
    /// Newest announcement time that was given out for this record.
    pub stamp: Timestamp,
    /// When it was provided last; [`Timestamp::EPOCH`] when that is not known.
    pub provided_at: Timestamp,
}

/// A change of ground state, applied whole or not at all, in the order of the actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Put the record into the published set, and this row into the outbox.
    Publish(OutboxRow),
    /// Take the record and its due row out of the published set, and put this row into the outbox.
    Withdraw(OutboxRow),
    /// Put this row in the place of the one that is there, if that is the one meant: a newer request may have replaced it.
    Update {
        /// The row.
        row: OutboxRow,
        /// The stamp of the row meant.
        was: Timestamp,
    },
    /// Take the row of this record out of the outbox, if it is the one meant.
    Forget {
        /// The record.
        cid: RecordCid,
        /// The stamp of the row meant.
        was: Timestamp,
    },
}

/// Why a request was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Too many publications are open.
    #[error("{open} publications are open, limit is {limit}")]
    Full {
        /// How many there are.
        open: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The disk did not take it.
    #[error("publication was not recorded: {0}")]
    NotRecorded(crate::input::Failure),
}

/// How much a row of the remote label index is worth; a better one ranks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Told by a peer that is not its author.
    Hearsay,
    /// Said by its author.
    Claimed,
    /// The labels are those of the record's bytes.
    Verified,
}

/// A change of the remote label index: soft state, rows keyed by (CID, publisher).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexChange {
    /// Put a row in the place of the one that is there.
    Put {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// Its labels.
        labels: Vec<Label>,
        /// What its author said about when, never later than when we heard it.
        timestamp: Timestamp,
        /// When we last heard of it.
        last_seen: Timestamp,
        /// When it is no longer believed.
        expires_at: Timestamp,
        /// What it is worth.
        standing: Standing,
    },
    /// Add labels to a row that is there: the next part of a divided announcement.
    Add {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// More of its labels.
        labels: Vec<Label>,
    },
    /// The row that is there was heard of again.
    Refresh {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// What its author said about when.
        timestamp: Timestamp,
        /// When we last heard of it.
        last_seen: Timestamp,
        /// When it is no longer believed.
        expires_at: Timestamp,
        /// What it is worth.
        standing: Standing,
    },
    /// Remove a row.
    Remove {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
    },
    /// Remove a row and remember that it was withdrawn, so that it does not come back after a restart.
    Bury {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// When its author said so.
        timestamp: Timestamp,
        /// Whether the author said so to us, or to the mesh.
        first_hand: bool,
        /// Until when to remember it.
        until: Timestamp,
    },
}

/// What a peer did to be thought less of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fault {
    /// It announced labels that the record does not have.
    Lied,
    /// It served bytes that do not hash to the CID asked for.
    WrongBytes,
    /// It served what is no record.
    NoRecord,
    /// Its pages do not follow the protocol.
    BadPage,
    /// It announces faster than anybody needs to.
    TooFast,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Make a change durable. Reported by [`Input::Persisted`](crate::Input::Persisted).
    Persist {
        /// For the report.
        ticket: Ticket,
        /// What.
        change: Change,
    },
    /// Write due times, some time soon; losing them costs provides, nothing else. Not reported.
    PersistDue {
        /// At most 1,024.
        rows: Vec<DueRow>,
    },
    /// Answer a caller of the API.
    Acknowledge {
        /// Which.
        request: RequestId,
        /// With what.
        outcome: Result<(), Refused>,
    },
    /// The news of a publication is out, was given up, or has nothing to tell any more: whoever waits for it asks
    /// [`Brain::news`](crate::Brain::news). Not reported.
    Settled {
        /// The record.
        cid: RecordCid,
    },
    /// Serve this record to peers, and be a provider of it to those who ask us.
    Serve {
        /// The record.
        cid: RecordCid,
    },
    /// Stop serving this record to peers, and stop being its provider, before anything else is done.
    StopServing {
        /// The record.
        cid: RecordCid,
    },
    /// Read the labels of a published record. Reported by [`Input::Labels`](crate::Input::Labels).
    LoadLabels {
        /// For the report.
        ticket: Ticket,
        /// The record.
        cid: RecordCid,
    },
    /// Announce that we provide a record: a lookup of its own. Reported by [`Input::Provided`](crate::Input::Provided).
    Provide {
        /// For the report.
        ticket: Ticket,
        /// The record.
        cid: RecordCid,
    },
    /// Look up the peers nearest to a key. Reported by [`Input::Closest`](crate::Input::Closest).
    FindClosest {
        /// For the report.
        ticket: Ticket,
        /// The bytes that are looked up: a multihash of 34 bytes.
        key: Vec<u8>,
    },
    /// Send provider records of ours to one peer, down one stream. Reported by
    /// [`Input::ProvidedMany`](crate::Input::ProvidedMany).
    ProvideMany {
        /// For the report.
        ticket: Ticket,
        /// To whom.
        peer: PeerId,
        /// At most [`PROVIDE_BATCH`](crate::config::PROVIDE_BATCH).
        cids: Vec<RecordCid>,
    },
    /// Sign and publish on the labels topic. Reported by [`Input::AnnounceSent`](crate::Input::AnnounceSent).
    Announce {
        /// For the report; several parts of one announcement share it, each is reported.
        ticket: Ticket,
        /// What.
        announcement: Announcement,
    },
    /// Tell gossipsub what to do with a message.
    Verdict {
        /// Which message.
        token: Token,
        /// What.
        verdict: Verdict,
    },
    /// Change the remote label index.
    Index(IndexChange),
    /// Fetch a record from a peer, check its bytes, read its labels. Reported by
    /// [`Input::Fetched`](crate::Input::Fetched) or [`Input::FetchFailed`](crate::Input::FetchFailed).
    Fetch {
        /// For the report.
        ticket: Ticket,
        /// The record.
        cid: RecordCid,
        /// From whom.
        peer: PeerId,
        /// When to give up.
        deadline: Timestamp,
    },
    /// Think less of a peer.
    Score {
        /// Of whom.
        peer: PeerId,
        /// Why.
        fault: Fault,
    },
    /// Ask a peer for a page. Reported by [`Input::CatchupReplied`](crate::Input::CatchupReplied).
    CatchupAsk {
        /// For the report.
        exchange: ExchangeId,
        /// Whom.
        peer: PeerId,
        /// What for.
        request: Request,
    },
    /// Answer a peer's request for a page, after [`Reply::fill`] has put the labels in.
    CatchupAnswer {
        /// Of the request.
        token: Token,
        /// The page.
        reply: Reply,
    },
    /// Copy a record, with its referrers, from a peer. Reported by [`Input::Synced`](crate::Input::Synced).
    Sync {
        /// For the report.
        ticket: Ticket,
        /// The record.
        cid: RecordCid,
        /// From whom.
        peer: PeerId,
    },
}
