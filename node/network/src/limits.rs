//! How many inbound connections one IP address may hold: a small behaviour.
//!
//! Counts connections from the first packet on, so that silent handshakes count too. Soft state, bounded by the
//! connections there are.

use std::collections::HashMap;
use std::convert::Infallible;
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

/// One IP address holds as many inbound connections as it may.
#[derive(Debug, thiserror::Error)]
#[error("{ip} holds {limit} inbound connections already")]
struct TooManyFrom {
    ip: IpAddr,
    limit: u32,
}

/// Counts inbound connections by IP address.
#[derive(Debug)]
pub(crate) struct PerIp {
    limit: u32,
    connections: HashMap<ConnectionId, IpAddr>,
    counts: HashMap<IpAddr, u32>,
}

impl PerIp {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            connections: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    fn admit(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        // Behind one private address may be a whole cluster, or everybody, where a balancer hides the callers.
        if scope(remote) != Scope::Public {
            return Ok(());
        }
        let Some(ip) = ip_of(remote) else {
            return Ok(());
        };
        let count = self.counts.entry(ip).or_insert(0);
        if *count >= self.limit {
            let limit = self.limit;
            return Err(ConnectionDenied::new(TooManyFrom { ip, limit }));
        }
        *count = count.saturating_add(1);
        self.connections.insert(id, ip);
        Ok(())
    }

    fn release(&mut self, id: ConnectionId) {
        let Some(ip) = self.connections.remove(&id) else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&ip) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&ip);
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
        self.admit(id, remote)
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
        let mut per_ip = PerIp::new(2);
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

    #[test]
    fn local_and_relayed_connections_are_not_counted() {
        let mut per_ip = PerIp::new(1);
        for n in 0..5 {
            per_ip.admit(id(n), &addr("/ip4/127.0.0.1/tcp/5")).unwrap();
            per_ip.admit(id(n), &addr("/ip4/10.0.0.1/tcp/5")).unwrap();
        }
        assert!(per_ip.counts.is_empty());
        let relayed = format!("/ip4/10.0.0.1/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        assert_eq!(ip_of(&addr(&relayed)), None);
    }
}
