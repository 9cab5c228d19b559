//! Figures of the routing room: outbox, republisher, remote labels, fetches, catch-up, and how fresh announcements are.

use std::fmt;

use dirnode_routing::counters::FRESHNESS_BOUNDS;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::metrics::Metrics;
use crate::routing::Routing;

/// Asked when somebody reads the metrics. Each series carries a label, as dashboards of the network expect.
struct Figures(Routing);

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("routing figures")
    }
}

impl Metrics {
    /// Adds the figures of the routing room.
    pub fn watch_routing(&mut self, routing: Routing) {
        self.register(Box::new(Figures(routing)));
    }
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let figures = self.0.figures();
        for (name, value) in figures.counters.fields() {
            let metric = ConstCounter::new(value);
            let name = format!("dirnode_routing_{name}");
            let help = "Counted by the routing room since its start; docs of dirnode_routing::Counters";
            let mut descriptor = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", "routing")])?)?;
        }
        let status = &figures.status;
        let count = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let remote = self.0.index().size();
        let counted = self.0.index().counters();
        let left_out = [counted.labels_unfit, counted.labels_above, counted.labels_no_room];
        for (name, help, value) in [
            (
                "outbox_open",
                "Publications and withdrawals whose news is not out",
                status.open,
            ),
            // `published` counts publications.
            ("published_records", "Published records", status.published),
            (
                "overdue",
                "Keys that should have been provided by now",
                status.overdue,
            ),
            (
                "provides_running",
                "Single provides on their way",
                status.provides,
            ),
            ("sweeps_running", "Sweeps on their way", status.sweeps),
            (
                "claims_hearsay",
                "Rows of others told by third parties",
                status.hearsay,
            ),
            ("claims_claimed", "Rows claimed by their authors", status.claimed),
            ("claims_verified", "Rows that were checked", status.verified),
            (
                "tombstones",
                "Withdrawals of others that are remembered",
                status.tombstones,
            ),
            (
                "fetches_waiting",
                "Fetches that wait or are on their way",
                status.fetches_waiting,
            ),
            ("fetches_running", "Fetches on their way", status.fetches),
            (
                "sync_jobs",
                "Records that wait to be copied, or are being",
                status.sync_jobs,
            ),
            (
                "catchup_peers",
                "Connected peers that can be caught up with",
                status.catchup_peers,
            ),
            (
                "network_peers",
                "Peers of the network, as far as lookups tell",
                status.network_peers,
            ),
            ("remote_rows", "Rows of the remote label index", remote.all_rows()),
            ("remote_labels", "Labels of those rows", remote.labels),
            (
                "remote_text_bytes",
                "Bytes of the distinct labels of those rows",
                remote.text_bytes,
            ),
            (
                "remote_postings",
                "Entries of the posting lists of those rows",
                remote.postings,
            ),
            (
                "waiting_for_peers",
                "Whether news waits because there is nobody to tell",
                usize::from(status.waiting_for_peers),
            ),
        ] {
            let metric = ConstGauge::new(count(value));
            let name = format!("dirnode_routing_{name}");
            let mut descriptor = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", "routing")])?)?;
        }
        for (name, help, value) in [
            (
                "malformed",
                "Announcements whose payload did not read",
                figures.malformed,
            ),
            (
                "remote_evicted_author",
                "Rows removed because their author takes more than its share of the remote label index",
                counted.evicted_peer,
            ),
            (
                "remote_evicted_full",
                "Rows removed from whoever takes most because the remote label index is full",
                counted.evicted_full,
            ),
            (
                "remote_refused",
                "Changes that the remote label index refused",
                counted.refused,
            ),
            (
                "remote_absent",
                "Changes of rows that the remote label index does not have",
                counted.absent,
            ),
            (
                "remote_labels_left_out",
                "Labels that were left out of their rows",
                left_out.into_iter().fold(0, u64::saturating_add),
            ),
            (
                "remote_searches_cut",
                "Pages of searches that passed their budget",
                counted.searches_cut,
            ),
            (
                "copied_records",
                "Records copied from peers that were not here before",
                figures.copies.records,
            ),
            (
                "copied_referrers",
                "Referrers copied from peers that were not here before",
                figures.copies.referrers,
            ),
            (
                "copied_referrers_refused",
                "Referrers that a peer could not give, or gave wrongly",
                figures.copies.referrers_refused,
            ),
            (
                "copied_bytes",
                "Bytes of records and referrers copied from peers",
                figures.copies.bytes,
            ),
        ] {
            let metric = ConstCounter::new(value);
            let name = format!("dirnode_routing_{name}");
            let mut descriptor = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", "routing")])?)?;
        }
        freshness(&figures.counters.freshness, &mut encoder)
    }
}

fn freshness(
    freshness: &dirnode_routing::Freshness,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    let mut descriptor = encoder.encode_descriptor(
        "dirnode_routing_freshness_seconds",
        "From an announcement's own time to the moment it can be found",
        None,
        prometheus_client::metrics::MetricType::Histogram,
    )?;
    let bounds = FRESHNESS_BOUNDS.into_iter().chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = bounds.zip(freshness.buckets).collect();
    descriptor
        .encode_family(&[("room", "routing")])?
        .encode_histogram::<prometheus_client::encoding::NoLabelSet>(
            freshness.sum_seconds,
            freshness.count,
            &buckets,
            None,
        )
}
