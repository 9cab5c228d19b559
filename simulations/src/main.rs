//! `dirnode-sim`: runs scenarios of the routing brain over virtual time, and says whether what they expect holds.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use dirnode_simulations::{File, Report, run, sweep};

#[derive(Debug, Parser)]
#[command(
    name = "dirnode-sim",
    about = "Runs scenarios of the routing brain over virtual time",
    after_help = "Examples:\n  \
        dirnode-sim run simulations/scenarios/calm.toml\n  \
        dirnode-sim run simulations/scenarios/restart.toml --seed 42 --nodes 50 --json\n  \
        dirnode-sim sweep --keys 10000 --nodes 1000"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios of a file; exits with 1 when an expectation does not hold
    Run(Run),
    /// Measure lookups per key of one round of announcements, with and without sharing them
    Sweep(Sweep),
}

#[derive(Debug, Args)]
struct Run {
    /// Scenario file
    file: PathBuf,
    /// Run only the scenario of this name
    #[arg(long)]
    scenario: Option<String>,
    /// Run with this seed only, instead of those of the file
    #[arg(long)]
    seed: Option<u64>,
    /// Run with each seed from 0 up to this many, instead of those of the file
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// Number of nodes, instead of the scenario's
    #[arg(long)]
    nodes: Option<u32>,
    /// Print one JSON object per run
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Sweep {
    /// Own records that are announced again
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
    /// Nodes of the network
    #[arg(long, default_value_t = 1_000)]
    nodes: u32,
    /// Seed of the network
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object per round
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Run(args) => run_file(&args),
        Command::Sweep(args) => measure(&args),
    }
}

fn run_file(args: &Run) -> anyhow::Result<ExitCode> {
    let path = args.file.display();
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("read {path}"))?;
    let file: File = toml::from_str(&text).with_context(|| format!("read {path}"))?;
    let seeds = match (args.seed, args.seeds) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).collect(),
        (None, None) => file.seeds,
    };
    let (mut runs, mut bad) = (0, 0);
    for mut scenario in file.scenario {
        if args.scenario.as_ref().is_some_and(|name| *name != scenario.name) {
            continue;
        }
        scenario.nodes = args.nodes.unwrap_or(scenario.nodes);
        scenario.check().map_err(anyhow::Error::msg)?;
        for seed in &seeds {
            let report = run(&scenario, *seed);
            runs += 1;
            bad += u32::from(!report.is_good());
            print(&report, args)?;
        }
    }
    anyhow::ensure!(runs > 0, "{path} has no scenario of that name, or no seeds");
    Ok(if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(report: &Report, args: &Run) -> anyhow::Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        print!("{report}");
    }
    if !report.is_good() {
        eprintln!(
            "failed with seed {}; again: dirnode-sim run {} --scenario {} --seed {} --nodes {}",
            report.seed,
            args.file.display(),
            report.scenario,
            report.seed,
            report.nodes
        );
    }
    Ok(())
}

fn measure(args: &Sweep) -> anyhow::Result<ExitCode> {
    let mut complete = true;
    for with_sweep in [false, true] {
        let round = sweep::measure(args.nodes, args.keys, args.seed, with_sweep);
        complete &= round.provided >= u64::from(args.keys);
        if args.json {
            println!("{}", serde_json::to_string(&round)?);
            continue;
        }
        let keys = f64::from(args.keys.max(1));
        println!(
            "{}: {} of {} keys in {:.0} s; {} lookups ({:.4} a key), {} requests ({:.3} a key), {} sends; \
             {:.2} of the 20 nearest hold a key",
            if with_sweep {
                "with sweep   "
            } else {
                "without sweep"
            },
            round.provided,
            round.keys,
            round.seconds,
            round.lookups,
            round.lookups as f64 / keys,
            round.requests,
            round.requests as f64 / keys,
            round.sends,
            round.at_nearest
        );
    }
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
