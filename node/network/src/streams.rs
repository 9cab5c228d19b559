//! Plain substreams in and out: the behaviour under the RPC, the catch-up exchange, pings on demand and the sweep.
//!
//! Inbound streams of the protocols we offer are handed to the swarm task; outbound ones are opened on a direct
//! connection where there is one, else on a relayed one, else after a dial. Every request for a stream is answered
//! once, also when the connection dies under it. Never reads or writes a byte itself. Soft state.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::command::Reply;
use crate::error::NetworkError;
use crate::status::TransportKind;

/// Requests that wait for a dial; above it callers are told that we are busy.
const MAX_WAITING: usize = 1024;

/// Inbound streams of one connection that wait for the swarm task; more are reset.
const MAX_UNREPORTED: usize = 32;

/// Outbound requests of one connection that wait for the connection task.
const MAX_UNOPENED: usize = 256;

/// A request for one outbound stream. Dropped unanswered it says that the peer went away.
#[derive(Debug)]
pub(crate) struct Open {
    peer: PeerId,
    protocol: StreamProtocol,
    reply: Option<Reply<Stream>>,
}

impl Open {
    fn answer(mut self, answer: Result<Stream, NetworkError>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(answer);
        }
    }

    fn gone(&self) -> bool {
        self.reply.as_ref().is_none_or(Reply::is_closed)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(NetworkError::PeerGone {
                peer: self.peer,
                reason: "connection closed before the stream was open".to_owned(),
            }));
        }
    }
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// The behaviour.
pub(crate) struct Streams {
    offered: Arc<[StreamProtocol]>,
    connections: HashMap<PeerId, Vec<(ConnectionId, bool)>>,
    waiting: HashMap<PeerId, Vec<Open>>,
    waiting_count: usize,
    events: VecDeque<ToSwarm<Opened, Open>>,
}

impl Streams {
    /// Offers these protocols to everyone.
    pub(crate) fn new(offered: Vec<StreamProtocol>) -> Self {
        Self {
            offered: offered.into(),
            connections: HashMap::new(),
            waiting: HashMap::new(),
            waiting_count: 0,
            events: VecDeque::new(),
        }
    }

    /// Opens a stream; `reply` is answered once.
    pub(crate) fn open(&mut self, peer: PeerId, protocol: StreamProtocol, reply: Reply<Stream>) {
        let open = Open {
            peer,
            protocol,
            reply: Some(reply),
        };
        if let Some(connection) = self.best_connection(&peer) {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: open,
            });
            return;
        }
        if self.waiting_count >= MAX_WAITING {
            self.forget_the_gone();
        }
        if self.waiting_count >= MAX_WAITING {
            open.answer(Err(NetworkError::Busy {
                what: "streams waiting for a dial",
                limit: MAX_WAITING,
            }));
            return;
        }
        self.waiting.entry(peer).or_default().push(open);
        self.waiting_count = self.waiting_count.saturating_add(1);
        self.events.push_back(ToSwarm::Dial {
            opts: DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build(),
        });
    }

    /// Answers everyone who waits for a dial.
    pub(crate) fn fail_all(&mut self, error: &NetworkError) {
        for open in self.waiting.drain().flat_map(|(_, opens)| opens) {
            open.answer(Err(error.clone()));
        }
        self.waiting_count = 0;
        for event in self.events.drain(..) {
            if let ToSwarm::NotifyHandler { event, .. } = event {
                event.answer(Err(error.clone()));
            }
        }
    }

    /// Drops the requests whose callers have left.
    pub(crate) fn forget_the_gone(&mut self) {
        self.waiting.retain(|_, opens| {
            opens.retain(|open| !open.gone());
            !opens.is_empty()
        });
        self.waiting_count = self.waiting.values().map(Vec::len).sum();
    }

    /// Direct connections first: peers of the reference refuse most protocols on relayed ones.
    fn best_connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        let known = self.connections.get(peer)?;
        known
            .iter()
            .find(|(_, relayed)| !relayed)
            .or_else(|| known.first())
            .map(|(id, _)| *id)
    }

    fn take_waiting(&mut self, peer: &PeerId) -> Vec<Open> {
        let opens = self.waiting.remove(peer).unwrap_or_default();
        self.waiting_count = self.waiting_count.saturating_sub(opens.len());
        opens
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Opened;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, Arc::clone(&self.offered)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(peer, Arc::clone(&self.offered)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                let relayed = TransportKind::of(endpoint.get_remote_address()) == TransportKind::Relay;
                self.connections
                    .entry(peer_id)
                    .or_default()
                    .push((connection_id, relayed));
                for open in self.take_waiting(&peer_id) {
                    self.events.push_back(ToSwarm::NotifyHandler {
                        peer_id,
                        handler: NotifyHandler::One(connection_id),
                        event: open,
                    });
                }
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                if let Some(known) = self.connections.get_mut(&peer_id) {
                    known.retain(|(id, _)| *id != connection_id);
                    if known.is_empty() {
                        self.connections.remove(&peer_id);
                    }
                }
            }
            FromSwarm::DialFailure(DialFailure {
                peer_id: Some(peer),
                error,
                ..
            }) => {
                // Somebody else's dial to the same peer is still under way, or a connection is there already; either
                // serves those who wait here.
                if matches!(error, DialError::DialPeerConditionFalse(_)) {
                    return;
                }
                let reason = crate::actor::dial_reason(error);
                for open in self.take_waiting(&peer) {
                    open.answer(Err(NetworkError::Unreachable {
                        peer,
                        reason: reason.clone(),
                    }));
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

/// One connection's half.
pub(crate) struct Handler {
    peer: PeerId,
    offered: Arc<[StreamProtocol]>,
    to_open: VecDeque<Open>,
    opened: VecDeque<Opened>,
}

impl Handler {
    fn new(peer: PeerId, offered: Arc<[StreamProtocol]>) -> Self {
        Self {
            peer,
            offered,
            to_open: VecDeque::new(),
            opened: VecDeque::new(),
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = Opened;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Open;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(
            Upgrade {
                protocols: Arc::clone(&self.offered),
            },
            (),
        )
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Open, Self::ToBehaviour>> {
        if let Some(opened) = self.opened.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(opened));
        }
        while let Some(open) = self.to_open.pop_front() {
            if open.gone() {
                continue;
            }
            let protocols = Arc::from([open.protocol.clone()]);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Upgrade { protocols }, open),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.to_open.len() >= MAX_UNOPENED {
            open.answer(Err(NetworkError::Busy {
                what: "streams waiting on one connection",
                limit: MAX_UNOPENED,
            }));
        } else {
            self.to_open.push_back(open);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), Open>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                info: (),
            }) => {
                if self.opened.len() < MAX_UNREPORTED {
                    self.opened.push_back(Opened {
                        peer: self.peer,
                        protocol,
                        stream,
                    });
                } else {
                    tracing::debug!(peer = %self.peer, "inbound stream dropped, too many wait");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info,
            }) => info.answer(Ok(stream)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let peer = info.peer;
                let protocol = info.protocol.to_string();
                let answer = match error {
                    StreamUpgradeError::NegotiationFailed => NetworkError::NotSupported { peer, protocol },
                    StreamUpgradeError::Timeout => NetworkError::PeerGone {
                        peer,
                        reason: format!("no answer while opening a {protocol} stream"),
                    },
                    StreamUpgradeError::Io(error) => NetworkError::PeerGone {
                        peer,
                        reason: error.to_string(),
                    },
                    StreamUpgradeError::Apply(never) => match never {},
                };
                info.answer(Err(answer));
            }
            _ => {}
        }
    }
}

/// Takes a negotiated stream as it is and remembers under which name.
#[derive(Debug, Clone)]
pub(crate) struct Upgrade {
    protocols: Arc<[StreamProtocol]>,
}

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        let names: Vec<StreamProtocol> = self.protocols.iter().cloned().collect();
        names.into_iter()
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Self::Error>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
