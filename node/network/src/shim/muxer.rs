//! The connection's muxer with every substream seen through the shim.
//!
//! Delegates everything; a substream that comes in makes us its listener, one that goes out its dialer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use super::negotiation::Role;
use super::{Connection, ShimStream};

pub(super) struct ShimMuxer {
    inner: StreamMuxerBox,
    connection: Arc<Connection>,
}

impl ShimMuxer {
    pub(super) fn new(inner: StreamMuxerBox, connection: Arc<Connection>) -> Self {
        Self { inner, connection }
    }

    fn seen(&self, stream: SubstreamBox, role: Role) -> ShimStream<SubstreamBox> {
        ShimStream::new(stream, role, self.connection.clone())
    }
}

impl StreamMuxer for ShimMuxer {
    type Substream = ShimStream<SubstreamBox>;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        let opened = Pin::new(&mut self.inner).poll_inbound(cx);
        opened.map_ok(|stream| self.seen(stream, Role::Listener))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Self::Substream>> {
        let opened = Pin::new(&mut self.inner).poll_outbound(cx);
        opened.map_ok(|stream| self.seen(stream, Role::Dialer))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
