//! Counters of the shim. Clones count together.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::watch::{Offence, Watched};

/// Which protocol, and what was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OffenceLabels {
    protocol: &'static str,
    reason: &'static str,
}

/// What crossed the shim. All counters begin at zero with the process.
#[derive(Debug, Clone, Default)]
pub struct ShimMetrics {
    /// Endpoints reported to the application.
    pub endpoints_seen: Counter,
    /// Endpoints not reported because nobody took the earlier ones.
    pub endpoints_dropped: Counter,
    /// Endpoints not reported because their connection had reported too many.
    pub endpoints_over_limit: Counter,
    /// Messages of ours that went without our endpoints because they would have become too long.
    pub endpoints_withheld: Counter,
    /// Identify messages that did not parse and were handed on as they are.
    pub messages_unparsed: Counter,
    /// Frames with a wrong or too large prefix; their stream was handed on as it is.
    pub frames_refused: Counter,
    /// Streams of peers that ended before a protocol was agreed on.
    pub negotiations_failed: Counter,
    /// What peers did wrong on the streams they opened.
    offences: Family<OffenceLabels, Counter>,
}

impl ShimMetrics {
    pub(super) fn offence(&self, on: Watched, what: Offence) {
        let labels = OffenceLabels {
            protocol: on.name(),
            reason: what.name(),
        };
        self.offences.get_or_create(&labels).inc();
    }

    /// Makes the counters known under `shim_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("shim");
        registry.register(
            "offences",
            "Streams and messages of peers that were too slow, too large or malformed",
            self.offences.clone(),
        );
        let mut add =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        add(
            "endpoints_seen",
            "Endpoints of peers reported",
            &self.endpoints_seen,
        );
        add(
            "endpoints_dropped",
            "Endpoints not reported, the channel was full",
            &self.endpoints_dropped,
        );
        add(
            "endpoints_over_limit",
            "Endpoints not reported, too many on one connection",
            &self.endpoints_over_limit,
        );
        add(
            "endpoints_withheld",
            "Messages sent without our own endpoints for their length",
            &self.endpoints_withheld,
        );
        add(
            "messages_unparsed",
            "Identify messages that did not parse",
            &self.messages_unparsed,
        );
        add(
            "negotiations_failed",
            "Streams of peers that ended before a protocol was agreed on",
            &self.negotiations_failed,
        );
        add(
            "frames_refused",
            "Frames with a wrong or too large prefix",
            &self.frames_refused,
        );
    }
}
