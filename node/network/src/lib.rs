//! The one task that owns the libp2p swarm, its handle, behaviours, wire codecs and limits.
//!
//! Never judges content or peers: it carries, bounds and reports. Follows the libp2p specifications and the
//! wire contract of the Agent Directory network. Everything held here is soft state.
//!
//! Start with [`Network::start`]; ask through [`NetworkHandle`]; listen to [`NetworkEvent`]. Records, verdicts and
//! policy come from outside: through [`Library`], [`NetworkHandle::report`] and [`NetworkHandle::score`].
//!
//! Feature `records`, on by default: serving and fetching records. Without it the crate knows no record and depends on
//! none; a [`Library`] then has only the catch-up exchange.
#![cfg_attr(
    not(feature = "records"),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        reason = "what serves records stays in place when nobody calls it"
    )
)]

mod actor;
mod behaviour;
mod book;
mod command;
pub mod config;
mod endpoints;
pub mod error;
pub mod event;
mod gossip;
mod handle;
pub mod library;
mod limits;
pub mod mdns;
mod memory;
mod metrics;
mod pending;
mod ports;
pub mod providers;
mod rpc;
pub mod runtime;
mod scope;
pub mod shim;
mod start;
pub mod status;
mod streams;
mod sweep;
mod transport;
pub mod water;
pub mod wire;

pub use config::{Config, Limits, Reachability, Role};
pub use error::{ErrorKind, NetworkError};
pub use event::{Announced, AnnouncementToken, EndpointKind, EndpointSeen, NetworkEvent, Verdict};
pub use handle::{AnnounceOutcome, NetworkHandle};
pub use libp2p::identity::Keypair;
pub use libp2p::{Multiaddr, PeerId};
pub use library::{Library, LibraryError, Pulled, ReferrerDescriptor, ReferrerList, RpcCode};
pub use runtime::Runtime;
pub use scope::{Scope, scope};
pub use start::Network;
pub use status::{Direction, PeerAddrs, PeerView, ReachabilityVerdict, Status, TransportKind};
