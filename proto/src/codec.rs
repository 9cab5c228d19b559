//! The gRPC codec of every service here: protobuf by prost, with the error texts that clients of the network know
//! (grpc-api §4.0).

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes `T`, decodes `U`.
#[derive(Debug, Clone)]
pub struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for WireCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WireEncoder<T>;
    type Decoder = WireDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        WireEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        WireDecoder(PhantomData)
    }
}

/// Encodes `T`.
#[derive(Debug, Clone)]
pub struct WireEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for WireEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf)
            .map_err(|error| Status::internal(format!("grpc: error while marshaling: {error}")))
    }
}

/// Decodes `U`; bad bytes become `INTERNAL` with the reason.
#[derive(Debug, Clone)]
pub struct WireDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for WireDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(buf).map(Some).map_err(|error| unreadable(&error))
    }
}

/// The status of a message that does not decode.
#[must_use]
pub fn unreadable(error: &prost::DecodeError) -> Status {
    let text = error.to_string();
    let reason = if text.contains("UTF-8") {
        "string field contains invalid UTF-8"
    } else if text.contains("recursion") {
        "proto: exceeded maximum recursion depth"
    } else {
        "proto: cannot parse invalid wire-format data"
    };
    Status::internal(format!(
        "grpc: failed to unmarshal the received message: {reason}"
    ))
}
