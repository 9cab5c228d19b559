//! A gRPC client without generated types: messages are bytes, and JSON by way of descriptors.
//!
//! Every kind of method is called as a stream in both directions, which is what they are on the wire; so it can be
//! said what generated clients cannot say: no message, two messages, bytes that do not parse, a stream left open.

use std::str::FromStr as _;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use http::uri::PathAndQuery;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value as Json;
use tokio::sync::oneshot;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Client deadline when a call names none.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Patience of a cancelled call that waits for no answer: the server shall see it before it goes away.
const BEFORE_CANCEL: Duration = Duration::from_millis(200);

/// Messages as bytes; instead of a message, `None` goes away and resets the call.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Option<Bytes>;
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

impl Encoder for Raw {
    type Item = Option<Bytes>;
    type Error = Status;

    fn encode(&mut self, item: Option<Bytes>, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // An error here is what makes the transport send a reset; dropping the answers alone leaves the call open.
        buf.put(item.ok_or_else(|| Status::cancelled("the client goes away"))?);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buf.remaining();
        Ok(Some(buf.copy_to_bytes(len)))
    }
}

/// How the client leaves a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// Closes its side after the last message.
    #[default]
    HalfClose,
    /// Says nothing more and waits.
    KeepOpen,
    /// Goes away after so many answers.
    CancelAfter(usize),
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Answers, as bytes.
    pub responses: Vec<Bytes>,
    /// The final code.
    pub code: Code,
    /// The final text.
    pub message: String,
}

/// The answers of an open call. Dropping them ends the call, as a client does that goes away.
pub struct Answers {
    stream: Streaming<Bytes>,
    _leave: Option<oneshot::Sender<()>>,
}

impl Answers {
    /// The next answer; `None` at the end.
    ///
    /// # Errors
    /// The final status, unless it is OK.
    pub async fn message(&mut self) -> Result<Option<Bytes>, Status> {
        self.stream.message().await
    }
}

/// A connection and the descriptors of everything a node serves.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    pool: DescriptorPool,
}

impl Client {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Self, String> {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(5))
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        Ok(Self {
            channel,
            pool: descriptors(),
        })
    }

    /// The connection, for generated clients.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The descriptor of `/package.Service/Method`, if it is known.
    #[must_use]
    pub fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.trim_start_matches('/').split_once('/')?;
        self.pool
            .get_service_by_name(service)?
            .methods()
            .find(|candidate| candidate.name() == method)
    }

    /// A request of `path` as bytes. A method nobody describes takes no message, as it will not be reached.
    #[must_use]
    pub fn encode(&self, path: &str, body: &Json) -> Bytes {
        let Some(method) = self.method(path) else {
            return Bytes::new();
        };
        let message =
            DynamicMessage::deserialize(method.input(), body).expect("a request in JSON fits its message");
        message.encode_to_vec().into()
    }

    /// An answer of `path` as JSON with the field names of the `.proto` files, defaults left out.
    #[must_use]
    pub fn decode(&self, path: &str, answer: &Bytes) -> Json {
        let method = self.method(path).expect("only known methods answer");
        let message = DynamicMessage::decode(method.output(), answer.clone()).expect("an answer parses");
        let options = SerializeOptions::new().use_proto_field_name(true);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .expect("an answer has a JSON form")
    }

    /// Calls `path` with messages as bytes and waits for the end.
    pub async fn call(&self, path: &str, messages: Vec<Bytes>, end: End, deadline: Duration) -> Outcome {
        let mut responses = Vec::new();
        let patience = if end == End::CancelAfter(0) {
            BEFORE_CANCEL.min(deadline)
        } else {
            deadline
        };
        let ended = tokio::time::timeout(patience, self.run(path, messages, end, &mut responses)).await;
        let status = match ended {
            Ok(status) => status,
            Err(_) if patience < deadline => Status::cancelled("the client went away"),
            Err(_) => Status::deadline_exceeded("deadline exceeded"),
        };
        Outcome {
            responses,
            code: status.code(),
            message: status.message().to_owned(),
        }
    }

    async fn run(&self, path: &str, messages: Vec<Bytes>, end: End, responses: &mut Vec<Bytes>) -> Status {
        let mut answers = match self.open(path, stream::iter(messages).boxed(), end).await {
            Ok(answers) => answers,
            Err(status) => return status,
        };
        loop {
            if matches!(end, End::CancelAfter(wanted) if wanted > 0 && responses.len() >= wanted) {
                return Status::cancelled("the client went away");
            }
            match answers.message().await {
                Ok(Some(answer)) => responses.push(answer),
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    /// Opens a call and gives its answers as they come.
    ///
    /// # Errors
    /// The status, when the call ends before its first answer.
    pub async fn open(
        &self,
        path: &str,
        messages: BoxStream<'static, Bytes>,
        end: End,
    ) -> Result<Answers, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        // One request and many answers: such a client closes its side even when it means to go away early.
        let streams = self
            .method(path)
            .is_none_or(|method| method.is_client_streaming());
        let open = end == End::KeepOpen || (matches!(end, End::CancelAfter(_)) && streams);
        let (leave, left) = oneshot::channel::<()>();
        let (rest, leave) = if open {
            (
                stream::once(async move { left.await.ok() }).map(|_| None).boxed(),
                Some(leave),
            )
        } else {
            (stream::empty().boxed(), None)
        };
        let path = PathAndQuery::from_str(path).map_err(|error| Status::internal(error.to_string()))?;
        let answers = grpc
            .streaming(tonic::Request::new(messages.map(Some).chain(rest)), path, Raw)
            .await?;
        Ok(Answers {
            stream: answers.into_inner(),
            _leave: leave,
        })
    }

    /// Calls with JSON and gives JSON: `Err` holds the code and the text.
    ///
    /// # Errors
    /// Any code but OK.
    pub async fn ask(&self, path: &str, bodies: &[Json]) -> Result<Vec<Json>, (Code, String)> {
        let messages = bodies.iter().map(|body| self.encode(path, body)).collect();
        let outcome = self.call(path, messages, End::HalfClose, DEADLINE).await;
        if outcome.code != Code::Ok {
            return Err((outcome.code, outcome.message));
        }
        Ok(outcome
            .responses
            .iter()
            .map(|answer| self.decode(path, answer))
            .collect())
    }
}

/// The messages of the contract, of health and of both reflections.
fn descriptors() -> DescriptorPool {
    let mut pool = DescriptorPool::new();
    for set in [
        dirnode_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(set)
            .expect("embedded descriptors decode");
    }
    pool
}

/// The name of a code as the vectors write it.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
