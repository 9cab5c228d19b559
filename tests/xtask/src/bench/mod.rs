//! `cargo xtask bench`: a node beside the floor of the machine it runs on, in one run.
//!
//! Rates depend on the machine and on what else it does; the claims are ratios between rates that were measured in turn
//! within minutes. The generator of the load shares the cores with the node, as the floor's does not.

mod bootstrap;
mod claim;
pub mod echo;
mod load;
mod machine;
mod network;
mod page;
mod report;
mod routing;
mod search;
mod search_report;
mod store;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use crate::shell;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Durable pushes, pulls and lookups over gRPC, beside new files with fdatasync and beside an empty echo
    #[command(after_help = "Examples:\n  \
        cargo xtask bench store\n  \
        cargo xtask bench store --records 10000\n  \
        cargo xtask bench store --write-doc")]
    Store(StoreArgs),
    /// Searches over gRPC at three sizes of the store, alone and beside pushes, beside an empty echo
    #[command(
        after_help = "A million records take about ten minutes and 20 GB of disk.\n\nExamples:\n  \
        cargo xtask bench search --records 100000\n  \
        cargo xtask bench search --write-doc --check"
    )]
    Search(SearchArgs),
    /// What a node takes and gives over loopback, and the memory it takes, beside plain streams of the same transport
    #[command(after_help = "Examples:\n  \
        cargo xtask bench network --runs 1\n  \
        cargo xtask bench network --write-doc")]
    Network(network::Args),
    /// Announce to searchable on ten nodes, a late joiner, searches over remote labels, announcing again
    #[command(after_help = "A million labels take about five minutes.\n\nExamples:\n  \
        cargo xtask bench routing --labels 100000\n  \
        cargo xtask bench routing --write-doc --check")]
    Routing(routing::Args),
    /// Size of the bootstrap node, on disk and in memory
    #[command(after_help = "Examples:\n  \
        cargo xtask bench bootstrap\n  \
        cargo xtask bench bootstrap --check")]
    Bootstrap(bootstrap::Args),
}

#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Records in the store at the last level; the others are 0, a tenth and three tenths of it
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    records: u64,
    /// Runs of each measurement; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Measure only reads, once the store is filled
    #[arg(long, conflicts_with_all = ["write_doc", "check"])]
    reads_only: bool,
    /// Write docs/benchmarks.md
    #[arg(long)]
    write_doc: bool,
    /// Fail when a wanted ratio is missed
    #[arg(long)]
    check: bool,
    /// Folder on the disk to measure; what is made in it is removed [default: target/xtask/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// Records in the store at the last level; the others are a hundredth and a tenth of it
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    records: u64,
    /// Seconds that each kind of question is asked, by one caller and by many
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Write the section of docs/benchmarks.md
    #[arg(long)]
    write_doc: bool,
    /// Fail when a wanted figure is missed
    #[arg(long)]
    check: bool,
    /// Folder on the disk to measure; what is made in it is removed [default: target/xtask/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A folder that goes when the run ends, however it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        let scratch = Self(dir.join(format!("run-{}", std::process::id())));
        std::fs::create_dir_all(&scratch.0).with_context(|| format!("cannot write in {}", dir.display()))?;
        Ok(scratch)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Bootstrap(args) => bootstrap::run(args),
        What::Network(args) => {
            let report = network::measure(args)?;
            let text = report.markdown();
            println!("\n{text}");
            if args.write_doc {
                write(&report.section(&text))?;
            }
            Ok(())
        }
        What::Routing(args) => {
            let (binary, runtime) = prepare(routing::build()?)?;
            let dir = folder(args.dir.as_ref())?;
            let report = runtime.block_on(routing::measure(args, &binary, &dir))?;
            let text = report.markdown();
            println!("\n{text}");
            if args.write_doc {
                write(&report.section(&text))?;
            }
            if args.check { report.check() } else { Ok(()) }
        }
        What::Store(args) => {
            let (binary, runtime) = prepare(shell::build_node(false)?)?;
            let dir = folder(args.dir.as_ref())?;
            let report = runtime.block_on(store::measure(args, &binary, &dir))?;
            let text = report.markdown();
            println!("\n{text}");
            if args.write_doc {
                write(&report.document(&text))?;
            }
            if args.check { report.check() } else { Ok(()) }
        }
        What::Search(args) => {
            let (binary, runtime) = prepare(shell::build_node(false)?)?;
            let dir = folder(args.dir.as_ref())?;
            let report = runtime.block_on(search::measure(args, &binary, &dir))?;
            let text = report.markdown();
            println!("\n{text}");
            if args.write_doc {
                write(&report.section(&text))?;
            }
            if args.check { report.check() } else { Ok(()) }
        }
    }
}

/// The node under load, and what the load runs on.
fn prepare(binary: PathBuf) -> anyhow::Result<(PathBuf, tokio::runtime::Runtime)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok((binary, runtime))
}

fn folder(given: Option<&PathBuf>) -> anyhow::Result<PathBuf> {
    given.map_or_else(|| shell::work_dir("bench"), |dir| Ok(dir.clone()))
}

/// Puts sections in the page of benchmarks in place of those of the same names.
fn write(sections: &str) -> anyhow::Result<()> {
    let path = shell::root().join("docs/benchmarks.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, page::merge(&page, sections))?;
    println!("written: {}", path.display());
    Ok(())
}
