//! `dirnode resolve`: records by name.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::client::Client;
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode resolve example.org/agent\n  \
    dirnode resolve 'example.org/*' --record-version '>=1.0' -o jsonl\n  \
    dirnode resolve example.org/agent -o raw | head -1      the latest CID")]
pub(crate) struct Args {
    /// Name; * and ? are wildcards, letter case does not matter
    #[arg(value_name = "NAME")]
    name: String,
    /// Only this version: a text, a pattern, or a comparison such as >=1.0
    #[arg(long, value_name = "VERSION")]
    record_version: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let records = client.resolve(&args.name, args.record_version.as_deref()).await?;
    let values: Vec<Value> = records
        .iter()
        .map(|record| json!({ "name": record.name, "version": record.version, "cid": record.cid }))
        .collect();
    match args.output.or(Format::Human) {
        Format::Json => output::json(&Value::from(values)),
        Format::Jsonl => values.iter().try_for_each(output::json_line),
        Format::Raw => records.iter().try_for_each(|record| output::line(&record.cid)),
        Format::Human => {
            let mut table = Table::new();
            table
                .load_style(presets::NOTHING)
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_header(["NAME", "VERSION", "CID"]);
            for record in &records {
                table.add_row([&record.name, &record.version, &record.cid]);
            }
            table
                .to_string()
                .lines()
                .try_for_each(|line| output::line(line.trim_end()))
        }
    }
}
