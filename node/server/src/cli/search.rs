//! `dirnode search`, `dirnode count`, `dirnode list`: finding records on a node.

use comfy_table::{ContentArrangement, Table, presets};
use dirnode_proto::routing::v1 as routing;
use dirnode_proto::routing::v1::routing_service_client::RoutingServiceClient;
use dirnode_proto::search::v1::search_service_client::SearchServiceClient;
use dirnode_proto::search::v1::{
    CountRecordsRequest, RecordQuery, RecordQueryType, SearchCiDsRequest, SearchRecordsRequest, SortMode,
};
use serde_json::{Value, json};
use tonic::Streaming;

use super::client::{Client, MAX_ANSWER_BYTES};
use super::filters::{Filters, domain_names, module_names, skill_names};
use super::json as record_json;
use super::output::{self, Format};
use super::{OutputArgs, ServerArgs};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode search --skill 'natural_language_processing/*' --limit 20\n  \
    dirnode search --author Orchard --exclude-version 'v0.*'\n  \
    dirnode search translat --format record\n  \
    dirnode search --locator 'docker_image' --sort popularity -o jsonl")]
pub(crate) struct SearchArgs {
    /// Part of a record's name
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    filters: Filters,
    /// What is printed of each record
    #[arg(long, value_enum, default_value_t = What::Cid)]
    format: What,
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
    /// Skip so many first
    #[arg(long, default_value_t = 0, value_name = "N")]
    offset: u32,
    /// Order of the answers
    #[arg(long, value_enum, default_value_t = Sort::Relevance)]
    sort: Sort,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The CID
    Cid,
    /// The record
    Record,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sort {
    /// As recency
    Relevance,
    /// Most pulled and looked up first
    Popularity,
    /// Latest stored first
    Recency,
    /// Most providers first
    ProviderCount,
}

impl Sort {
    fn mode(self) -> i32 {
        match self {
            Self::Relevance => SortMode::Relevance,
            Self::Popularity => SortMode::Popularity,
            Self::Recency => SortMode::Recency,
            Self::ProviderCount => SortMode::ProviderCount,
        }
        .into()
    }
}

fn conditions(text: Option<&str>, filters: &Filters) -> Vec<RecordQuery> {
    let mut queries = filters.queries();
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        queries.push(RecordQuery {
            r#type: RecordQueryType::Name.into(),
            value: format!("*{text}*"),
            negate: false,
        });
    }
    queries
}

/// Everything a stream says, each message within the time limit.
async fn collect<T>(client: &Client, mut answers: Streaming<T>) -> anyhow::Result<Vec<T>> {
    let mut all = Vec::new();
    while let Some(answer) = client.within(answers.message()).await? {
        all.push(answer);
    }
    Ok(all)
}

fn service(client: &Client) -> SearchServiceClient<tonic::transport::Channel> {
    SearchServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

pub(crate) async fn search(args: SearchArgs) -> anyhow::Result<()> {
    let queries = conditions(args.text.as_deref(), &args.filters);
    let (limit, offset, sort_mode) = (Some(args.limit), Some(args.offset), args.sort.mode());
    let client = Client::connect(&args.server).await?;
    let format = args.output.or(Format::Human);
    if args.format == What::Cid {
        let request = SearchCiDsRequest {
            queries,
            limit,
            offset,
            sort_mode,
        };
        let answers = client
            .within(service(&client).search_ci_ds(request))
            .await?
            .into_inner();
        let cids: Vec<String> = collect(&client, answers)
            .await?
            .into_iter()
            .map(|answer| answer.record_cid)
            .collect();
        return show_cids(format, &cids);
    }
    let request = SearchRecordsRequest {
        queries,
        limit,
        offset,
        sort_mode,
    };
    let answers = client
        .within(service(&client).search_records(request))
        .await?
        .into_inner();
    let records: Vec<_> = collect(&client, answers)
        .await?
        .into_iter()
        .filter_map(|answer| answer.record?.data)
        .collect();
    match format {
        Format::Human => show_table(&records),
        Format::Json => {
            let items: Vec<String> = records
                .iter()
                .map(|data| format!("{{\"data\":{}}}", record_json::compact(data)))
                .collect();
            output::line(&format!("[{}]", items.join(",\n")))
        }
        Format::Jsonl => records
            .iter()
            .try_for_each(|data| output::line(&format!("{{\"data\":{}}}", record_json::compact(data)))),
        Format::Raw => records
            .iter()
            .try_for_each(|data| output::line(&record_json::compact(data))),
    }
}

fn show_cids(format: Format, cids: &[String]) -> anyhow::Result<()> {
    match format {
        Format::Human if cids.is_empty() => output::line("No record CIDs found"),
        Format::Human => {
            output::line("Record CIDs found:")?;
            cids.iter().try_for_each(|cid| output::line(&format!("  {cid}")))
        }
        // A list stays a list, whatever its length.
        Format::Json => output::json(&Value::from(cids)),
        Format::Jsonl => cids
            .iter()
            .try_for_each(|cid| output::json_line(&Value::from(cid.as_str()))),
        Format::Raw => cids.iter().try_for_each(|cid| output::line(cid)),
    }
}

fn show_table(records: &[dirnode_proto::Struct]) -> anyhow::Result<()> {
    if records.is_empty() {
        return output::line("No records found");
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["NAME", "VERSION", "SKILLS", "CID"]);
    for data in records {
        let facts = dirnode_record::Facts::read(data)?;
        let skills: Vec<&str> = facts.skills.iter().map(|skill| skill.name.as_str()).collect();
        let cid = dirnode_record::RecordCid::of(&dirnode_record::to_canonical(data)?);
        table.add_row([
            facts.name.as_str(),
            facts.version.as_str(),
            &skills.join(", "),
            &cid.to_string(),
        ]);
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| output::line(line.trim_end()))
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode count\n  \
    dirnode count --skill 'natural_language_processing/*' -o raw")]
pub(crate) struct CountArgs {
    /// Part of a record's name
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn count(args: CountArgs) -> anyhow::Result<()> {
    let queries = conditions(args.text.as_deref(), &args.filters);
    let client = Client::connect(&args.server).await?;
    let mut service = service(&client);
    let count = client
        .within(service.count_records(CountRecordsRequest { queries }))
        .await?
        .into_inner()
        .total_count;
    match args.output.or(Format::Human) {
        Format::Human => output::line(&format!("Records: {count}")),
        Format::Json | Format::Jsonl => output::json_line(&Value::from(count)),
        Format::Raw => output::raw(count.to_string().as_bytes()),
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode list\n  \
    dirnode list --skill natural_language_processing --locator docker_image\n  \
    dirnode list --cid baearei… -o json")]
pub(crate) struct ListArgs {
    /// Skill, or the leading segments of one
    #[arg(long, value_name = "NAME", add = skill_names())]
    skill: Vec<String>,
    /// Domain, or the leading segments of one
    #[arg(long, value_name = "NAME", add = domain_names())]
    domain: Vec<String>,
    /// Module, or the leading segments of one
    #[arg(long, value_name = "NAME", add = module_names())]
    module: Vec<String>,
    /// Locator type
    #[arg(long, value_name = "TYPE")]
    locator: Vec<String>,
    /// Only this record
    #[arg(long, value_name = "CID")]
    cid: Option<String>,
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn list(args: ListArgs) -> anyhow::Result<()> {
    use routing::RecordQueryType as Type;
    let mut queries = Vec::new();
    for (kind, values) in [
        (Type::Skill, args.skill),
        (Type::Domain, args.domain),
        (Type::Module, args.module),
        (Type::Locator, args.locator),
    ] {
        queries.extend(values.into_iter().map(|value| routing::RecordQuery {
            r#type: kind.into(),
            value,
        }));
    }
    // The API has no condition on the CID, so the limit is kept here when one is asked for.
    let limit = if args.cid.is_some() { 0 } else { args.limit };
    let client = Client::connect(&args.server).await?;
    let mut service = RoutingServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_BYTES);
    let request = routing::ListRequest {
        queries,
        limit: Some(limit),
    };
    let answers = client.within(service.list(request)).await?.into_inner();
    let mut found = collect(&client, answers).await?;
    if let Some(cid) = &args.cid {
        found.retain(|item| {
            item.record_ref
                .as_ref()
                .is_some_and(|reference| &reference.cid == cid)
        });
    }
    let items: Vec<Value> = found
        .iter()
        .map(|item| {
            json!({ "record_ref": { "cid": item.record_ref.as_ref().map(|reference| &reference.cid) }, "labels": item.labels })
        })
        .collect();
    match args.output.or(Format::Human) {
        Format::Json => output::json(&Value::from(items)),
        Format::Jsonl => items.iter().try_for_each(output::json_line),
        Format::Raw => found
            .iter()
            .filter_map(|item| item.record_ref.as_ref())
            .try_for_each(|reference| output::line(&reference.cid)),
        Format::Human if found.is_empty() => output::line("No published records found"),
        Format::Human => found.iter().try_for_each(|item| {
            output::line(item.record_ref.as_ref().map_or("", |reference| &reference.cid))?;
            item.labels
                .iter()
                .try_for_each(|label| output::line(&format!("  {label}")))
        }),
    }
}
