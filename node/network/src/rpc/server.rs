//! Answers to peers: one task per stream, under caps and deadlines, with a panic shut in.
//!
//! A stream beyond the bounds is told that we are busy instead of waiting; a stream whose answer panics is told
//! `Internal`; a silent one is dropped when its time is over. None of them costs the others anything.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{AsyncWriteExt as _, FutureExt as _};
use libp2p::PeerId;
use libp2p::swarm::Stream;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::frame;
use crate::config::{
    CATCH_UP_PROTOCOL, Limits, MAX_CATCH_UP, RPC_READ_TIMEOUT, RPC_SERVE_TIMEOUT, RPC_WRITE_TIMEOUT,
};
use crate::library::{Library, LibraryError, RpcCode};
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::streams::Opened;

/// Streams being told that we are busy, at once; beyond it they are reset.
const MAX_REFUSALS: usize = 64;

/// Serves inbound streams. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    library: Arc<dyn Library>,
    runtime: Runtime,
    metrics: Arc<Metrics>,
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
            places: Arc::new(Mutex::new(Places {
                total: 0,
                per_peer: HashMap::new(),
                refusing: 0,
                limit: limits.served,
                limit_per_peer: limits.served_per_peer,
            })),
        }
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
        }
    }

    async fn serve_catch_up(&self, peer: PeerId, mut stream: Stream, serving: bool) {
        let method = "CatchUp";
        let request = match timeout(RPC_READ_TIMEOUT, frame::read(&mut stream)).await {
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
        let written = timeout(RPC_WRITE_TIMEOUT, async {
            frame::write_answer(&mut stream, &answer).await?;
            stream.close().await
        })
        .await;
        self.metrics.rpc_served(
            method,
            match (&answer, written) {
                (_, Err(_) | Ok(Err(_))) => "unread",
                (Ok(_), _) => "ok",
                (Err(error), _) => error.code.name(),
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
        match timeout(RPC_SERVE_TIMEOUT, work).await {
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

fn busy() -> LibraryError {
    LibraryError::new(
        RpcCode::ResourceExhausted,
        "too many requests are being served, try again later",
    )
}
