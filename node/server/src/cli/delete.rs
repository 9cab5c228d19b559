//! `dirnode delete`: records and everything that hangs on them, gone.

use std::io::BufRead as _;

use anyhow::{Context as _, bail};
use dirnode_proto::core::v1::RecordRef;

use super::client::Client;
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode delete baearei…\n  \
    dirnode resolve 'example.org/*' -o raw | dirnode delete --stdin")]
pub(crate) struct Args {
    /// CIDs; deleting what is not there is no error
    #[arg(value_name = "CID", required_unless_present = "stdin")]
    cids: Vec<String>,
    /// Read CIDs from standard input, one a line
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut cids = args.cids;
    if args.stdin {
        for line in std::io::stdin().lock().lines() {
            let line = line.context("cannot read standard input")?;
            // A JSON string is taken as well as a bare CID.
            let cid = line.trim().trim_matches('"');
            if !cid.is_empty() {
                cids.push(cid.to_owned());
            }
        }
    }
    if let Some(odd) = cids
        .iter()
        .find(|cid| dirnode_record::RecordCid::parse(cid).is_none())
    {
        bail!(
            "{odd:?} is not the CID of a record; a CID looks like baearei… (find one with `dirnode resolve NAME`)"
        );
    }
    let client = Client::connect(&args.server).await?;
    let requests: Vec<RecordRef> = cids.iter().map(|cid| RecordRef { cid: cid.clone() }).collect();
    let mut store = client.store();
    client.within(store.delete(tokio_stream::iter(requests))).await?;
    output::texts(
        args.output.or(Format::Human),
        "Deleted record with CID",
        "Deleted records with CIDs",
        &cids,
    )
}
