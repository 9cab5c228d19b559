//! Whether a port is free for the network to listen on.
//!
//! The swarm's own sockets share their ports so that connections can be opened from them, and two nodes of one user on
//! one port would both start and each get some of the peers. So the port is tried without sharing first. Never keeps a
//! port, and says nothing of addresses without a fixed one. State: none.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use socket2::{Domain, Protocol as Carrier, Socket, Type};

/// Tries a multiaddr of a TCP or UDP port; anything else, and port 0, is left to the network.
///
/// # Errors
/// What the operating system says when the port is taken or the address is not this machine's.
pub(crate) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some((socket, kind, carrier)) = socket_of(address) else {
        return Ok(());
    };
    let probe = Socket::new(Domain::for_address(socket), kind, Some(carrier))?;
    if socket.is_ipv6() {
        probe.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // Connections of a node that has just ended must not keep its port from the next.
        probe.set_reuse_address(true)?;
    }
    probe.bind(&socket.into())?;
    if kind == Type::STREAM {
        probe.listen(1)?;
    }
    Ok(())
}

/// The socket behind `/ip4/127.0.0.1/tcp/8999`, `/ip6/::/udp/8999/quic-v1` and the like.
fn socket_of(address: &Multiaddr) -> Option<(SocketAddr, Type, Carrier)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let (port, kind, carrier) = match parts.next()? {
        Protocol::Tcp(port) => (port, Type::STREAM, Carrier::TCP),
        Protocol::Udp(port) => (port, Type::DGRAM, Carrier::UDP),
        _ => return None,
    };
    (port != 0).then_some((SocketAddr::new(ip, port), kind, carrier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_others_share_is_not_free() {
        for (kind, carrier, tail) in [
            (Type::STREAM, Carrier::TCP, "tcp"),
            (Type::DGRAM, Carrier::UDP, "udp"),
        ] {
            let taken = Socket::new(Domain::IPV4, kind, Some(carrier)).unwrap();
            taken.set_reuse_address(true).unwrap();
            #[cfg(unix)]
            taken.set_reuse_port(true).unwrap();
            taken.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            if kind == Type::STREAM {
                taken.listen(1).unwrap();
            }
            let port = taken.local_addr().unwrap().as_socket().unwrap().port();
            let address: Multiaddr = format!("/ip4/127.0.0.1/{tail}/{port}").parse().unwrap();
            let error = check_free(&address).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{address}");
            drop(taken);
            check_free(&address).unwrap();
        }
    }

    #[test]
    fn what_is_no_fixed_port_of_this_machine_is_left_to_the_network() {
        for address in [
            "/ip4/127.0.0.1/tcp/0",
            "/dns/dir.example.org/tcp/8999",
            "/memory/7",
            "/ip4/127.0.0.1",
        ] {
            check_free(&address.parse().unwrap()).unwrap();
        }
    }
}
