//! Peers as the routing room names them: the bytes of a libp2p peer id, without libp2p.
//!
//! Never checks that the bytes are a valid multihash; whoever hands them in has them from an authenticated connection or
//! a verified signature. Holds no state.

use std::fmt;
use std::sync::Arc;

/// Longest peer id taken, in bytes; an ed25519 one has 38.
pub const MAX_PEER_ID_BYTES: usize = 64;

/// The identity of a peer: 1 to 64 bytes, shared, so that a copy costs nothing. Order is that of the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<[u8]>);

impl PeerId {
    /// Takes the binary form; `None` when it is empty or longer than [`MAX_PEER_ID_BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_PEER_ID_BYTES)
            .contains(&bytes.len())
            .then(|| Self(bytes.into()))
    }

    /// The binary form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerId(")?;
        for byte in self.0.iter() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_bounded() {
        assert!(PeerId::from_bytes(&[]).is_none());
        assert!(PeerId::from_bytes(&[1; 65]).is_none());
        let peer = PeerId::from_bytes(&[0xab; 64]).unwrap();
        assert_eq!(peer.as_bytes().len(), 64);
        assert!(format!("{peer:?}").starts_with("PeerId(abab"));
    }
}
