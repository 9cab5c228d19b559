//! gRPC without decoding: messages are sent as they were encoded beforehand and come back as bytes, so that a load
//! generator costs the machine little. Holds no state besides the connections.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Flow-control window: records of 20 kB must not wait for window updates.
const WINDOW_BYTES: u32 = 4 << 20;

/// Passes messages through.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buf.copy_to_bytes(buf.remaining())))
    }
}

/// A connection of its own to a server.
pub async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true)
        .connect()
        .await
        .with_context(|| format!("nothing answers at {address}"))
}

/// Asks one thing by a call of its own, and takes every answer; says how many there were.
///
/// # Errors
/// The status of the call, if it is none of success.
pub async fn call(channel: Channel, method: &'static str, message: Bytes) -> Result<u64, Status> {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready()
        .await
        .map_err(|error| Status::unavailable(format!("not connected: {error}")))?;
    let path = PathAndQuery::from_static(method);
    let answer = grpc
        .server_streaming(Request::new(message), path, RawCodec)
        .await?;
    let mut answers = answer.into_inner();
    let mut count = 0;
    while answers.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// A bidirectional stream that is used one request at a time.
#[derive(Debug)]
pub struct Lane {
    requests: mpsc::Sender<Bytes>,
    answers: Streaming<Bytes>,
}

impl Lane {
    /// Opens a stream of a method, named by its full path.
    ///
    /// # Errors
    /// The server's refusal, or the loss of the connection.
    pub async fn open(channel: Channel, method: &'static str) -> Result<Self, Status> {
        let (requests, queue) = mpsc::channel(1);
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(format!("not connected: {error}")))?;
        let request = Request::new(ReceiverStream::new(queue));
        let answers = grpc
            .streaming(request, PathAndQuery::from_static(method), RawCodec)
            .await?
            .into_inner();
        Ok(Self { requests, answers })
    }

    /// Sends one message and waits for its answer.
    ///
    /// # Errors
    /// The status the stream ended with.
    pub async fn ask(&mut self, message: Bytes) -> Result<Bytes, Status> {
        // A stream that takes nothing more has the reason in its answers.
        let _ = self.requests.send(message).await;
        let ended = || Status::unavailable("the stream ended without an answer");
        self.answers.message().await?.ok_or_else(ended)
    }

    /// Ends the stream in order: a server that sees its calls cut does other work than one whose calls end.
    ///
    /// # Errors
    /// The status the stream ended with, if it is none of success.
    pub async fn close(self) -> Result<(), Status> {
        let Self {
            requests,
            mut answers,
        } = self;
        drop(requests);
        while answers.message().await?.is_some() {}
        Ok(())
    }
}
