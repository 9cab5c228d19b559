//! `cargo xtask bench`: a node beside the floor of the machine it runs on, in one run.
//!
//! Rates depend on the machine and on what else it does; the claims are ratios between rates that were measured in turn
//! within minutes. The generator of the load shares the cores with the node, as the floor's does not.

pub mod echo;
mod load;
mod machine;
mod report;
mod store;

use std::path::PathBuf;

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

pub fn run(args: &Args) -> anyhow::Result<()> {
    let What::Store(args) = &args.what;
    let binary = shell::build_node(false)?;
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => shell::work_dir("bench")?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(store::measure(args, &binary, &dir))?;
    let text = report.markdown();
    println!("\n{text}");
    if args.write_doc {
        let path = shell::root().join("docs/benchmarks.md");
        std::fs::write(&path, report.document(&text))?;
        println!("written: {}", path.display());
    }
    if args.check { report.check() } else { Ok(()) }
}
