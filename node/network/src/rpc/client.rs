//! Calls to a peer, each on a stream of its own (p2p-wire §5.1).
//!
//! The write side stays open until the answer is read: a peer of the reference takes a half-close for a caller that
//! has left, and answers wrongly. Deadlines are the caller's ([`crate::NetworkHandle`]).

#[cfg(feature = "records")]
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
#[cfg(feature = "records")]
use dirnode_record::{RecordCid, Referrer};
use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use tokio::time::Instant;

use super::frame;
#[cfg(feature = "records")]
use super::frame::read_some;
use crate::error::NetworkError;
#[cfg(feature = "records")]
use crate::library::{Pulled, ReferrerDescriptor, ReferrerList};
#[cfg(feature = "records")]
use crate::wire::msgpack::Progress;
#[cfg(feature = "records")]
use crate::wire::rpc::{Call, ClientError, Reply, ReplyScanner, encode_call, read_reply};

#[cfg(feature = "records")]
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

#[cfg(feature = "records")]
/// Writes a call and reads its reply, as many bytes as belong to it and no more.
async fn call<S>(peer: PeerId, mut stream: S, call: &Call) -> Result<Reply, NetworkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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

#[cfg(feature = "records")]
/// A reply of another method than the one called, which the codec rules out.
fn other_method<T>(peer: PeerId) -> Result<T, NetworkError> {
    Err(NetworkError::BadReply {
        peer,
        reason: "reply to another method".to_owned(),
    })
}

#[cfg(feature = "records")]
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

#[cfg(feature = "records")]
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

#[cfg(feature = "records")]
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

#[cfg(feature = "records")]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::script::Script;
    use super::*;
    use crate::wire::rpc::{Code, Method, PulledRecord, Status, encode_answer};

    fn pull_of(bytes: &[u8]) -> Call {
        Call::Pull {
            cid: RecordCid::of(bytes).to_string(),
        }
    }

    fn answer(data: &[u8]) -> Vec<u8> {
        let reply = Reply::Pull(PulledRecord {
            cid: RecordCid::of(data).to_string(),
            annotations: None,
            data: data.to_vec(),
        });
        encode_answer(Method::Pull, &Ok(reply))
    }

    async fn ask(call_: &Call, gives: Vec<u8>) -> (Result<Reply, NetworkError>, Script) {
        let mut stream = Script::new(gives, 7);
        let answer = call(PeerId::random(), &mut stream, call_).await;
        (answer, stream)
    }

    /// A peer of the reference takes a half-close before its reply for a caller that has left, and answers wrongly.
    #[tokio::test]
    async fn the_write_side_stays_open_until_the_reply_is_read() {
        let data = vec![b'x'; 200_000];
        let gives = answer(&data);
        let length = gives.len();
        let (reply, stream) = ask(&pull_of(&data), gives).await;
        assert!(matches!(reply, Ok(Reply::Pull(found)) if found.data == data));
        assert_eq!(stream.closed_at, Some(length));
        assert_eq!(stream.written, encode_call(&pull_of(&data)));
    }

    #[tokio::test]
    async fn what_cannot_be_right_is_not_believed() {
        let asked = pull_of(b"{}");
        let (reply, _) = ask(&asked, Vec::new()).await;
        assert!(matches!(reply, Err(NetworkError::PeerGone { .. })), "{reply:?}");
        let (reply, _) = ask(&asked, answer(b"{\"other\":1}")).await;
        assert!(matches!(reply, Err(NetworkError::BadReply { .. })), "{reply:?}");
        let whole = answer(b"{}");
        for length in 1..whole.len() {
            let (reply, _) = ask(&asked, whole[..length].to_vec()).await;
            assert!(
                matches!(reply, Err(NetworkError::BadReply { .. })),
                "{length}: {reply:?}"
            );
        }
        let status: Result<Reply, Status> = Err(Status::new(Code::NotFound, "not here"));
        let (reply, _) = ask(&asked, encode_answer(Method::Pull, &status)).await;
        assert!(
            matches!(&reply, Err(NetworkError::Remote { code: Code::NotFound, message, .. }) if message == "not here"),
            "{reply:?}"
        );
    }

    /// A header that promises four gigabytes makes nobody reserve them.
    #[tokio::test]
    async fn a_promised_length_costs_nothing_until_bytes_come() {
        let mut gives = answer(b"{}");
        let at = gives.len() - 3;
        gives.truncate(at);
        gives.extend_from_slice(&[0xdb, 0xff, 0xff, 0xff, 0xff, b'x']);
        let (reply, stream) = ask(&pull_of(b"{}"), gives).await;
        assert!(matches!(reply, Err(NetworkError::BadReply { .. })), "{reply:?}");
        assert!(stream.taken() < 1024);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_end_in_an_error(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (reply, _) = runtime.block_on(ask(&pull_of(b"{}"), bytes));
            prop_assert!(reply.is_err());
        }
    }
}
