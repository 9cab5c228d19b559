//! Peers as the routing room names them: the bytes of a libp2p peer id.
//!
//! Never checks that the bytes are a valid multihash; whoever hands them in has them from an authenticated connection or
//! a verified signature. Holds no state.

pub use dirnode_identity::{CompactPeerId as PeerId, MAX_PEER_ID_BYTES};
