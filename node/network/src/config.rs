//! What the network is told at start, and the constants every peer shares.
//!
//! Key names follow the operations contract §1.2 (`routing.*`); values every peer must share (topic, protocol names,
//! size bounds; p2p-wire §2, §4, §5) are constants.

use std::path::PathBuf;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::error::NetworkError;
use crate::wire::{gossip, rpc};

/// The DHT's name inside the process. On the wire it is `dir/kad/1.0.0`, without the slash (p2p-wire §3).
pub const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/dir/kad/1.0.0");

/// Fetching records from peers (p2p-wire §5).
pub const RPC_PROTOCOL: StreamProtocol = StreamProtocol::new("/dir/rpc/1.0.0");

/// The catch-up exchange between nodes of our kind; the reference does not know it.
pub const CATCH_UP_PROTOCOL: StreamProtocol = StreamProtocol::new("/dirnode/catchup/1");

/// Topic of announcements (p2p-wire §4.1).
pub const LABELS_TOPIC: &str = "dir/labels/v1";

/// Largest payload we announce: the frame around it must stay within 10,240 bytes at every hop (p2p-wire §4.1).
pub const MAX_ANNOUNCEMENT: usize = 10_000;

/// Largest gossip frame that nodes of the network take, length prefix not counted (p2p-wire §4.1).
pub const MAX_GOSSIP_FRAME: usize = gossip::MAX_FRAME_BYTES;

/// Largest gossip message, author, signature and topic included. A frame around it adds three bytes.
pub const MAX_ANNOUNCEMENT_FRAME: usize = MAX_GOSSIP_FRAME - 3;

/// Receive buffer of a gossip stream. It holds bursts of frames, so it is larger than one frame may be.
pub const GOSSIP_BUFFER: usize = 256 * 1024;

/// Announcements without a verdict are ignored after this time. The router keeps them five heartbeats of a second.
pub const VERDICT_DEADLINE: Duration = Duration::from_secs(3);

/// Announcements waiting for a verdict; above it they are ignored on arrival.
pub const MAX_AWAITING_VERDICT: usize = 4096;

/// Largest DHT message. 20 peers with many addresses pass the stock 16 KiB (p2p-wire §2.2).
pub const MAX_KAD_MESSAGE: usize = 256 * 1024;

/// A stream for DHT requests on which nothing comes is closed after this time, as the reference does (p2p-wire §2.2).
pub const DHT_IDLE: Duration = Duration::from_secs(60);

/// Longest DHT key (p2p-wire §2.4).
pub const MAX_KAD_KEY: usize = 80;

/// How long a provider record is kept (p2p-wire §2.7).
pub const PROVIDER_RECORD_TTL: Duration = Duration::from_secs(48 * 60 * 60);

/// Addresses kept for one peer.
pub const MAX_ADDRS_PER_PEER: usize = 8;

/// Longest address kept, in bytes.
pub const MAX_ADDR_BYTES: usize = 512;

/// Events waiting for their reader. Announcements are at most 10 KiB, so the queue holds at most 40 MiB.
pub const EVENT_QUEUE: usize = 4096;

/// Slots of the event queue that announcements and provider notices may not use, so that the rarer events about peers
/// and addresses still get through.
pub const EVENT_RESERVE: usize = 1024;
const _: () = assert!(EVENT_RESERVE < EVENT_QUEUE);

/// Commands waiting for the swarm task.
pub const COMMAND_QUEUE: usize = 1024;

/// DHT queries of callers at work at once. The query pool is scanned on every step, so it has to stay short.
pub const MAX_QUERIES: usize = 64;

/// DHT queries waiting for their turn; above it callers are told that we are busy.
pub const MAX_WAITING_QUERIES: usize = 1024;

/// One DHT query, measured from the time it starts to run.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest request of the RPC: service id and argument (p2p-wire §5, advice).
pub const MAX_RPC_REQUEST: usize = rpc::MAX_REQUEST_BYTES;

/// Largest answer of the RPC. A record has at most 4 MiB and its annotations may repeat it.
pub const MAX_RPC_REPLY: usize = rpc::MAX_REPLY_BYTES;

/// Largest message of the catch-up exchange, either way.
pub const MAX_CATCH_UP: usize = 256 * 1024;

/// How others see us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachability {
    /// Find out by asking peers to dial back.
    #[default]
    Auto,
    /// Taken as reachable: relay service starts, listen addresses are offered.
    Public,
    /// Taken as behind a NAT: a relay is looked for at once.
    Private,
}

/// What a node is to the network; derived from [`Config::bootstrap`] once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Others join through it; it is ready with no peers.
    Bootstrap,
    /// Joins through its bootstrap peers.
    Member,
}

impl Role {
    /// Name in logs and listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::Member => "member",
        }
    }
}

/// Bounds on what peers may take. Zero is never "without limit".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes of inbound connections at once.
    pub pending_inbound: u32,
    /// Outbound dials at once.
    pub pending_outbound: u32,
    /// Established inbound connections.
    pub established_inbound: u32,
    /// Established outbound connections.
    pub established_outbound: u32,
    /// Connections with one peer. Two peers that dial each other hold two.
    pub per_peer: u32,
    /// Inbound connections from one public IP address, or the 2^64 IPv6 addresses of one prefix; behind a private one may
    /// be a whole cluster.
    pub per_ip: u32,
    /// Of these, such as are still in their handshake. Silent ones keep their place for 15 s.
    pub pending_per_ip: u32,
    /// Refuse connections when more bytes of the process are resident than this; the store's caches count. `None` is nine
    /// tenths of what the control group or the machine has, read at the start.
    pub memory_bytes: Option<usize>,
    /// RPC and catch-up requests served at once.
    pub served: usize,
    /// Of these, for one peer.
    pub served_per_peer: usize,
    /// Provider records kept for others.
    pub provider_records: usize,
    /// One call of ours to a peer, connecting included.
    pub call_timeout: Duration,
    /// How long a served stream may take to send its whole request, and any stream of the DHT, of gossip and of identify
    /// pushes to send one message.
    pub read_timeout: Duration,
    /// How long the library may take to answer.
    pub serve_timeout: Duration,
    /// How long a peer may take to read an answer.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pending_inbound: 128,
            pending_outbound: 128,
            established_inbound: 400,
            established_outbound: 400,
            per_peer: 2,
            per_ip: 32,
            pending_per_ip: 8,
            memory_bytes: None,
            served: 128,
            served_per_peer: 8,
            provider_records: 2_000_000,
            call_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(15),
            serve_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
        }
    }
}

/// What the network is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on; TCP, QUIC v1 and, in tests, memory.
    pub listen: Vec<Multiaddr>,
    /// Addresses under which peers reach us, when we know better than the network (load balancer, published port).
    pub announce: Vec<Multiaddr>,
    /// Peers to join through, each ending in `/p2p/<id>`; empty makes this a bootstrap node. Entries that name the node
    /// itself are left out when it starts, so that all nodes may have one list.
    pub bootstrap: Vec<Multiaddr>,
    /// How others see us.
    pub reachability: Reachability,
    /// Serve as a circuit relay once we are public.
    pub relay_service: bool,
    /// Relays to reserve at, each ending in `/p2p/<id>`; empty takes peers that offer the service.
    pub static_relays: Vec<Multiaddr>,
    /// Join the labels topic.
    pub gossip: bool,
    /// Look for peers on the local network.
    pub mdns: bool,
    /// Ask the gateway for a port mapping.
    pub upnp: bool,
    /// Advertised as `/dir/<value>`.
    pub directory_api_address: Option<String>,
    /// Advertised as `/oci/<value>`.
    pub directory_oci_address: Option<String>,
    /// Connections below which none is closed to save resources.
    pub low_water: usize,
    /// Connections above which the least useful are closed.
    pub high_water: usize,
    /// Connections younger than this are not closed to save resources.
    pub grace: Duration,
    /// Bounds on what peers may take.
    pub limits: Limits,
    /// Routing table refresh.
    pub refresh_interval: Duration,
    /// Connections without any use are closed after this time. Below ten minutes peers of the reference suffer.
    pub idle_timeout: Duration,
    /// What identify says we are.
    pub agent_version: String,
    /// File that keeps the provider records of others over a restart; `None` keeps them in memory.
    pub providers_path: Option<PathBuf>,
    /// Accept and dial `/memory/…` addresses: tests within one process.
    pub memory_transport: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![default_listen()],
            announce: Vec::new(),
            bootstrap: Vec::new(),
            reachability: Reachability::Auto,
            relay_service: false,
            static_relays: Vec::new(),
            gossip: true,
            mdns: false,
            upnp: false,
            directory_api_address: None,
            directory_oci_address: None,
            low_water: 50,
            high_water: 200,
            grace: Duration::from_secs(120),
            limits: Limits::default(),
            refresh_interval: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(15 * 60),
            agent_version: concat!("dirnode/", env!("CARGO_PKG_VERSION")).to_owned(),
            providers_path: None,
            memory_transport: false,
        }
    }
}

/// `/ip4/0.0.0.0/tcp/8999` (operations §1.2).
fn default_listen() -> Multiaddr {
    Multiaddr::empty()
        .with(Protocol::Ip4(std::net::Ipv4Addr::UNSPECIFIED))
        .with(Protocol::Tcp(8999))
}

/// The peer id at the end of an address.
#[must_use]
pub fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        _ => None,
    }
}

impl Config {
    /// What this node is to the network.
    #[must_use]
    pub fn role(&self) -> Role {
        if self.bootstrap.is_empty() {
            Role::Bootstrap
        } else {
            Role::Member
        }
    }

    /// Takes the bootstrap peers that are the node itself out, and returns them.
    pub(crate) fn leave_out(&mut self, own: &PeerId) -> Vec<Multiaddr> {
        self.bootstrap
            .extract_if(.., |addr| peer_of(addr) == Some(*own))
            .collect()
    }

    /// Checks every field and names every fault.
    ///
    /// # Errors
    /// [`NetworkError::Config`] with one line per fault.
    pub fn check(&self) -> Result<(), NetworkError> {
        let mut faults = Vec::new();
        for (key, addrs) in [
            ("bootstrap_peers", &self.bootstrap),
            ("static_relays", &self.static_relays),
        ] {
            for addr in addrs {
                if peer_of(addr).is_none() {
                    faults.push(format!(
                        "{key}: {addr} has no peer id; end it with /p2p/<peer id>"
                    ));
                }
            }
        }
        for addr in &self.listen {
            let memory = addr.iter().any(|part| matches!(part, Protocol::Memory(_)));
            if memory && !self.memory_transport {
                faults.push(format!(
                    "listen_address: {addr} is a memory address; only tests use them"
                ));
            }
        }
        for (key, value) in [
            ("directory_api_address", &self.directory_api_address),
            ("directory_oci_address", &self.directory_oci_address),
        ] {
            if value.as_ref().is_some_and(|text| text.len() > 255) {
                faults.push(format!("{key}: longer than 255 bytes"));
            }
        }
        if self.low_water > self.high_water {
            faults.push(format!(
                "low water {} is above high water {}",
                self.low_water, self.high_water
            ));
        }
        if self.refresh_interval < Duration::from_secs(1) {
            faults.push(format!(
                "refresh_interval: {} ms is below one second",
                self.refresh_interval.as_millis()
            ));
        }
        if self.agent_version.is_empty() || self.agent_version.len() > 128 {
            faults.push("agent version: needs 1 to 128 bytes".to_owned());
        }
        let limits = &self.limits;
        for (name, value) in [
            ("pending_inbound", limits.pending_inbound),
            ("pending_outbound", limits.pending_outbound),
            ("established_inbound", limits.established_inbound),
            ("established_outbound", limits.established_outbound),
            ("per_peer", limits.per_peer),
            ("per_ip", limits.per_ip),
            ("pending_per_ip", limits.pending_per_ip),
        ] {
            if value == 0 {
                faults.push(format!("limit {name}: 0 would refuse everyone"));
            }
        }
        for (name, value) in [
            ("call_timeout", limits.call_timeout),
            ("read_timeout", limits.read_timeout),
            ("serve_timeout", limits.serve_timeout),
            ("write_timeout", limits.write_timeout),
        ] {
            if value.is_zero() {
                faults.push(format!("limit {name}: 0 would end everything at once"));
            }
        }
        if limits.served == 0 || limits.served_per_peer == 0 {
            faults.push("limits served, served_per_peer: 0 would refuse everyone".to_owned());
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(NetworkError::Config { faults })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_contract_s() {
        let config = Config::default();
        config.check().unwrap();
        assert_eq!(config.listen[0].to_string(), "/ip4/0.0.0.0/tcp/8999");
        assert_eq!(config.role(), Role::Bootstrap);
        assert_eq!((config.low_water, config.high_water), (50, 200));
        assert_eq!(config.refresh_interval, Duration::from_secs(30));
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let config = Config {
            bootstrap: vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap()],
            low_water: 300,
            refresh_interval: Duration::ZERO,
            listen: vec!["/memory/1".parse().unwrap()],
            ..Config::default()
        };
        let Err(NetworkError::Config { faults }) = config.check() else {
            panic!("taken");
        };
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].contains("/ip4/10.0.0.1/tcp/1"));
    }

    #[test]
    fn a_node_is_not_among_its_own_bootstrap_peers() {
        let (own, other) = (PeerId::random(), PeerId::random());
        let at = |peer: PeerId| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}").parse().unwrap() };
        let mut config = Config {
            bootstrap: vec![at(own), at(other), at(own)],
            ..Config::default()
        };
        assert_eq!(config.leave_out(&own), [at(own), at(own)]);
        assert_eq!(
            (config.bootstrap.as_slice(), config.role()),
            (&[at(other)][..], Role::Member)
        );
        config.leave_out(&other);
        assert_eq!(config.role(), Role::Bootstrap);
    }

    #[test]
    fn a_node_with_bootstrap_peers_is_a_member() {
        let config = Config {
            bootstrap: vec![
                format!("/ip4/10.0.0.1/tcp/1/p2p/{}", PeerId::random())
                    .parse()
                    .unwrap(),
            ],
            ..Config::default()
        };
        config.check().unwrap();
        assert_eq!(config.role(), Role::Member);
    }
}
