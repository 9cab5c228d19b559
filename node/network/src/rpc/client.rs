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

use super::frame::{self, read_some};
use crate::error::NetworkError;
use crate::library::{Pulled, ReferrerDescriptor, ReferrerList};
use crate::wire::msgpack::Progress;
use crate::wire::rpc::{Call, ClientError, Reply, ReplyScanner, encode_call, read_reply};

/// Bytes of a reply asked for at once.
const CHUNK: usize = 64 * 1024;

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

/// Writes a call and reads its reply, as many bytes as belong to it and no more.
async fn call(peer: PeerId, mut stream: Stream, call: &Call) -> Result<Reply, NetworkError> {
    stream.write_all(&encode_call(call)).await.map_err(gone(peer))?;
    stream.flush().await.map_err(gone(peer))?;
    let mut scanner = ReplyScanner::new();
    let mut buffer = Vec::new();
    loop {
        let more = match scanner.scan(&buffer) {
            Ok(Progress::Done(_)) => break,
            Ok(Progress::More(more)) => more,
            Err(error) => {
                return Err(NetworkError::BadReply {
                    peer,
                    reason: error.to_string(),
                });
            }
        };
        // A length that the peer claims is believed only as far as bytes really come.
        if read_some(&mut stream, &mut buffer, more.min(CHUNK))
            .await
            .map_err(gone(peer))?
            == 0
        {
            if buffer.is_empty() {
                return Err(NetworkError::PeerGone {
                    peer,
                    reason: "stream ended without a reply".to_owned(),
                });
            }
            break;
        }
    }
    // The answer is here; how the stream ends is of no consequence.
    let _ = stream.close().await;
    read_reply(call, &buffer).map_err(|error| match error {
        ClientError::Remote { status, .. } => NetworkError::Remote {
            peer,
            code: status.code,
            message: status.message,
        },
        error => NetworkError::BadReply {
            peer,
            reason: error.to_string(),
        },
    })
}

/// A reply of another method than the one called, which the codec rules out.
fn other_method<T>(peer: PeerId) -> Result<T, NetworkError> {
    Err(NetworkError::BadReply {
        peer,
        reason: "reply to another method".to_owned(),
    })
}

pub(crate) async fn lookup(
    peer: PeerId,
    stream: Stream,
    cid: RecordCid,
) -> Result<BTreeMap<String, String>, NetworkError> {
    let cid = cid.to_string();
    match call(peer, stream, &Call::Lookup { cid }).await? {
        Reply::Lookup(found) => Ok(found.annotations.unwrap_or_default()),
        _ => other_method(peer),
    }
}

pub(crate) async fn pull(peer: PeerId, stream: Stream, cid: RecordCid) -> Result<Pulled, NetworkError> {
    let cid = cid.to_string();
    match call(peer, stream, &Call::Pull { cid }).await? {
        Reply::Pull(found) => Ok(Pulled {
            annotations: found.annotations.unwrap_or_default(),
            data: found.data.into(),
        }),
        _ => other_method(peer),
    }
}

pub(crate) async fn list_referrers(
    peer: PeerId,
    stream: Stream,
    cid: RecordCid,
) -> Result<ReferrerList, NetworkError> {
    let cid = cid.to_string();
    match call(peer, stream, &Call::ListReferrers { cid }).await? {
        Reply::ListReferrers(found) => Ok(found),
        _ => other_method(peer),
    }
}

pub(crate) async fn pull_referrer(
    peer: PeerId,
    stream: Stream,
    cid: RecordCid,
    referrer: ReferrerDescriptor,
) -> Result<Referrer, NetworkError> {
    let cid = cid.to_string();
    match call(peer, stream, &Call::PullReferrer { cid, referrer }).await? {
        Reply::PullReferrer(Some(found)) => Ok(*found),
        Reply::PullReferrer(None) => Err(NetworkError::BadReply {
            peer,
            reason: "reply holds no referrer".to_owned(),
        }),
        _ => other_method(peer),
    }
}
