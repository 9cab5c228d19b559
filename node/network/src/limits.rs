//! How many inbound connections one machine may hold: a small behaviour.
//!
//! Counts by block of addresses (an IPv4 address, or the first 64 bits of an IPv6 one) and from the first packet on.
//! Handshakes that are still pending have a bound of their own, much smaller: there are few places for them in all, and
//! one that says nothing keeps its place until it times out. Soft state, bounded by the connections there are.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ListenFailure};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};

use crate::scope::{Scope, scope};
use crate::water::block_of;

/// Addresses that one machine commands, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block(IpAddr);

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

/// A block has as many inbound connections as it may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum TooManyFrom {
    #[error("{block} holds {limit} inbound connections already")]
    Connections { block: Block, limit: u32 },
    #[error("{block} has {limit} inbound handshakes pending already")]
    Pending { block: Block, limit: u32 },
}

#[derive(Debug)]
struct Connection {
    block: IpAddr,
    pending: bool,
}

/// Inbound connections of one block; a pending one counts as held as well.
#[derive(Debug, Default)]
struct Counts {
    held: u32,
    pending: u32,
}

/// Counts inbound connections by block.
#[derive(Debug)]
pub(crate) struct PerIp {
    limit: u32,
    pending_limit: u32,
    connections: HashMap<ConnectionId, Connection>,
    counts: HashMap<IpAddr, Counts>,
}

impl PerIp {
    /// At most `limit` connections of one block, `pending_limit` of them in their handshake.
    pub(crate) fn new(limit: u32, pending_limit: u32) -> Self {
        Self {
            limit,
            pending_limit,
            connections: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    fn admit(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), TooManyFrom> {
        // Behind one private address may be a whole cluster, or everybody, where a balancer hides the callers.
        if scope(remote) != Scope::Public {
            return Ok(());
        }
        let Some(block) = ip_of(remote).map(block_of) else {
            return Ok(());
        };
        if let Some(counts) = self.counts.get(&block) {
            let (block, limit) = (Block(block), self.limit);
            if counts.held >= limit {
                return Err(TooManyFrom::Connections { block, limit });
            }
            let limit = self.pending_limit;
            if counts.pending >= limit {
                return Err(TooManyFrom::Pending { block, limit });
            }
        }
        let counts = self.counts.entry(block).or_default();
        counts.held = counts.held.saturating_add(1);
        counts.pending = counts.pending.saturating_add(1);
        self.connections.insert(id, Connection { block, pending: true });
        Ok(())
    }

    /// The handshake is over.
    fn established(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if std::mem::take(&mut connection.pending)
            && let Some(counts) = self.counts.get_mut(&connection.block)
        {
            counts.pending = counts.pending.saturating_sub(1);
        }
    }

    fn release(&mut self, id: ConnectionId) {
        self.established(id);
        let Some(Connection { block, .. }) = self.connections.remove(&id) else {
            return;
        };
        if let Some(counts) = self.counts.get_mut(&block) {
            counts.held = counts.held.saturating_sub(1);
            if counts.held == 0 {
                self.counts.remove(&block);
            }
        }
    }
}

/// The IP address at the front of an address; none for relayed and memory ones.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<IpAddr> {
    if addr.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return None;
    }
    match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)),
        _ => None,
    }
}

impl NetworkBehaviour for PerIp {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit(id, remote).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id);
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

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.release(connection_id),
            _ => {}
        }
    }

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

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn one_address_gets_its_share_and_gets_it_back() {
        let mut per_ip = PerIp::new(2, 2);
        let remote = addr("/ip4/8.8.1.1/tcp/5");
        per_ip.admit(id(1), &remote).unwrap();
        per_ip.admit(id(2), &addr("/ip6/::ffff:8.8.1.1/tcp/6")).unwrap();
        assert!(per_ip.admit(id(3), &remote).is_err());
        per_ip.admit(id(4), &addr("/ip4/8.8.1.2/tcp/5")).unwrap();
        per_ip.release(id(3));
        assert!(per_ip.admit(id(3), &remote).is_err());
        per_ip.release(id(1));
        per_ip.admit(id(3), &remote).unwrap();
    }

    /// Whoever has one address of IPv6 has 2^64 of them.
    #[test]
    fn addresses_of_one_block_are_one_machine() {
        let mut per_ip = PerIp::new(2, 2);
        per_ip.admit(id(1), &addr("/ip6/2600:1:2:3::1/tcp/5")).unwrap();
        per_ip
            .admit(id(2), &addr("/ip6/2600:1:2:3:ffff::/tcp/5"))
            .unwrap();
        per_ip.established(id(1));
        let refused = per_ip.admit(id(3), &addr("/ip6/2600:1:2:3:4::9/udp/5/quic-v1"));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "2600:1:2:3::/64 holds 2 inbound connections already"
        );
        per_ip.admit(id(3), &addr("/ip6/2600:1:2:4::1/tcp/5")).unwrap();
    }

    #[test]
    fn a_handshake_is_pending_until_it_ends_one_way_or_the_other() {
        let mut per_ip = PerIp::new(5, 2);
        let remote = addr("/ip4/8.8.1.1/tcp/5");
        let swarm_asks =
            |per_ip: &mut PerIp, n| per_ip.handle_pending_inbound_connection(id(n), &remote, &remote);
        swarm_asks(&mut per_ip, 1).unwrap();
        swarm_asks(&mut per_ip, 2).unwrap();
        let refused = swarm_asks(&mut per_ip, 3).unwrap_err();
        assert_eq!(
            refused.downcast::<TooManyFrom>().unwrap().to_string(),
            "8.8.1.1 has 2 inbound handshakes pending already"
        );
        for n in 1..=5 {
            per_ip
                .handle_established_inbound_connection(id(n), PeerId::random(), &remote, &remote)
                .unwrap();
            if n < 4 {
                swarm_asks(&mut per_ip, n + 2).unwrap();
            }
        }
        let refused = swarm_asks(&mut per_ip, 6).unwrap_err();
        assert_eq!(
            refused.downcast::<TooManyFrom>().unwrap(),
            TooManyFrom::Connections {
                block: Block("8.8.1.1".parse().unwrap()),
                limit: 5
            }
        );
        // Three end, three others fail before they are established; each gives its place back once.
        for n in 1..=3 {
            per_ip.release(id(n));
            per_ip.release(id(n));
        }
        for n in 6..12 {
            swarm_asks(&mut per_ip, n).unwrap();
            per_ip.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
                local_addr: &remote,
                send_back_addr: &remote,
                error: &libp2p::swarm::ListenError::Aborted,
                connection_id: id(n),
                peer_id: None,
            }));
        }
        assert_eq!(
            (
                per_ip.counts[&"8.8.1.1".parse::<IpAddr>().unwrap()].held,
                per_ip.connections.len()
            ),
            (2, 2)
        );
        for n in 4..=5 {
            per_ip.release(id(n));
        }
        assert!(per_ip.counts.is_empty() && per_ip.connections.is_empty());
    }

    #[test]
    fn local_and_relayed_connections_are_not_counted() {
        let mut per_ip = PerIp::new(1, 1);
        for n in 0..5 {
            per_ip.admit(id(n), &addr("/ip4/127.0.0.1/tcp/5")).unwrap();
            per_ip.admit(id(n), &addr("/ip4/10.0.0.1/tcp/5")).unwrap();
        }
        assert!(per_ip.counts.is_empty());
        let relayed = format!("/ip4/10.0.0.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        assert_eq!(ip_of(&addr(&relayed)), None);
    }
}
