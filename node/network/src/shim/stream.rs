//! A substream that renames while it opens and afterwards either gets out of the way or rewrites single messages.
//!
//! Holds, while it has work to do, one frame and one output buffer for each direction; once both directions are
//! plain the state is dropped and one branch is left. Never waits for anything but the stream inside it, so wake-ups
//! come from there. Follows p2p-wire §3.2 and §3.3.
//!
//! | agreed on | dialer reads | dialer writes | listener reads | listener writes |
//! |---|---|---|---|---|
//! | identify | renames, taps | plain | plain | renames, appends |
//! | identify push | plain | renames, appends | renames, taps | plain |
//! | Kademlia | taps answers | appends | taps announcements | appends |
//! | gossip | plain | plain | measures, if streams are watched | plain |
//! | anything else | plain | plain | plain | plain |

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use libp2p::PeerId;
use libp2p::futures::io::{AsyncRead, AsyncWrite, IoSlice, IoSliceMut};

use super::endpoints::EndpointSource;
use super::frame::{Collector, Step, put_frame};
use super::names::KAD_INSIDE;
use super::negotiation::{Negotiation, Outcome, Role};
use super::watch::{MAX_KAD_REQUEST_BYTES, Offence, Watch, Watched};
use super::{Connection, identify, kad};
use crate::config::MAX_GOSSIP_FRAME;
use crate::wire::protobuf::{Field, Fields, Value};

const IDENTIFY: &str = "/ipfs/id/1.0.0";
pub(super) const IDENTIFY_PUSH: &str = "/ipfs/id/push/1.0.0";

/// Bytes taken from the inner stream in one go while a frame is collected.
const CHUNK_BYTES: usize = 1024;
/// multistream-select reads two bytes of prefix and no more.
const MAX_NEGOTIATION_BYTES: usize = 16 * 1024 - 1;

/// A substream seen through the shim.
#[derive(Debug)]
pub struct ShimStream<S> {
    inner: S,
    /// None once both directions are plain.
    state: Option<Box<State>>,
}

#[derive(Debug)]
struct State {
    connection: Arc<Connection>,
    negotiation: Negotiation,
    read: Side,
    write: Side,
    /// Over a stream that the remote opened, where its reader would wait for ever.
    watch: Option<Watch>,
}

/// One direction.
#[derive(Debug)]
struct Side {
    mode: Mode,
    frame: Collector,
    /// What was translated and has not been handed on.
    out: BytesMut,
}

/// What is done with the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Negotiate,
    /// Whole messages are exchanged for others.
    Rewrite(Rewrite),
    /// Bytes pass at once, messages are looked at in passing.
    Tap(Tap),
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rewrite {
    IdentifyIn,
    IdentifyOut,
    KadOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tap {
    Announcements,
    Answers,
    Gossip,
}

impl Side {
    fn new(mode: Mode) -> Self {
        let (max_prefix, max_body) = match mode {
            Mode::Negotiate | Mode::Plain => (2, MAX_NEGOTIATION_BYTES),
            Mode::Rewrite(Rewrite::IdentifyIn | Rewrite::IdentifyOut) => (2, identify::MAX_READ_BYTES),
            Mode::Rewrite(Rewrite::KadOut) | Mode::Tap(Tap::Answers) => (3, kad::MAX_MESSAGE_BYTES),
            Mode::Tap(Tap::Announcements) => (3, MAX_KAD_REQUEST_BYTES),
            Mode::Tap(Tap::Gossip) => (2, MAX_GOSSIP_FRAME),
        };
        Self {
            mode,
            frame: Collector::new(max_prefix, max_body),
            out: BytesMut::new(),
        }
    }

    /// Changes the mode; what is left to hand on stays, and half a frame is handed on as it came.
    fn switch(&mut self, mode: Mode) {
        let fresh = Self::new(mode);
        self.mode = fresh.mode;
        let mut frame = std::mem::replace(&mut self.frame, fresh.frame);
        self.out.extend_from_slice(&frame.take_raw());
    }

    fn is_done(&self) -> bool {
        self.mode == Mode::Plain && self.out.is_empty()
    }
}

/// What the two directions do once a protocol is agreed on: (read, write).
fn modes(protocol: &[u8], role: Role, watched: Option<Watched>) -> (Mode, Mode) {
    let is = |name: &str| protocol == name.as_bytes();
    match role {
        Role::Dialer if is(IDENTIFY) => (Mode::Rewrite(Rewrite::IdentifyIn), Mode::Plain),
        Role::Listener if is(IDENTIFY) => (Mode::Plain, Mode::Rewrite(Rewrite::IdentifyOut)),
        Role::Dialer if is(IDENTIFY_PUSH) => (Mode::Plain, Mode::Rewrite(Rewrite::IdentifyOut)),
        Role::Listener if is(IDENTIFY_PUSH) => (Mode::Rewrite(Rewrite::IdentifyIn), Mode::Plain),
        Role::Dialer if is(KAD_INSIDE) => (Mode::Tap(Tap::Answers), Mode::Rewrite(Rewrite::KadOut)),
        Role::Listener if is(KAD_INSIDE) => (Mode::Tap(Tap::Announcements), Mode::Rewrite(Rewrite::KadOut)),
        Role::Listener if watched == Some(Watched::Gossip) => (Mode::Tap(Tap::Gossip), Mode::Plain),
        Role::Dialer | Role::Listener => (Mode::Plain, Mode::Plain),
    }
}

impl State {
    /// A whole frame came from the wire while it had to be exchanged.
    fn on_read_frame(&mut self) {
        let message = self.read.frame.take_body();
        match self.read.mode {
            Mode::Negotiate => {
                let (line, outcome) = self
                    .negotiation
                    .on_read(&message, &self.connection.shared.renames);
                put_frame(&mut self.read.out, &line);
                match outcome {
                    Outcome::Agreed(protocol) => {
                        // A dialer's writing direction is where its proposal put it, and may have data under way.
                        let (read, _) = modes(&protocol, self.negotiation.role(), None);
                        self.read.switch(read);
                    }
                    Outcome::Rejected => self.write.switch(Mode::Negotiate),
                    Outcome::Open | Outcome::Proposed(_) => {}
                }
            }
            Mode::Rewrite(Rewrite::IdentifyIn) => {
                let shared = &self.connection.shared;
                if let Some((rewritten, endpoints)) = identify::inbound(&message, &shared.renames) {
                    let peer = self.connection.peer;
                    for endpoint in endpoints {
                        self.connection.tell(peer, EndpointSource::Identify, endpoint);
                    }
                    put_frame(&mut self.read.out, &rewritten);
                } else {
                    shared.metrics.messages_unparsed.inc();
                    put_frame(&mut self.read.out, &message);
                }
            }
            Mode::Rewrite(Rewrite::IdentifyOut | Rewrite::KadOut) | Mode::Tap(_) | Mode::Plain => {
                put_frame(&mut self.read.out, &message);
            }
        }
    }

    /// A whole frame came from inside while it had to be exchanged.
    fn on_write_frame(&mut self) {
        let message = self.write.frame.take_body();
        match self.write.mode {
            Mode::Negotiate => {
                let (line, outcome) = self
                    .negotiation
                    .on_write(&message, &self.connection.shared.renames);
                put_frame(&mut self.write.out, &line);
                match outcome {
                    Outcome::Agreed(protocol) => {
                        // Only a listener agrees by writing.
                        let deadlines = self.connection.shared.deadlines;
                        self.watch = Watched::of(&protocol)
                            .zip(deadlines)
                            .map(|(what, deadlines)| Watch::new(what, deadlines));
                        let watched = self.watch.as_ref().map(Watch::what);
                        let (read, write) = modes(&protocol, self.negotiation.role(), watched);
                        self.read.switch(read);
                        self.write.switch(write);
                    }
                    Outcome::Proposed(protocol) => {
                        let (_, write) = modes(&protocol, self.negotiation.role(), None);
                        self.write.switch(write);
                    }
                    Outcome::Open | Outcome::Rejected => {}
                }
            }
            Mode::Rewrite(Rewrite::IdentifyOut) => self.write_identify(&message),
            Mode::Rewrite(Rewrite::KadOut) => self.write_kad(&message),
            Mode::Rewrite(Rewrite::IdentifyIn) | Mode::Tap(_) | Mode::Plain => {
                put_frame(&mut self.write.out, &message);
            }
        }
    }

    fn write_identify(&mut self, message: &[u8]) {
        let shared = &self.connection.shared;
        let own = shared.own.get();
        match identify::outbound(message, &shared.renames, &own) {
            Some(Ok(rewritten)) => put_frame(&mut self.write.out, &rewritten),
            Some(Err(without)) => {
                shared.metrics.endpoints_withheld.inc();
                put_frame(&mut self.write.out, &without);
            }
            None => {
                shared.metrics.messages_unparsed.inc();
                put_frame(&mut self.write.out, message);
            }
        }
    }

    fn write_kad(&mut self, message: &[u8]) {
        let shared = &self.connection.shared;
        let own = shared.own.get();
        let of = |peer: &PeerId| -> Vec<Bytes> {
            if *peer == shared.local_peer {
                own.to_vec()
            } else {
                shared
                    .book
                    .as_ref()
                    .map_or_else(Vec::new, |book| book.endpoints_of(peer))
            }
        };
        let rewritten = match kad::kind(message) {
            // Others are not announced by us; if they are, it is not for us to add to it.
            Some(kad::Kind::AddProvider) => kad::append(message, |peer| {
                if *peer == shared.local_peer {
                    of(peer)
                } else {
                    Vec::new()
                }
            }),
            Some(kad::Kind::GetProviders) => kad::append(message, of),
            None => None,
        };
        match rewritten {
            Some(Ok(rewritten)) => put_frame(&mut self.write.out, &rewritten),
            Some(Err(())) => {
                shared.metrics.endpoints_withheld.inc();
                put_frame(&mut self.write.out, message);
            }
            None => put_frame(&mut self.write.out, message),
        }
    }

    /// Looks at bytes that are about to be handed on.
    fn on_tapped(&mut self, tap: Tap, mut bytes: &[u8]) -> io::Result<()> {
        let mut whole = false;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(self.read.frame.wanted().min(bytes.len()));
            bytes = later;
            match self.read.frame.push(now) {
                Step::More => {}
                Step::Whole => {
                    whole = true;
                    let message = self.read.frame.take_body();
                    self.report(tap, &message);
                }
                Step::Refused => {
                    self.connection.shared.metrics.frames_refused.inc();
                    // Handed on already, so not by `switch`.
                    self.read = Side::new(Mode::Plain);
                    return self.refused();
                }
            }
        }
        self.came(whole);
        Ok(())
    }

    /// Ends a watched stream whose message has a broken length or too large a one; others are for their reader to judge.
    fn refused(&mut self) -> io::Result<()> {
        let Some(watch) = self.watch.take() else {
            return Ok(());
        };
        self.offence(watch.what(), Offence::Oversize);
        Err(io::ErrorKind::InvalidData.into())
    }

    fn came(&mut self, whole: bool) {
        if let Some(watch) = &mut self.watch {
            watch.came(!self.read.frame.is_empty(), whole);
        }
    }

    fn offence(&self, on: Watched, what: Offence) {
        tracing::debug!(peer = %self.connection.peer, protocol = on.name(), reason = what.name(), "offence on a stream");
        self.connection.shared.metrics.offence(on, what);
    }

    /// Nothing has come: ends a watched stream whose time is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(watch) = &mut self.watch else {
            return Poll::Pending;
        };
        let what = ready!(watch.poll_over(cx));
        let on = watch.what();
        self.watch = None;
        self.offence(on, what);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn report(&self, tap: Tap, message: &[u8]) {
        let remote = self.connection.peer;
        if let Some(watch) = &self.watch
            && !well_formed(tap, message)
        {
            self.offence(watch.what(), Offence::Malformed);
            return;
        }
        match (tap, kad::kind(message)) {
            (Tap::Announcements, Some(kad::Kind::AddProvider)) => {
                // A peer announces itself only; readers refuse anything else.
                for (peer, endpoint) in kad::endpoints(message) {
                    if peer == remote {
                        self.connection.tell(peer, EndpointSource::Announcement, endpoint);
                    }
                }
            }
            (Tap::Answers, Some(kad::Kind::GetProviders)) => {
                for (peer, endpoint) in kad::endpoints(message) {
                    if peer != self.connection.shared.local_peer {
                        let source = EndpointSource::Answer { reporter: remote };
                        self.connection.tell(peer, source, endpoint);
                    }
                }
            }
            _ => {}
        }
    }

    fn is_done(&self) -> bool {
        self.read.is_done() && self.write.is_done() && self.watch.is_none()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.read.mode == Mode::Negotiate && self.negotiation.role() == Role::Listener {
            self.connection.shared.metrics.negotiations_failed.inc();
        }
    }
}

/// Whether a message is made of fields, and for gossip the messages and control parts inside it as well.
fn well_formed(tap: Tap, message: &[u8]) -> bool {
    Fields::of(message).all(|field| match (tap, field) {
        (_, Err(_)) => false,
        (
            Tap::Gossip,
            Ok(Field {
                number: 1..=3, value, ..
            }),
        ) => match value {
            Value::Bytes(part) => Fields::of(part).all(|inner| inner.is_ok()),
            _ => false,
        },
        (_, Ok(_)) => true,
    })
}

impl<S> ShimStream<S> {
    pub(super) fn new(inner: S, role: Role, connection: Arc<Connection>) -> Self {
        Self {
            inner,
            state: Some(Box::new(State {
                connection,
                negotiation: Negotiation::new(role),
                read: Side::new(Mode::Negotiate),
                write: Side::new(Mode::Negotiate),
                watch: None,
            })),
        }
    }

    /// Whether the stream has become plain and costs nothing any more.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.state.is_none()
    }

    fn drop_state_when_done(&mut self) {
        if self.state.as_ref().is_some_and(|state| state.is_done()) {
            self.state = None;
        }
    }
}

impl<S: AsyncWrite + Unpin> ShimStream<S> {
    /// Hands everything translated to the inner stream.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(state) = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        while !state.write.out.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &state.write.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => state.write.out.advance(count.min(state.write.out.len())),
            }
        }
        self.drop_state_when_done();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ShimStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            this.drop_state_when_done();
            let Some(state) = &mut this.state else {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            };
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            if !state.read.out.is_empty() {
                let count = state.read.out.len().min(buf.len());
                state.read.out.copy_to_slice(buf.split_at_mut(count).0);
                return Poll::Ready(Ok(count));
            }
            match state.read.mode {
                Mode::Plain => return Pin::new(&mut this.inner).poll_read(cx, buf),
                Mode::Tap(tap) => {
                    let Poll::Ready(count) = Pin::new(&mut this.inner).poll_read(cx, buf)? else {
                        return state.poll_over(cx);
                    };
                    state.on_tapped(tap, buf.get(..count).unwrap_or_default())?;
                    return Poll::Ready(Ok(count));
                }
                Mode::Negotiate | Mode::Rewrite(_) => {
                    let mut chunk = [0u8; CHUNK_BYTES];
                    let wanted = chunk.split_at_mut(state.read.frame.wanted().min(CHUNK_BYTES)).0;
                    let Poll::Ready(count) = Pin::new(&mut this.inner).poll_read(cx, wanted)? else {
                        return state.poll_over(cx);
                    };
                    let bytes = wanted.get(..count).unwrap_or_default();
                    if bytes.is_empty() {
                        state.watch = None;
                        // The end inside a frame: the reader gets what there is and judges for itself.
                        state.read.switch(Mode::Plain);
                        if state.read.out.is_empty() {
                            return Poll::Ready(Ok(0));
                        }
                        continue;
                    }
                    match state.read.frame.push(bytes) {
                        Step::More => state.came(false),
                        Step::Whole => {
                            state.on_read_frame();
                            state.came(true);
                        }
                        Step::Refused => {
                            state.connection.shared.metrics.frames_refused.inc();
                            state.refused()?;
                            if state.read.mode == Mode::Negotiate {
                                if state.negotiation.role() == Role::Listener {
                                    state.connection.shared.metrics.negotiations_failed.inc();
                                }
                                // The conversation is broken; what we would rename is no longer known.
                                state.write.switch(Mode::Plain);
                            }
                            state.read.switch(Mode::Plain);
                        }
                    }
                }
            }
        }
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.drop_state_when_done();
        if self.state.is_none() {
            return Pin::new(&mut self.get_mut().inner).poll_read_vectored(cx, bufs);
        }
        match bufs.iter_mut().find(|buf| !buf.is_empty()) {
            Some(buf) => self.poll_read(cx, buf),
            None => Poll::Ready(Ok(0)),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ShimStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // What was taken earlier goes first, and nothing more is taken before it is gone.
        ready!(this.poll_drain(cx))?;
        let Some(state) = &mut this.state else {
            return Pin::new(&mut this.inner).poll_write(cx, buf);
        };
        match state.write.mode {
            Mode::Plain | Mode::Tap(_) => return Pin::new(&mut this.inner).poll_write(cx, buf),
            Mode::Negotiate | Mode::Rewrite(_) => {}
        }
        let mut rest = buf;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(state.write.frame.wanted().min(rest.len()));
            rest = later;
            match state.write.frame.push(now) {
                Step::More => {}
                // What follows may be of another kind and is for the next call.
                Step::Whole => {
                    state.on_write_frame();
                    break;
                }
                Step::Refused => {
                    state.connection.shared.metrics.frames_refused.inc();
                    state.write.switch(Mode::Plain);
                    break;
                }
            }
        }
        let taken = buf.len().saturating_sub(rest.len());
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is left goes with the next write, flush or close.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        if this.state.is_none() {
            return Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        Pin::new(this).poll_write(cx, first.map_or(&[], |buf| buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(state) = &mut this.state
            && !state.write.frame.is_empty()
        {
            state.write.switch(Mode::Plain);
        }
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.inner).poll_close(cx)
    }
}
