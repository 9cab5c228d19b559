//! `dirnode unpublish`: records taken back from the network; they stay stored.

use dirnode_proto::routing::v1::UnpublishRequest;
use dirnode_proto::routing::v1::unpublish_request::Request;

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{counted, held, outcome, refs, service};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Peers are refused the record at once; nodes of this kind forget it within seconds, others within days.\n\n\
    Examples:\n  \
    dirnode unpublish baearei…\n  \
    dirnode unpublish example.org/agent:v1.0.0\n  \
    dirnode list --skill natural_language_processing -o raw | dirnode unpublish --stdin"
)]
pub(crate) struct Args {
    #[arg(
        value_name = "REF",
        help = "CIDs, or name[:version][@cid]",
        required_unless_present = "stdin"
    )]
    references: Vec<String>,
    /// Read CIDs or names from standard input, one a line or in a JSON array
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let cids = held(&client, args.references, args.stdin).await?;
    let request = UnpublishRequest {
        request: Some(Request::RecordRefs(refs(&cids))),
    };
    let mut service = service(&client);
    client.within(service.unpublish(request)).await?;
    let count = u64::try_from(cids.len()).unwrap_or(u64::MAX);
    let message = format!("{} taken back", counted(count));
    let value = outcome(&cids, count, "unpublished", &message);
    match args.output.or(Format::Human) {
        Format::Json => output::json(&value),
        Format::Jsonl => output::json_line(&value),
        form => output::texts(
            form,
            "Unpublished record with CID",
            "Unpublished records with CIDs",
            &cids,
        ),
    }
}
