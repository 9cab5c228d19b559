//! A stream whose other end is written down beforehand, for tests.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{AsyncRead, AsyncWrite};

/// Gives its bytes a few at a time, keeps what is written, and knows whether it was closed for writing.
pub(crate) struct Script {
    gives: Vec<u8>,
    taken: usize,
    step: usize,
    pub(crate) written: Vec<u8>,
    /// How much had been read when the write side was closed.
    pub(crate) closed_at: Option<usize>,
}

impl Script {
    pub(crate) fn new(gives: Vec<u8>, step: usize) -> Self {
        Self {
            gives,
            taken: 0,
            step,
            written: Vec::new(),
            closed_at: None,
        }
    }

    /// Bytes that were read.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = buf.len().min(self.step).min(self.gives.len() - self.taken);
        buf[..count].copy_from_slice(&self.gives[self.taken..self.taken + count]);
        self.taken += count;
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed_at = Some(self.taken);
        Poll::Ready(Ok(()))
    }
}
