//! Scenario files: who takes part, what goes wrong when, and what must hold at the end.
//!
//! TOML, read strictly: an unknown key is an error, since a misspelt expectation would hold by itself. Times are written
//! `150ms`, `30s`, `5m`, `49h`.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// A file of scenarios.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Each scenario is run with each of these.
    pub seeds: Vec<u64>,
    /// The scenarios.
    pub scenario: Vec<Scenario>,
}

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// How it is called.
    pub name: String,
    /// Nodes that are there from the beginning.
    pub nodes: u32,
    /// Records that are published.
    #[serde(default = "default_records")]
    pub records: u32,
    /// Nodes that publish them.
    #[serde(default = "default_publishers")]
    pub publishers: u32,
    /// Over which time they are published, evenly.
    #[serde(default, deserialize_with = "span")]
    pub publish_over: Duration,
    /// How long the run is.
    #[serde(deserialize_with = "span")]
    pub duration: Duration,
    /// Median latency of a link, one way.
    #[serde(default = "default_latency", deserialize_with = "span")]
    pub latency: Duration,
    /// How much links differ: 0 not at all, 1 from a fifth of the median to four times as much.
    #[serde(default = "default_spread")]
    pub spread: f64,
    /// Part of the messages that get lost.
    #[serde(default)]
    pub loss: f64,
    /// Part of the nodes that speak our catch-up protocol; the others stand for nodes of the reference.
    #[serde(default = "default_one")]
    pub catchup: f64,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must hold.
    #[serde(default)]
    pub expect: Expect,
}

impl Scenario {
    /// Whether its numbers make sense together.
    ///
    /// # Errors
    /// A sentence that names the first one that does not.
    pub fn check(&self) -> Result<(), String> {
        let part = |name: &str, value: f64| {
            let good = (0.0..=1.0).contains(&value);
            good.then_some(())
                .ok_or_else(|| format!("{}: {name} is {value}, must be from 0 to 1", self.name))
        };
        if self.nodes < 2 {
            return Err(format!("{}: {} nodes, must be at least 2", self.name, self.nodes));
        }
        part("loss", self.loss)?;
        part("spread", self.spread)?;
        part("catchup", self.catchup)?;
        for fault in &self.faults {
            part("partition", fault.partition.unwrap_or(0.0))?;
            part("withdraw", fault.withdraw.unwrap_or(0.0))?;
            if fault.churn_every.is_some_and(|every| every.is_zero()) {
                return Err(format!("{}: churn_every is zero", self.name));
            }
        }
        Ok(())
    }
}

/// Something that goes wrong, at a time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    #[serde(deserialize_with = "span")]
    pub at: Duration,
    /// `publisher`: every node that publishes dies for good.
    #[serde(default)]
    pub kill: Option<Victim>,
    /// The network falls into two parts, this part of the nodes on one side.
    #[serde(default)]
    pub partition: Option<f64>,
    /// The parts come together.
    #[serde(default)]
    pub heal: bool,
    /// So many new nodes join.
    #[serde(default)]
    pub join: Option<u32>,
    /// This part of the records published so far is taken back.
    #[serde(default)]
    pub withdraw: Option<f64>,
    /// Every node is killed and started again, one after the other with this time between.
    #[serde(default, deserialize_with = "maybe_span")]
    pub restart_each: Option<Duration>,
    /// From now on, each time this long passes a random node that publishes nothing is killed.
    #[serde(default, deserialize_with = "maybe_span")]
    pub churn_every: Option<Duration>,
    /// How long a restarted node is down.
    #[serde(default = "default_down", deserialize_with = "span")]
    pub down_for: Duration,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    /// Every node that publishes.
    Publisher,
}

/// What must hold at the end. What is not set is measured and not judged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Time in which `found_share` of all (record, node) pairs must be found, counted from the moment at which record,
    /// node and a way between them were there.
    #[serde(default, deserialize_with = "maybe_span")]
    pub found_within: Option<Duration>,
    /// Part of the pairs that must be found; 1 when not set.
    #[serde(default)]
    pub found_share: Option<f64>,
    /// The same, for nodes that join late, counted from their joining.
    #[serde(default, deserialize_with = "maybe_span")]
    pub joined_within: Option<Duration>,
    /// Time after a publisher's death in which every node must have forgotten its records.
    #[serde(default, deserialize_with = "maybe_span")]
    pub forgotten_within: Option<Duration>,
    /// Time after a withdrawal was acknowledged in which no node may still show the record.
    #[serde(default, deserialize_with = "maybe_span")]
    pub withdrawn_within: Option<Duration>,
    /// Every publication and withdrawal that was acknowledged must have completed.
    #[serde(default)]
    pub all_completed: bool,
    /// Messages per node and hour that must not be exceeded.
    #[serde(default)]
    pub messages_per_node_hour: Option<f64>,
}

fn default_records() -> u32 {
    1
}
fn default_publishers() -> u32 {
    1
}
fn default_latency() -> Duration {
    Duration::from_millis(40)
}
fn default_spread() -> f64 {
    1.0
}
fn default_one() -> f64 {
    1.0
}
fn default_down() -> Duration {
    Duration::from_secs(1)
}

/// Reads a time like `150ms`, `30s`, `5m` or `49h`.
#[must_use]
pub fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3_600)?)),
        _ => None,
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time like 150ms, 30s, 5m or 49h")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_span(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(SpanVisitor)
}

fn maybe_span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_strictly() {
        assert_eq!(parse_span("150ms"), Some(Duration::from_millis(150)));
        assert_eq!(parse_span("49h"), Some(Duration::from_secs(49 * 3_600)));
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1 s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let text =
            |more: &str| format!("seeds = [1]\n[[scenario]]\nname = \"a\"\nduration = \"1m\"\n{more}\n");
        let check = |more: &str| toml::from_str::<File>(&text(more)).unwrap().scenario[0].check();
        assert_eq!(check("nodes = 2"), Ok(()));
        for bad in [
            "nodes = 1",
            "nodes = 9\nloss = 1.5",
            "nodes = 9\ncatchup = nan",
            "nodes = 9\nfaults = [{ at = \"1s\", churn_every = \"0s\" }]",
            "nodes = 9\nfaults = [{ at = \"1s\", partition = -1.0 }]",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_expectation_is_an_error() {
        let text = |expect: &str| {
            format!(
                "seeds = [1]\n[[scenario]]\nname = \"a\"\nnodes = 5\nduration = \"1m\"\nexpect = {{ {expect} }}\n"
            )
        };
        assert!(toml::from_str::<File>(&text("found_within = \"10s\"")).is_ok());
        assert!(toml::from_str::<File>(&text("found_wihtin = \"10s\"")).is_err());
        assert!(toml::from_str::<File>(&text("found_within = 10")).is_err());
    }
}
