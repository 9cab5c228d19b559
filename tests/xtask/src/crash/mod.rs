//! `cargo xtask crash`: a node is killed at random points under load; whatever it acknowledged must be there after the
//! next start, whatever it acknowledged as deleted must be gone, and nothing may be there by half.
//!
//! Two models. `kill -9` keeps what the kernel has; it finds faults of order. The power cut (`--power-cut`) keeps only
//! what reached the block layer; it finds what was never flushed, and `--control` shows that it does.

mod check;
pub mod control;
mod ledger;
mod load;
mod power;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use dirnode_generator::{Generator, Random};

use self::check::Findings;
use self::ledger::Ledger;
use self::load::Load;
use crate::process::Plan;
use crate::{clock, shell};

/// Records of earlier rounds that each round looks at again.
const LOOKED_AT_AGAIN: u64 = 2000;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The power-cut model needs root and mount; where they are not allowed it says so and ends well, and \
    the recording-disk tests of node/store stand in for it.\n\n\
    Examples:\n  \
    cargo xtask crash 20\n  \
    cargo xtask crash 200 --seed 7\n  \
    cargo xtask crash --power-cut 5\n  \
    cargo xtask crash --power-cut 5 --control"
)]
pub struct Args {
    /// How often the node is killed [default: 20, or 0 with --power-cut]
    #[arg(value_name = "N")]
    kills: Option<u32>,
    /// Seed of records, load and moments; printed, so that a run can be repeated
    #[arg(long)]
    seed: Option<u64>,
    /// Push streams at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256))]
    streams: u64,
    /// Cut the power of a file system so many times rather than killing
    #[arg(long, value_name = "M")]
    power_cut: Option<u32>,
    /// Cut the power of sled 0.34.7 as shipped: the model must find it losing data or refusing to open
    #[arg(long)]
    control: bool,
    /// Use the unoptimised build
    #[arg(long)]
    dev: bool,
    /// Folder for the node's data; removed after a run without faults [default: target/xtask/crash]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = shell::build_node(args.dev)?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => shell::work_dir("crash")?,
    };
    let seed = args.seed.unwrap_or_else(clock::fresh_seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let cuts = args.power_cut.unwrap_or(if args.control { 5 } else { 0 });
    let kills = args.kills.unwrap_or(if cuts == 0 { 20 } else { 0 });
    if kills > 0 {
        runtime.block_on(kill_rounds(&binary, &dir.join("kill"), kills, args.streams, seed))?;
    }
    if cuts > 0 {
        let bench = power::Bench::new(&dir.join("power"))?;
        let Some(bench) = bench else { return Ok(()) };
        if args.control {
            control::run(&bench, cuts, seed)?;
        } else {
            runtime.block_on(power::run(&bench, &binary, cuts, args.streams, seed))?;
        }
    }
    Ok(())
}

async fn kill_rounds(binary: &Path, dir: &Path, kills: u32, streams: u64, seed: u64) -> anyhow::Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot clear {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir)?;
    let plan = Plan {
        binary: binary.to_path_buf(),
        data_dir: dir.join("data"),
        log: dir.join("node.log"),
        validation: "builtin",
        network: None,
    };
    println!(
        "crash: {kills} kills, {streams} streams, seed {seed}, data in {}",
        plan.data_dir.display()
    );
    let generator = Arc::new(Generator::new(seed));
    let mut random = Random::of(seed, u64::MAX);
    let mut ledgers: Vec<Ledger> = (0..streams).map(|lane| Ledger::new(lane, streams)).collect();
    let mut slowest_start = Duration::ZERO;
    let mut node = plan.start().await?;
    for round in 1..=kills {
        let before = totals(&ledgers);
        let moment = Duration::from_millis(300 + random.below(1700));
        let load = Load::start(&node, &generator, ledgers, seed, round).await?;
        tokio::time::sleep(moment).await;
        node.kill()?;
        ledgers = load.end().await?;

        node = plan
            .start()
            .await
            .with_context(|| format!("round {round}, seed {seed}: a start failed"))?;
        slowest_start = slowest_start.max(node.start_time);
        let earlier = ledgers
            .iter()
            .map(|ledger| ledger.records.len() as u64)
            .sum::<u64>();
        // One in so many of the earlier ones, by a hash of CID and round: which ones differs every time.
        let one_in = (earlier / LOOKED_AT_AGAIN).max(1);
        let findings = check::check(&node, &generator, &mut ledgers, |held| {
            let [a, b, c, d, ..] = *held.cid.digest();
            let drawn =
                Random::of(u64::from(u32::from_be_bytes([a, b, c, d])), u64::from(round)).below(one_in) == 0;
            held.round == round || drawn
        })
        .await?;
        let now = totals(&ledgers);
        println!(
            "round {round:>3}: killed after {:>4} ms; {} pushes, {} deletes, {} referrers acknowledged; \
             start took {:.0} ms; {} checked, {} lost",
            moment.as_millis(),
            now.0 - before.0,
            now.1 - before.1,
            now.2 - before.2,
            node.start_time.as_secs_f64() * 1000.0,
            findings.checked,
            findings.lost
        );
        findings.verdict().with_context(|| failed(round, seed, &plan))?;
    }

    println!("looking at all of it once more");
    let begun = clock::moment();
    let findings: Findings = check::check(&node, &generator, &mut ledgers, |_| true).await?;
    findings.verdict().with_context(|| failed(kills, seed, &plan))?;
    println!(
        "  {} records checked in {:.1} s",
        findings.checked,
        begun.elapsed().as_secs_f64()
    );
    node.kill()?;
    verify(binary, &plan.data_dir, false).with_context(|| failed(kills, seed, &plan))?;
    let (pushes, deletes, referrers) = totals(&ledgers);
    println!(
        "{kills} kills, {pushes} acknowledged pushes, 0 lost, every start opened (slowest {:.0} ms); \
         {deletes} deletes and {referrers} referrers acknowledged, all kept; store verify: sound; seed {seed}",
        slowest_start.as_secs_f64() * 1000.0
    );

    // A repair takes in what lies about. It must not bring back what was deleted.
    verify(binary, &plan.data_dir, true).with_context(|| failed(kills, seed, &plan))?;
    let node = plan
        .start()
        .await
        .context("the node does not start after a repair")?;
    let findings = check::check(&node, &generator, &mut ledgers, |_| true).await?;
    findings
        .verdict()
        .with_context(|| format!("after a repair: {}", failed(kills, seed, &plan)))?;
    println!("  {} records checked after the repair", findings.checked);
    node.stop()?;
    verify(binary, &plan.data_dir, false).with_context(|| failed(kills, seed, &plan))?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn failed(round: u32, seed: u64, plan: &Plan) -> String {
    format!(
        "round {round}, seed {seed}; the data stay in {}",
        plan.data_dir.display()
    )
}

fn totals(ledgers: &[Ledger]) -> (u64, u64, u64) {
    ledgers.iter().fold((0, 0, 0), |sum, ledger| {
        (
            sum.0 + ledger.pushes,
            sum.1 + ledger.deletes,
            sum.2 + ledger.referrers,
        )
    })
}

/// `dirnode store verify` on a stopped or killed node's data.
fn verify(binary: &Path, data_dir: &Path, repair: bool) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    command.args(["store", "verify", "--data-dir"]).arg(data_dir);
    if repair {
        command.arg("--repair");
    }
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("dirnode store verify{}:", if repair { " --repair" } else { "" });
    // It names every CID it has something to say about, which may be hundreds.
    let (cids, said): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.trim().starts_with("baearei"));
    for line in said {
        println!("  {line}");
    }
    if !cids.is_empty() {
        println!(
            "  ({} CIDs named, the first {})",
            cids.len(),
            cids.first().map_or("", |cid| cid.trim())
        );
    }
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "dirnode store verify: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    )
}
