//! `dirnode index`: the search index of a stopped node. It lives in memory and is made at every start; this makes it
//! once and tells what it takes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Subcommand;
use dirnode_store::{Store, StoreConfig};
use serde_json::json;

use super::OutputArgs;
use super::output::{self, Format};
use crate::config::default_data_dir;
use crate::{queries, runtime};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: IndexCommand,
}

#[derive(Debug, Subcommand)]
enum IndexCommand {
    /// Make the index from the rows, and say how long it takes and how large it is
    #[command(
        after_help = "The node does the same at every start; a running node is not touched.\n\n\
        Examples:\n  \
        dirnode index rebuild\n  \
        dirnode index rebuild --data-dir /srv/dirnode -o json"
    )]
    Rebuild(RebuildArgs),
}

#[derive(Debug, clap::Args)]
struct RebuildArgs {
    /// The node's data folder
    #[arg(long, env = "DIRECTORY_SERVER_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let IndexCommand::Rebuild(args) = args.command;
    let dir = args
        .data_dir
        .unwrap_or_else(|| default_data_dir(|name| std::env::var(name).ok()));
    if !dir.is_dir() {
        bail!(
            "{} does not exist; give the node's folder with --data-dir",
            dir.display()
        );
    }
    let mut settings = StoreConfig::new(dir);
    settings.referrer_facts = Arc::new(queries::scan_of);
    // What registry tools read is looked after by the node.
    settings.manifests = false;
    let (store, _) = Store::open(settings, runtime::system_clock())?;
    // The start has begun to fill the index; what is measured begins after that.
    store.wait_for_index();
    let begun = runtime::moment();
    let built = store.rebuild_index();
    let seconds = begun.elapsed().as_secs_f64();
    let (records, bytes) = (store.records_len(), store.index_bytes().total());
    store.close().await?;
    built?;
    let per_record = bytes.checked_div(records).unwrap_or(0);
    match args.output.or(Format::Human) {
        Format::Human => output::line(&format!(
            "{records} records indexed in {seconds:.2} s; {bytes} bytes, {per_record} a record"
        )),
        Format::Raw => output::raw(records.to_string().as_bytes()),
        Format::Json | Format::Jsonl => output::json_line(&json!({
            "records": records,
            "seconds": seconds,
            "bytes": bytes,
            "bytes_per_record": per_record,
        })),
    }
}
