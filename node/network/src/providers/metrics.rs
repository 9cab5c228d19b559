//! Counters of the provider store. Clones count together.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Why a record was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    /// [`Refusal::reason`](super::Refusal::reason).
    pub reason: &'static str,
}

/// What happened to provider records of others, since the start of the process.
#[derive(Debug, Clone, Default)]
pub struct ProviderMetrics {
    /// Taken, new or renewed.
    pub accepted: Counter,
    /// Not taken.
    pub refused: Family<ReasonLabel, Counter>,
    /// Lapsed and dropped.
    pub expired: Counter,
    /// Dropped because their key had too many providers.
    pub evicted: Counter,
    /// Not written down because the writer was behind; they are kept, but do not survive a restart.
    pub unlogged: Counter,
    /// Batches the log could not write.
    pub log_errors: Counter,
    /// Records held.
    pub records: Gauge,
    /// Keys held.
    pub keys: Gauge,
    /// Peers held.
    pub peers: Gauge,
    /// Memory held, allocator overhead not counted.
    pub memory: Gauge,
}

impl ProviderMetrics {
    /// Makes them known under `provider_store_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("provider_store");
        let counters = [
            ("accepted", "Provider records taken", &self.accepted),
            ("expired", "Provider records that lapsed", &self.expired),
            (
                "evicted",
                "Provider records dropped from crowded keys",
                &self.evicted,
            ),
            (
                "unlogged",
                "Provider records the log had no room for",
                &self.unlogged,
            ),
            ("log_errors", "Batches the log could not write", &self.log_errors),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register("refused", "Provider records not taken", self.refused.clone());
        registry.register("records", "Provider records of others held", self.records.clone());
        registry.register("keys", "Keys with providers held", self.keys.clone());
        registry.register("peers", "Peers that provide something", self.peers.clone());
        registry.register_with_unit(
            "memory",
            "Memory held by provider records",
            Unit::Bytes,
            self.memory.clone(),
        );
    }
}
