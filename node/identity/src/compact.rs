//! Peer ids where many are kept: their bytes alone, shared. Pure; holds no state. Follows p2p-wire §1.1.

use std::fmt;
use std::sync::Arc;

use libp2p_identity::PeerId;

/// Longest peer id taken, in bytes; an Ed25519 one has 38.
pub const MAX_PEER_ID_BYTES: usize = 64;

/// A peer id as its bytes: 1 to 64, shared, so that a copy costs nothing. Order is that of the bytes.
///
/// Nothing checks that they are a multihash: whoever hands them in has them from an authenticated connection, a verified
/// signature, or rows that were written from those.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompactPeerId(Arc<[u8]>);

impl CompactPeerId {
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

    /// The peer id as libp2p has it; `None` for bytes that are none.
    #[must_use]
    pub fn to_peer_id(&self) -> Option<PeerId> {
        PeerId::from_bytes(&self.0).ok()
    }
}

impl fmt::Debug for CompactPeerId {
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
        assert!(CompactPeerId::from_bytes(&[]).is_none());
        assert!(CompactPeerId::from_bytes(&[1; 65]).is_none());
        let peer = CompactPeerId::from_bytes(&[0xab; 64]).unwrap();
        assert_eq!(peer.as_bytes().len(), 64);
        assert!(format!("{peer:?}").starts_with("PeerId(abab"));
        assert_eq!(peer.to_peer_id(), None);
    }

    #[test]
    fn both_forms_are_the_same_peer() {
        let peer = PeerId::random();
        let compact = CompactPeerId::from_bytes(&peer.to_bytes()).unwrap();
        assert_eq!(compact.to_peer_id(), Some(peer));
    }
}
