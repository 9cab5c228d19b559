//! Identify messages with their raw addresses, and the signed peer record inside.
//!
//! The stock reader drops addresses and protocol names it does not know; these are kept here as bytes. Rewriting of
//! frames on their way is the business of the adaptor. Pure. Follows p2p-wire §1.6 and §1.7.
//!
//! | field | number |
//! |---|---|
//! | publicKey | 1 |
//! | listenAddrs | 2, repeated |
//! | protocols | 3, repeated |
//! | observedAddr | 4 |
//! | protocolVersion, agentVersion | 5, 6 |
//! | signedPeerRecord: envelope of publicKey 1, payloadType 2, payload 3, signature 5 | 8 |
//!
//! The payload of the envelope is peerId 1, seq 2, addresses 3 (each a message with multiaddr 1).

use libp2p::PeerId;
use libp2p::identity::PublicKey;

use super::protobuf::{Fields, ProtobufError};

/// Largest message that is read, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024;
/// Addresses that are kept, of a message or a signed record; the rest is passed over.
pub const MAX_ADDRESSES: usize = 500;
/// Protocols that are kept; the rest is passed over.
pub const MAX_PROTOCOLS: usize = 1024;

/// The domain that a signature of a peer record is bound to.
const RECORD_DOMAIN: &[u8] = b"libp2p-peer-record";
/// The payload type of a peer record.
const RECORD_TYPE: &[u8] = &[0x03, 0x01];

/// Why bytes are not an identify message or signed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifyError {
    /// Too large.
    #[error("message is {0} bytes, limit is {MAX_MESSAGE_BYTES}")]
    TooLarge(usize),
    /// Not protobuf.
    #[error(transparent)]
    Malformed(#[from] ProtobufError),
    /// The payload is not a standard peer record.
    #[error("payload is not a peer record")]
    PayloadType,
    /// The key cannot be read.
    #[error("public key is not readable")]
    Key,
    /// The signature does not fit.
    #[error("signature does not verify")]
    Signature,
    /// The record is that of another peer than the key.
    #[error("record is not about its signer")]
    OtherPeer,
}

/// An identify message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentifyMessage {
    /// The public key as protobuf.
    pub public_key: Option<Vec<u8>>,
    /// Raw addresses, not parsed.
    pub listen_addresses: Vec<Vec<u8>>,
    /// Protocol names, not checked.
    pub protocols: Vec<Vec<u8>>,
    /// The raw address at which the sender sees the receiver.
    pub observed_address: Option<Vec<u8>>,
    /// Not looked at by anyone.
    pub protocol_version: Option<Vec<u8>>,
    /// Name and version of the software.
    pub agent_version: Option<Vec<u8>>,
    /// The envelope, not opened.
    pub signed_peer_record: Option<Vec<u8>>,
}

impl IdentifyMessage {
    /// Reads a message without its length prefix.
    ///
    /// # Errors
    /// [`IdentifyError::TooLarge`], [`IdentifyError::Malformed`].
    pub fn read(bytes: &[u8]) -> Result<Self, IdentifyError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(IdentifyError::TooLarge(bytes.len()));
        }
        let mut message = Self::default();
        for field in Fields::of(bytes) {
            let field = field?;
            if !matches!(field.number, 1..=6 | 8) {
                continue;
            }
            let value = field.bytes()?.to_vec();
            match field.number {
                1 => message.public_key = Some(value),
                2 if message.listen_addresses.len() < MAX_ADDRESSES => message.listen_addresses.push(value),
                3 if message.protocols.len() < MAX_PROTOCOLS => message.protocols.push(value),
                4 => message.observed_address = Some(value),
                5 => message.protocol_version = Some(value),
                6 => message.agent_version = Some(value),
                8 => message.signed_peer_record = Some(value),
                _ => {}
            }
        }
        Ok(message)
    }
}

/// An opened envelope: a peer's own word on its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPeerRecord {
    /// Who signed it, and whom it is about.
    pub peer: PeerId,
    /// Grows with each record of a peer.
    pub sequence: u64,
    /// Raw addresses, not parsed.
    pub addresses: Vec<Vec<u8>>,
}

impl SignedPeerRecord {
    /// Opens an envelope: checks type, signature, and that signer and subject are one.
    ///
    /// # Errors
    /// [`IdentifyError`] says what is wrong first.
    pub fn open(envelope: &[u8]) -> Result<Self, IdentifyError> {
        if envelope.len() > MAX_MESSAGE_BYTES {
            return Err(IdentifyError::TooLarge(envelope.len()));
        }
        let (mut key, mut kind, mut payload, mut signature) = (&[][..], &[][..], &[][..], &[][..]);
        for field in Fields::of(envelope) {
            let field = field?;
            match field.number {
                1 => key = field.bytes()?,
                2 => kind = field.bytes()?,
                3 => payload = field.bytes()?,
                5 => signature = field.bytes()?,
                _ => {}
            }
        }
        if kind != RECORD_TYPE {
            return Err(IdentifyError::PayloadType);
        }
        let key = PublicKey::try_decode_protobuf(key).map_err(|_| IdentifyError::Key)?;
        if !key.verify(&signed_bytes(payload), signature) {
            return Err(IdentifyError::Signature);
        }
        let record = Self::read(payload, key.to_peer_id())?;
        Ok(record)
    }

    fn read(payload: &[u8], signer: PeerId) -> Result<Self, IdentifyError> {
        let (mut peer, mut sequence, mut addresses) = (&[][..], 0, Vec::new());
        for field in Fields::of(payload) {
            let field = field?;
            match field.number {
                1 => peer = field.bytes()?,
                2 => sequence = field.varint()?,
                3 if addresses.len() < MAX_ADDRESSES => {
                    for inner in Fields::of(field.bytes()?) {
                        let inner = inner?;
                        if inner.number == 1 {
                            addresses.push(inner.bytes()?.to_vec());
                        }
                    }
                }
                _ => {}
            }
        }
        if peer != signer.to_bytes() {
            return Err(IdentifyError::OtherPeer);
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(Self {
            peer: signer,
            sequence,
            addresses,
        })
    }
}

/// What is signed: domain, type and payload, each with its length in front.
fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    [RECORD_DOMAIN, RECORD_TYPE, payload]
        .into_iter()
        .flat_map(super::protobuf::framed)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::protobuf::put_bytes;
    use super::*;
    use libp2p::identity::Keypair;
    use proptest::prelude::*;

    fn envelope(key: &Keypair, about: &PeerId) -> Vec<u8> {
        let mut payload = Vec::new();
        put_bytes(&mut payload, 1, &about.to_bytes());
        let mut out = Vec::new();
        put_bytes(&mut out, 1, &key.public().encode_protobuf());
        put_bytes(&mut out, 2, RECORD_TYPE);
        put_bytes(&mut out, 3, &payload);
        put_bytes(&mut out, 5, &key.sign(&signed_bytes(&payload)).unwrap());
        out
    }

    #[test]
    fn a_record_about_another_peer_is_refused() {
        let key = Keypair::ed25519_from_bytes([1; 32]).unwrap();
        let own = key.public().to_peer_id();
        assert_eq!(SignedPeerRecord::open(&envelope(&key, &own)).unwrap().peer, own);
        assert_eq!(
            SignedPeerRecord::open(&envelope(&key, &PeerId::random())),
            Err(IdentifyError::OtherPeer)
        );
        let mut damaged = envelope(&key, &own);
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(SignedPeerRecord::open(&damaged), Err(IdentifyError::Signature));
    }

    proptest! {
        #[test]
        fn messages_are_read_as_written(addresses: Vec<Vec<u8>>, protocols: Vec<Vec<u8>>, agent: Option<Vec<u8>>) {
            let mut out = Vec::new();
            addresses.iter().for_each(|address| put_bytes(&mut out, 2, address));
            protocols.iter().for_each(|name| put_bytes(&mut out, 3, name));
            agent.iter().for_each(|name| put_bytes(&mut out, 6, name));
            if out.len() <= MAX_MESSAGE_BYTES {
                let read = IdentifyMessage::read(&out).unwrap();
                prop_assert_eq!((read.listen_addresses, read.protocols, read.agent_version), (addresses, protocols, agent));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = IdentifyMessage::read(&bytes);
            let _ = SignedPeerRecord::open(&bytes);
        }
    }
}
