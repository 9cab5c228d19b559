//! Measures what sharing lookups saves: one node announces all its records again, with and without.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes are made by the world and never taken away"
)]

use std::time::Duration;

use dirnode_routing::{Config, DueRow, Point};
use serde::Serialize;

use crate::kad::K;
use crate::scenario::Scenario;
use crate::world::{BEGIN, World};

/// Keys looked at to see where their provider records are.
const SAMPLE: usize = 200;

/// When the round begins: every node is up by then.
const SETTLED: Duration = Duration::from_secs(10);

/// What one round came to.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Whether near keys shared their lookups.
    pub sweep: bool,
    /// Own records.
    pub keys: u32,
    /// Keys that were provided.
    pub provided: u64,
    /// Virtual time it took, in seconds.
    pub seconds: f64,
    /// Lookups.
    pub lookups: u64,
    /// Requests sent by lookups.
    pub requests: u64,
    /// Messages that carried provider records.
    pub sends: u64,
    /// Of the twenty nodes that are nearest to a key, how many hold its provider record; the mean of a sample.
    pub at_nearest: f64,
}

/// Runs one round of `keys` records in a network of `nodes`.
#[must_use]
pub fn measure(nodes: u32, keys: u32, seed: u64, sweep: bool) -> Round {
    let scenario = Scenario {
        name: "sweep".to_owned(),
        nodes,
        records: 0,
        publishers: 1,
        publish_over: Duration::ZERO,
        duration: Duration::from_secs(24 * 3_600),
        latency: Duration::from_millis(40),
        spread: 1.0,
        loss: 0.0,
        catchup: 0.0,
        faults: Vec::new(),
        expect: crate::scenario::Expect::default(),
    };
    let config = Config {
        sweep,
        verify: false,
        ..Config::default()
    };
    let mut world = World::new(&scenario, seed, config);
    (world.gossiping, world.sighting) = (false, false);
    for _ in 0..keys {
        let cid = world.add_record(0);
        let row = DueRow {
            cid,
            due: BEGIN + SETTLED,
            stamp: BEGIN,
            provided_at: BEGIN,
        };
        world.nodes[0].disk.published.insert(cid, row);
    }
    let before = world.sent;
    let done = |world: &World| {
        let provided = world.nodes[0]
            .brain
            .as_ref()
            .map_or(0, |brain| brain.counters().provided_keys);
        provided >= u64::from(keys)
    };
    world.run_until(BEGIN + scenario.duration, done);
    let seconds = world.now.since(BEGIN + SETTLED).as_secs_f64();
    let requests = world.requests_of_first;
    let (mut provided, mut lookups) = (0, 0);
    if let Some(brain) = &world.nodes[0].brain {
        let counters = brain.counters();
        provided = counters.provided_keys;
        lookups = counters.sweep_lookups + counters.provides_plain;
    }
    let sends = world.sent[2] - before[2];
    // Provider records that are still on their way arrive.
    let settled = world.now + Duration::from_secs(20);
    world.run_until(settled, |_| false);
    Round {
        sweep,
        keys,
        provided,
        seconds,
        lookups,
        requests,
        sends,
        at_nearest: at_nearest(&world),
    }
}

fn at_nearest(world: &World) -> f64 {
    let step = (world.records.len() / SAMPLE).max(1);
    let (mut held, mut keys) = (0_usize, 0_usize);
    for record in world.records.iter().step_by(step) {
        let target = Point::of_cid(&record.cid);
        let mut nodes: Vec<([u8; 32], usize)> = world
            .nodes
            .iter()
            .enumerate()
            .skip(1)
            .map(|(place, node)| (node.point.distance(&target), place))
            .collect();
        nodes.sort_unstable();
        let holds = |(_, place): &&([u8; 32], usize)| {
            let providers = world.nodes[*place].providers.get(&record.cid);
            providers.is_some_and(|providers| providers.contains(&0))
        };
        held += nodes.iter().take(K).filter(holds).count();
        keys += 1;
    }
    held as f64 / keys.max(1) as f64
}
