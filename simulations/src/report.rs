//! What a run came to: figures, and which expectations did not hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use dirnode_routing::{Kind, Progress, Timestamp};
use serde::Serialize;

use crate::message::KINDS;
use crate::scenario::Scenario;
use crate::world::{BEGIN, World};

/// Times in seconds, sorted into percentiles.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Times {
    /// How many there should be.
    pub wanted: usize,
    /// How many there are.
    pub there: usize,
    /// Half took no longer.
    pub p50: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// Ninety-nine of a hundred took no longer.
    pub p99: f64,
    /// None took longer.
    pub max: f64,
}

impl Times {
    fn of(wanted: usize, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a part of a length"
            )]
            let place = (times.len().saturating_sub(1) as f64 * part) as usize;
            times.get(place).map_or(0.0, Duration::as_secs_f64)
        };
        Self {
            wanted,
            there: times.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }

    fn share(&self) -> f64 {
        if self.wanted == 0 {
            1.0
        } else {
            self.there as f64 / self.wanted as f64
        }
    }
}

/// Most nodes for which the least times are worked out, which costs the square of their number for each publisher.
pub const MAX_FLOOR_NODES: u32 = 300;

/// What a run came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: u32,
    /// Virtual time, in seconds.
    pub seconds: f64,
    /// Events that happened.
    pub events: u64,
    /// Hash over all of them, in order.
    pub trace: String,
    /// Time until a published record was known at each other node.
    pub found: Times,
    /// The least time in which the links' own latencies let news of these records get to these nodes: what `found` would be
    /// if nothing but the way took time. Empty for more than [`MAX_FLOOR_NODES`] nodes, and where nodes come, go or are cut
    /// off.
    pub floor: Times,
    /// As `found`, at nodes that joined late, from their joining.
    pub joined: Times,
    /// Time from a publisher's death until the last node forgot a record of it.
    pub forgotten: Times,
    /// Time from the acknowledgement of a withdrawal until the last node forgot the record.
    pub withdrawn: Times,
    /// Acknowledged publications and withdrawals that are not completed.
    pub unfinished: usize,
    /// Rows of withdrawn records, or of records whose publishers are dead, that are still there.
    pub left_over: usize,
    /// Messages per node and hour.
    pub messages_per_node_hour: f64,
    /// Messages sent, by kind.
    pub messages: BTreeMap<&'static str, u64>,
    /// Sums of the brains' counters that are not zero; of nodes that run at the end, since their last start.
    pub counters: BTreeMap<&'static str, u64>,
    /// Expectations that did not hold.
    pub broken: Vec<String>,
}

impl Report {
    /// Whether every expectation held.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.broken.is_empty()
    }

    /// Looks at the world at the end of a run.
    #[must_use]
    pub fn of(scenario: &Scenario, seed: u64, world: &World) -> Self {
        let mut found = (0, Vec::new());
        let mut joined = (0, Vec::new());
        let mut forgotten = (0, Vec::new());
        let mut withdrawn = (0, Vec::new());
        let (mut left_over, mut unfinished) = (0, 0);
        for record in &world.records {
            let Some(publisher) = world.nodes.get(record.publisher as usize) else {
                continue;
            };
            let (Some(asked_at), Some(_)) = (record.asked_at, record.acked_at) else {
                unfinished += usize::from(record.asked_at.is_some() && !publisher.dead);
                continue;
            };
            let key = (record.cid, publisher.peer.clone());
            let gone_at = if publisher.dead {
                Some(world.killed_at)
            } else {
                record.withdrawn_at
            };
            for (number, node) in world.nodes.iter().enumerate() {
                let has = node.disk.index.contains_key(&key);
                if !node.is_up() || number == record.publisher as usize {
                    continue;
                }
                if gone_at.is_some() {
                    left_over += usize::from(has);
                    continue;
                }
                if record.withdraw_asked_at.is_some() {
                    continue;
                }
                let late = node.joined_at > asked_at;
                let mut from = asked_at.max(node.joined_at);
                if record.split {
                    from = from.max(world.healed_at);
                }
                let at = record
                    .found
                    .get(number)
                    .copied()
                    .filter(|at| *at != Timestamp::EPOCH && has);
                if at.is_some_and(|at| at < from) && record.split {
                    from = asked_at;
                }
                // A node that was down when it was announced could not have heard of it before it was up again.
                let from = if at.is_none_or(|at| at >= node.up_since) {
                    from.max(node.up_since)
                } else {
                    from
                };
                let sort = if late { &mut joined } else { &mut found };
                sort.0 += 1;
                sort.1.extend(at.map(|at| at.since(from)));
            }
            if let Some(gone_at) = gone_at {
                let sort = if publisher.dead {
                    &mut forgotten
                } else {
                    &mut withdrawn
                };
                sort.0 += 1;
                sort.1.push(record.last_drop.since(gone_at));
            }
            let progress = publisher
                .brain
                .as_ref()
                .and_then(|brain| brain.progress(&record.cid));
            let row = publisher.disk.outbox.get(&record.cid);
            let tombstone = row.is_none_or(|row| row.kind == Kind::Withdraw && row.announced);
            let done = progress == Some(Progress::Completed) || (record.withdrawn_at.is_some() && tombstone);
            unfinished += usize::from(!publisher.dead && !done);
        }
        let hours = world.now.since(BEGIN).as_secs_f64() / 3_600.0;
        let sent: u64 = world.sent.iter().sum();
        let mut counters: BTreeMap<&'static str, u64> = BTreeMap::new();
        for brain in world.nodes.iter().filter_map(|node| node.brain.as_ref()) {
            for (name, value) in brain.counters().fields().filter(|(_, value)| *value > 0) {
                *counters.entry(name).or_default() += value;
            }
        }
        let mut report = Self {
            scenario: scenario.name.clone(),
            seed,
            nodes: scenario.nodes,
            seconds: hours * 3_600.0,
            events: world.trace.events(),
            trace: world.trace.hash(),
            found: Times::of(found.0, found.1),
            floor: floor(scenario, world),
            joined: Times::of(joined.0, joined.1),
            forgotten: Times::of(forgotten.0, forgotten.1),
            withdrawn: Times::of(withdrawn.0, withdrawn.1),
            unfinished,
            left_over,
            messages_per_node_hour: sent as f64 / f64::from(scenario.nodes.max(1)) / hours.max(1e-9),
            messages: KINDS.into_iter().zip(world.sent).collect(),
            counters,
            broken: Vec::new(),
        };
        report.judge(scenario);
        report
    }

    fn judge(&mut self, scenario: &Scenario) {
        let expect = &scenario.expect;
        let mut broken = Vec::new();
        let share = expect.found_share.unwrap_or(1.0);
        let mut times = |name: &str, times: &Times, limit: Option<Duration>, share: f64| {
            let Some(limit) = limit.map(|limit| limit.as_secs_f64()) else {
                return;
            };
            if times.wanted == 0 {
                broken.push(format!("{name}: nothing to measure"));
            }
            if times.share() < share {
                broken.push(format!(
                    "{name}: {} of {}, wanted {share}",
                    times.there, times.wanted
                ));
            }
            // With a share below one, stragglers beyond it may take longer.
            let worst = if share < 1.0 { times.p99 } else { times.max };
            if worst > limit {
                broken.push(format!("{name}: took {worst:.3} s, wanted {limit} s"));
            }
        };
        times("found_within", &self.found, expect.found_within, share);
        times("joined_within", &self.joined, expect.joined_within, share);
        times("forgotten_within", &self.forgotten, expect.forgotten_within, 1.0);
        times("withdrawn_within", &self.withdrawn, expect.withdrawn_within, 1.0);
        let gone = expect.forgotten_within.is_some() || expect.withdrawn_within.is_some();
        if gone && self.left_over > 0 {
            broken.push(format!(
                "{} rows are left of records that are gone",
                self.left_over
            ));
        }
        if expect.all_completed && self.unfinished > 0 {
            broken.push(format!(
                "all_completed: {} publications or withdrawals are not",
                self.unfinished
            ));
        }
        if let Some(limit) = expect.messages_per_node_hour
            && self.messages_per_node_hour > limit
        {
            let sent = self.messages_per_node_hour;
            broken.push(format!(
                "messages_per_node_hour: {sent:.0}, wanted at most {limit:.0}"
            ));
        }
        self.broken = broken;
    }
}

fn floor(scenario: &Scenario, world: &World) -> Times {
    if scenario.nodes > MAX_FLOOR_NODES || !scenario.faults.is_empty() {
        return Times::default();
    }
    let publishers: BTreeSet<u32> = world.records.iter().map(|record| record.publisher).collect();
    let quickest: BTreeMap<u32, Vec<Duration>> = publishers
        .into_iter()
        .map(|from| (from, world.links().quickest(from, scenario.nodes)))
        .collect();
    let times: Vec<Duration> = world
        .records
        .iter()
        .filter(|record| record.acked_at.is_some())
        .filter_map(|record| quickest.get(&record.publisher))
        .flatten()
        .copied()
        .filter(|time| *time > Duration::ZERO)
        .collect();
    Times::of(times.len(), times)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seed {} nodes {}: {:.0} s in {} events, trace {}",
            self.scenario, self.seed, self.nodes, self.seconds, self.events, self.trace
        )?;
        for (name, times) in [
            ("found", &self.found),
            ("floor", &self.floor),
            ("joined", &self.joined),
            ("forgotten", &self.forgotten),
            ("withdrawn", &self.withdrawn),
        ] {
            if times.wanted > 0 {
                writeln!(
                    f,
                    "  {name:9} {}/{}  p50 {:.3} s  p90 {:.3} s  p99 {:.3} s  max {:.3} s",
                    times.there, times.wanted, times.p50, times.p90, times.p99, times.max
                )?;
            }
        }
        writeln!(
            f,
            "  unfinished {}  left over {}",
            self.unfinished, self.left_over
        )?;
        write!(
            f,
            "  messages per node and hour {:.0}:",
            self.messages_per_node_hour
        )?;
        for (kind, count) in self.messages.iter().filter(|(_, count)| **count > 0) {
            write!(f, " {kind} {count}")?;
        }
        writeln!(f)?;
        for broken in &self.broken {
            writeln!(f, "  BROKEN {broken}")?;
        }
        Ok(())
    }
}
