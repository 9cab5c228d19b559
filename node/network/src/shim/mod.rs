//! The shim: what stands between the libp2p stack and the network's own manners on a substream.
//!
//! The network's Kademlia is called `dir/kad/1.0.0`, without a leading slash, which no libp2p type of ours can hold;
//! and its nodes carry `/dir` and `/oci` addresses, which no multiaddr type of ours can hold either. The shim wraps
//! the muxer of each connection and on its substreams
//!
//! * renames protocols while they are negotiated, and in identify messages, both ways;
//! * reports `/dir` and `/oci` addresses of others that come in identify, ADD_PROVIDER and GET_PROVIDERS;
//! * appends our own to identify, and to provider entries of ours in what we send; and, where a book knows them,
//!   those of others to the GET_PROVIDERS answers we give;
//! * ends streams on which a peer sends too much or takes too long, where the reader behind would wait for ever.
//!
//! Put it on as the very last step of the transport, relayed connections included: a connection that misses it has
//! no DHT, silently. Streams have to be negotiated by the default version of multistream-select.
//!
//! Never judges an endpoint or a peer, never opens a stream, never reads past a frame. Soft state only.
//! Follows p2p-wire §1.6, §1.7, §2.2 and §3.
//!
//! ```no_run
//! use libp2p::Transport as _;
//! # use libp2p::core::{muxing::StreamMuxerBox, transport::Boxed};
//! # use dirnode_network::shim::{Shim, ShimConfig};
//! # fn on(transport: Boxed<(libp2p::PeerId, StreamMuxerBox)>, config: ShimConfig) {
//! let (shim, taps) = Shim::new(config);
//! let transport = libp2p::Transport::map(transport, move |(peer, muxer), _| (peer, shim.wrap(peer, muxer))).boxed();
//! # }
//! ```

mod endpoints;
mod frame;
mod identify;
mod kad;
mod metrics;
mod muxer;
mod names;
mod negotiation;
mod stream;
mod watch;

use std::fmt;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::core::muxing::StreamMuxerBox;
use tokio::sync::mpsc;

pub use endpoints::{
    EndpointBook, EndpointSeen, EndpointSource, MAX_ENDPOINT_BYTES, MAX_ENDPOINTS_PER_PEER, MAX_FINGERPRINTS,
    MAX_OWN_BYTES, OwnEndpoints, REPEAT_AFTER_SECS, TAP_CAPACITY, Taps,
};
pub use metrics::ShimMetrics;
pub use names::{KAD_INSIDE, KAD_WIRE, MAX_NAME_BYTES, MAX_RENAMES, REFUSED, Renames};
pub use negotiation::Role;
pub use stream::ShimStream;
pub use watch::Deadlines;

/// Unix seconds, as whoever builds the shim wants them told.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Why the shim cannot be set up as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShimError {
    /// A pair of names is ambiguous or cannot stand in a negotiation.
    #[error("protocol {name} cannot be renamed: {reason}")]
    Name {
        /// The inside name of the pair.
        name: String,
        /// What is wrong with the pair.
        reason: &'static str,
    },
    /// An endpoint of ours cannot be told to others.
    #[error("endpoint addresses cannot be advertised: {reason}")]
    Endpoint {
        /// What is wrong with them.
        reason: &'static str,
    },
}

/// What the shim is given.
#[derive(Clone)]
pub struct ShimConfig {
    /// Whose entries get our endpoints.
    pub local_peer: PeerId,
    /// Which names differ on the wire; [`Renames::network`] for this network.
    pub renames: Renames,
    /// What we say of ourselves; may be set later.
    pub own: OwnEndpoints,
    /// What we know of others, for the answers we give.
    pub book: Option<Arc<dyn EndpointBook>>,
    /// Times how often the same endpoint is reported.
    pub clock: Clock,
    /// Bounds the time peers may take on the streams they open; without, nothing is cut. Needs a tokio runtime.
    pub deadlines: Option<Deadlines>,
}

impl fmt::Debug for ShimConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShimConfig")
            .field("local_peer", &self.local_peer)
            .field("renames", &self.renames)
            .field("own", &self.own)
            .field("book", &self.book.is_some())
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

/// Wraps connections. Cheap to clone; all clones report into the same [`Taps`].
#[derive(Debug, Clone)]
pub struct Shim {
    shared: Arc<Shared>,
    reports: mpsc::Sender<EndpointSeen>,
}

struct Shared {
    local_peer: PeerId,
    renames: Renames,
    own: OwnEndpoints,
    book: Option<Arc<dyn EndpointBook>>,
    clock: Clock,
    deadlines: Option<Deadlines>,
    metrics: ShimMetrics,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("local_peer", &self.local_peer)
            .finish_non_exhaustive()
    }
}

/// What the substreams of one connection have in common.
#[derive(Debug)]
struct Connection {
    peer: PeerId,
    shared: Arc<Shared>,
    reports: endpoints::Reports,
}

impl Connection {
    fn tell(&self, peer: PeerId, source: EndpointSource, endpoint: &[u8]) {
        let shared = &self.shared;
        self.reports
            .tell(peer, source, endpoint, &shared.clock, &shared.metrics);
    }
}

impl Shim {
    /// A shim and the receiver of what it sees.
    #[must_use]
    pub fn new(config: ShimConfig) -> (Self, Taps) {
        let (reports, taps) = Taps::channel();
        let shared = Arc::new(Shared {
            local_peer: config.local_peer,
            renames: config.renames,
            own: config.own,
            book: config.book,
            clock: config.clock,
            deadlines: config.deadlines,
            metrics: ShimMetrics::default(),
        });
        (Self { shared, reports }, taps)
    }

    /// The connection to the authenticated `peer`, with all its substreams seen through the shim.
    #[must_use]
    pub fn wrap(&self, peer: PeerId, muxer: StreamMuxerBox) -> StreamMuxerBox {
        StreamMuxerBox::new(muxer::ShimMuxer::new(muxer, self.connection(peer)))
    }

    /// A single substream of a connection to `peer`, for transports that have no muxer, and for tests.
    #[must_use]
    pub fn wrap_stream<S>(&self, peer: PeerId, stream: S, role: Role) -> ShimStream<S> {
        ShimStream::new(stream, role, self.connection(peer))
    }

    /// The counters; clones count together.
    #[must_use]
    pub fn metrics(&self) -> &ShimMetrics {
        &self.shared.metrics
    }

    fn connection(&self, peer: PeerId) -> Arc<Connection> {
        Arc::new(Connection {
            peer,
            shared: self.shared.clone(),
            reports: endpoints::Reports::new(self.reports.clone()),
        })
    }
}
