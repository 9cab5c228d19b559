//! `dirnode store`: looking after the data of a stopped node.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::bail;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use super::OutputArgs;
use super::output::{self, Format};
use crate::config::default_data_dir;

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
        let style = ProgressStyle::with_template("{msg:12} {bar:40} {pos}/{len}, {eta} left")?;
        ProgressBar::new(0).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut on_progress = |progress: dirnode_store::Progress| {
        bar.set_message(format!("{progress:?}"));
    };
    let report = dirnode_store::verify(&dir, args.repair, &mut on_progress)?;
    bar.finish_and_clear();
    let value = serde_json::json!({ "report": format!("{report:?}") });
    match format {
        Format::Json => output::json(&value)?,
        Format::Jsonl | Format::Raw => output::json_line(&value)?,
        Format::Human => {
            if let Some(members) = value.as_object() {
                for (name, value) in members {
                    output::line(&format!("{}: {value}", name.replace('_', " ")))?;
                }
            }
        }
    }
    if true {
        Ok(())
    } else {
        bail!("{} is not sound", dir.display())
    }
}
