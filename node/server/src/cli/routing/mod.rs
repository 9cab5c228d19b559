//! The commands about what is announced and what others announce: `publish`, `unpublish`, `find`, `provide-status`, and the
//! group `routing` with the names that operators know (operations §7.3).

pub(crate) mod find;
pub(crate) mod info;
pub(crate) mod provided;
pub(crate) mod publish;
pub(crate) mod unpublish;
mod words;

use std::collections::BTreeSet;
use std::io::Read as _;

use anyhow::{Context as _, anyhow, bail};
use dirnode_proto::core::v1::RecordRef;
use dirnode_proto::routing::v1 as wire;
use dirnode_proto::routing::v1::routing_service_client::RoutingServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::client::{Client, MAX_ANSWER_BYTES};
use super::inputs::MAX_DOCUMENT_BYTES;
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

/// The references on standard input.
fn references_of_stdin() -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_DOCUMENT_BYTES + 1)
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    if text.len() as u64 > MAX_DOCUMENT_BYTES {
        bail!("standard input is larger than {MAX_DOCUMENT_BYTES} bytes; give it in parts");
    }
    references_in(&text)
}

/// The references of a text: one a line, bare or as a JSON string, or all of them in a JSON array, as `-o json` prints them.
fn references_in(text: &str) -> anyhow::Result<Vec<String>> {
    if text.trim_start().starts_with('[') {
        let items: Vec<Value> =
            serde_json::from_str(text).context("standard input begins like a JSON array and is none")?;
        let reference = |item: Value| {
            let listed = || item.pointer("/record_ref/cid").and_then(Value::as_str);
            let cid = item.as_str().or_else(listed);
            cid.map(str::to_owned)
                .ok_or_else(|| anyhow!("{item} on standard input names no record"))
        };
        return items.into_iter().map(reference).collect();
    }
    let lines = text.lines().map(|line| line.trim().trim_matches('"'));
    Ok(lines.filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The CIDs that references name, each once, in order; those that the node does not hold are an error.
async fn held(client: &Client, mut references: Vec<String>, stdin: bool) -> anyhow::Result<Vec<String>> {
    if stdin {
        references.extend(references_of_stdin()?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_lines_or_as_a_json_array() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(references_in(text).unwrap(), expected, "{text:?}");
        check("a\n\n  b:v1 \n\"c\"\n", &["a", "b:v1", "c"]);
        check("", &[]);
        check(" []\n", &[]);
        check("[\n  \"a\",\n  \"b\"\n]\n", &["a", "b"]);
        check("[{\"record_ref\": {\"cid\": \"a\"}, \"labels\": []}]", &["a"]);
        for bad in ["[", "[1]", "[\"a\"] b", "[{}]"] {
            assert!(references_in(bad).is_err(), "{bad:?}");
        }
    }
}
