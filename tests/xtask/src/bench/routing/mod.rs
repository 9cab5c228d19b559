//! The measurements of `bench routing`: how fast and how completely news spreads among real nodes, what a late joiner
//! needs, what a search over remote labels takes, and what announcing again costs.
//!
//! Nodes are processes on loopback. Delays cannot be put on loopback without rights of the system, so the times of real
//! nodes stand beside one bare hop between two swarms, and the same load runs over delayed links in `dirnode-sim`, beside
//! the least time that those delays allow.

mod join;
mod labels;
mod relay;
mod report;
mod spread;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use super::{Scratch, machine};
use crate::shell;
use report::Report;

/// Programs of the workspace that take part, beside the node.
const EXAMPLES: [(&str, &str); 2] = [
    ("dirnode-store", "remote_seed"),
    ("dirnode-network", "network_bench"),
];
const SIMULATOR: &str = "dirnode-simulations";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes of the network that news spreads in
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=50))]
    nodes: u32,
    /// Records that are published, one after the other
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    publishes: u32,
    /// Labels of others at the last level of searches; the others are a thousandth and a tenth of it. The late joiner has
    /// the middle one to catch up with
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    labels: u64,
    /// Seconds that each kind of search is asked, by one caller and by many
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Own records that are announced again, in a simulation of a thousand nodes
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Write the section of docs/benchmarks.md
    #[arg(long)]
    pub write_doc: bool,
    /// Fail when a wanted figure is missed
    #[arg(long)]
    pub check: bool,
    /// Folder on the disk to measure; what is made in it is removed [default: target/xtask/bench]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Where the programs lie.
#[derive(Debug)]
struct Programs {
    node: PathBuf,
    seeder: PathBuf,
    network: PathBuf,
    simulator: PathBuf,
}

impl Programs {
    fn beside(node: &Path) -> anyhow::Result<Self> {
        let dir = node.parent().context("the node lies nowhere")?;
        Ok(Self {
            node: node.to_path_buf(),
            seeder: dir.join("examples/remote_seed"),
            network: dir.join("examples/network_bench"),
            simulator: dir.join("dirnode-sim"),
        })
    }
}

/// The node, with what else takes part, built as one.
pub fn build() -> anyhow::Result<PathBuf> {
    shell::build_with(&EXAMPLES, &[SIMULATOR])
}

/// The JSON objects that a program prints, one a line.
fn told<T: DeserializeOwned>(command: &mut Command) -> anyhow::Result<Vec<T>> {
    let text = shell::output(command)?;
    text.lines()
        .map(|line| {
            serde_json::from_str(line).with_context(|| format!("{} says {line:?}", shell::line_of(command)))
        })
        .collect()
}

/// Makes every measurement.
pub async fn measure(args: &Args, node: &Path, dir: &Path) -> anyhow::Result<Report> {
    let programs = Programs::beside(node)?;
    let scratch = Scratch::new(dir)?;
    let mut report = Report::new(machine::describe(dir), args);
    println!("{}", report.machine);
    println!("load average before: {}", machine::load_average());

    report.spread = spread::measure(&programs, scratch.path(), args.nodes, args.publishes).await?;
    println!("{}", report.spread.line());
    report.delayed = spread::delayed(&programs, args.nodes)?;
    println!("{}", report.delayed.line());
    report.joined = join::measure(&programs, scratch.path(), args.labels / 10).await?;
    println!("{}", report.joined.line());
    for labels in [args.labels / 1_000, args.labels / 10, args.labels] {
        let seconds = Duration::from_secs(args.seconds);
        let level = labels::measure(&programs, scratch.path(), labels, seconds).await?;
        println!("{}", level.line());
        report.levels.push(level);
    }
    let sweep = ["sweep", "--nodes", "1000", "--json", "--keys"];
    report.rounds = told(
        Command::new(&programs.simulator)
            .args(sweep)
            .arg(args.keys.to_string()),
    )?;
    report.load_average = machine::load_average();
    Ok(report)
}
