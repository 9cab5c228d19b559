//! GossipSub frames, as far as their messages can be judged from the bytes alone.
//!
//! The router does this for messages that it passes on; here it is done for messages that came another way, such as a
//! signed announcement that was kept as proof, and for the recorded frames. Duplicates, age and our own identity are
//! the caller's. Pure. Follows p2p-wire §4.1.
//!
//! | field | RPC | message |
//! |---|---|---|
//! | 1 | subscriptions | from: bytes of the author's peer id |
//! | 2 | publish (repeated) | data |
//! | 3 | control | seqno: 8 bytes, big-endian |
//! | 4 | | topic |
//! | 5 | | signature over `libp2p-pubsub:` and the message without fields 5 and 6 |
//! | 6 | | key: only where the peer id does not hold it |

use libp2p::PeerId;
use libp2p::identity::PublicKey;

use super::protobuf::{Fields, Frame, ProtobufError, frame, put_bytes};

/// Largest frame without its length prefix, in bytes. A reference node resets the stream of a larger one.
pub const MAX_FRAME_BYTES: usize = 10 * 1024;
/// Messages that are read of one frame; each takes two bytes at least.
pub const MAX_MESSAGES: usize = 1024;

const SIGNED_HEAD: &[u8] = b"libp2p-pubsub:";

/// Why a frame or message is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GossipError {
    /// Not one whole frame of at most [`MAX_FRAME_BYTES`].
    #[error("frame is not whole, or larger than {MAX_FRAME_BYTES} bytes")]
    Frame,
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] ProtobufError),
    /// The author is missing or no peer id.
    #[error("author is missing or not a peer id")]
    Author,
    /// The sequence number is missing or not of 8 bytes.
    #[error("sequence number is missing or not of 8 bytes")]
    Sequence,
    /// No signature.
    #[error("signature is missing")]
    NoSignature,
    /// The key in the message is not that of the author, or none is to be had.
    #[error("public key is missing or not that of the author")]
    Key,
    /// The signature does not fit.
    #[error("signature does not verify")]
    Signature,
    /// About something else.
    #[error("topic is another one")]
    Topic,
}

/// A published message as it stands; fields that are missing are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishedMessage {
    /// Field 1.
    pub from: Option<Vec<u8>>,
    /// Field 2.
    pub data: Option<Vec<u8>>,
    /// Field 3.
    pub sequence: Option<Vec<u8>>,
    /// Field 4.
    pub topic: Option<Vec<u8>>,
    /// Field 5.
    pub signature: Option<Vec<u8>>,
    /// Field 6.
    pub key: Option<Vec<u8>>,
    /// Fields that are not known, raw and in wire order; a signature covers them.
    pub unknown: Vec<u8>,
}

impl PublishedMessage {
    /// Reads a message.
    ///
    /// # Errors
    /// [`ProtobufError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ProtobufError> {
        let mut message = Self::default();
        for field in Fields::of(bytes) {
            let field = field?;
            let slot = match field.number {
                1 => &mut message.from,
                2 => &mut message.data,
                3 => &mut message.sequence,
                4 => &mut message.topic,
                5 => &mut message.signature,
                6 => &mut message.key,
                _ => {
                    message.unknown.extend_from_slice(field.raw);
                    continue;
                }
            };
            *slot = Some(field.bytes()?.to_vec());
        }
        Ok(message)
    }

    /// The bytes of the message: known fields in ascending order, then the others as they came.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode(true)
    }

    fn encode(&self, signed: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = [
            (1, &self.from),
            (2, &self.data),
            (3, &self.sequence),
            (4, &self.topic),
            (5, &self.signature),
            (6, &self.key),
        ];
        for (number, value) in fields {
            if let Some(value) = value
                && (signed || number < 5)
            {
                put_bytes(&mut out, number, value);
            }
        }
        out.extend_from_slice(&self.unknown);
        out
    }

    /// What the author has signed. Fields come in ascending order, however they stood on the wire.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [SIGNED_HEAD, &self.encode(false)].concat()
    }

    /// How the network names the message: the author's bytes, then the sequence number's.
    #[must_use]
    pub fn message_id(&self) -> Vec<u8> {
        let from = self.from.as_deref().unwrap_or_default();
        [from, self.sequence.as_deref().unwrap_or_default()].concat()
    }

    /// Checks that the message is of `topic`, from an author whose signature it bears, with a sequence number of 8
    /// bytes.
    ///
    /// # Errors
    /// [`GossipError`] says what is wrong first.
    pub fn verify(&self, topic: &str) -> Result<Verified<'_>, GossipError> {
        let from = self.from.as_deref().ok_or(GossipError::Author)?;
        let author = PeerId::from_bytes(from).map_err(|_| GossipError::Author)?;
        let sequence = self.sequence.as_deref().ok_or(GossipError::Sequence)?;
        let sequence = sequence.try_into().map_err(|_| GossipError::Sequence)?;
        if self.topic.as_deref() != Some(topic.as_bytes()) {
            return Err(GossipError::Topic);
        }
        let signature = self.signature.as_deref().ok_or(GossipError::NoSignature)?;
        // An Ed25519 peer id is the identity multihash of the key.
        let key = self.key.as_deref().or_else(|| from.strip_prefix(&[0x00, 0x24]));
        let key = key
            .and_then(|key| PublicKey::try_decode_protobuf(key).ok())
            .filter(|key| key.to_peer_id() == author)
            .ok_or(GossipError::Key)?;
        if !key.verify(&self.signed_bytes(), signature) {
            return Err(GossipError::Signature);
        }
        Ok(Verified {
            author,
            sequence: u64::from_be_bytes(sequence),
            data: self.data.as_deref().unwrap_or_default(),
        })
    }
}

/// A message whose author is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified<'a> {
    /// Who signed it.
    pub author: PeerId,
    /// The number the author gave it.
    pub sequence: u64,
    /// The payload.
    pub data: &'a [u8],
}

/// The messages published in one frame, length prefix included. Subscriptions and control are passed over.
///
/// # Errors
/// [`GossipError::Frame`] or [`GossipError::Malformed`]: nothing of such a frame counts, and its stream is reset.
pub fn read_frame(stream: &[u8]) -> Result<Vec<PublishedMessage>, GossipError> {
    let Frame::Whole(rpc, _) = frame(stream, MAX_FRAME_BYTES) else {
        return Err(GossipError::Frame);
    };
    let mut messages = Vec::new();
    for field in Fields::of(rpc) {
        let field = field?;
        match field.number {
            1 | 3 => drop(field.bytes()?),
            2 if messages.len() < MAX_MESSAGES => messages.push(PublishedMessage::read(field.bytes()?)?),
            _ => {}
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::identity::Keypair;
    use proptest::prelude::*;

    const TOPIC: &str = "dir/labels/v1";

    fn signed(key: &Keypair, data: Vec<u8>, sequence: u64) -> PublishedMessage {
        let mut message = PublishedMessage {
            from: Some(key.public().to_peer_id().to_bytes()),
            data: Some(data),
            sequence: Some(sequence.to_be_bytes().to_vec()),
            topic: Some(TOPIC.as_bytes().to_vec()),
            ..PublishedMessage::default()
        };
        message.signature = Some(key.sign(&message.signed_bytes()).unwrap());
        message
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_nothing_else(seed: [u8; 32], data: Vec<u8>, sequence: u64, flip in 0usize..1000) {
            let key = Keypair::ed25519_from_bytes(seed).unwrap();
            let message = signed(&key, data, sequence);
            let mut bytes = message.to_bytes();
            let read = PublishedMessage::read(&bytes).unwrap();
            let verified = read.verify(TOPIC).unwrap();
            prop_assert_eq!((verified.author, verified.sequence), (key.public().to_peer_id(), sequence));
            prop_assert_eq!(verified.data, message.data.as_deref().unwrap());
            let place = flip % bytes.len();
            bytes[place] ^= 1;
            if let Ok(damaged) = PublishedMessage::read(&bytes) {
                prop_assert!(damaged == read || damaged.verify(TOPIC).is_err());
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            if let Ok(messages) = read_frame(&bytes) {
                for message in messages {
                    let _ = message.verify(TOPIC);
                }
            }
        }
    }
}
