//! The threads that serve the API, one a core, each with connections of its own.
//!
//! A connection stays on the thread it was given to, so the calls on it wake no other thread, and what is answered in
//! one turn leaves in one write. Work that takes long leaves the thread: searches, big records and reads from a cold
//! disk go to the blocking pool. Nothing here knows what is served.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use futures_util::stream::{Stream, StreamExt as _, select_all};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::runtime;

/// Accepted connections that may wait for a thread; the kernel keeps the ones behind them.
const WAITING: usize = 64;
/// More threads than this would only wait for the same journal.
const MOST_THREADS: usize = 16;
/// After a failed accept, mostly for want of file descriptors, others get time to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A thread that is busy for longer than this must not keep the others from their connections.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Connections that one thread is given.
pub type Incoming = Pin<Box<dyn Stream<Item = io::Result<Connection>> + Send>>;

/// The threads; they end once `stop` is cancelled and their calls have ended, or when this is dropped.
#[derive(Debug)]
pub struct Shards {
    ended: Vec<oneshot::Receiver<()>>,
    cut: CancellationToken,
}

/// One thread, as the acceptor sees it.
#[derive(Debug)]
struct Shard {
    queue: mpsc::Sender<(std::net::TcpStream, Counted)>,
    connections: Arc<AtomicUsize>,
}

impl Shards {
    /// Starts the threads, and the task that accepts connections for them until `stop`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start<S, F>(listeners: Vec<TcpListener>, serve: S, stop: CancellationToken) -> anyhow::Result<Self>
    where
        S: Fn(Incoming) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let cut = CancellationToken::new();
        let (mut shards, mut ended) = (Vec::new(), Vec::new());
        for number in 0..threads.min(MOST_THREADS) {
            let (queue, waiting) = mpsc::channel(WAITING);
            let incoming =
                ReceiverStream::new(waiting).map(|(stream, counted)| Connection::here(stream, counted));
            let serving = serve(Box::pin(incoming));
            let (done, end) = oneshot::channel();
            let cut = cut.clone();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .max_blocking_threads(64)
                .enable_all()
                .build()?;
            std::thread::Builder::new()
                .name(format!("grpc-{number}"))
                .spawn(move || {
                    runtime.block_on(async {
                        tokio::select! {
                            () = serving => {}
                            () = cut.cancelled() => {}
                        }
                    });
                    // Reads of a slow disk may still hold a thread of the pool; nobody waits for their answers.
                    runtime.shutdown_background();
                    // Nobody listens any more when the node was dropped.
                    let _ = done.send(());
                })
                .with_context(|| format!("cannot start the thread grpc-{number}"))?;
            shards.push(Shard {
                queue,
                connections: Arc::default(),
            });
            ended.push(end);
        }
        runtime::spawn("accept", accept(listeners, shards, stop));
        Ok(Self { ended, cut })
    }

    /// Ends when every thread has ended.
    pub async fn ended(&mut self) {
        join_all(self.ended.iter_mut()).await;
        self.ended.clear();
    }

    /// Cuts the calls that are left.
    pub fn cut(&self) {
        self.cut.cancel();
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.cut.cancel();
    }
}

/// Accepts, and gives each connection to the thread with the fewest.
async fn accept(listeners: Vec<TcpListener>, shards: Vec<Shard>, stop: CancellationToken) {
    let mut accepted = select_all(listeners.into_iter().map(TcpListenerStream::new));
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return,
            next = accepted.next() => next,
        };
        let stream = match next {
            None => return,
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                tracing::warn!(component = "grpc", %error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let least = |shard: &&Shard| shard.connections.load(Ordering::Relaxed);
        let Some(shard) = shards.iter().min_by_key(least) else {
            return;
        };
        let counted = Counted::new(&shard.connections);
        // Small answers must not wait for the acknowledgement of others.
        let moved = stream.set_nodelay(true).and_then(|()| stream.into_std());
        match moved {
            Ok(stream) => {
                let given = shard.queue.send_timeout((stream, counted), HAND_OVER).await;
                // A thread that has ended says why in the log.
                if let Err(SendTimeoutError::Timeout(_)) = given {
                    tracing::warn!(
                        component = "grpc",
                        "a thread takes no connections; one was closed"
                    );
                }
            }
            Err(error) => tracing::debug!(component = "grpc", %error, "connection lost before it was served"),
        }
    }
}

/// One connection of a thread, as long as it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An accepted connection, on the thread that serves it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    _counted: Counted,
}

impl Connection {
    fn here(stream: std::net::TcpStream, counted: Counted) -> io::Result<Self> {
        Ok(Self {
            stream: TcpStream::from_std(stream)?,
            _counted: counted,
        })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
