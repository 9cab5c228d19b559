//! Which of a peer's addresses are of use to us, by where the peer is seen from.
//!
//! The reference sorts addresses by the class of the connection's remote address (p2p-wire §1.6), and so do we: a
//! peer on this machine may be dialled on loopback, one on the local network on private addresses, one on the
//! internet on public ones only. Pure functions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::config::{MAX_ADDR_BYTES, MAX_ADDRS_PER_PEER};
use crate::limits::ip_of;

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nowhere: unspecified, multicast, documentation.
    None,
    /// This machine, or this process.
    Loopback,
    /// The local network.
    Private,
    /// Everywhere, names and relays included.
    Public,
}

/// How far an address reaches.
#[must_use]
pub fn scope(addr: &Multiaddr) -> Scope {
    if addr.iter().any(|part| matches!(part, Protocol::P2pCircuit)) {
        return Scope::Public;
    }
    match addr.iter().next() {
        Some(Protocol::Memory(_)) => Scope::Loopback,
        Some(Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) | Protocol::Dnsaddr(name)) => {
            if name == "localhost" || name.ends_with(".localhost") {
                Scope::Loopback
            } else {
                Scope::Public
            }
        }
        _ => match ip_of(addr) {
            Some(IpAddr::V4(ip)) => scope_v4(ip),
            Some(IpAddr::V6(ip)) => scope_v6(ip),
            None => Scope::None,
        },
    }
}

fn scope_v4(ip: Ipv4Addr) -> Scope {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_private() || ip.is_link_local() || shared {
        Scope::Private
    } else if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_documentation() {
        Scope::None
    } else {
        Scope::Public
    }
}

fn scope_v6(ip: Ipv6Addr) -> Scope {
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() {
        Scope::Loopback
    } else if ip.is_unicast_link_local() || ip.is_unique_local() {
        Scope::Private
    } else if ip.is_unspecified() || ip.is_multicast() || (first == 0x2001 && second == 0x0db8) {
        Scope::None
    } else {
        Scope::Public
    }
}

/// The addresses of `peer`, seen through a connection to `remote`, that we may dial: bounded, without doubles, with a
/// trailing peer id taken off.
pub(crate) fn usable(
    peer: &PeerId,
    remote: &Multiaddr,
    addrs: impl IntoIterator<Item = Multiaddr>,
) -> Vec<Multiaddr> {
    // What loopback reaches sees everything; what the internet reaches sees only public addresses.
    let least = match scope(remote) {
        Scope::None | Scope::Loopback => Scope::Loopback,
        Scope::Private => Scope::Private,
        Scope::Public => Scope::Public,
    };
    let mut kept: Vec<Multiaddr> = Vec::new();
    for addr in addrs {
        let Some(addr) = without_peer(peer, addr) else {
            continue;
        };
        if addr.len() <= MAX_ADDR_BYTES && scope(&addr) >= least && !kept.contains(&addr) {
            kept.push(addr);
        }
        if kept.len() >= MAX_ADDRS_PER_PEER {
            break;
        }
    }
    kept
}

/// The address without its trailing peer id; none when it names somebody else or nothing is left.
pub(crate) fn without_peer(peer: &PeerId, mut addr: Multiaddr) -> Option<Multiaddr> {
    if let Some(Protocol::P2p(named)) = addr.iter().last() {
        if named != *peer {
            return None;
        }
        addr.pop();
    }
    (!addr.is_empty()).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn check(text: &str, expected: Scope) {
        assert_eq!(scope(&addr(text)), expected, "{text}");
    }

    #[test]
    fn addresses_reach_as_far_as_their_front_says() {
        check("/ip4/127.0.0.1/tcp/1", Scope::Loopback);
        check("/ip6/::1/udp/1/quic-v1", Scope::Loopback);
        check("/memory/7", Scope::Loopback);
        check("/dns4/localhost/tcp/1", Scope::Loopback);
        check("/ip4/10.1.2.3/tcp/1", Scope::Private);
        check("/ip4/100.64.0.1/tcp/1", Scope::Private);
        check("/ip6/fd00::1/tcp/1", Scope::Private);
        check("/ip4/8.8.8.8/tcp/1", Scope::Public);
        check("/ip6/2600::1/tcp/1", Scope::Public);
        check("/dns/dir.example.com/tcp/1", Scope::Public);
        check("/ip4/0.0.0.0/tcp/1", Scope::None);
        check("/ip6/ff02::1/udp/1", Scope::None);
        check("/ip6/2001:db8::1/tcp/1", Scope::None);
    }

    #[test]
    fn a_peer_on_the_internet_gives_no_private_address() {
        let peer = PeerId::random();
        let all = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/8.8.8.8/tcp/1",
        ]
        .map(addr);
        let seen_from = |remote: &str| usable(&peer, &addr(remote), all.clone()).len();
        assert_eq!(seen_from("/ip4/127.0.0.1/tcp/9"), 3);
        assert_eq!(seen_from("/ip4/10.0.0.9/tcp/9"), 2);
        assert_eq!(seen_from("/ip4/9.9.9.9/tcp/9"), 1);
    }

    #[test]
    fn addresses_are_bounded_and_name_their_own_peer() {
        let peer = PeerId::random();
        let many = (1..100u16).map(|port| addr(&format!("/ip4/8.8.8.8/tcp/{port}")));
        let remote = addr("/ip4/9.9.9.9/tcp/9");
        assert_eq!(usable(&peer, &remote, many).len(), MAX_ADDRS_PER_PEER);
        let own = addr(&format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}"));
        let foreign = addr(&format!("/ip4/8.8.8.8/tcp/2/p2p/{}", PeerId::random()));
        let twice = addr("/ip4/8.8.8.8/tcp/1");
        assert_eq!(usable(&peer, &remote, [own, foreign, twice.clone()]), [twice]);
    }
}
