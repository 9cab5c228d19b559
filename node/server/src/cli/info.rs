//! `dirnode info`: what is known about a record without its body.

use anyhow::anyhow;
use dirnode_proto::core::v1::RecordRef;
use serde_json::json;

use super::client::{Client, only};
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode info baearei…\n  \
    dirnode info example.org/agent -o json | jq .schemaVersion")]
pub(crate) struct Args {
    #[arg(value_name = "REF", help = "CID, or name[:version][@cid]")]
    reference: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let cid = client.cid_of(&args.reference).await?;
    let mut store = client.store();
    let answer = async {
        only(
            store
                .lookup(tokio_stream::once(RecordRef { cid: cid.clone() }))
                .await?
                .into_inner(),
        )
        .await
    };
    let meta = client
        .within(answer)
        .await?
        .ok_or_else(|| anyhow!("the node gave no answer for {cid}"))?;
    let annotations: std::collections::BTreeMap<_, _> = meta.annotations.into_iter().collect();
    let value = json!({
        "cid": meta.cid,
        "annotations": annotations,
        "schemaVersion": meta.schema_version,
        "createdAt": meta.created_at,
    });
    match args.output.or(Format::Human) {
        Format::Json => output::json(&value),
        Format::Jsonl => output::json_line(&value),
        Format::Raw => output::raw(value.to_string().as_bytes()),
        Format::Human => {
            output::line(&format!("CID:            {}", meta.cid))?;
            output::line(&format!("Schema version: {}", meta.schema_version))?;
            output::line(&format!(
                "Created at:     {}",
                if meta.created_at.is_empty() {
                    "-"
                } else {
                    &meta.created_at
                }
            ))?;
            output::line("Annotations:")?;
            annotations
                .iter()
                .try_for_each(|(key, value)| output::line(&format!("  {key}: {value}")))
        }
    }
}
