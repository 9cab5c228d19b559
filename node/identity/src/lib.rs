//! Who a node is: the Ed25519 key behind its libp2p peer id, read from and kept in a file.
//!
//! This room owns the reading and making of key files and the forms in which a peer id is written down. Never decides
//! who may do what, and never lets a secret into a message or a `Debug` text. The key file is ground state: it is on
//! the disk before anybody learns the peer id. [`Keypair`] and [`PeerId`] of libp2p are what the other rooms pass
//! around. Follows p2p-wire §1.1.

mod compact;
mod der;
mod error;
mod file;
#[doc(hidden)]
pub mod fuzz;
mod key;
mod peer;
mod pem;

pub use compact::{CompactPeerId, MAX_PEER_ID_BYTES};
pub use error::{IdentityError, KeyError};
pub use file::{Loaded, MAX_KEY_FILE_BYTES, from_path, load_or_create};
pub use key::{from_bytes, to_pem};
pub use libp2p_identity::{Keypair, PeerId, PublicKey};
pub use peer::{PeerIdError, key_space_point, parse_peer_id, peer_id_cid, public_key_protobuf};
