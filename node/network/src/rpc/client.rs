//! Calls to a peer, each on a stream of its own (p2p-wire §5.1).
//!
//! The write side stays open until the answer is read: a peer of the reference takes a half-close for a caller that
//! has left, and answers wrongly. Deadlines are the caller's ([`crate::NetworkHandle`]).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dirnode_record::{RecordCid, Referrer};
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use tokio::time::Instant;

use super::frame;
use crate::error::NetworkError;
use crate::library::{Pulled, ReferrerDescriptor, ReferrerList};

/// What goes wrong on the stream itself.
fn gone(peer: PeerId) -> impl Fn(std::io::Error) -> NetworkError {
    move |error| match error.kind() {
        std::io::ErrorKind::InvalidData => NetworkError::BadReply {
            peer,
            reason: error.to_string(),
        },
        _ => NetworkError::PeerGone {
            peer,
            reason: error.to_string(),
        },
    }
}

/// Sends 32 random bytes and waits for them to come back.
pub(crate) async fn ping(peer: PeerId, mut stream: Stream) -> Result<Duration, NetworkError> {
    let payload: [u8; 32] = rand::random();
    let started = Instant::now();
    stream.write_all(&payload).await.map_err(gone(peer))?;
    stream.flush().await.map_err(gone(peer))?;
    let mut echo = [0u8; 32];
    stream.read_exact(&mut echo).await.map_err(gone(peer))?;
    let took = started.elapsed();
    let _ = stream.close().await;
    if echo == payload {
        Ok(took)
    } else {
        Err(NetworkError::BadReply {
            peer,
            reason: "ping payload came back changed".to_owned(),
        })
    }
}

/// One request of the catch-up exchange.
pub(crate) async fn catch_up(
    peer: PeerId,
    mut stream: Stream,
    request: Bytes,
) -> Result<Bytes, NetworkError> {
    frame::write(&mut stream, &request).await.map_err(gone(peer))?;
    let answer = frame::read_answer(&mut stream).await.map_err(gone(peer))?;
    let _ = stream.close().await;
    answer.map(Bytes::from).map_err(|error| NetworkError::Remote {
        peer,
        code: error.code,
        message: error.message,
    })
}

fn no_codec<T>() -> Result<T, NetworkError> {
    Err(NetworkError::Internal {
        reason: "the record codec is not part of this build yet".to_owned(),
    })
}

pub(crate) async fn lookup(
    _peer: PeerId,
    _stream: Stream,
    _cid: RecordCid,
) -> Result<BTreeMap<String, String>, NetworkError> {
    no_codec()
}

pub(crate) async fn pull(_peer: PeerId, _stream: Stream, _cid: RecordCid) -> Result<Pulled, NetworkError> {
    no_codec()
}

pub(crate) async fn list_referrers(
    _peer: PeerId,
    _stream: Stream,
    _cid: RecordCid,
) -> Result<ReferrerList, NetworkError> {
    no_codec()
}

pub(crate) async fn pull_referrer(
    _peer: PeerId,
    _stream: Stream,
    _cid: RecordCid,
    _referrer: ReferrerDescriptor,
) -> Result<Referrer, NetworkError> {
    no_codec()
}
