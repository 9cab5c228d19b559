//! Figures of the network room, named `dirnode_network_*`; libp2p's own stand beside them under `libp2p_*`.
//!
//! Label values come from fixed lists, so that no peer can add a series.

use libp2p::metrics::Registry;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::error::{ErrorKind, NetworkError};
use crate::event::Verdict;
use crate::status::{Direction, TransportKind};

/// Upper bounds of query times, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    direction: &'static str,
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabels {
    method: &'static str,
    side: &'static str,
    result: &'static str,
}

/// Every figure of the room.
pub(crate) struct Metrics {
    connections: Family<ConnectionLabels, Gauge>,
    pub(crate) peers: Gauge,
    pub(crate) table: Gauge,
    pub(crate) topic_peers: Gauge,
    pub(crate) mesh_peers: Gauge,
    dials: Family<ResultLabel, Counter>,
    inbound_failed: Family<ReasonLabel, Counter>,
    queries: Family<QueryLabels, Counter>,
    query_seconds: Family<KindLabel, Histogram>,
    query_requests: Family<KindLabel, Counter>,
    pub(crate) queries_running: Gauge,
    pub(crate) queries_waiting: Gauge,
    dht_requests: Family<KindLabel, Counter>,
    announced: Family<ResultLabel, Counter>,
    announcements: Family<ResultLabel, Counter>,
    pub(crate) awaiting_verdict: Gauge,
    rpc: Family<RpcLabels, Counter>,
    rpc_refused: Family<ReasonLabel, Counter>,
    pub(crate) rpc_serving: Gauge,
    swept: Counter,
    sweeps: Family<ResultLabel, Counter>,
    events_dropped: Family<KindLabel, Counter>,
    pub(crate) events_queued: Gauge,
    pub(crate) commands_queued: Gauge,
    pub(crate) endpoint_peers: Gauge,
    pruned: Counter,
    bootstrap_dials: Family<ResultLabel, Counter>,
    pub(crate) provider_records: Gauge,
    provider_refused: Family<ReasonLabel, Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("dirnode_network");
        let metrics = Self {
            connections: Family::default(),
            peers: Gauge::default(),
            table: Gauge::default(),
            topic_peers: Gauge::default(),
            mesh_peers: Gauge::default(),
            dials: Family::default(),
            inbound_failed: Family::default(),
            queries: Family::default(),
            query_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            query_requests: Family::default(),
            queries_running: Gauge::default(),
            queries_waiting: Gauge::default(),
            dht_requests: Family::default(),
            announced: Family::default(),
            announcements: Family::default(),
            awaiting_verdict: Gauge::default(),
            rpc: Family::default(),
            rpc_refused: Family::default(),
            rpc_serving: Gauge::default(),
            swept: Counter::default(),
            sweeps: Family::default(),
            events_dropped: Family::default(),
            events_queued: Gauge::default(),
            commands_queued: Gauge::default(),
            endpoint_peers: Gauge::default(),
            pruned: Counter::default(),
            bootstrap_dials: Family::default(),
            provider_records: Gauge::default(),
            provider_refused: Family::default(),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, to: &mut Registry) {
        to.register("connections", "Established connections", self.connections.clone());
        to.register("peers", "Connected peers", self.peers.clone());
        to.register(
            "routing_table_peers",
            "Peers in the DHT routing table",
            self.table.clone(),
        );
        to.register(
            "topic_peers",
            "Connected peers on the labels topic",
            self.topic_peers.clone(),
        );
        to.register("mesh_peers", "Peers in our gossip mesh", self.mesh_peers.clone());
        to.register("dials", "Outbound dials that ended", self.dials.clone());
        to.register(
            "inbound_failed",
            "Inbound connections that were refused or failed",
            self.inbound_failed.clone(),
        );
        to.register("queries", "DHT queries that ended", self.queries.clone());
        to.register(
            "query_seconds",
            "Time of DHT queries from their start",
            self.query_seconds.clone(),
        );
        to.register(
            "query_requests",
            "Messages that DHT queries sent to peers",
            self.query_requests.clone(),
        );
        to.register(
            "queries_running",
            "DHT queries at work",
            self.queries_running.clone(),
        );
        to.register(
            "queries_waiting",
            "DHT queries waiting for their turn",
            self.queries_waiting.clone(),
        );
        to.register("dht_requests", "DHT requests served", self.dht_requests.clone());
        to.register(
            "announced",
            "Own announcements by outcome",
            self.announced.clone(),
        );
        to.register(
            "announcements",
            "Received announcements by what became of them",
            self.announcements.clone(),
        );
        to.register(
            "announcements_awaiting_verdict",
            "Received announcements without a verdict yet",
            self.awaiting_verdict.clone(),
        );
        to.register(
            "rpc_calls",
            "RPC calls by method, side and result",
            self.rpc.clone(),
        );
        to.register(
            "rpc_refused",
            "Inbound request streams that were not served",
            self.rpc_refused.clone(),
        );
        to.register("rpc_serving", "Requests being served", self.rpc_serving.clone());
        to.register(
            "swept_records",
            "Provider records sent by sweeps",
            self.swept.clone(),
        );
        to.register("sweeps", "Sweep streams by result", self.sweeps.clone());
        to.register(
            "events_dropped",
            "Events dropped because their reader is behind",
            self.events_dropped.clone(),
        );
        to.register(
            "events_queued",
            "Events waiting for their reader",
            self.events_queued.clone(),
        );
        to.register(
            "commands_queued",
            "Commands waiting for the swarm task",
            self.commands_queued.clone(),
        );
        to.register(
            "endpoint_peers",
            "Peers whose own endpoints are kept for our answers about providers",
            self.endpoint_peers.clone(),
        );
        to.register(
            "connections_pruned",
            "Connections closed to come below the high water mark",
            self.pruned.clone(),
        );
        to.register(
            "bootstrap_dials",
            "Dials to bootstrap peers by result",
            self.bootstrap_dials.clone(),
        );
        to.register(
            "provider_records",
            "Provider records kept",
            self.provider_records.clone(),
        );
        to.register(
            "provider_records_refused",
            "Inbound provider records that were not kept",
            self.provider_refused.clone(),
        );
    }

    pub(crate) fn connected(&self, direction: Direction, transport: TransportKind, change: i64) {
        self.connections
            .get_or_create(&ConnectionLabels {
                direction: match direction {
                    Direction::Inbound => "inbound",
                    Direction::Outbound => "outbound",
                },
                transport: transport.name(),
            })
            .inc_by(change);
    }

    pub(crate) fn dialled(&self, result: &'static str) {
        self.dials.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn inbound_failed(&self, reason: &'static str) {
        self.inbound_failed.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn query_ended(
        &self,
        kind: &'static str,
        result: &'static str,
        seconds: Option<f64>,
        requests: u32,
    ) {
        self.queries.get_or_create(&QueryLabels { kind, result }).inc();
        if let Some(seconds) = seconds {
            self.query_seconds
                .get_or_create(&KindLabel { kind })
                .observe(seconds);
        }
        self.query_requests
            .get_or_create(&KindLabel { kind })
            .inc_by(u64::from(requests));
    }

    pub(crate) fn dht_request(&self, kind: &'static str) {
        self.dht_requests.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn announced(&self, result: &'static str) {
        self.announced.get_or_create(&ResultLabel { result }).inc();
    }

    /// A received announcement's fate that no verdict decided.
    pub(crate) fn announcement(&self, result: &'static str) {
        self.announcements.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn verdict(&self, verdict: Verdict) {
        self.announcement(match verdict {
            Verdict::Accept => "accepted",
            Verdict::Ignore => "ignored",
            Verdict::Reject => "rejected",
        });
    }

    pub(crate) fn rpc_called(&self, method: &'static str, answer: Result<(), &NetworkError>) {
        let result = match answer.map_err(NetworkError::kind) {
            Ok(()) => "ok",
            Err(ErrorKind::Invalid) => "invalid",
            Err(ErrorKind::NotFound) => "not_found",
            Err(ErrorKind::Denied) => "denied",
            Err(ErrorKind::Busy) => "busy",
            Err(ErrorKind::Unavailable) => "unavailable",
            Err(ErrorKind::Corrupt) => "corrupt",
            Err(ErrorKind::Internal) => "internal",
        };
        self.rpc(method, "client", result);
    }

    pub(crate) fn rpc_served(&self, method: &'static str, result: &'static str) {
        self.rpc(method, "server", result);
    }

    fn rpc(&self, method: &'static str, side: &'static str, result: &'static str) {
        self.rpc.get_or_create(&RpcLabels { method, side, result }).inc();
    }

    pub(crate) fn rpc_refused(&self, reason: &'static str) {
        self.rpc_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn swept(&self, records: usize, failed: bool) {
        self.swept.inc_by(u64::try_from(records).unwrap_or(u64::MAX));
        let result = if failed { "failed" } else { "ok" };
        self.sweeps.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn event_dropped(&self, kind: &'static str) {
        self.events_dropped.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn pruned(&self) {
        self.pruned.inc();
    }

    pub(crate) fn bootstrap_dial(&self, result: &'static str) {
        self.bootstrap_dials.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn provider_refused(&self, reason: &'static str) {
        self.provider_refused.get_or_create(&ReasonLabel { reason }).inc();
    }
}

/// A count as a gauge takes it.
pub(crate) fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_house_and_series_appear_with_use() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.rpc_called("Pull", Ok(()));
        metrics.query_ended("provide", "ok", Some(0.5), 23);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "dirnode_network_rpc_calls_total{method=\"Pull\",side=\"client\",result=\"ok\"} 1",
            "dirnode_network_query_requests_total{kind=\"provide\"} 23",
            "dirnode_network_routing_table_peers 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
