//! Many provider records to one peer, down one DHT stream.
//!
//! The DHT's own publishing opens a stream and runs a lookup for each key; a sweep knows which peers are nearest to
//! which keys and sends a peer all of its keys at once (p2p-wire §2.2: many messages on one stream are allowed, and
//! ADD_PROVIDER is not answered). Never decides who gets which key.

use std::time::Duration;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use libp2p::{Multiaddr, PeerId};

use crate::error::NetworkError;

/// Messages written between two flushes.
const BATCH: usize = 256;

/// A stream that takes nothing for so long is given up.
const STALL: Duration = Duration::from_secs(10);

/// Addresses that go with every record: each receiver keeps them once per record.
const MAX_ADDRS: usize = 5;

/// Writes one ADD_PROVIDER message per key; how many were written.
///
/// The peer resets the stream when it refuses a record, which ends the writing with [`NetworkError::PeerGone`].
pub(crate) async fn send(
    own: PeerId,
    peer: PeerId,
    mut stream: Stream,
    addrs: &[Multiaddr],
    keys: &[Vec<u8>],
) -> Result<usize, NetworkError> {
    let gone = |error: std::io::Error| NetworkError::PeerGone {
        peer,
        reason: error.to_string(),
    };
    let provider = provider_field(own, addrs);
    let mut written = 0usize;
    for batch in keys.chunks(BATCH) {
        let mut buffer = Vec::new();
        for key in batch {
            put_message(&mut buffer, key, &provider);
        }
        stall(peer, async {
            stream.write_all(&buffer).await?;
            stream.flush().await
        })
        .await?
        .map_err(gone)?;
        written = written.saturating_add(batch.len());
    }
    stall(peer, stream.close()).await?.map_err(gone)?;
    // The reader closes its side once it has taken everything; an orderly end is the only sign of it there is.
    let mut rest = [0u8; 1];
    match stall(peer, stream.read(&mut rest)).await {
        Ok(Ok(_)) | Err(_) => Ok(written),
        Ok(Err(error)) => Err(gone(error)),
    }
}

async fn stall<T>(peer: PeerId, work: impl Future<Output = T>) -> Result<T, NetworkError> {
    tokio::time::timeout(STALL, work)
        .await
        .map_err(|_| NetworkError::PeerGone {
            peer,
            reason: format!("took nothing for {} s", STALL.as_secs()),
        })
}

/// Field 9 of the message: who provides and where, the same for every key.
fn provider_field(own: PeerId, addrs: &[Multiaddr]) -> Vec<u8> {
    let mut peer = Vec::new();
    put_bytes(&mut peer, 0x0a, &own.to_bytes());
    for addr in addrs.iter().take(MAX_ADDRS) {
        put_bytes(&mut peer, 0x12, addr.as_ref());
    }
    // connection = CONNECTED
    peer.extend_from_slice(&[0x18, 0x01]);
    let mut field = Vec::new();
    put_bytes(&mut field, 0x4a, &peer);
    field
}

/// One length-prefixed message: type ADD_PROVIDER, key, provider.
fn put_message(buffer: &mut Vec<u8>, key: &[u8], provider: &[u8]) {
    let mut message = vec![0x08, 0x02];
    put_bytes(&mut message, 0x12, key);
    message.extend_from_slice(provider);
    put_varint(buffer, message.len());
    buffer.extend_from_slice(&message);
}

fn put_bytes(buffer: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    buffer.push(tag);
    put_varint(buffer, bytes.len());
    buffer.extend_from_slice(bytes);
}

fn put_varint(buffer: &mut Vec<u8>, value: usize) {
    let mut scratch = unsigned_varint::encode::usize_buffer();
    buffer.extend_from_slice(unsigned_varint::encode::usize(value, &mut scratch));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_the_wire_format_says() {
        let peer = PeerId::random();
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let mut buffer = Vec::new();
        put_message(
            &mut buffer,
            b"k",
            &provider_field(peer, std::slice::from_ref(&addr)),
        );
        let id = peer.to_bytes();
        let mut expected = vec![0x08, 0x02, 0x12, 1, b'k', 0x4a];
        let inner = 2 + id.len() + 2 + addr.len() + 2;
        expected.push(u8::try_from(inner).unwrap());
        expected.extend_from_slice(&[0x0a, u8::try_from(id.len()).unwrap()]);
        expected.extend_from_slice(&id);
        expected.extend_from_slice(&[0x12, u8::try_from(addr.len()).unwrap()]);
        expected.extend_from_slice(addr.as_ref());
        expected.extend_from_slice(&[0x18, 0x01]);
        assert_eq!(usize::from(buffer[0]), expected.len());
        assert_eq!(&buffer[1..], &expected[..]);
    }

    #[test]
    fn only_a_few_addresses_travel_with_each_record() {
        let addrs: Vec<Multiaddr> = (1..20)
            .map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap())
            .collect();
        let all = provider_field(PeerId::random(), &addrs);
        let few = provider_field(PeerId::random(), &addrs[..MAX_ADDRS]);
        assert_eq!(all.len(), few.len());
    }
}
