//! The composition root: builds the rooms in order, starts them, drains and stops them. No logic of its own.
//!
//! Order of the start: the store is opened, so that a second process on the same folder hears that first; then listeners
//! are bound; then the network starts; then calls are served. Order of the stop: health says so, event streams end, calls
//! drain, the network ends, the store closes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dirnode_store::remote::{Limits as RemoteLimits, RemoteIndex};
use dirnode_store::{OpenReport, Store, StoreConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::api::call::CallLayer;
use crate::api::health::Health;
use crate::api::limit::Limits;
use crate::api::{self, Api};
use crate::config::{self, Config};
use crate::events::EventBus;
use crate::ingest::Ingest;
use crate::library::StoreLibrary;
use crate::membership::{Membership, Running};
use crate::policy::Policy;
use crate::publications::Publications;
use crate::queries;
use crate::routing::{Parts, Routing};
use crate::runtime::{self, Clock, Supervisor};
use crate::shards::Shards;
use crate::startup_record;
use crate::telemetry::http::{serve_health, serve_metrics};
use crate::telemetry::metrics::Metrics;

/// How long calls may take to end after a stop was asked for.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How often readiness is looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// The same while the search index is being built, so that the end of it shows soon.
const INDEX_INTERVAL: Duration = Duration::from_millis(100);
/// How often the row store is looked at for dead weight.
const COMPACTION_INTERVAL: Duration = Duration::from_secs(300);
/// Calls of one connection that were given up before their thread came to them. The library's 20 cut connections of
/// honest clients that give up many calls while the node is busy; a thousand cost some 100 kB.
const MAX_PENDING_RESETS: usize = 1024;
/// Flow-control windows of one stream and one connection: the 64 KiB of HTTP/2 hold records up.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// A node that serves.
pub struct Node {
    addresses: Vec<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    store: Store,
    events: EventBus,
    health: Health,
    stop: CancellationToken,
    supervisor: Supervisor,
    network: Option<Running>,
    serving: Shards,
    opened: OpenReport,
}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// When an address does not resolve or is taken, or the store does not open; each says what to do about it.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_with_clock(config, runtime::system_clock()).await
    }

    /// Starts a node with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with_clock(config: Config, clock: Clock) -> anyhow::Result<Self> {
        let (store, opened) = open_store(&config, Arc::clone(&clock)).await?;
        match Self::serve(config, clock, store.clone(), opened).await {
            Ok(node) => Ok(node),
            Err(error) => {
                // What made the start fail matters more than what the store says to being closed again.
                let _ = store.close().await;
                Err(error)
            }
        }
    }

    async fn serve(config: Config, clock: Clock, store: Store, opened: OpenReport) -> anyhow::Result<Self> {
        let listeners = bind_all("listen_address", &config.listen_address).await?;
        let metrics_listener = bind_optional("metrics.address", config.metrics_address.as_deref()).await?;
        let health_listener = bind_optional("healthcheck_address", config.health_address.as_deref()).await?;

        let events = EventBus::new(config.events.clone(), Arc::clone(&clock));
        let ingest = Ingest::new(store.clone(), events.clone(), &config.validation)?;
        let policy = Policy::default();
        let mut components = vec!["store", "search"];
        components.extend(config.routing.enabled.then_some("network"));
        let health = Health::new(&components);
        let mut metrics = Metrics::new().context("embedded descriptors do not decode")?;
        metrics.watch(store.clone(), events.clone());
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(stop.clone());
        let mut rooms = Rooms {
            config: &config,
            store: &store,
            ingest: &ingest,
            policy: &policy,
            clock: &clock,
            supervisor: &supervisor,
            stop: &stop,
        };
        let (network, routing) = match rooms.start_network(&mut metrics).await? {
            None => (None, None),
            Some((network, routing)) => (Some(network), Some(routing)),
        };

        let publications =
            Publications::open(store.clone(), events.clone(), routing.clone(), Arc::clone(&clock)).await?;
        metrics.register(Box::new(publications.clone()));
        let api = Api {
            policy: policy.clone(),
            ingest: ingest.clone(),
            store: store.clone(),
            events: events.clone(),
            publications: publications.clone(),
            membership: network.as_ref().map(Running::membership).cloned(),
            routing,
        };
        let routes = api::routes(&api, health.clone(), &config.connection)?;
        let layer = CallLayer::new(metrics.methods(), Limits::new(&config.rate_limit));

        let metrics_address = match metrics_listener {
            None => None,
            Some(listener) => {
                let address = listener.local_addr()?;
                runtime::spawn(
                    "metrics",
                    serve_metrics(listener, Arc::new(metrics), stop.clone()),
                );
                Some(address)
            }
        };
        if let Some(listener) = health_listener {
            runtime::spawn("health", serve_health(listener, health.clone(), stop.clone()));
        }

        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        let connection = config.connection.clone();
        let stopping = stop.clone();
        let serve = move |incoming| {
            let server = Server::builder()
                .layer(layer.clone())
                .max_concurrent_streams(connection.max_concurrent_streams)
                .max_connection_age(connection.max_connection_age)
                .max_connection_age_grace(connection.max_connection_age_grace)
                .http2_keepalive_interval(Some(connection.keepalive_time))
                .http2_keepalive_timeout(Some(connection.keepalive_timeout))
                .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .add_routes(routes.clone())
                .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
            async move {
                if let Err(error) = server.await {
                    tracing::error!(component = "grpc", %error, "server ended");
                }
            }
        };
        let serving = Shards::start(listeners, serve, stop.clone())?;
        runtime::spawn(
            "readiness",
            watch_readiness(store.clone(), health.clone(), stop.clone()),
        );
        if let Some(network) = &network {
            let (membership, health) = (network.membership().clone(), health.clone());
            let say = move |missing: &[&'static str]| {
                health.set("network", (!missing.is_empty()).then(|| missing.join(", ")));
            };
            runtime::spawn("network-readiness", membership.watch(say, stop.clone()));
        }
        supervisor.spawn("publications", publications.work(stop.clone()));
        runtime::spawn("compaction", compact_now_and_then(store.clone(), stop.clone()));
        if config.startup_record {
            runtime::spawn(
                "startup-record",
                startup_record::publish(store.clone(), ingest, policy, clock),
            );
        }
        Ok(Self {
            addresses,
            metrics_address,
            store,
            events,
            health,
            stop,
            supervisor,
            network,
            serving,
            opened,
        })
    }

    /// Where the API listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// What opening the store found.
    #[must_use]
    pub fn opened(&self) -> &OpenReport {
        &self.opened
    }

    /// The node's store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The node's place in the network; `None` when the network is off.
    #[must_use]
    pub fn network(&self) -> Option<&Membership> {
        self.network.as_ref().map(Running::membership)
    }

    /// Ends when a part of the node ended by itself, which none does in good health; says which.
    pub async fn ended(&mut self) -> &'static str {
        tokio::select! {
            () = self.serving.ended() => "gRPC server",
            task = self.supervisor.failed() => task,
        }
    }

    /// Refuses new calls, lets running ones end for [`DRAIN`], leaves the network, closes the store.
    ///
    /// # Errors
    /// When the store could not be closed in order; acknowledged writes are on disk all the same.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.health.drain();
        self.events.close();
        self.stop.cancel();
        if tokio::time::timeout(DRAIN, self.serving.ended()).await.is_err() {
            tracing::warn!(component = "grpc", "calls did not end in {DRAIN:?} and were cut");
            self.serving.cut();
        }
        if let Some(network) = self.network.take() {
            network.stop().await;
        }
        self.store
            .close()
            .await
            .context("the store did not close in order")
    }
}

/// What the network's rooms are built from.
struct Rooms<'a> {
    config: &'a Config,
    store: &'a Store,
    ingest: &'a Ingest,
    policy: &'a Policy,
    clock: &'a Clock,
    supervisor: &'a Supervisor,
    stop: &'a CancellationToken,
}

impl Rooms<'_> {
    async fn start_network(&mut self, metrics: &mut Metrics) -> anyhow::Result<Option<(Running, Routing)>> {
        let settings = &self.config.routing;
        if !settings.enabled {
            return Ok(None);
        }
        let library = StoreLibrary::new(
            self.store.clone(),
            self.policy.clone(),
            settings.serve_unpublished,
        );
        let answers = library.routing();
        let mut network = Running::start(
            settings,
            &self.config.data_dir,
            Arc::new(library),
            metrics.network(),
            Arc::clone(self.clock),
            self.supervisor,
        )
        .await?;
        let events = network
            .take_events()
            .context("the events of the network were taken before")?;
        let dir = settings.datastore(&self.config.data_dir).join("labels");
        let now_ns = (self.clock)();
        let index =
            tokio::task::spawn_blocking(move || RemoteIndex::open(&dir, RemoteLimits::default(), now_ns))
                .await
                .map_err(|_| anyhow!("opening the remote label index panicked"))?
                .context(
                    "the remote label index does not open; it may be removed, the network tells it again",
                )?;
        let parts = Parts {
            network: network.membership().handle().clone(),
            events,
            store: self.store.clone(),
            index,
            ingest: self.ingest.clone(),
            policy: self.policy.clone(),
            config: settings.brain(),
            gossip: settings.gossip,
            clock: Arc::clone(self.clock),
        };
        let routing = Routing::start(parts, self.supervisor, self.stop.clone()).await?;
        metrics.watch_routing(routing.clone());
        // Set once, here.
        let _ = answers.set(routing.clone());
        Ok(Some((network, routing)))
    }
}

async fn open_store(config: &Config, clock: Clock) -> anyhow::Result<(Store, OpenReport)> {
    let mut settings = StoreConfig::new(config.data_dir.clone());
    settings.rows_cache_bytes = config.row_cache_bytes;
    settings.referrer_facts = Arc::new(queries::scan_of);
    let begun = runtime::moment();
    let (store, report) = tokio::task::spawn_blocking(move || Store::open(settings, clock))
        .await
        .map_err(|_| anyhow!("opening the store panicked"))?
        .with_context(|| format!("the store in {} does not open", config.data_dir.display()))?;
    tracing::info!(
        component = "store",
        dir = %config.data_dir.display(),
        records = report.records,
        replayed_entries = report.replayed_entries,
        cut_bytes = report.cut_bytes,
        rebuilt = report.rebuilt.as_deref().unwrap_or("no"),
        quarantined = report.quarantined,
        open_ms = begun.elapsed().as_secs_f64() * 1000.0,
        "store opened"
    );
    Ok((store, report))
}

/// Gives back the space that rows leave behind; the row store does not shrink by itself.
async fn compact_now_and_then(store: Store, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COMPACTION_INTERVAL) => {}
        }
        if !store.rows_want_compaction() {
            continue;
        }
        let before = store.stats().rows_disk_bytes;
        match store.compact_rows().await {
            Ok(_) => {
                let after = store.stats().rows_disk_bytes;
                tracing::info!(component = "store", before, after, "row store compacted");
            }
            Err(error) => tracing::warn!(component = "store", %error, "row store not compacted"),
        }
    }
}

async fn watch_readiness(store: Store, health: Health, stop: CancellationToken) {
    loop {
        let state = store.health();
        if let Err(error) = &state {
            tracing::warn!(component = "health", failed_checks = "store", %error, "not ready");
        }
        health.set("store", state.err().map(|_| "does not take writes".to_owned()));
        let searchable = store.index_ready();
        health.set(
            "search",
            (!searchable).then(|| "the index is being built".to_owned()),
        );
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if searchable { HEALTH_INTERVAL } else { INDEX_INTERVAL }) => {}
        }
    }
}

async fn bind_all(key: &str, address: &str) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut port = None;
    for mut wanted in config::resolve(address)
        .await
        .map_err(|problem| anyhow!("{key}: {problem}"))?
    {
        // Port 0 means any, but the same one on every address of a name.
        if wanted.port() == 0 {
            wanted.set_port(port.unwrap_or(0));
        }
        match TcpListener::bind(wanted).await {
            Ok(listener) => {
                port = Some(listener.local_addr()?.port());
                listeners.push(listener);
            }
            // `localhost` may name ::1 on a machine without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable && wanted.is_ipv6() => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("{key}: cannot listen on {wanted}; stop what uses it or choose another address")
                });
            }
        }
    }
    if listeners.is_empty() {
        Err(anyhow!("{key}: {address:?} has no address to listen on"))
    } else {
        Ok(listeners)
    }
}

async fn bind_optional(key: &str, address: Option<&str>) -> anyhow::Result<Option<TcpListener>> {
    match address {
        None => Ok(None),
        Some(address) => Ok(bind_all(key, address).await?.into_iter().next()),
    }
}
