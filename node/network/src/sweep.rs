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
use crate::wire::kad::{KadPeer, Message, MessageType};

/// How the message says that the provider can be reached.
const CONNECTED: u64 = 1;

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
    let mut message = message(own, addrs);
    let mut written = 0usize;
    for batch in keys.chunks(BATCH) {
        let mut buffer = Vec::new();
        for key in batch {
            message.key.clone_from(key);
            buffer.extend_from_slice(&message.to_frame());
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

/// ADD_PROVIDER for any key, ready but for the key.
fn message(own: PeerId, addrs: &[Multiaddr]) -> Message {
    let mut message = Message::new(MessageType::AddProvider, Vec::new());
    message.providers.push(KadPeer {
        id: own.to_bytes(),
        addresses: addrs.iter().take(MAX_ADDRS).map(Multiaddr::to_vec).collect(),
        connection: CONNECTED,
    });
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_us_and_few_addresses() {
        let own = PeerId::random();
        let addrs: Vec<Multiaddr> = (1..20)
            .map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap())
            .collect();
        let mut sent = message(own, &addrs);
        sent.key = b"key".to_vec();
        let read = Message::read(&sent.to_bytes()).unwrap();
        assert_eq!(read, sent);
        assert_eq!(read.kind, MessageType::AddProvider);
        assert_eq!(read.providers[0].peer_id(), Some(own));
        assert_eq!(read.providers[0].addresses.len(), MAX_ADDRS);
    }
}
