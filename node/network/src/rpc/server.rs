//! Answers to peers: one task per stream, under caps and deadlines, with a panic shut in.
//!
//! A stream beyond the bounds is told that we are busy instead of waiting; a stream whose answer panics is told
//! `Internal`; a silent one is dropped when its time is over. None of them costs the others anything.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
#[cfg(feature = "records")]
use dirnode_record::RecordCid;
use futures_util::{AsyncRead, AsyncWriteExt as _, FutureExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::frame;
use crate::config::{CATCH_UP_PROTOCOL, Limits, MAX_CATCH_UP, MAX_RPC_REQUEST};
use crate::library::{Library, LibraryError, RpcCode};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::streams::Opened;
#[cfg(feature = "records")]
use crate::wire::msgpack::Progress;
#[cfg(feature = "records")]
use crate::wire::rpc::{
    Call, Method, PulledRecord, Reading, RecordMeta, Reply, RequestScanner, encode_answer, read_request,
};

/// Method label of a call that named none.
const UNKNOWN: &str = "unknown";

/// Streams being told that we are busy, at once; beyond it they are reset.
const MAX_REFUSALS: usize = 64;

/// Serves inbound streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    library: Arc<dyn Library>,
    runtime: Runtime,
    metrics: Arc<Metrics>,
    limits: Arc<Limits>,
    places: Arc<Mutex<Places>>,
}

/// Who holds how many places.
#[derive(Debug)]
struct Places {
    total: usize,
    per_peer: HashMap<PeerId, usize>,
    refusing: usize,
    limit: usize,
    limit_per_peer: usize,
}

/// A place held by one stream, given back when dropped.
struct Place {
    places: Arc<Mutex<Places>>,
    metrics: Arc<Metrics>,
    peer: PeerId,
    serving: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        if !self.serving {
            places.refusing = places.refusing.saturating_sub(1);
            return;
        }
        places.total = places.total.saturating_sub(1);
        self.metrics.rpc_serving.dec();
        if let Some(held) = places.per_peer.get_mut(&self.peer) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                places.per_peer.remove(&self.peer);
            }
        }
    }
}

impl Server {
    pub(crate) fn new(
        library: Arc<dyn Library>,
        limits: &Limits,
        runtime: Runtime,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            library,
            runtime,
            metrics,
            limits: Arc::new(limits.clone()),
            places: Arc::new(Mutex::new(Places {
                total: 0,
                per_peer: HashMap::new(),
                refusing: 0,
                limit: limits.served,
                limit_per_peer: limits.served_per_peer,
            })),
        }
    }

    /// Requests being served.
    pub(crate) fn serving(&self) -> usize {
        self.places.lock().total
    }

    /// Starts serving a stream, or telling it that we are busy. Never waits.
    pub(crate) fn accept(&self, opened: Opened) {
        let Some(place) = self.place(opened.peer) else {
            self.metrics.rpc_refused("reset");
            return;
        };
        let server = self.clone();
        (self.runtime.spawn)(
            "network.serve",
            Box::pin(async move { server.serve(opened, place).await }),
        );
    }

    /// A place to be served on, or to be refused on; none when even those are taken.
    fn place(&self, peer: PeerId) -> Option<Place> {
        let mut places = self.places.lock();
        let held = places.per_peer.get(&peer).copied().unwrap_or(0);
        let serving = places.total < places.limit && held < places.limit_per_peer;
        if serving {
            places.total = places.total.saturating_add(1);
            places.per_peer.insert(peer, held.saturating_add(1));
            self.metrics.rpc_serving.inc();
        } else if places.refusing < MAX_REFUSALS {
            places.refusing = places.refusing.saturating_add(1);
        } else {
            return None;
        }
        Some(Place {
            places: Arc::clone(&self.places),
            metrics: Arc::clone(&self.metrics),
            peer,
            serving,
        })
    }

    async fn serve(&self, opened: Opened, place: Place) {
        let Opened {
            peer,
            protocol,
            stream,
        } = opened;
        if !place.serving {
            self.metrics.rpc_refused("busy");
        }
        if protocol == CATCH_UP_PROTOCOL {
            self.serve_catch_up(peer, stream, place.serving).await;
        } else {
            #[cfg(feature = "records")]
            self.serve_call(peer, stream, place.serving).await;
        }
    }

    /// One call of the record RPC (p2p-wire §5.1).
    #[cfg(feature = "records")]
    async fn serve_call(&self, peer: PeerId, mut stream: Stream, serving: bool) {
        let reading = match timeout(self.limits.read_timeout, read_call(&mut stream)).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "call not read");
                self.metrics.rpc_served(UNKNOWN, "unreadable");
                return;
            }
            Err(_) => {
                self.metrics.rpc_served(UNKNOWN, "silent");
                return;
            }
        };
        let (method, answer, result) = match reading {
            Reading::Call(call) => {
                let method = call.method();
                let answer = if serving {
                    self.answer(peer, call).await
                } else {
                    Err(busy())
                };
                let result = answer
                    .as_ref()
                    .map_or_else(|error| code_label(error.code), |_| "ok");
                (method.name(), encode_answer(method, &answer), result)
            }
            Reading::Refused { method, answer } => (method.map_or(UNKNOWN, Method::name), answer, "refused"),
            // The reader goes on until there is something to answer.
            Reading::More(_) => return,
        };
        let written = timeout(self.limits.write_timeout, async {
            stream.write_all(&answer).await?;
            stream.flush().await?;
            stream.close().await
        })
        .await;
        let result = if matches!(written, Ok(Ok(()))) {
            result
        } else {
            "unread"
        };
        self.metrics.rpc_served(method, result);
    }

    /// Asks the library.
    #[cfg(feature = "records")]
    async fn answer(&self, peer: PeerId, call: Call) -> Result<Reply, LibraryError> {
        let Some(cid) = RecordCid::parse(call.cid()) else {
            return Err(LibraryError::new(
                RpcCode::InvalidArgument,
                "invalid CID: expected a CIDv1 of codec 1 with sha2-256, in base32",
            ));
        };
        let library = &self.library;
        match call {
            Call::Lookup { .. } => {
                self.guarded(peer, || library.lookup(peer, cid))
                    .await
                    .map(|annotations| {
                        Reply::Lookup(RecordMeta {
                            cid: cid.to_string(),
                            annotations: Some(annotations),
                        })
                    })
            }
            Call::Pull { .. } => self
                .guarded(peer, || library.pull(peer, cid))
                .await
                .map(|pulled| {
                    Reply::Pull(PulledRecord {
                        cid: cid.to_string(),
                        annotations: Some(pulled.annotations),
                        data: pulled.data.into(),
                    })
                }),
            Call::ListReferrers { .. } => self
                .guarded(peer, || library.list_referrers(peer, cid))
                .await
                .map(Reply::ListReferrers),
            Call::PullReferrer { referrer, .. } => self
                .guarded(peer, || library.pull_referrer(peer, cid, referrer))
                .await
                .map(|found| Reply::PullReferrer(Some(Box::new(found)))),
        }
    }

    async fn serve_catch_up(&self, peer: PeerId, mut stream: Stream, serving: bool) {
        let method = "CatchUp";
        let request = match timeout(self.limits.read_timeout, frame::read(&mut stream)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "unreadable catch-up request");
                self.metrics.rpc_served(method, "unreadable");
                return;
            }
            Err(_) => {
                self.metrics.rpc_served(method, "silent");
                return;
            }
        };
        let answer = if serving {
            self.guarded(peer, || self.library.catch_up(peer, Bytes::from(request)))
                .await
                .and_then(|bytes| {
                    if bytes.len() > MAX_CATCH_UP {
                        return Err(LibraryError::new(RpcCode::Internal, "answer is too large"));
                    }
                    Ok(bytes)
                })
        } else {
            Err(busy())
        };
        let written = timeout(self.limits.write_timeout, async {
            frame::write_answer(&mut stream, &answer).await?;
            stream.close().await
        })
        .await;
        self.metrics.rpc_served(
            method,
            match (&answer, written) {
                (_, Err(_) | Ok(Err(_))) => "unread",
                (Ok(_), _) => "ok",
                (Err(error), _) => code_label(error.code),
            },
        );
    }

    /// Asks the library under a deadline; a panic in it becomes an answer.
    async fn guarded<T>(
        &self,
        peer: PeerId,
        ask: impl FnOnce() -> futures_util::future::BoxFuture<'static, Result<T, LibraryError>>,
    ) -> Result<T, LibraryError> {
        // The call itself may panic as well, before it has made its future.
        let work = AssertUnwindSafe(async { ask().await }).catch_unwind();
        match timeout(self.limits.serve_timeout, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                tracing::error!(%peer, "answering a peer panicked");
                Err(LibraryError::new(RpcCode::Internal, "internal error"))
            }
            Err(_) => Err(LibraryError::new(
                RpcCode::DeadlineExceeded,
                "the answer took too long",
            )),
        }
    }
}

/// Reads a call, as many bytes as belong to it and no more: what follows may be the caller's way to show that it is
/// still there.
#[cfg(feature = "records")]
async fn read_call(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Reading> {
    let mut scanner = RequestScanner::new();
    let mut buffer = Vec::new();
    loop {
        let Progress::More(more) = scanner.scan(&buffer) else {
            return Ok(read_request(&buffer, true));
        };
        let got = frame::read_some(stream, &mut buffer, more.min(MAX_RPC_REQUEST)).await?;
        if got == 0 {
            if buffer.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(read_request(&buffer, true));
        }
    }
}

fn busy() -> LibraryError {
    LibraryError::new(
        RpcCode::ResourceExhausted,
        "too many requests are being served, try again later",
    )
}

/// A code as a metric's label.
fn code_label(code: RpcCode) -> &'static str {
    match code {
        RpcCode::Ok => "ok",
        RpcCode::InvalidArgument | RpcCode::OutOfRange | RpcCode::FailedPrecondition => "invalid",
        RpcCode::NotFound => "not_found",
        RpcCode::PermissionDenied | RpcCode::Unauthenticated => "denied",
        RpcCode::ResourceExhausted => "busy",
        RpcCode::DeadlineExceeded => "timeout",
        RpcCode::Unavailable | RpcCode::Unimplemented => "unavailable",
        RpcCode::DataLoss => "corrupt",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::script::Script;
    use super::*;
    use crate::wire::rpc::encode_call;

    #[tokio::test]
    async fn a_call_is_read_to_its_last_byte_and_not_beyond() {
        let call = Call::Lookup {
            cid: RecordCid::of(b"{}").to_string(),
        };
        let mut bytes = encode_call(&call);
        let length = bytes.len();
        bytes.extend_from_slice(b"watchdog");
        let mut stream = Script::new(bytes, 3);
        assert_eq!(read_call(&mut stream).await.unwrap(), Reading::Call(call));
        assert_eq!(stream.taken(), length);
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_refused_or_forgotten() {
        let call = Call::Lookup {
            cid: RecordCid::of(b"{}").to_string(),
        };
        let bytes = encode_call(&call);
        let cut = bytes.get(..bytes.len() - 5).unwrap().to_vec();
        let reading = read_call(&mut Script::new(cut, 64)).await.unwrap();
        assert!(matches!(reading, Reading::Refused { .. }), "{reading:?}");
        assert!(read_call(&mut Script::new(Vec::new(), 64)).await.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_get_an_answer_and_are_bounded(bytes in prop::collection::vec(any::<u8>(), 1..3000), step in 1usize..2000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut stream = Script::new(bytes, step);
            let reading = runtime.block_on(read_call(&mut stream)).unwrap();
            prop_assert!(!matches!(reading, Reading::More(_)));
            prop_assert!(stream.taken() <= MAX_RPC_REQUEST);
        }
    }
}
