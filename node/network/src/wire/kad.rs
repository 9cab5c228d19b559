//! DHT messages as raw protobuf, with the addresses left as bytes.
//!
//! For what the stock codec cannot do: provider addresses of the private kinds, frames that are looked at or rewritten
//! on their way, and many messages down one stream. [`judge`] says what a request deserves as far as that shows from
//! the request alone; what is stored and returned is decided elsewhere. Pure. Follows p2p-wire §2.2 to §2.5.
//!
//! | field of a message | number | type |
//! |---|---|---|
//! | type | 1 | PUT_VALUE 0, GET_VALUE 1, ADD_PROVIDER 2, GET_PROVIDERS 3, FIND_NODE 4, PING 5 |
//! | key | 2 | bytes |
//! | record | 3 | key 1, value 2, timeReceived 5 |
//! | closerPeers, providerPeers | 8, 9 | id 1, addrs 2 (repeated), connection 3 |
//! | clusterLevelRaw | 10 | number; ignored |

#[cfg(feature = "records")]
use dirnode_record::RecordCid;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use super::endpoint::RawAddr;
use super::protobuf::{Fields, Frame, ProtobufError, frame, framed, put_bytes, put_varint};

/// The protocol name: without a slash in front, unlike any other.
pub const PROTOCOL: &str = "dir/kad/1.0.0";
/// Largest message that is read, in bytes. A reply with 20 peers of many addresses takes some 20 KiB.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Peers that are kept of one list; the rest is passed over. Replies name 20.
pub const MAX_PEERS: usize = 256;
/// Addresses that are kept of one peer; the rest is passed over.
pub const MAX_ADDRESSES: usize = 64;
/// Longest key of a provider record, in bytes.
pub const MAX_PROVIDER_KEY_BYTES: usize = 80;
/// The provider key of the rendezvous string `dir/connect`, which is no record.
pub const RENDEZVOUS_KEY: [u8; 34] = [
    0x12, 0x20, 0xcc, 0xaa, 0xeb, 0x89, 0x8d, 0x0d, 0xd2, 0xd4, 0x58, 0xaa, 0x14, 0xe7, 0xcc, 0x3d, 0xd4,
    0x79, 0xbb, 0x3e, 0xd0, 0xc9, 0x04, 0xf8, 0x99, 0x5d, 0x5d, 0xaf, 0xc7, 0xfa, 0xde, 0x76, 0x30, 0x4a,
];

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Store a value.
    PutValue,
    /// Look a value up.
    GetValue,
    /// I provide this key. Never answered.
    AddProvider,
    /// Who provides this key?
    GetProviders,
    /// Who is near this key?
    FindNode,
    /// Are you there?
    Ping,
    /// None of these.
    Other(u64),
}

impl MessageType {
    const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::PutValue,
            1 => Self::GetValue,
            2 => Self::AddProvider,
            3 => Self::GetProviders,
            4 => Self::FindNode,
            5 => Self::Ping,
            other => Self::Other(other),
        }
    }

    const fn number(self) -> u64 {
        match self {
            Self::PutValue => 0,
            Self::GetValue => 1,
            Self::AddProvider => 2,
            Self::GetProviders => 3,
            Self::FindNode => 4,
            Self::Ping => 5,
            Self::Other(number) => number,
        }
    }
}

/// A peer inside a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KadPeer {
    /// Bytes of the peer id, not checked.
    pub id: Vec<u8>,
    /// Raw addresses, not parsed; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<Vec<u8>>,
    /// 0 not connected, 1 connected, 2 can connect, 3 cannot.
    pub connection: u64,
}

impl KadPeer {
    /// The addresses, parsed.
    pub fn parsed_addresses(&self) -> impl Iterator<Item = RawAddr> + '_ {
        self.addresses.iter().map(|bytes| RawAddr::read(bytes))
    }

    /// The peer id, if the bytes are one.
    #[must_use]
    pub fn peer_id(&self) -> Option<PeerId> {
        PeerId::from_bytes(&self.id).ok()
    }

    fn read(bytes: &[u8]) -> Result<Self, ProtobufError> {
        let mut peer = Self::default();
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => peer.id = field.bytes()?.to_vec(),
                2 if peer.addresses.len() < MAX_ADDRESSES => peer.addresses.push(field.bytes()?.to_vec()),
                2 => drop(field.bytes()?),
                3 => peer.connection = field.varint()?,
                _ => {}
            }
        }
        Ok(peer)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.id.is_empty() {
            put_bytes(&mut out, 1, &self.id);
        }
        for address in &self.addresses {
            put_bytes(&mut out, 2, address);
        }
        if self.connection != 0 {
            put_varint(&mut out, 3, self.connection);
        }
        out
    }
}

/// A stored value inside a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KadRecord {
    /// Its key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// RFC 3339, set by whoever answers.
    pub time_received: Vec<u8>,
}

impl KadRecord {
    fn read(bytes: &[u8]) -> Result<Self, ProtobufError> {
        let mut record = Self::default();
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => record.key = field.bytes()?.to_vec(),
                2 => record.value = field.bytes()?.to_vec(),
                5 => record.time_received = field.bytes()?.to_vec(),
                _ => {}
            }
        }
        Ok(record)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, value) in [(1, &self.key), (2, &self.value), (5, &self.time_received)] {
            if !value.is_empty() {
                put_bytes(&mut out, number, value);
            }
        }
        out
    }
}

/// A message of the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: MessageType,
    /// What it is about.
    pub key: Vec<u8>,
    /// The value of PUT_VALUE, or in an answer.
    pub record: Option<KadRecord>,
    /// Peers near the key; at most [`MAX_PEERS`].
    pub closer: Vec<KadPeer>,
    /// Providers of the key; at most [`MAX_PEERS`].
    pub providers: Vec<KadPeer>,
    /// Carried along.
    pub cluster_level: u64,
}

impl Message {
    /// An empty message of this kind about this key.
    #[must_use]
    pub const fn new(kind: MessageType, key: Vec<u8>) -> Self {
        Self {
            kind,
            key,
            record: None,
            closer: Vec::new(),
            providers: Vec::new(),
            cluster_level: 0,
        }
    }

    #[cfg(feature = "records")]
    /// The ADD_PROVIDER by which `provider` says that it has the record `cid`. Addresses are raw, ordinary and private
    /// ones alike; a reference node refuses a message without any.
    #[must_use]
    pub fn add_provider(cid: &RecordCid, provider: &PeerId, addresses: Vec<Vec<u8>>) -> Self {
        let mut message = Self::new(MessageType::AddProvider, cid.multihash().to_vec());
        message.providers.push(KadPeer {
            id: provider.to_bytes(),
            addresses,
            connection: 0,
        });
        message
    }

    /// Reads a message without its length prefix.
    ///
    /// # Errors
    /// [`ProtobufError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ProtobufError> {
        let mut message = Self::new(MessageType::PutValue, Vec::new());
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => message.kind = MessageType::from_number(field.varint()?),
                2 => message.key = field.bytes()?.to_vec(),
                3 => message.record = Some(KadRecord::read(field.bytes()?)?),
                8 if message.closer.len() < MAX_PEERS => message.closer.push(KadPeer::read(field.bytes()?)?),
                9 if message.providers.len() < MAX_PEERS => {
                    message.providers.push(KadPeer::read(field.bytes()?)?)
                }
                10 => message.cluster_level = field.varint()?,
                _ => {}
            }
        }
        Ok(message)
    }

    /// The bytes without a length prefix.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.kind.number() != 0 {
            put_varint(&mut out, 1, self.kind.number());
        }
        if !self.key.is_empty() {
            put_bytes(&mut out, 2, &self.key);
        }
        if let Some(record) = &self.record {
            put_bytes(&mut out, 3, &record.to_bytes());
        }
        for (number, peers) in [(8, &self.closer), (9, &self.providers)] {
            for peer in peers {
                put_bytes(&mut out, number, &peer.to_bytes());
            }
        }
        if self.cluster_level != 0 {
            put_varint(&mut out, 10, self.cluster_level);
        }
        out
    }

    /// The bytes with their length in front, as they go on a stream.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        framed(&self.to_bytes())
    }
}

/// Why a request is refused, which is to say that its stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The frame is no message, or too large.
    #[error("frame is not a message of at most {MAX_MESSAGE_BYTES} bytes")]
    Frame,
    /// Not a message.
    #[error(transparent)]
    Malformed(#[from] ProtobufError),
    /// The key is empty, or too long for a provider record.
    #[error("key is {0} bytes")]
    Key(usize),
    /// None of the providers is the sender with an address.
    #[error("no provider is the sender with a usable address")]
    NoProvider,
    /// Values are not kept here.
    #[error("values are not kept")]
    NoValues,
    /// A kind of message that does not exist.
    #[error("message type {0} is not known")]
    Unknown(u64),
}

#[cfg(feature = "records")]
/// What a request deserves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An answer.
    Answered,
    /// To be kept, and no answer. The record, when the key is that of one and so concerns the directory; the addresses
    /// of the sender as it gave them.
    TakenSilently {
        /// The record it is about.
        record: Option<RecordCid>,
        /// Raw addresses that can be read, ordinary and private.
        addresses: Vec<Vec<u8>>,
    },
    /// A reset of the stream.
    Refused(Refusal),
}

#[cfg(feature = "records")]
/// Judges a request of `sender`.
///
/// PUT_VALUE is always refused and GET_VALUE answered without a value: the network has no use for either, and open to
/// all they are a place to store anything.
#[must_use]
pub fn judge(message: &Message, sender: &PeerId) -> Verdict {
    let length = message.key.len();
    let provider_key = (1..=MAX_PROVIDER_KEY_BYTES).contains(&length);
    match message.kind {
        MessageType::Ping => Verdict::Answered,
        MessageType::FindNode | MessageType::GetValue if length > 0 => Verdict::Answered,
        MessageType::GetProviders if provider_key => Verdict::Answered,
        MessageType::AddProvider if provider_key => {
            let sender = sender.to_bytes();
            let mut addresses = message
                .providers
                .iter()
                .filter(|provider| provider.id == sender)
                .flat_map(|provider| &provider.addresses)
                .filter(|address| RawAddr::read(address).is_known())
                .peekable();
            if addresses.peek().is_none() {
                return Verdict::Refused(Refusal::NoProvider);
            }
            Verdict::TakenSilently {
                record: record_of_key(&message.key),
                addresses: addresses.take(MAX_ADDRESSES).cloned().collect(),
            }
        }
        MessageType::PutValue if length > 0 => Verdict::Refused(Refusal::NoValues),
        MessageType::Other(number) => Verdict::Refused(Refusal::Unknown(number)),
        _ => Verdict::Refused(Refusal::Key(length)),
    }
}

#[cfg(feature = "records")]
/// As [`judge`], from the bytes on the stream. `None` while the frame is not complete.
#[must_use]
pub fn judge_frame(stream: &[u8], sender: &PeerId) -> Option<Verdict> {
    match frame(stream, MAX_MESSAGE_BYTES) {
        Frame::Incomplete => None,
        Frame::Refused => Some(Verdict::Refused(Refusal::Frame)),
        Frame::Whole(bytes, _) => Some(match Message::read(bytes) {
            Ok(message) => judge(&message, sender),
            Err(error) => Verdict::Refused(Refusal::Malformed(error)),
        }),
    }
}

#[cfg(feature = "records")]
/// The key under which providers of the record are kept: the sha2-256 multihash, 34 bytes.
#[must_use]
pub fn provider_key(cid: &RecordCid) -> [u8; 34] {
    cid.multihash()
}

#[cfg(feature = "records")]
/// The record whose providers are kept under `key`: `None` for keys of another hash or form, and for the rendezvous.
#[must_use]
pub fn record_of_key(key: &[u8]) -> Option<RecordCid> {
    if key == RENDEZVOUS_KEY {
        return None;
    }
    let digest = key.strip_prefix(&[0x12, 0x20])?;
    Some(RecordCid::from_digest(digest.try_into().ok()?))
}

/// Where a key or peer id stands in the key space: its sha2-256. Distance is the exclusive or of two points.
#[must_use]
pub fn key_space_point(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rendezvous_key_is_that_of_its_string() {
        let key: Vec<u8> = [&[0x12, 0x20][..], &key_space_point(b"dir/connect")].concat();
        assert_eq!(key, RENDEZVOUS_KEY);
        assert_eq!(record_of_key(&key), None);
    }

    #[test]
    fn lists_are_cut() {
        let peer = PeerId::random();
        let mut message =
            Message::add_provider(&RecordCid::of(b"{}"), &peer, vec![vec![4, 127, 0, 0, 1]; 500]);
        message.closer = vec![KadPeer::default(); 500];
        let read = Message::read(&message.to_bytes()).unwrap();
        assert_eq!(
            (read.closer.len(), read.providers[0].addresses.len()),
            (MAX_PEERS, MAX_ADDRESSES)
        );
    }

    fn peers() -> impl Strategy<Value = Vec<KadPeer>> {
        let peer = (
            any::<Vec<u8>>(),
            proptest::collection::vec(any::<Vec<u8>>(), 0..4),
            0u64..4,
        )
            .prop_map(|(id, addresses, connection)| KadPeer {
                id,
                addresses,
                connection,
            });
        proptest::collection::vec(peer, 0..4)
    }

    proptest! {
        #[test]
        fn messages_round_trip(kind in 0u64..9, key: Vec<u8>, value: Option<Vec<u8>>, closer in peers(), providers in peers(), cluster_level: u64) {
            let message = Message {
                kind: MessageType::from_number(kind),
                record: value.map(|value| KadRecord { key: key.clone(), value, time_received: Vec::new() }),
                key,
                closer,
                providers,
                cluster_level,
            };
            prop_assert_eq!(Message::read(&message.to_bytes()), Ok(message));
        }

        #[test]
        fn keys_and_records_map_to_each_other(digest: [u8; 32]) {
            let cid = RecordCid::from_digest(digest);
            prop_assert_eq!(record_of_key(&provider_key(&cid)), Some(cid));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = judge_frame(&bytes, &PeerId::random());
        }
    }
}
