//! What happened: everything that the state machine is told.
//!
//! Whatever comes from a peer has been decoded within bounds and, where it is signed, verified before it is put in here.

use dirnode_record::{Label, RecordCid};

use crate::action::{ExchangeId, RequestId, Ticket, Token};
use crate::catchup::{Reply, Request};
use crate::peer::PeerId;
use crate::time::Timestamp;

/// An announcement of the labels topic, as decoded and admitted by the wire's strict reading (p2p-wire §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The record.
    pub cid: RecordCid,
    /// What its author says about it: at most 100; empty if and only if `withdrawn`.
    pub labels: Vec<Label>,
    /// When its author says that it was written.
    pub timestamp: Timestamp,
    /// The record is taken back. Travels as an empty label list with a field of ours (p2p-wire §7-20).
    pub withdrawn: bool,
}

/// Why a step did not work. The kind decides what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// There is nobody to talk to.
    NoPeers,
    /// No answer in time.
    TimedOut,
    /// The peer cannot be reached, or ended the exchange.
    Unreachable,
    /// The peer, or we, have too much to do.
    Busy,
    /// The peer does not have it.
    NotFound,
    /// The bytes are not what their CID promised.
    Mismatch,
    /// The bytes are no record, or the message does not read.
    Invalid,
    /// Policy does not allow it.
    Denied,
    /// The disk did not take it.
    Storage,
}

impl Failure {
    /// A word for messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoPeers => "no peers",
            Self::TimedOut => "timed out",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::NotFound => "not found",
            Self::Mismatch => "bytes do not match the cid",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Storage => "storage",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a synchronisation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncOutcome {
    /// The record is here now.
    Imported,
    /// The record was here.
    AlreadyHeld,
    /// It did not work with this peer.
    Failed(Failure),
}

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The moment asked for by [`Brain::next_wake`](crate::Brain::next_wake) has come; harmless at any time.
    Wake,

    /// Somebody who may do so asks for a held record to be published.
    Publish {
        /// Answered by [`Action::Acknowledge`](crate::Action::Acknowledge).
        request: RequestId,
        /// The record.
        cid: RecordCid,
    },
    /// Somebody who may do so takes a record back.
    Unpublish {
        /// Answered by [`Action::Acknowledge`](crate::Action::Acknowledge).
        request: RequestId,
        /// The record.
        cid: RecordCid,
    },
    /// A change asked for by [`Action::Persist`](crate::Action::Persist) is on disk, or will not be.
    Persisted {
        /// Of the action.
        ticket: Ticket,
        /// Whether it is.
        result: Result<(), Failure>,
    },
    /// The labels asked for by [`Action::LoadLabels`](crate::Action::LoadLabels).
    Labels {
        /// Of the action.
        ticket: Ticket,
        /// As announced by the record; `None` when there is no such record, or it is not in the published set. An error says
        /// that it cannot be told now.
        labels: Result<Option<Vec<Label>>, Failure>,
    },

    /// A single provide has ended.
    Provided {
        /// Of the action.
        ticket: Ticket,
        /// Whether provider records were handed out.
        result: Result<(), Failure>,
    },
    /// A lookup has ended.
    Closest {
        /// Of the action.
        ticket: Ticket,
        /// The peers nearest to the key, at most 20, ourselves not among them; fewer only when there are no more.
        result: Result<Vec<PeerId>, Failure>,
    },
    /// Provider records were sent to one peer, or were not.
    ProvidedMany {
        /// Of the action.
        ticket: Ticket,
        /// Whether all of them were written and the peer did not end the stream.
        result: Result<(), Failure>,
    },
    /// An announcement was handed to the mesh, or was not.
    AnnounceSent {
        /// Of the action.
        ticket: Ticket,
        /// Whether it was.
        result: Result<(), Failure>,
    },

    /// Sizes of the routing table and of the mesh, whenever they change.
    Table {
        /// Peers in the routing table.
        table: usize,
        /// Peers that take our announcements.
        mesh: usize,
    },
    /// A peer is connected and identified.
    PeerConnected {
        /// Which.
        peer: PeerId,
        /// Whether it speaks `/dirnode/catchup/1`.
        catchup: bool,
    },
    /// The last connection to a peer is gone.
    PeerDisconnected {
        /// Which.
        peer: PeerId,
    },

    /// An announcement came in. Answered by exactly one [`Action::Verdict`](crate::Action::Verdict).
    Announced {
        /// For the verdict.
        token: Token,
        /// Who signed it.
        publisher: PeerId,
        /// Whether policy lets this publisher speak.
        permitted: bool,
        /// What it says.
        announcement: Announcement,
    },
    /// A peer says by ADD_PROVIDER that it has a record; the connection proves who says so.
    ProviderSeen {
        /// The record.
        cid: RecordCid,
        /// The peer.
        peer: PeerId,
    },
    /// A fetch has ended well: the bytes hash to the CID, and these are the labels they carry.
    Fetched {
        /// Of the action.
        ticket: Ticket,
        /// Labels of the record.
        labels: Vec<Label>,
    },
    /// A fetch has ended otherwise.
    FetchFailed {
        /// Of the action.
        ticket: Ticket,
        /// Why.
        reason: Failure,
    },
    /// Rows that a search has just shown to somebody: worth verifying before others. At most 64 are looked at.
    Shown {
        /// Record and publisher.
        rows: Vec<(RecordCid, PeerId)>,
    },

    /// Rows that the index does not hold, although they were put there: it was full. They are forgotten, so that they are
    /// put anew when they are next heard of.
    Unindexed {
        /// Record and publisher.
        rows: Vec<(RecordCid, PeerId)>,
    },

    /// A peer asks for a page of what we know.
    CatchupAsked {
        /// For the answer: exactly one [`Action::CatchupAnswer`](crate::Action::CatchupAnswer).
        token: Token,
        /// Who asks.
        peer: PeerId,
        /// What for.
        request: Request,
    },
    /// A page we asked for, or why there is none.
    CatchupReplied {
        /// Of the action.
        exchange: ExchangeId,
        /// The page.
        result: Result<Reply, Failure>,
    },

    /// A synchronisation has ended.
    Synced {
        /// Of the action.
        ticket: Ticket,
        /// How.
        outcome: SyncOutcome,
    },
}
