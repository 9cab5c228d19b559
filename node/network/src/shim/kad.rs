//! Endpoints inside Kademlia messages: read from provider entries that come, appended to those that go.
//!
//! Pure: one message in; endpoints, or the message to hand on, out. Only ADD_PROVIDER and GET_PROVIDERS are looked
//! at, and there only field 9; everything else is copied byte for byte. Judges neither keys nor peers. Follows
//! p2p-wire §1.7, §2.2 and §2.4.

use bytes::Bytes;
use libp2p::PeerId;

use super::endpoints::{MAX_ENDPOINTS_PER_MESSAGE, MAX_ENDPOINTS_PER_PEER, is_endpoint};
use crate::wire::protobuf::{Field, Fields, Value, put_bytes};

const PROVIDERS: u32 = 9;
const PEER_ID: u32 = 1;
const PEER_ADDRESS: u32 = 2;

/// Longest message that is looked into. Twenty providers with five addresses each stay far below.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The default limit of readers of this family. A message that fits is not made one that does not.
const MAX_COMMON_BYTES: usize = 16 * 1024;

/// The messages that carry providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    AddProvider,
    GetProviders,
}

/// What a message is, if it is of interest. As in any protobuf, the last of several counts.
pub(super) fn kind(message: &[u8]) -> Option<Kind> {
    let mut kind = None;
    for field in Fields::of(message) {
        let field = field.ok()?;
        if let (1, Value::Varint(value)) = (field.number, field.value) {
            kind = match value {
                2 => Some(Kind::AddProvider),
                3 => Some(Kind::GetProviders),
                _ => None,
            };
        }
    }
    kind
}

/// Endpoints of all provider entries of a message: at most four a peer and 64 in all.
///
/// Entries without a valid peer id are passed over, as any reader does.
pub(super) fn endpoints(message: &[u8]) -> Vec<(PeerId, &[u8])> {
    let mut found = Vec::new();
    for field in Fields::of(message).map_while(Result::ok) {
        let Some(entry) = provider_entry(field) else {
            continue;
        };
        let Some(peer) = peer_of(entry) else { continue };
        let addresses = Fields::of(entry).map_while(Result::ok).filter_map(address_of);
        for address in addresses
            .filter(|raw| is_endpoint(raw))
            .take(MAX_ENDPOINTS_PER_PEER)
        {
            if found.len() >= MAX_ENDPOINTS_PER_MESSAGE {
                return found;
            }
            found.push((peer, address));
        }
    }
    found
}

/// The message with the endpoints of its providers, as `of` knows them, behind their addresses.
///
/// None if nothing is to be changed. `Err` if the message would outgrow what its readers take.
pub(super) fn append(message: &[u8], of: impl Fn(&PeerId) -> Vec<Bytes>) -> Option<Result<Vec<u8>, ()>> {
    let mut rewritten = Vec::with_capacity(message.len().saturating_add(128));
    let mut changed = false;
    for field in Fields::of(message) {
        let field = field.ok()?;
        let Some((entry, mut wanted)) =
            provider_entry(field).and_then(|entry| Some((entry, of(&peer_of(entry)?))))
        else {
            rewritten.extend_from_slice(field.raw);
            continue;
        };
        wanted.truncate(MAX_ENDPOINTS_PER_PEER);
        wanted.retain(|endpoint| {
            is_endpoint(endpoint)
                && !Fields::of(entry)
                    .map_while(Result::ok)
                    .filter_map(address_of)
                    .any(|known| known == endpoint.as_ref())
        });
        if wanted.is_empty() {
            rewritten.extend_from_slice(field.raw);
            continue;
        }
        changed = true;
        let mut longer = entry.to_vec();
        for endpoint in &wanted {
            put_bytes(&mut longer, PEER_ADDRESS, endpoint);
        }
        put_bytes(&mut rewritten, PROVIDERS, &longer);
    }
    if !changed {
        return None;
    }
    let limit = if message.len() <= MAX_COMMON_BYTES {
        MAX_COMMON_BYTES
    } else {
        MAX_MESSAGE_BYTES
    };
    Some(if rewritten.len() <= limit {
        Ok(rewritten)
    } else {
        Err(())
    })
}

fn provider_entry<'a>(field: Field<'a>) -> Option<&'a [u8]> {
    match (field.number, field.value) {
        (9, Value::Bytes(entry)) => Some(entry),
        _ => None,
    }
}

/// The peer of an entry; none if the entry does not parse to its end.
fn peer_of(entry: &[u8]) -> Option<PeerId> {
    let mut peer = None;
    for field in Fields::of(entry) {
        let field = field.ok()?;
        if let (PEER_ID, Value::Bytes(id)) = (field.number, field.value) {
            peer = PeerId::from_bytes(id).ok();
        }
    }
    peer
}

fn address_of(field: Field<'_>) -> Option<&[u8]> {
    match (field.number, field.value) {
        (2, Value::Bytes(address)) => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &[u8] = b"\xff\xff\x03\x04a:81";
    const IP: &[u8] = &[4, 127, 0, 0, 1];

    fn entry(peer: &PeerId, addresses: &[&[u8]]) -> Vec<u8> {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, &peer.to_bytes());
        for address in addresses {
            put_bytes(&mut entry, 2, address);
        }
        entry.extend_from_slice(&[0x18, 0x01]);
        entry
    }

    fn message(kind: u8, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![0x08, kind];
        put_bytes(&mut message, 2, b"key");
        for entry in entries {
            put_bytes(&mut message, 9, entry);
        }
        message.extend_from_slice(&[0x50, 0x0a]);
        message
    }

    #[test]
    fn kinds_are_told_apart() {
        assert_eq!(kind(&message(2, &[])), Some(Kind::AddProvider));
        assert_eq!(kind(&message(3, &[])), Some(Kind::GetProviders));
        assert_eq!(kind(&message(4, &[])), None);
        assert_eq!(kind(b""), None);
        assert_eq!(kind(&[0x08, 0x02, 0x0b]), None);
        assert_eq!(kind(&[0x08, 0x02, 0x08, 0x03]), Some(Kind::GetProviders));
    }

    #[test]
    fn endpoints_of_providers_are_found_within_bounds() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let read = message(
            3,
            &[
                entry(&one, &[IP, DIR]),
                b"\x0a\x01x".to_vec(),
                entry(&two, &[DIR]),
            ],
        );
        assert_eq!(endpoints(&read), [(one, DIR), (two, DIR)]);
        let many = message(3, &vec![entry(&one, &[DIR; 10]); 100]);
        assert_eq!(endpoints(&many).len(), MAX_ENDPOINTS_PER_MESSAGE);
        assert_eq!(
            endpoints(&message(3, &[entry(&one, &[DIR; 10])])).len(),
            MAX_ENDPOINTS_PER_PEER
        );
        // A peer id behind its addresses is found all the same.
        let mut turned = Vec::new();
        put_bytes(&mut turned, 2, DIR);
        put_bytes(&mut turned, 1, &one.to_bytes());
        assert_eq!(endpoints(&message(2, &[turned])), [(one, DIR)]);
    }

    #[test]
    fn endpoints_are_appended_to_the_peer_they_belong_to() {
        let (own, other) = (PeerId::random(), PeerId::random());
        let of = |peer: &PeerId| {
            if *peer == own {
                vec![Bytes::from_static(DIR)]
            } else {
                Vec::new()
            }
        };
        let before = message(2, &[entry(&other, &[IP]), entry(&own, &[IP])]);
        let after = append(&before, of).unwrap().unwrap();
        let mut expected = entry(&own, &[IP]);
        put_bytes(&mut expected, 2, DIR);
        assert_eq!(after, message(2, &[entry(&other, &[IP]), expected]));
        assert_eq!(append(&after, of), None, "not twice");
        assert_eq!(append(&message(2, &[entry(&other, &[])]), of), None);
        assert_eq!(append(b"\x4a\x7f", of), None);
    }

    #[test]
    fn a_message_does_not_outgrow_its_readers() {
        let own = PeerId::random();
        let room = |length: usize| {
            let mut before = message(2, &[entry(&own, &[])]);
            let filler = vec![0; length - before.len() - 4];
            put_bytes(&mut before, 8, &filler);
            before
        };
        let of = |_: &PeerId| vec![Bytes::from_static(DIR)];
        assert_eq!(append(&room(MAX_COMMON_BYTES), of), Some(Err(())));
        assert!(append(&room(MAX_COMMON_BYTES - 20), of).unwrap().is_ok());
    }
}
