//! The one task that owns the libp2p swarm, its handle, behaviours, wire codecs and limits.
//!
//! Never judges content or peers: it carries, bounds and reports. Follows the libp2p specifications and the
//! wire contract of the Agent Directory network.

pub mod shim;
