//! The sockets of local discovery: one for each interface address, in the multicast group.
//!
//! Several programs of a machine share the port. Only packets from an interface's own network are let through: the
//! port is open to everyone, the conversation is not (RFC 6762 §11).

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use if_addrs::{IfAddr, get_if_addrs};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Interface addresses that are listened on. A machine with more of them is a host of containers.
const MAX_LINKS: usize = 16;
/// Packets from elsewhere that are thrown away in one go.
const MAX_STRANGERS: usize = 16;

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    ip: IpAddr,
    index: u32,
    prefix_len: u8,
}

/// The addresses of all interfaces but the loopback; or of that alone, for tests.
pub(super) fn links(loopback: bool) -> io::Result<Vec<Link>> {
    let mut links: Vec<Link> = get_if_addrs()?
        .into_iter()
        .filter(|interface| interface.is_loopback() == loopback)
        .filter_map(|interface| {
            let prefix_len = match &interface.addr {
                IfAddr::V4(v4) => v4.prefixlen,
                IfAddr::V6(v6) => v6.prefixlen,
            };
            Some(Link {
                ip: interface.ip(),
                index: interface.index?,
                prefix_len,
            })
        })
        .collect();
    links.sort_unstable();
    // One of an interface's IPv6 addresses is enough, the group is joined by interface.
    links.dedup_by(|one, other| one.ip.is_ipv6() && other.ip.is_ipv6() && one.index == other.index);
    links.truncate(MAX_LINKS);
    Ok(links)
}

/// The sockets of a set of links.
#[derive(Debug)]
pub(super) struct Sockets {
    links: Vec<Link>,
    sockets: Vec<(UdpSocket, SocketAddr)>,
}

impl Sockets {
    /// Opens what can be opened; an interface that refuses is logged and left out.
    pub(super) fn open(links: Vec<Link>, port: u16) -> Self {
        let mut sockets = Vec::with_capacity(links.len());
        for link in &links {
            match open(link, port) {
                Ok(socket) => sockets.push(socket),
                Err(error) => {
                    tracing::debug!(component = "mdns", address = %link.ip, %error, "no multicast on interface");
                }
            }
        }
        Self { links, sockets }
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// The next packet of a neighbour, in `buffer`; what is longer is cut. Waits forever without a socket.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> usize {
        poll_fn(|cx| {
            let mut more = false;
            for (socket, _) in &self.sockets {
                // A few in a row, so that a flood from afar does not keep other sockets and tasks waiting.
                let mut strangers = 0;
                while strangers < MAX_STRANGERS {
                    let mut read = ReadBuf::new(buffer);
                    match socket.poll_recv_from(cx, &mut read) {
                        Poll::Ready(Ok(from)) if self.is_neighbour(from.ip()) => {
                            return Poll::Ready(read.filled().len());
                        }
                        Poll::Ready(_) => strangers += 1,
                        Poll::Pending => break,
                    }
                }
                more |= strangers == MAX_STRANGERS;
            }
            if more {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    fn is_neighbour(&self, ip: IpAddr) -> bool {
        self.links.iter().any(|link| link.contains(ip))
    }

    /// Sends to the group on every interface; an interface that is gone is noticed elsewhere.
    pub(super) async fn send(&self, packet: &[u8]) {
        for (socket, group) in &self.sockets {
            if let Err(error) = socket.send_to(packet, group).await {
                tracing::debug!(component = "mdns", %error, "packet was not sent");
            }
        }
    }
}

impl Link {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32u32.saturating_sub(u32::from(self.prefix_len));
                let network = |ip: Ipv4Addr| ip.to_bits().checked_shr(shift).unwrap_or(0);
                network(own) == network(other)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128u32.saturating_sub(u32::from(self.prefix_len));
                let network = |ip: Ipv6Addr| ip.to_bits().checked_shr(shift).unwrap_or(0);
                // Every address in the link-local block is on the link.
                other.is_unicast_link_local() || network(own) == network(other)
            }
            _ => false,
        }
    }
}

fn open(link: &Link, port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let domain = Domain::for_address(SocketAddr::new(link.ip, port));
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    let (any, group): (IpAddr, SocketAddr) = match link.ip {
        IpAddr::V4(ip) => {
            socket.join_multicast_v4(&GROUP_V4, &ip)?;
            socket.set_multicast_if_v4(&ip)?;
            socket.set_multicast_loop_v4(true)?;
            socket.set_multicast_ttl_v4(255)?;
            (Ipv4Addr::UNSPECIFIED.into(), (GROUP_V4, port).into())
        }
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.join_multicast_v6(&GROUP_V6, link.index)?;
            socket.set_multicast_if_v6(link.index)?;
            socket.set_multicast_loop_v6(true)?;
            socket.set_multicast_hops_v6(255)?;
            (Ipv6Addr::UNSPECIFIED.into(), (GROUP_V6, port).into())
        }
    };
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(any, port).into())?;
    Ok((UdpSocket::from_std(socket.into())?, group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_those_of_the_interfaces_networks() {
        let link = |ip: &str, prefix_len| Link {
            ip: ip.parse().unwrap(),
            index: 1,
            prefix_len,
        };
        let check = |link: &Link, ip: &str| link.contains(ip.parse().unwrap());
        let v4 = link("10.1.2.3", 24);
        assert!(check(&v4, "10.1.2.200"));
        assert!(!check(&v4, "10.1.3.200"));
        assert!(!check(&v4, "fe80::1"));
        assert!(check(&link("10.1.2.3", 0), "8.8.8.8"));
        assert!(!check(&link("10.1.2.3", 32), "10.1.2.4"));
        let v6 = link("2001:db8::1", 64);
        assert!(check(&v6, "2001:db8::ffff"));
        assert!(check(&v6, "fe80::9"));
        assert!(!check(&v6, "2001:db8:1::1"));
        assert!(check(&link("::1", 0), "2001:db8:1::1"));
    }
}
