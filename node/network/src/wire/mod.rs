//! The bytes that travel between peers: pure readers and writers, one module per protocol of the network.
//!
//! Nothing here does I/O, waits, knows the time or judges a peer. Every reader takes hostile bytes, is bounded, does
//! not recurse deeper than a named limit, and says what is wrong in an error of its own. Holds no state. Follows
//! p2p-wire §1.6, §1.7, §2, §4, §5 and §6.2.

pub mod endpoint;
mod go_text;
pub mod msgpack;
pub mod rpc;

pub use endpoint::{Endpoint, EndpointKind, RawAddr};
