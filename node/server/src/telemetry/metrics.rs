//! Metrics: the counters of every gRPC method, all present at zero from the start, and figures of the rooms that are
//! read when somebody asks (operations §5.1).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use dirnode_proto::FILE_DESCRIPTOR_SET;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message as _;

use crate::api::status::CODE_NAMES;
use crate::events::EventBus;
use dirnode_store::Store;

/// Upper bounds of the latency histogram, in seconds.
const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    grpc_type: &'static str,
    grpc_service: String,
    grpc_method: String,
    grpc_code: &'static str,
}

/// One method of the API and its counters.
#[derive(Debug)]
pub struct Method {
    /// Full service name.
    pub service: String,
    /// Bare method name.
    pub name: String,
    /// `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub kind: &'static str,
    pub(crate) started: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) seconds: Histogram,
    handled: Vec<Counter>,
}

impl Method {
    /// Counts a call that ended.
    pub(crate) fn handled(&self, code: tonic::Code, seconds: f64) {
        if let Some(counter) = usize::try_from(i32::from(code))
            .ok()
            .and_then(|index| self.handled.get(index))
        {
            counter.inc();
        }
        self.seconds.observe(seconds);
    }
}

/// Every metric of the node.
pub struct Metrics {
    registry: Registry,
    methods: Arc<HashMap<String, Arc<Method>>>,
}

impl Metrics {
    /// Registers the methods of every service that the node serves.
    ///
    /// # Errors
    /// When an embedded descriptor set does not decode, which the build would have to be broken for.
    pub fn new() -> Result<Self, prost::DecodeError> {
        let mut registry = Registry::default();
        let started = Family::<MethodLabels, Counter>::default();
        let received = Family::<MethodLabels, Counter>::default();
        let sent = Family::<MethodLabels, Counter>::default();
        let handled = Family::<CodeLabels, Counter>::default();
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register(
            "grpc_server_started",
            "Calls started on the server",
            started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "Calls ended on the server, by code",
            handled.clone(),
        );
        registry.register(
            "grpc_server_msg_received",
            "Messages received on the server",
            received.clone(),
        );
        registry.register(
            "grpc_server_msg_sent",
            "Messages sent by the server",
            sent.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "Time from start to end of a call",
            seconds.clone(),
        );

        let mut methods = HashMap::new();
        for set in [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let set = prost_types::FileDescriptorSet::decode(set)?;
            for file in set.file {
                for service in &file.service {
                    let service_name = format!("{}.{}", file.package(), service.name());
                    for method in &service.method {
                        let kind = kind_of(method.client_streaming(), method.server_streaming());
                        let labels = MethodLabels {
                            grpc_type: kind,
                            grpc_service: service_name.clone(),
                            grpc_method: method.name().to_owned(),
                        };
                        let by_code = |code: &&'static str| {
                            let labels = CodeLabels {
                                grpc_type: kind,
                                grpc_service: service_name.clone(),
                                grpc_method: method.name().to_owned(),
                                grpc_code: code,
                            };
                            handled.get_or_create(&labels).clone()
                        };
                        methods.insert(
                            format!("/{service_name}/{}", method.name()),
                            Arc::new(Method {
                                service: service_name.clone(),
                                name: method.name().to_owned(),
                                kind,
                                started: started.get_or_create(&labels).clone(),
                                received: received.get_or_create(&labels).clone(),
                                sent: sent.get_or_create(&labels).clone(),
                                seconds: seconds.get_or_create(&labels).clone(),
                                handled: CODE_NAMES.iter().map(by_code).collect(),
                            }),
                        );
                    }
                }
            }
        }
        Ok(Self {
            registry,
            methods: Arc::new(methods),
        })
    }

    /// Adds the figures of store and event bus, read at each scrape.
    pub fn watch(&mut self, store: Store, events: EventBus) {
        self.registry
            .register_collector(Box::new(Rooms { store, events }));
    }

    /// Adds figures that are asked for when they are read.
    pub fn register(&mut self, collector: Box<dyn Collector>) {
        self.registry.register_collector(collector);
    }

    /// Where the network puts its metrics. Each series gets a label, as dashboards of the network expect.
    pub fn network(&mut self) -> &mut Registry {
        self.registry
            .sub_registry_with_label(("room".into(), "network".into()))
    }

    /// The methods by path, `/package.Service/Method`.
    #[must_use]
    pub fn methods(&self) -> Arc<HashMap<String, Arc<Method>>> {
        Arc::clone(&self.methods)
    }

    /// OpenMetrics text.
    ///
    /// # Errors
    /// Never, as far as a `String` takes everything; the encoder's signature asks for it.
    pub fn open_metrics(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// The older Prometheus text: counters carry their suffix in the head lines too, and there is no end mark.
    ///
    /// # Errors
    /// As [`Metrics::open_metrics`].
    pub fn prometheus(&self) -> Result<String, fmt::Error> {
        let text = self.open_metrics()?;
        let counters: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
            .collect();
        let mut plain = String::with_capacity(text.len() + 1024);
        for line in text.lines() {
            if line == "# EOF" || line.starts_with("# UNIT ") {
                continue;
            }
            let mut parts = line.splitn(4, ' ');
            if let (Some("#"), Some(what), Some(name), Some(rest)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            {
                let suffix = if counters.contains(&name) { "_total" } else { "" };
                plain.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
            } else {
                plain.push_str(line);
                plain.push('\n');
            }
        }
        Ok(plain)
    }
}

fn kind_of(client_streams: bool, server_streams: bool) -> &'static str {
    match (client_streams, server_streams) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

/// Figures of the rooms. Each series carries a label, as dashboards of the network expect.
struct Rooms {
    store: Store,
    events: EventBus,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rooms")
    }
}

impl Collector for Rooms {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (subscribers, dropped) = self.events.figures();
        let stats = self.store.stats();
        let mut gauge = |name: &str, help: &str, room: &'static str, value: u64| {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let mut descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", room)])?)
        };
        gauge(
            "dirnode_event_subscribers",
            "Subscribers that listen now",
            "events",
            subscribers as u64,
        )?;
        for (name, help, value) in [
            ("dirnode_store_records", "Records stored", stats.records),
            ("dirnode_store_referrers", "Referrers stored", stats.referrers),
            (
                "dirnode_store_journal_bytes",
                "Size of the journal's files",
                stats.journal_bytes,
            ),
            (
                "dirnode_store_overlay_bodies",
                "Bodies that wait for the layout",
                stats.overlay_bodies,
            ),
            (
                "dirnode_store_overlay_bytes",
                "Bytes of those bodies",
                stats.overlay_bytes,
            ),
            (
                "dirnode_store_rows_disk_bytes",
                "Bytes of the row store on disk",
                stats.rows_disk_bytes,
            ),
            (
                "dirnode_store_rows_live_bytes",
                "Bytes of live rows",
                stats.rows_live_bytes,
            ),
            (
                "dirnode_store_manifests_behind",
                "Records whose OCI manifests wait",
                stats.manifests_behind,
            ),
            (
                "dirnode_store_healthy",
                "Whether the store takes writes",
                u64::from(self.store.health().is_ok()),
            ),
        ] {
            gauge(name, help, "store", value)?;
        }
        let mut counter = |name: &str, help: &str, room: &'static str, value: u64| {
            let metric = ConstCounter::new(value);
            let mut descriptor = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", room)])?)
        };
        counter(
            "dirnode_events_dropped",
            "Events that a slow subscriber lost",
            "events",
            dropped,
        )?;
        for (name, help, value) in [
            (
                "dirnode_store_groups",
                "Groups made durable; entries over groups is the gain of group commit",
                stats.groups,
            ),
            ("dirnode_store_entries", "Entries made durable", stats.entries),
            (
                "dirnode_store_quarantined",
                "Damaged bodies moved aside",
                stats.quarantined,
            ),
        ] {
            counter(name, help, "store", value)?;
        }
        Ok(())
    }
}
