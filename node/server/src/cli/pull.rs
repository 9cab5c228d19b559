//! `dirnode pull`: a record out of a node, checked against its CID.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use dirnode_record::to_canonical;

use super::client::Client;
use super::json;
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode pull baearei… > agent.json\n  \
    dirnode pull example.org/agent:1.0.0\n  \
    dirnode pull example.org/agent -o raw      the canonical bytes that the CID is made of")]
pub(crate) struct Args {
    #[arg(
        value_name = "REF",
        help = "CID, or name[:version][@cid]; without a version the latest stored"
    )]
    reference: String,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let cid = client.cid_of(&args.reference).await?;
    let record = client.pull(&cid).await?;
    let data = record
        .data
        .ok_or_else(|| anyhow!("the node answered an empty record for {cid}"))?;
    let bytes = match args.output.or(Format::Json) {
        Format::Human | Format::Json => format!("{}\n", json::pretty(&data)).into_bytes(),
        Format::Jsonl => format!("{}\n", json::compact(&data)).into_bytes(),
        Format::Raw => to_canonical(&data)?,
    };
    match args.output_file {
        None if args.output.or(Format::Json) == Format::Raw => output::raw(&bytes),
        None => output::line(String::from_utf8_lossy(&bytes).trim_end()),
        Some(path) => {
            std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
            output::remark(
                args.output.or(Format::Human),
                &format!("Pulled {cid} to {}", path.display()),
            )
        }
    }
}
