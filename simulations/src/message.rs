//! What nodes say to one another, and what else can happen.

use std::sync::Arc;

use dirnode_record::{Label, RecordCid};
use dirnode_routing::catchup::{Reply, Request};
use dirnode_routing::{Announcement, ExchangeId, Input, Point, Ticket, Token};

/// A gossip message; the number is its id.
#[derive(Debug)]
pub struct Gossip {
    /// Who signed it.
    pub author: u32,
    /// What it says.
    pub announcement: Announcement,
}

/// What goes over a link.
#[derive(Debug, Clone)]
pub enum Message {
    /// Which nodes are nearest to this point?
    FindNode(u64, Point),
    /// These.
    Nodes(u64, Arc<[(Point, u32)]>),
    /// The sender has these records; answered when a ticket is given.
    AddProvider(Option<Ticket>, Arc<[RecordCid]>),
    /// Taken.
    Added(Ticket),
    /// A gossip message by its number.
    Gossip(u32),
    /// The sender has these gossip messages.
    IHave(Arc<[u32]>),
    /// Send these.
    IWant(Arc<[u32]>),
    /// A link of the mesh is wanted.
    Graft,
    /// Send this record.
    Fetch(Ticket, RecordCid),
    /// Its labels, or that it is not here.
    Record(Ticket, Option<Arc<[Label]>>),
    /// A page is wanted.
    CatchupAsk(ExchangeId, Arc<Request>),
    /// A page.
    CatchupReply(ExchangeId, Arc<Reply>),
}

/// Kinds of messages, for counting.
pub const KINDS: [&str; 9] = [
    "find_node",
    "nodes",
    "add_provider",
    "gossip",
    "ihave",
    "iwant",
    "fetch",
    "catchup",
    "control",
];

impl Message {
    /// Its place in [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Self::FindNode(..) => 0,
            Self::Nodes(..) => 1,
            Self::AddProvider(..) | Self::Added(_) => 2,
            Self::Gossip(_) => 3,
            Self::IHave(_) => 4,
            Self::IWant(_) => 5,
            Self::Fetch(..) | Self::Record(..) => 6,
            Self::CatchupAsk(..) | Self::CatchupReply(..) => 7,
            Self::Graft => 8,
        }
    }
}

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A brain asked to be woken.
    Wake,
    /// Something the node itself did is done.
    Input(Box<Input>),
    /// The oldest waiting change is on disk.
    Written(Ticket),
    /// A message arrives.
    Message(u32, Message),
    /// A node did not answer a lookup in time.
    LookupTimeout(u64, Point, u32),
    /// A node did not take provider records in time.
    SendTimeout(Ticket),
    /// The node cannot be reached.
    Unreachable(Input2),
    /// Time to tell others which messages are here.
    Heartbeat,
    /// Time to look after the mesh.
    Maintain,
    /// Time to look after the table.
    Refresh,
    /// The node starts.
    Start,
    /// The node is killed; it starts again after so many nanoseconds, if any.
    Kill(Option<i64>),
    /// A record is published, by its number.
    Publish(u32),
    /// A record is taken back, by its number.
    Withdraw(u32),
    /// A fault of the scenario, by its number.
    Fault(u32),
}

/// What a node is told when it cannot reach another.
#[derive(Debug)]
pub enum Input2 {
    /// A fetch failed.
    Fetch(Ticket),
    /// A page failed.
    Catchup(ExchangeId),
}

/// The token of a gossip message's verdict.
#[must_use]
pub fn token_of(gossip: u32) -> Token {
    Token(gossip.into())
}
