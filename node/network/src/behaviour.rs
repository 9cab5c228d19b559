//! Everything the swarm does, in the order in which it is asked.
//!
//! Limits and block lists come first, so that a refused connection reaches nothing else.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::metrics::Registry;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, allow_block_list, autonat, connection_limits, dcutr, gossipsub, identify, kad,
    memory_connection_limits, ping, relay, upnp,
};

use crate::book::Book;
use crate::config::{
    CATCH_UP_PROTOCOL, Config, KAD_PROTOCOL, MAX_KAD_MESSAGE, PROVIDER_RECORD_TTL, QUERY_TIMEOUT,
    RPC_PROTOCOL, Reachability,
};
use crate::error::NetworkError;
use crate::gossip;
use crate::limits::PerIp;
use crate::memory;
use crate::providers::ProviderStore;
use crate::streams::Streams;

/// Where provider records are kept.
pub(crate) type Store = ProviderStore;

/// Peers asked at once by one query; the reference asks ten (p2p-wire §2.7).
const PARALLELISM: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// One request to one peer, stream opening included.
const KAD_STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two pings of a connection.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The composed behaviour.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) memory: Toggle<memory_connection_limits::Behaviour>,
    pub(crate) per_ip: PerIp,
    pub(crate) blocked: allow_block_list::Behaviour<allow_block_list::BlockedPeers>,
    pub(crate) book: Book,
    pub(crate) kad: kad::Behaviour<Store>,
    pub(crate) gossip: Toggle<gossipsub::Behaviour>,
    pub(crate) identify: identify::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) autonat: Toggle<autonat::v1::Behaviour>,
    pub(crate) relay_client: relay::client::Behaviour,
    pub(crate) relay_server: Toggle<relay::Behaviour>,
    pub(crate) dcutr: dcutr::Behaviour,
    pub(crate) upnp: Toggle<upnp::tokio::Behaviour>,
    pub(crate) streams: Streams,
}

impl Behaviour {
    pub(crate) fn new(
        config: &Config,
        keypair: &Keypair,
        relay_client: relay::client::Behaviour,
        store: Store,
        serves_records: bool,
        registry: &mut Registry,
    ) -> Result<Self, NetworkError> {
        let id = keypair.public().to_peer_id();
        let limits = &config.limits;
        let mut offered = Vec::new();
        if serves_records {
            offered.extend([RPC_PROTOCOL, CATCH_UP_PROTOCOL]);
        }
        let relay_server = config
            .relay_service
            .then(|| relay::Behaviour::new(id, relay::Config::default()))
            .map(|mut server| {
                // Left to itself the service would start with the first external address, and ours may reach no
                // farther than the local network. It follows the verdict on our reachability instead.
                server.set_status(Some(relay_status(config.reachability == Reachability::Public)));
                server
            });
        Ok(Self {
            limits: connection_limits::Behaviour::new(
                connection_limits::ConnectionLimits::default()
                    .with_max_pending_incoming(Some(limits.pending_inbound))
                    .with_max_pending_outgoing(Some(limits.pending_outbound))
                    .with_max_established_incoming(Some(limits.established_inbound))
                    .with_max_established_outgoing(Some(limits.established_outbound))
                    .with_max_established_per_peer(Some(limits.per_peer)),
            ),
            memory: limits
                .memory_bytes
                .or_else(memory::default_limit)
                .inspect(|bytes| tracing::debug!(bytes, "connections are refused above this much memory"))
                .map(memory_connection_limits::Behaviour::with_max_bytes)
                .into(),
            per_ip: PerIp::new(limits.per_ip, limits.pending_per_ip),
            blocked: allow_block_list::Behaviour::default(),
            book: Book::new(),
            kad: kad_behaviour(id, config, store),
            gossip: if config.gossip {
                Some(gossip::behaviour(keypair, registry)?).into()
            } else {
                None.into()
            },
            // protocolVersion is empty at peers of the reference as well, and no signed record is sent: theirs has
            // another form, and they would prefer its addresses over the plain ones (p2p-wire §1.6).
            identify: identify::Behaviour::new(
                identify::Config::new(String::new(), keypair.public())
                    .with_agent_version(config.agent_version.clone())
                    .with_push_listen_addr_updates(true)
                    .with_cache_size(0),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            autonat: (config.reachability != Reachability::Private)
                .then(|| autonat::v1::Behaviour::new(id, autonat::v1::Config::default()))
                .into(),
            relay_client,
            relay_server: relay_server.into(),
            dcutr: dcutr::Behaviour::new(id),
            upnp: config.upnp.then(upnp::tokio::Behaviour::default).into(),
            streams: Streams::new(offered),
        })
    }
}

/// Whether we offer to relay.
pub(crate) fn relay_status(public: bool) -> relay::Status {
    if public {
        relay::Status::Enable
    } else {
        relay::Status::Disable
    }
}

fn kad_behaviour(id: PeerId, config: &Config, store: Store) -> kad::Behaviour<Store> {
    let mut settings = kad::Config::new(KAD_PROTOCOL);
    settings
        .set_query_timeout(QUERY_TIMEOUT)
        .set_parallelism(PARALLELISM)
        .set_max_packet_size(MAX_KAD_MESSAGE)
        .set_substreams_timeout(KAD_STREAM_TIMEOUT)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_RECORD_TTL))
        // The stock jobs clone the whole store and run flat out; republishing is spread by `routing`.
        .set_provider_publication_interval(None)
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_caching(kad::Caching::Disabled)
        .set_periodic_bootstrap_interval(Some(config.refresh_interval));
    let mut kad = kad::Behaviour::with_config(id, store, settings);
    // Client mode would take the protocol out of identify, and peers of the reference would drop us (p2p-wire §2.7).
    kad.set_mode(Some(kad::Mode::Server));
    kad
}
