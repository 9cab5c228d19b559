//! The cheapest tonic server there is: answers every empty message of a bidirectional stream with one, or every
//! message with an encoded record out of memory. It takes the node's windows, and the first takes its codec, so that a
//! rate beside these rates says what the node adds to gRPC itself.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use dirnode_generator::{Generator, Random};
use dirnode_proto::codec::WireCodec;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::grpc::RawCodec;

/// Answers an empty message with an empty message.
pub const EMPTY: &str = "/dirnode.bench.Echo/Empty";
/// Answers a message with an encoded record of the usual sizes.
pub const RECORD: &str = "/dirnode.bench.Echo/Record";

/// Records that the server has ready.
const RECORDS: u64 = 256;

/// The node's flow-control windows.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Clone)]
struct Echo {
    records: Arc<Vec<Bytes>>,
}

impl NamedService for Echo {
    const NAME: &'static str = "dirnode.bench.Echo";
}

impl StreamingService<()> for Echo {
    type Response = ();
    type ResponseStream = Streaming<()>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<()>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let mut random = Random::new(7);
        let records = Arc::clone(&self.records);
        let answers = request
            .into_inner()
            .map(move |asked| asked.map(|_| random.pick(&records).cloned().unwrap_or_default()));
        ready(Ok(Response::new(Box::pin(answers))))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            if request.uri().path() == RECORD {
                return Ok(Grpc::new(RawCodec).streaming(echo, request).await);
            }
            Ok(Grpc::new(WireCodec::<(), ()>::default())
                .streaming(echo, request)
                .await)
        })
    }
}

/// Serves until standard input ends; prints the address first.
pub fn serve(_: &Args) -> anyhow::Result<()> {
    let generator = Generator::new(2);
    let records = (0..RECORDS)
        .map(|number| Bytes::from(generator.make(number).message))
        .collect();
    let echo = Echo {
        records: Arc::new(records),
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
            println!("{}", listener.local_addr()?);
            std::io::stdout().flush()?;
            Server::builder()
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .add_service(echo)
                .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
                    let input = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                    let _ = tokio::task::spawn_blocking(input).await;
                })
                .await?;
            Ok(())
        })
}

/// An echo server in a process of its own; ends when dropped.
#[derive(Debug)]
pub struct EchoServer {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    _input: Option<ChildStdin>,
}

impl EchoServer {
    /// Starts one.
    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("echo-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the echo server")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("the echo server has no output")?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("the echo server listens at {line:?}"))?;
        Ok(Self {
            child,
            address,
            _input: input,
        })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
