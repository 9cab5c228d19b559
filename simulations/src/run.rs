//! Runs one scenario with one seed.

use dirnode_routing::Config;

use crate::report::Report;
use crate::scenario::Scenario;
use crate::world::{BEGIN, World};

/// Runs a scenario to its end.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Report {
    let mut world = World::new(scenario, seed, Config::default());
    world.plan_records(scenario);
    world.run_until(BEGIN + scenario.duration, |_| false);
    Report::of(scenario, seed, &world)
}
