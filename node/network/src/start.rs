//! Starting the network: configuration in, a handle, an event queue and the task to run out.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use libp2p::identity::Keypair;
use libp2p::metrics::Registry;
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Parts};
use crate::behaviour::Behaviour;
use crate::config::{COMMAND_QUEUE, Config, DHT_IDLE, EVENT_QUEUE};
use crate::endpoints::KnownEndpoints;
use crate::error::NetworkError;
use crate::event::NetworkEvent;
use crate::handle::NetworkHandle;
use crate::library::Library;
use crate::mdns::{Mdns, MdnsConfig, Neighbour};
use crate::metrics::Metrics;
use crate::ports;
use crate::providers::{FileLog, ProviderConfig, ProviderStore};
use crate::rpc::server::Server;
use crate::runtime::Runtime;
use crate::shim::{Deadlines, EndpointBook, OwnEndpoints, Renames, Shim, ShimConfig};
use crate::transport;
use crate::wire::{Endpoint, EndpointKind};

/// Events that a slow watcher may be behind before it loses some.
const WATCH_QUEUE: usize = 512;

/// Seconds since 1970.
type SecondsClock = Arc<dyn Fn() -> u64 + Send + Sync>;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Streams of one connection negotiating at once.
const MAX_NEGOTIATING: usize = 128;

/// A started network: the handle to ask, the events to read, the task to run.
pub struct Network {
    /// Asks the swarm task.
    pub handle: NetworkHandle,
    /// Everything that happens; read it, or announcements are dropped.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// The swarm task. It ends after [`NetworkHandle::shutdown`] or when every handle is gone; nothing happens
    /// before it is polled.
    pub task: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Network {
    /// Opens the listen addresses and prepares the swarm task. Has to be called within a tokio runtime.
    ///
    /// Without a `library` the node serves no records and does not offer the protocols for them. Bootstrap peers that
    /// are the node itself are left out; [`NetworkHandle::role`] is what it then is.
    ///
    /// # Errors
    /// [`NetworkError::Config`] with every fault; [`NetworkError::Listen`]; [`NetworkError::Internal`].
    pub fn start(
        mut config: Config,
        keypair: &Keypair,
        library: Option<Arc<dyn Library>>,
        registry: &mut Registry,
        runtime: Runtime,
    ) -> Result<Self, NetworkError> {
        config.check()?;
        // QUIC and TLS ask for the provider of the process; a second attempt finds the first one's and is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let id = keypair.public().to_peer_id();
        for addr in &config.listen {
            ports::check_free(addr).map_err(|error| NetworkError::Listen {
                addr: addr.clone(),
                reason: error.to_string(),
            })?;
        }
        for addr in config.leave_out(&id) {
            tracing::info!(multiaddr = %addr, "bootstrap peer left out, it is this node");
        }
        let (role, bootstrap) = (config.role(), config.bootstrap.clone().into());
        let metrics = Arc::new(Metrics::new(registry));
        let libp2p_metrics = libp2p::metrics::Metrics::new(registry);
        let own_endpoints = own_endpoints(&config)?;
        let clock = Arc::clone(&runtime.clock);
        let seconds: SecondsClock = Arc::new(move || u64::try_from(clock() / NANOS_PER_SECOND).unwrap_or(0));
        let endpoints = Arc::new(KnownEndpoints::new(Arc::clone(&seconds)));
        let book: Arc<dyn EndpointBook> = Arc::clone(&endpoints) as _;
        let (shim, taps) = Shim::new(ShimConfig {
            local_peer: id,
            renames: Renames::network(),
            own: own_endpoints,
            book: Some(book),
            clock: Arc::clone(&seconds),
            deadlines: Some(Deadlines {
                message: config.limits.read_timeout,
                idle: DHT_IDLE,
            }),
        });
        shim.metrics()
            .register(registry.sub_registry_with_prefix("dirnode_network"));
        let (transport, relay_client) =
            transport::build(keypair, config.memory_transport, move |peer, muxer| {
                shim.wrap(peer, muxer)
            })?;
        let store = provider_store(id, &config, Arc::clone(&seconds), registry);
        let behaviour = Behaviour::new(&config, keypair, relay_client, store, library.is_some(), registry)?;
        let spawn = Arc::clone(&runtime.spawn);
        let swarm_config =
            libp2p::swarm::Config::with_executor(move |task| spawn("network.connection", task))
                .with_idle_connection_timeout(config.idle_timeout)
                .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
        let swarm = Swarm::new(transport, behaviour, id, swarm_config);
        let server = library
            .map(|library| Server::new(library, &config.limits, runtime.clone(), Arc::clone(&metrics)));
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
        let (watchers, _) = broadcast::channel(WATCH_QUEUE);
        let stop = CancellationToken::new();
        let call_timeout = config.limits.call_timeout;
        let (announced_to_link, listening) = watch::channel(Vec::new());
        let neighbours = if config.mdns {
            discover(id, listening, registry, &runtime, stop.clone())
        } else {
            None
        };
        let actor = Actor::new(Parts {
            config,
            runtime,
            swarm,
            commands: command_queue,
            events,
            watchers: watchers.clone(),
            stop: stop.clone(),
            metrics: Arc::clone(&metrics),
            libp2p_metrics,
            server,
            taps,
            endpoints,
            neighbours,
            announced_to_link,
        })?;
        Ok(Self {
            handle: NetworkHandle {
                id,
                role,
                bootstrap,
                commands,
                events: watchers,
                stop,
                metrics,
                call_timeout,
            },
            events: event_queue,
            task: Box::pin(actor.run()),
        })
    }
}

/// What we advertise beside our addresses (p2p-wire §1.7).
fn own_endpoints(config: &Config) -> Result<OwnEndpoints, NetworkError> {
    let mut faults = Vec::new();
    let mut raw = Vec::new();
    for (key, kind, value) in [
        (
            "directory_api_address",
            EndpointKind::DirectoryApi,
            &config.directory_api_address,
        ),
        (
            "directory_oci_address",
            EndpointKind::Oci,
            &config.directory_oci_address,
        ),
    ] {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else {
            continue;
        };
        match Endpoint::new(kind, value) {
            Ok(endpoint) => raw.push(Bytes::from(endpoint.to_bytes())),
            Err(error) => faults.push(format!("{key}: {error}")),
        }
    }
    let own = OwnEndpoints::default();
    if let Err(error) = own.set(raw) {
        faults.push(format!("directory_api_address, directory_oci_address: {error}"));
    }
    if faults.is_empty() {
        Ok(own)
    } else {
        Err(NetworkError::Config { faults })
    }
}

/// The provider store, with what the last run kept in it.
fn provider_store(
    id: PeerId,
    config: &Config,
    clock: SecondsClock,
    registry: &mut Registry,
) -> ProviderStore {
    let bounds = ProviderConfig {
        max_records: config.limits.provider_records,
        ..ProviderConfig::default()
    };
    let mut store = ProviderStore::new(id, bounds, clock);
    store
        .metrics()
        .register(registry.sub_registry_with_prefix("dirnode_network"));
    if let Some(path) = &config.providers_path {
        match store.restore(Box::new(FileLog::new(path.clone()))) {
            Ok(loaded) => tracing::info!(path = %path.display(), ?loaded, "provider records read"),
            // Others announce again within two days; a node that refused to start would help nobody.
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "provider records kept in memory only");
            }
        }
    }
    store
}

/// Starts looking for peers on the link; none where the machine does not let us.
fn discover(
    id: PeerId,
    listening: watch::Receiver<Vec<Multiaddr>>,
    registry: &mut Registry,
    runtime: &Runtime,
    stop: CancellationToken,
) -> Option<mpsc::Receiver<Neighbour>> {
    match Mdns::new(MdnsConfig::new(id), listening, &mut rand::rng()) {
        Ok((task, found)) => {
            task.metrics()
                .register(registry.sub_registry_with_prefix("dirnode_network"));
            (runtime.spawn)(
                "network.mdns",
                Box::pin(async move {
                    if let Err(error) = task.run(stop).await {
                        tracing::warn!(%error, "local discovery ended");
                    }
                }),
            );
            Some(found)
        }
        Err(error) => {
            tracing::warn!(%error, "local discovery not started");
            None
        }
    }
}
