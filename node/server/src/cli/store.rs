//! `dirnode store`: looking after the data of a stopped node.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use dirnode_store::VerifyReport;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::OutputArgs;
use super::output::{self, Format};
use crate::config::default_data_dir;

/// CIDs of each kind that are listed to a reader.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check every body, row and journal file of a stopped node
    #[command(after_help = "Exit code 1 when anything is wrong.\n\n\
        Examples:\n  \
        dirnode store verify\n  \
        dirnode store verify --data-dir /srv/dirnode -o json\n  \
        dirnode store verify --repair")]
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// The node's data folder
    #[arg(long, env = "DIRECTORY_SERVER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Move damaged bodies aside, take in or remove what nothing refers to
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        StoreCommand::Verify(args) => verify(args),
    }
}

fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let dir = args
        .data_dir
        .clone()
        .unwrap_or_else(|| default_data_dir(|name| std::env::var(name).ok()));
    if !dir.is_dir() {
        bail!(
            "{} does not exist; give the node's folder with --data-dir",
            dir.display()
        );
    }
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} blobs, {per_sec}, {eta} left")?;
        ProgressBar::new(0).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut on_progress = |progress: dirnode_store::Progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.checked);
    };
    let report = dirnode_store::verify(&dir, args.repair, &mut on_progress)?;
    bar.finish_and_clear();
    match format {
        Format::Json => output::json(&as_json(&report))?,
        Format::Jsonl => output::json_line(&as_json(&report))?,
        Format::Raw => output::line(if report.is_clean() { "sound" } else { "damaged" })?,
        Format::Human => describe(&report)?,
    }
    match (report.is_clean(), report.repaired) {
        (true, _) => Ok(()),
        (false, true) => bail!(
            "{} was damaged; what could be repaired was, see above",
            dir.display()
        ),
        (false, false) => bail!(
            "{} is damaged; run again with --repair, then push what is missing",
            dir.display()
        ),
    }
}

fn texts(cids: &[dirnode_record::RecordCid]) -> Vec<String> {
    cids.iter().map(ToString::to_string).collect()
}

fn as_json(report: &VerifyReport) -> Value {
    json!({
        "sound": report.is_clean(),
        "records": report.records,
        "referrers": report.referrers,
        "blobs_hashed": report.blobs_hashed,
        "damaged_journal_files": report.damaged_files,
        "damaged_bodies": texts(&report.damaged),
        "missing_bodies": texts(&report.missing),
        "dangling_referrers": texts(&report.dangling),
        "adoptable_bodies": texts(&report.adoptable),
        "orphans": texts(&report.orphans),
        "missing_manifests": report.missing_manifests,
        "unlisted_manifests": report.unlisted_manifests,
        "repaired": report.repaired,
    })
}

fn describe(report: &VerifyReport) -> anyhow::Result<()> {
    output::line(&format!(
        "{} records, {} referrers, {} blobs hashed",
        report.records, report.referrers, report.blobs_hashed
    ))?;
    let counts = [
        ("damaged journal files", report.damaged_files),
        ("manifests missing from the layout", report.missing_manifests),
        (
            "manifests that the next start takes up in index.json",
            report.unlisted_manifests,
        ),
    ];
    for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        output::line(&format!("{what}: {count}"))?;
    }
    for (what, cids) in [
        ("damaged bodies", &report.damaged),
        ("missing bodies", &report.missing),
        ("referrers whose record is gone", &report.dangling),
        ("bodies that --repair would take in", &report.adoptable),
        ("blobs that belong to nothing", &report.orphans),
    ] {
        if !cids.is_empty() {
            output::line(&format!("{what}: {}", cids.len()))?;
            cids.iter()
                .take(SHOWN)
                .try_for_each(|cid| output::line(&format!("  {cid}")))?;
            if let Some(more) = cids.len().checked_sub(SHOWN).filter(|more| *more > 0) {
                output::line(&format!("  and {more} more; -o json lists all"))?;
            }
        }
    }
    output::line(if report.is_clean() { "sound" } else { "not sound" })
}
