//! The cheapest tonic server there is: answers every empty message of a bidirectional stream with one. It takes the
//! node's codec and windows, so that a rate beside its rate says what the node adds to gRPC itself.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::task::{Context, Poll};

use anyhow::Context as _;
use dirnode_proto::codec::WireCodec;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// Full path of its method.
pub const METHOD: &str = "/dirnode.bench.Echo/Echo";

/// The node's flow-control windows.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Clone, Copy)]
struct Echo;

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

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = *self;
        Box::pin(async move {
            Ok(Grpc::new(WireCodec::<(), ()>::default())
                .streaming(echo, request)
                .await)
        })
    }
}

/// Serves until standard input ends; prints the address first.
pub fn serve(_: &Args) -> anyhow::Result<()> {
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
                .add_service(Echo)
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
