//! The catch-up exchange on the wire: one request and one answer per stream.
//!
//! | part | bytes |
//! |---|---|
//! | request | unsigned varint length, then as many bytes |
//! | answer | status byte, unsigned varint length, then as many bytes |
//!
//! Status 0 is an answer; status 1 is an error, whose bytes are a status text as in the RPC
//! (p2p-wire §5.4). Lengths are at most
//! [`MAX_CATCH_UP`]. What the bytes mean belongs to `routing`; the version is in the protocol name.

use std::io;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::config::MAX_CATCH_UP;
use crate::library::LibraryError;

const ANSWER: u8 = 0;
const ERROR: u8 = 1;

/// Longest varint of a length we take.
const MAX_PREFIX: usize = 4;

/// Reads one length-prefixed message and not a byte more.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason.to_owned());
    let mut prefix = Vec::with_capacity(MAX_PREFIX);
    let length = loop {
        let mut byte = [0u8; 1];
        stream.read_exact(&mut byte).await?;
        prefix.extend_from_slice(&byte);
        if byte[0] & 0x80 == 0 {
            break unsigned_varint::decode::usize(&prefix)
                .map_err(|error| invalid(&error.to_string()))?
                .0;
        }
        if prefix.len() >= MAX_PREFIX {
            return Err(invalid("length prefix too long"));
        }
    };
    if length > MAX_CATCH_UP {
        return Err(invalid("message too long"));
    }
    let mut bytes = Vec::new();
    stream
        .take(u64::try_from(length).unwrap_or(0))
        .read_to_end(&mut bytes)
        .await?;
    if bytes.len() == length {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Appends at most `count` bytes to the buffer; how many came, none at the end of the stream.
pub(crate) async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    count: usize,
) -> io::Result<usize> {
    let held = buffer.len();
    buffer.resize(held.saturating_add(count), 0);
    let room = buffer.get_mut(held..).unwrap_or_default();
    let got = stream.read(room).await;
    buffer.truncate(held.saturating_add(*got.as_ref().unwrap_or(&0)));
    got
}

/// Writes one length-prefixed message.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let mut scratch = unsigned_varint::encode::usize_buffer();
    stream
        .write_all(unsigned_varint::encode::usize(bytes.len(), &mut scratch))
        .await?;
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Reads an answer; the outer error is the stream's, the inner one the peer's.
pub(crate) async fn read_answer(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Vec<u8>, LibraryError>> {
    let mut status = [0u8; 1];
    stream.read_exact(&mut status).await?;
    let bytes = read(stream).await?;
    match status {
        [ANSWER] => Ok(Ok(bytes)),
        [ERROR] => {
            let text = String::from_utf8_lossy(&bytes);
            Ok(Err(LibraryError::parse(&text)))
        }
        [other] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("unknown status {other}"),
        )),
    }
}

/// Writes an answer or an error.
pub(crate) async fn write_answer(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Result<bytes::Bytes, LibraryError>,
) -> io::Result<()> {
    match answer {
        Ok(bytes) => {
            stream.write_all(&[ANSWER]).await?;
            write(stream, bytes).await
        }
        Err(error) => {
            stream.write_all(&[ERROR]).await?;
            write(stream, error.to_string().as_bytes()).await
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::io::Cursor;

    use super::*;
    use crate::library::RpcCode;

    async fn round_trip(answer: Result<bytes::Bytes, LibraryError>) -> Result<Vec<u8>, LibraryError> {
        let mut wire = Cursor::new(Vec::new());
        write_answer(&mut wire, &answer).await.unwrap();
        wire.set_position(0);
        read_answer(&mut wire).await.unwrap()
    }

    #[tokio::test]
    async fn answers_and_errors_come_back_as_they_were() {
        let bytes = vec![7u8; 70_000];
        assert_eq!(round_trip(Ok(bytes.clone().into())).await, Ok(bytes));
        let error = LibraryError::new(RpcCode::ResourceExhausted, "busy: later");
        assert_eq!(round_trip(Err(error.clone())).await, Err(error));
    }

    #[tokio::test]
    async fn what_cannot_be_a_message_is_refused_before_it_is_read() {
        for wire in [
            vec![0xff, 0xff, 0xff, 0xff, 0xff],
            vec![0xff, 0xff, 0xff, 0x7f],
            vec![0x05, 1, 2],
            vec![],
        ] {
            assert!(read(&mut Cursor::new(wire.clone())).await.is_err(), "{wire:?}");
        }
        assert!(read_answer(&mut Cursor::new(vec![9, 0])).await.is_err());
    }
}
