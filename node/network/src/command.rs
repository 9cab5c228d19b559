//! What the handle asks the swarm task: one variant per question.

use bytes::Bytes;
use libp2p::swarm::Stream;
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::NetworkError;
use crate::event::{AnnouncementToken, Verdict};
use crate::handle::AnnounceOutcome;
use crate::status::{PeerAddrs, PeerView, Status};

/// Where one answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, NetworkError>>;

/// One question.
pub(crate) enum Command {
    Status {
        reply: Reply<Status>,
    },
    Peers {
        reply: Reply<Vec<PeerView>>,
    },
    Connect {
        addr: Multiaddr,
        reply: Reply<PeerId>,
    },
    Disconnect {
        peer: PeerId,
        reply: Reply<bool>,
    },
    /// Opens a substream, dialling first when there is no connection.
    OpenStream {
        peer: PeerId,
        protocol: StreamProtocol,
        reply: Reply<Stream>,
    },
    Query {
        query: Query,
    },
    StopProviding {
        key: Vec<u8>,
        reply: Reply<()>,
    },
    Announce {
        data: Bytes,
        reply: Reply<AnnounceOutcome>,
    },
    Report {
        token: AnnouncementToken,
        verdict: Verdict,
    },
    Score {
        peer: PeerId,
        delta: f64,
    },
    /// Addresses of a peer learned elsewhere.
    Remember {
        peer: PeerId,
        addrs: Vec<Multiaddr>,
    },
    AddExternal {
        addr: Multiaddr,
        reply: Reply<()>,
    },
    RemoveExternal {
        addr: Multiaddr,
        reply: Reply<()>,
    },
    External {
        reply: Reply<Vec<Multiaddr>>,
    },
    Block {
        peer: PeerId,
        blocked: bool,
        reply: Reply<bool>,
    },
}

/// A question to the DHT, together with who waits for it.
pub(crate) enum Query {
    FindPeer {
        peer: PeerId,
        reply: Reply<Vec<Multiaddr>>,
    },
    Closest {
        key: Vec<u8>,
        reply: Reply<Vec<PeerAddrs>>,
    },
    Provide {
        key: Vec<u8>,
        reply: Reply<()>,
    },
    Providers {
        key: Vec<u8>,
        /// Ends the query early once so many are known.
        enough: usize,
        /// Ends the query early with what is known by then.
        until: Option<Instant>,
        reply: Reply<Vec<PeerAddrs>>,
    },
}
