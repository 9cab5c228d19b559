//! Where peers were last seen: a small behaviour that offers what it remembers to every dial.
//!
//! Callers name peers by id; addresses come from identify, provider records, the DHT and the local network. Soft state,
//! bounded: the peer heard of longest ago makes room. Never dials and never tells anybody.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::{MAX_ADDR_BYTES, MAX_ADDRS_PER_PEER};

/// Peers whose addresses are remembered.
const BOOK_PEERS: NonZeroUsize = NonZeroUsize::new(8192).unwrap();

/// Addresses by peer; the peer heard of longest ago makes room.
#[derive(Debug)]
pub(crate) struct Book {
    peers: HashMap<PeerId, (u64, Vec<Multiaddr>)>,
    /// Who was heard of when; entries of peers heard of again are stale and skipped.
    order: VecDeque<(u64, PeerId)>,
    turn: u64,
    capacity: usize,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self::with_capacity(BOOK_PEERS)
    }

    fn with_capacity(capacity: NonZeroUsize) -> Self {
        Self {
            peers: HashMap::new(),
            order: VecDeque::new(),
            turn: 0,
            capacity: capacity.get(),
        }
    }

    /// Adds addresses of a peer, newest first; those beyond [`MAX_ADDRS_PER_PEER`] fall off the end.
    pub(crate) fn remember(&mut self, peer: PeerId, addrs: impl IntoIterator<Item = Multiaddr>) {
        let mut fresh: Vec<Multiaddr> = addrs
            .into_iter()
            .filter(|addr| addr.len() <= MAX_ADDR_BYTES && !addr.is_empty())
            .take(MAX_ADDRS_PER_PEER)
            .collect();
        if fresh.is_empty() {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let entry = self.peers.entry(peer).or_insert_with(|| (0, Vec::new()));
        entry.0 = self.turn;
        for old in entry.1.drain(..) {
            if fresh.len() < MAX_ADDRS_PER_PEER && !fresh.contains(&old) {
                fresh.push(old);
            }
        }
        entry.1 = fresh;
        self.order.push_back((self.turn, peer));
        self.make_room();
    }

    /// What is known about a peer, newest first.
    pub(crate) fn of(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map_or(&[], |(_, addrs)| addrs.as_slice())
    }

    fn make_room(&mut self) {
        // Stale entries of the order are dropped on the way; it never grows past twice the capacity.
        while self.peers.len() > self.capacity || self.order.len() > self.capacity.saturating_mul(2) {
            let Some((turn, peer)) = self.order.pop_front() else {
                return;
            };
            let current = self.peers.get(&peer).is_some_and(|(at, _)| *at == turn);
            if !current {
                continue;
            }
            if self.peers.len() > self.capacity {
                self.peers.remove(&peer);
            } else {
                self.order.push_back((turn, peer));
                if self.order.len() <= self.peers.len() {
                    return;
                }
            }
        }
    }
}

impl NetworkBehaviour for Book {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map_or_else(Vec::new, |peer| self.of(&peer).to_vec()))
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_book_keeps_the_newest_addresses_and_peers() {
        let mut book = Book::with_capacity(NonZeroUsize::new(2).unwrap());
        let (one, two, three) = (PeerId::random(), PeerId::random(), PeerId::random());
        for port in 0..20u16 {
            book.remember(one, [addr(&format!("/ip4/10.0.0.1/tcp/{port}"))]);
        }
        assert_eq!(book.of(&one).len(), MAX_ADDRS_PER_PEER);
        assert_eq!(book.of(&one)[0], addr("/ip4/10.0.0.1/tcp/19"));
        book.remember(two, [addr("/ip4/10.0.0.2/tcp/1")]);
        book.remember(one, [addr("/ip4/10.0.0.1/tcp/1")]);
        book.remember(three, [addr("/ip4/10.0.0.3/tcp/1")]);
        assert!(book.of(&two).is_empty(), "the one heard of longest ago");
        assert_eq!(book.peers.len(), 2);
        assert!(book.order.len() <= 4, "{}", book.order.len());
    }

    #[test]
    fn the_order_of_the_book_stays_bounded_under_repetition() {
        let mut book = Book::with_capacity(NonZeroUsize::new(3).unwrap());
        let peers: Vec<PeerId> = (0..3).map(|_| PeerId::random()).collect();
        for n in 0..1000usize {
            book.remember(peers[n % 3], [addr("/ip4/10.0.0.1/tcp/1")]);
        }
        assert_eq!(book.peers.len(), 3);
        assert!(book.order.len() <= 6);
    }
}
