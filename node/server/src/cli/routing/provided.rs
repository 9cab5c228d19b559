//! `dirnode provide-status`: how far the news of records has come, and what comes next.

use anyhow::bail;
use comfy_table::{ContentArrangement, Table, presets};
use dirnode_proto::node::v1::node_service_client::NodeServiceClient;
use dirnode_proto::node::v1::{GetProvideStatusRequest, ProvideStatus, PublicationState as State};
use dirnode_record::RecordCid;
use serde_json::{Value, json};

use super::super::client::{Client, MAX_ANSWER_BYTES};
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{all, listed};

/// Records asked about in one call.
const AT_ONCE: usize = 1000;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "STATE is: not stored, not published, waiting (no peers yet), on its way, announced, given up (tried on), \
    taken back.\n\n\
    Examples:\n  \
    dirnode provide-status                        every published record\n  \
    dirnode provide-status baearei…\n  \
    dirnode provide-status -o json | jq '.[] | select(.in_outbox)'"
)]
pub(crate) struct Args {
    #[arg(
        value_name = "REF",
        help = "CIDs, or name[:version][@cid]; none for every published record"
    )]
    references: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let mut cids = Vec::new();
    if args.references.is_empty() {
        let published = listed(&client).await?;
        cids.extend(
            published
                .into_iter()
                .filter_map(|item| Some(item.record_ref?.cid)),
        );
    }
    for reference in &args.references {
        cids.push(client.cid_of(reference).await?);
    }
    if let Some(odd) = cids.iter().find(|cid| RecordCid::parse(cid).is_none()) {
        bail!("{odd:?} is not the CID of a record; a CID looks like baearei…");
    }
    let mut service = NodeServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
    let mut found = Vec::with_capacity(cids.len());
    for cids in cids.chunks(AT_ONCE) {
        let request = GetProvideStatusRequest { cids: cids.to_vec() };
        let answer = async { all(service.get_provide_status(request).await?.into_inner()).await };
        found.extend(client.within(answer).await?);
    }
    match args.output.or(Format::Human) {
        Format::Json => output::json(&found.iter().map(as_json).collect()),
        Format::Jsonl => found
            .iter()
            .try_for_each(|status| output::json_line(&as_json(status))),
        Format::Raw => found
            .iter()
            .try_for_each(|status| output::line(&format!("{} {}", status.cid, state(status)))),
        Format::Human if found.is_empty() => output::line("No published records found"),
        Format::Human => table(&found),
    }
}

fn state(status: &ProvideStatus) -> &'static str {
    match status.state() {
        _ if status.withdrawn => "taken back",
        State::Pending | State::InProgress if status.waiting_for_peers => "waiting",
        State::Pending | State::InProgress => "on its way",
        State::Completed => "announced",
        State::Failed => "given up",
        State::Unspecified if status.published => "published",
        State::Unspecified if status.stored => "not published",
        State::Unspecified => "not stored",
    }
}

fn or_null(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        Value::from(text)
    }
}

fn as_json(status: &ProvideStatus) -> Value {
    json!({
        "cid": status.cid,
        "state": state(status),
        "stored": status.stored,
        "published": status.published,
        "withdrawn": status.withdrawn,
        "in_outbox": status.in_outbox,
        "waiting_for_peers": status.waiting_for_peers,
        "last_provided": or_null(&status.last_provided),
        "last_announced": or_null(&status.last_announced),
        "next_provide": or_null(&status.next_provide),
        "next_announcement": or_null(&status.next_announcement),
        "failed_provides": status.failed_provides,
        "failed_announcements": status.failed_announcements,
        "last_error": or_null(&status.last_error),
    })
}

fn table(found: &[ProvideStatus]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "CID",
            "STATE",
            "PROVIDED",
            "ANNOUNCED",
            "NEXT",
            "FAILED",
            "LAST ERROR",
        ]);
    for status in found {
        // To the second is enough for people.
        let short = |text: &str| {
            text.split('.')
                .next()
                .unwrap_or_default()
                .trim_end_matches('Z')
                .to_owned()
        };
        let tries = status.failed_provides.saturating_add(status.failed_announcements);
        let mut words = state(status).to_owned();
        if status.waiting_for_peers {
            words.push_str(": no peers yet");
        }
        table.add_row([
            status.cid.clone(),
            words,
            short(&status.last_provided),
            short(&status.last_announced),
            short(&status.next_provide),
            if tries == 0 {
                String::new()
            } else {
                tries.to_string()
            },
            status.last_error.clone(),
        ]);
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| output::line(line.trim_end()))
}
