//! The bytes that travel between peers: pure readers and writers, one module per protocol of the network.
//!
//! Nothing here does I/O, waits, knows the time or judges a peer. Every reader takes hostile bytes, is bounded, does
//! not recurse deeper than a named limit, and says what is wrong in an error of its own. Holds no state. Follows
//! p2p-wire §1.6, §1.7, §2, §4, §5 and §6.2.

#[cfg(feature = "records")]
pub mod announcement;
pub mod endpoint;
#[cfg(feature = "records")]
#[doc(hidden)]
pub mod fuzz;
mod go_text;
pub mod gossip;
pub mod identify;
pub mod json;
pub mod kad;
#[cfg(feature = "records")]
pub mod label_key;
pub mod msgpack;
pub mod protobuf;
pub mod rpc;
pub mod timestamp;

#[cfg(feature = "records")]
pub use announcement::Announcement;
pub use endpoint::{Endpoint, EndpointKind, RawAddr};
pub use timestamp::Timestamp;
