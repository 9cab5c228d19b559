//! `dirnode find`: records that other nodes announce.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::bail;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use dirnode_proto::routing::v1::{RecordQuery, RecordQueryType as Type, SearchRequest, SearchResponse};
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::filters::{domain_names, module_names, skill_names};
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{all, service, words};

/// Annotation of a peer: where it can be dialled, with commas between the addresses.
const ADDRESSES: &str = "dirnode.addresses";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Asks the node what it has heard; its own records are not among it (see `dirnode list`). A record scores \
    one for\neach condition that its labels meet.\n\n\
    Examples:\n  \
    dirnode find --skill natural_language_processing\n  \
    dirnode find --skill natural_language_processing --domain finance --min-score 2\n  \
    dirnode find --locator docker_image --limit 0 -o json | jq -r '.[].peer.addrs[0]'\n  \
    dirnode find 'translate documents' --verbose\n  \
    dirnode find --any --verbose"
)]
pub(crate) struct Args {
    /// What is looked for in words: skills and domains of the OASF taxonomies that they name
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// With TEXT: only the taxonomies of this OASF version, such as 1.0.0
    #[arg(long, value_name = "VERSION")]
    schema_version: Vec<String>,
    /// Skill, or the leading segments of one
    #[arg(long, value_name = "NAME", add = skill_names())]
    skill: Vec<String>,
    /// Locator type
    #[arg(long, value_name = "TYPE")]
    locator: Vec<String>,
    /// Domain, or the leading segments of one
    #[arg(long, value_name = "NAME", add = domain_names())]
    domain: Vec<String>,
    /// Module, or the leading segments of one
    #[arg(long, value_name = "NAME", add = module_names())]
    module: Vec<String>,
    /// Whatever its labels are
    #[arg(long)]
    any: bool,
    /// At most so many records; 0 for all
    #[arg(long, default_value_t = 10, value_name = "N")]
    limit: u32,
    /// Only records that meet so many of the conditions
    #[arg(long, default_value_t = 1, value_name = "N")]
    min_score: u32,
    /// Show which conditions are met, and who else has the record
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

fn queries(args: &Args) -> anyhow::Result<Vec<RecordQuery>> {
    let mut queries = in_words(args)?;
    for (kind, values) in [
        (Type::Skill, &args.skill),
        (Type::Locator, &args.locator),
        (Type::Domain, &args.domain),
        (Type::Module, &args.module),
    ] {
        queries.extend(values.iter().map(|value| RecordQuery {
            r#type: kind.into(),
            value: value.clone(),
        }));
    }
    if args.any {
        queries.push(RecordQuery {
            r#type: Type::Unspecified.into(),
            value: String::new(),
        });
    }
    Ok(queries)
}

/// The conditions of the positional text.
fn in_words(args: &Args) -> anyhow::Result<Vec<RecordQuery>> {
    let Some(text) = args.text.as_deref().filter(|text| !text.trim().is_empty()) else {
        if !args.schema_version.is_empty() {
            // Out of the way of the answer in every form: a script may well say both.
            writeln!(
                std::io::stderr(),
                "--schema-version is not used: it says which taxonomies a TEXT is read by"
            )?;
        }
        return Ok(Vec::new());
    };
    let meant = words::conditions(text, &args.schema_version)?;
    if meant.is_empty() {
        bail!(
            "{text:?} names no skill or domain that is known, and nothing else of a record is announced in words; try other \
             words, or --skill, --domain, --module or --locator"
        );
    }
    let queries: Vec<RecordQuery> = meant
        .into_iter()
        .map(|(kind, value)| RecordQuery {
            r#type: kind.into(),
            value,
        })
        .collect();
    if args.verbose {
        let mut err = std::io::stderr();
        writeln!(err, "{text:?} is looked for as:")?;
        for query in &queries {
            writeln!(err, "  {}", condition(query))?;
        }
    }
    Ok(queries)
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let queries = queries(&args)?;
    let mut found = Vec::new();
    if queries.is_empty() {
        output::remark(
            format,
            "Nothing is looked for: give TEXT, --skill, --domain, --module or --locator, or --any for everything",
        )?;
        if format == Format::Human {
            return Ok(());
        }
    } else {
        let client = Client::connect(&args.server).await?;
        let mut service = service(&client);
        let request = SearchRequest {
            queries,
            min_match_score: Some(args.min_score),
            limit: Some(args.limit),
        };
        let answers = client.within(service.search(request)).await?.into_inner();
        found = client.within(all(answers)).await?;
        // What the node ranks higher stays in front among those that score the same.
        found.sort_by_key(|hit| std::cmp::Reverse(hit.match_score));
    }
    match format {
        Format::Json => output::json(&found.iter().map(as_json).collect()),
        Format::Jsonl => found.iter().try_for_each(|hit| output::json_line(&as_json(hit))),
        Format::Raw => found.iter().try_for_each(|hit| output::line(cid(hit))),
        Format::Human if found.is_empty() => output::line("No records found"),
        Format::Human => table(&found, args.verbose),
    }
}

fn cid(hit: &SearchResponse) -> &str {
    hit.record_ref.as_ref().map_or("", |reference| &reference.cid)
}

fn as_json(hit: &SearchResponse) -> Value {
    let peer = hit.peer.as_ref().map(|peer| {
        let annotations: BTreeMap<_, _> = peer.annotations.iter().collect();
        json!({
            "id": peer.id,
            "addrs": peer.addrs,
            "annotations": annotations,
            "connection": peer.connection,
        })
    });
    let matched: Vec<Value> = hit
        .match_queries
        .iter()
        .map(|query| json!({ "type": query.r#type, "value": query.value }))
        .collect();
    json!({
        "record_ref": { "cid": cid(hit) },
        "peer": peer,
        "match_queries": matched,
        "match_score": hit.match_score,
    })
}

/// Where the peer is: its directory and registry, then where it can be dialled.
fn addresses(hit: &SearchResponse) -> Vec<String> {
    let Some(peer) = &hit.peer else { return Vec::new() };
    let mut found = peer.addrs.clone();
    let dial = peer
        .annotations
        .get(ADDRESSES)
        .map(String::as_str)
        .unwrap_or_default();
    found.extend(dial.split(',').filter(|text| !text.is_empty()).map(str::to_owned));
    found
}

fn condition(query: &RecordQuery) -> String {
    let kind = match query.r#type() {
        Type::Skill => "skill",
        Type::Locator => "locator",
        Type::Domain => "domain",
        Type::Module => "module",
        Type::Unspecified => return "any".to_owned(),
    };
    format!("{kind} {}", query.value)
}

fn table(found: &[SearchResponse], verbose: bool) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    let mut header = vec!["CID", "SCORE", "PEER", "ADDRESSES"];
    if verbose {
        header.extend(["CONDITIONS", "PROVIDERS"]);
    }
    table.set_header(header);
    for hit in found {
        let peer = hit.peer.clone().unwrap_or_default();
        let mut row = vec![
            cid(hit).to_owned(),
            hit.match_score.to_string(),
            peer.id.clone(),
            addresses(hit).join("\n"),
        ];
        if verbose {
            let conditions: Vec<String> = hit.match_queries.iter().map(condition).collect();
            let providers = peer.annotations.get("dirnode.providers");
            row.extend([
                conditions.join("\n"),
                providers.cloned().unwrap_or_else(|| "1".to_owned()),
            ]);
        }
        table.add_row(row);
    }
    for place in [0, 2, 3] {
        if let Some(column) = table.column_mut(place) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| output::line(line.trim_end()))
}
