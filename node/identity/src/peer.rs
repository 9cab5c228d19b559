//! The forms in which a peer id is written, and its place in the key space of the DHT. Pure. Follows p2p-wire §1.1, §2.2.

use libp2p_identity::{Keypair, PeerId};
use multibase::Base;
use sha2::{Digest, Sha256};

/// CID version 1, codec libp2p-key.
const CID_HEAD: [u8; 2] = [0x01, 0x72];

/// Longest text that is read as a peer id, in bytes. The two forms of an Ed25519 peer take 52 and 65.
const MAX_TEXT_BYTES: usize = 256;

/// Why a text is not a peer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a peer id: {what}")]
pub struct PeerIdError {
    text: String,
    what: String,
}

/// Reads a peer id from its base58 text (`12D3Koo...`) or from its CID form (`bafzaa...`).
///
/// # Errors
/// [`PeerIdError`] with the text, shortened, and what is wrong with it.
pub fn parse_peer_id(text: &str) -> Result<PeerId, PeerIdError> {
    let wrong = |what: String| PeerIdError {
        text: text.chars().take(80).collect(),
        what,
    };
    if text.len() > MAX_TEXT_BYTES {
        return Err(wrong(format!(
            "{} bytes are more than {MAX_TEXT_BYTES}",
            text.len()
        )));
    }
    // The base58 form begins with the encoding of its own first bytes; no multibase prefix looks like that.
    if text.starts_with("Qm") || text.starts_with('1') {
        return text
            .parse()
            .map_err(|error: libp2p_identity::ParseError| wrong(error.to_string()));
    }
    let (_, bytes) = multibase::decode(text).map_err(|error| wrong(error.to_string()))?;
    let multihash = bytes
        .strip_prefix(&CID_HEAD)
        .ok_or_else(|| wrong("its codec is not libp2p-key".to_owned()))?;
    PeerId::from_bytes(multihash).map_err(|error| wrong(error.to_string()))
}

/// The peer id as a CIDv1 with codec libp2p-key, in lower-case base32 (`bafzaa...`).
#[must_use]
pub fn peer_id_cid(peer: &PeerId) -> String {
    let mut bytes = CID_HEAD.to_vec();
    bytes.extend_from_slice(&peer.to_bytes());
    multibase::encode(Base::Base32Lower, bytes)
}

/// The public key as the protobuf that libp2p exchanges: 36 bytes for Ed25519.
#[must_use]
pub fn public_key_protobuf(key: &Keypair) -> Vec<u8> {
    key.public().encode_protobuf()
}

/// Where the peer stands in the key space of the DHT: the sha2-256 of the peer id's bytes.
#[must_use]
pub fn key_space_point(peer: &PeerId) -> [u8; 32] {
    Sha256::digest(peer.to_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for text in [
            "",
            "1",
            "Qm",
            "x",
            "12D3KooW",
            "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri",
        ] {
            let error = parse_peer_id(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a peer id: ")),
                "{error}"
            );
        }
        assert!(parse_peer_id(&"1".repeat(300)).is_err());
    }

    proptest! {
        #[test]
        fn both_forms_read_back(seed: [u8; 32]) {
            let peer = Keypair::ed25519_from_bytes(seed).unwrap().public().to_peer_id();
            prop_assert_eq!(parse_peer_id(&peer.to_base58()), Ok(peer));
            prop_assert_eq!(parse_peer_id(&peer_id_cid(&peer)), Ok(peer));
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = parse_peer_id(&text);
        }
    }
}
