//! `dirnode find-providers`: who says in the DHT that it has a record.

use anyhow::bail;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use dirnode_proto::node::v1::{FindProvidersRequest, Provider};
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{all, service};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Asks the peers nearest to the record, not this node's own store. Finding nobody is no error.\n\
    When --timeout comes near, the node tells whom it knows by then; if that is nobody, the command fails.\n\n\
    Examples:\n  \
    dirnode find-providers baearei…\n  \
    dirnode find-providers baearei… --limit 1 -o raw\n  \
    dirnode find-providers baearei… -o json | jq '.[].addresses[0]'"
)]
pub(crate) struct Args {
    /// CID of a record
    #[arg(value_name = "CID")]
    cid: String,
    /// Stop when so many are known; 100 at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if dirnode_record::RecordCid::parse(&args.cid).is_none() {
        bail!(
            "{:?} is not the CID of a record; a CID looks like baearei… (find one with `dirnode resolve NAME`)",
            args.cid
        );
    }
    let client = Client::connect(&args.server).await?;
    let mut service = service(&client);
    let request = client.request(FindProvidersRequest {
        cid: args.cid,
        limit: args.limit,
    });
    let answer = async { all(service.find_providers(request).await?.into_inner()).await };
    let found = client.within(answer).await?;
    match args.output.or(Format::Human) {
        Format::Json => output::json(&found.iter().map(as_json).collect()),
        Format::Jsonl => found
            .iter()
            .try_for_each(|provider| output::json_line(&as_json(provider))),
        Format::Raw => found
            .iter()
            .try_for_each(|provider| output::line(&provider.peer_id)),
        Format::Human if found.is_empty() => output::line("No providers found"),
        Format::Human => table(&found),
    }
}

fn as_json(provider: &Provider) -> Value {
    json!({ "peer_id": provider.peer_id, "addresses": provider.addresses })
}

fn table(found: &[Provider]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["PEER", "ADDRESSES"]);
    for provider in found {
        table.add_row([provider.peer_id.clone(), provider.addresses.join("\n")]);
    }
    if let Some(ids) = table.column_mut(0) {
        ids.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| output::line(line.trim_end()))
}
