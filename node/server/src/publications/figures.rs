//! Figures of the jobs, read when somebody asks for metrics.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::gauge::ConstGauge;

use super::Publications;

impl fmt::Debug for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("publications")
    }
}

impl Collector for Publications {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (waiting, telling, ended) = self.0.jobs.lock().counts();
        let no_peers = if self.waits_for_peers() { telling } else { 0 };
        for (name, help, value) in [
            ("pending", "Publications that wait for their turn", waiting),
            ("in_progress", "Publications whose news is not out", telling),
            (
                "waiting_for_peers",
                "Those of them that wait because there is nobody to tell",
                no_peers,
            ),
            ("ended_kept", "Ended publications that can be asked about", ended),
        ] {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let name = format!("dirnode_publications_{name}");
            let mut descriptor = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
            metric.encode(descriptor.encode_family(&[("room", "publications")])?)?;
        }
        Ok(())
    }
}
