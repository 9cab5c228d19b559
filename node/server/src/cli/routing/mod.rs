//! The commands about what is announced and what others announce: `publish`, `unpublish`, `find`, `provide-status`, and the
//! group `routing` with the names that operators know (operations §7.3).

pub(crate) mod find;
pub(crate) mod info;
pub(crate) mod provided;
pub(crate) mod publish;
pub(crate) mod unpublish;

use std::collections::BTreeSet;
use std::io::BufRead as _;

use anyhow::{Context as _, anyhow, bail};
use dirnode_proto::core::v1::RecordRef;
use dirnode_proto::routing::v1 as wire;
use dirnode_proto::routing::v1::routing_service_client::RoutingServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::client::{Client, MAX_ANSWER_BYTES};
use super::search;

/// The group `dirnode routing`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Announce records to the network
    Publish(publish::Args),
    /// Take records back from the network
    Unpublish(unpublish::Args),
    /// List the records that the node announces
    List(search::ListArgs),
    /// Find records that other nodes announce
    Search(find::Args),
    /// Count what the node announces, by label
    Info(info::Args),
    /// Show how far the news of records has come
    ProvideStatus(provided::Args),
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Publish(args) => publish::run(args).await,
        Command::Unpublish(args) => unpublish::run(args).await,
        Command::List(args) => search::list(args).await,
        Command::Search(args) => find::run(args).await,
        Command::Info(args) => info::run(args).await,
        Command::ProvideStatus(args) => provided::run(args).await,
    }
}

fn service(client: &Client) -> RoutingServiceClient<Channel> {
    RoutingServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// The lines of standard input that are not empty; a JSON string is taken as well as a bare word.
fn lines_of_stdin() -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read standard input")?;
        let text = line.trim().trim_matches('"');
        if !text.is_empty() {
            found.push(text.to_owned());
        }
    }
    Ok(found)
}

/// The CIDs that references name, each once, in order; those that the node does not hold are an error.
async fn held(client: &Client, mut references: Vec<String>, stdin: bool) -> anyhow::Result<Vec<String>> {
    if stdin {
        references.extend(lines_of_stdin()?);
    }
    if references.is_empty() {
        bail!("no record is named; give CIDs or names, as arguments or with --stdin one a line");
    }
    let mut cids = Vec::new();
    let mut seen = BTreeSet::new();
    for reference in &references {
        let cid = client.cid_of(reference).await?;
        if seen.insert(cid.clone()) {
            cids.push(cid);
        }
    }
    let asked: Vec<RecordRef> = cids.iter().map(|cid| RecordRef { cid: cid.clone() }).collect();
    let mut store = client.store();
    let answer = async { all(store.lookup(tokio_stream::iter(asked)).await?.into_inner()).await };
    let found = client.within(answer).await?;
    if found.len() < cids.len() {
        return Err(anyhow!("the node did not answer for every record"));
    }
    Ok(cids)
}

/// Everything a stream says.
async fn all<T>(mut answers: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.push(answer);
    }
    Ok(found)
}

/// Published records with their labels.
async fn listed(client: &Client) -> anyhow::Result<Vec<wire::ListResponse>> {
    let mut service = service(client);
    let request = wire::ListRequest {
        queries: Vec::new(),
        limit: None,
    };
    let answers = client.within(service.list(request)).await?.into_inner();
    client.within(all(answers)).await
}

fn refs(cids: &[String]) -> wire::RecordRefs {
    let refs = cids.iter().map(|cid| RecordRef { cid: cid.clone() });
    wire::RecordRefs { refs: refs.collect() }
}

/// The object that publish and unpublish print: what was asked for, and what became of it.
fn outcome(cids: &[String], count: u64, status: &str, message: &str) -> Value {
    let mut value = json!({ "count": count, "cids": cids, "status": status, "message": message });
    if let ([cid], Some(object)) = (cids, value.as_object_mut()) {
        object.insert("cid".to_owned(), Value::from(cid.as_str()));
    }
    value
}

fn counted(count: u64) -> String {
    if count == 1 {
        "1 record".to_owned()
    } else {
        format!("{count} records")
    }
}
