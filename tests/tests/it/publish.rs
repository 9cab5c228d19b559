//! The published set on one node: what Publish acknowledged is listed, also after a kill or a restart, and jobs are followed
//! to their end.

use std::time::Duration;

use bytes::Bytes;
use dirnode_tests::grpc::{Client, DEADLINE, End};
use dirnode_tests::node::Setup;
use dirnode_tests::program::Program;
use dirnode_tests::wait::eventually;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value as Json, json};

use crate::common::{COUNT, DELETE, LIST, PUBLISH, PUSH, SEARCH_CIDS, UNPUBLISH, cid_of, sample};

const CREATE_PUBLICATION: &str = "/agntcy.dir.routing.v1.PublicationService/CreatePublication";
const GET_PUBLICATION: &str = "/agntcy.dir.routing.v1.PublicationService/GetPublication";

/// A request of Publish or Unpublish that names these.
pub fn refs(cids: &[String]) -> Json {
    let refs: Vec<Json> = cids.iter().map(|cid| json!({"cid": cid})).collect();
    json!({"record_refs": {"refs": refs}})
}

/// The CIDs of an answered List, sorted.
pub async fn listed(client: &Client) -> Vec<String> {
    let answers = client.ask(LIST, &[json!({})]).await.unwrap();
    let mut cids: Vec<String> = answers
        .iter()
        .map(|answer| cid_of(&answer["record_ref"]))
        .collect();
    cids.sort();
    cids
}

fn sorted(cids: &[String]) -> Vec<String> {
    let mut cids = cids.to_vec();
    cids.sort();
    cids
}

#[tokio::test]
async fn a_publication_that_cannot_be_done_fails_and_the_node_goes_on() {
    let node = Setup::default().start().await;
    let client = &node.client;
    let cid = cid_of(&client.ask(PUSH, &[sample("v1")]).await.unwrap()[0]);
    let unknown = "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri".to_owned();
    let many = vec![json!({"type": 1, "value": "a*"}); 10_000];
    for (request, status) in [
        (
            refs(&["no cid".to_owned(), unknown.clone()]),
            "PUBLICATION_STATUS_FAILED",
        ),
        (json!({"queries": {"queries": many}}), "PUBLICATION_STATUS_FAILED"),
        (refs(&[unknown, cid.clone()]), "PUBLICATION_STATUS_FAILED"),
        (json!({"all_records": true}), "PUBLICATION_STATUS_COMPLETED"),
    ] {
        let filed = client.ask(CREATE_PUBLICATION, &[request]).await.unwrap();
        let asked = json!({"publication_id": filed[0]["publication_id"]});
        eventually(DEADLINE, || async {
            let found = client
                .ask(GET_PUBLICATION, std::slice::from_ref(&asked))
                .await
                .unwrap();
            let reached = found[0]["status"] == status;
            reached.then_some(()).ok_or_else(|| format!("{found:?}"))
        })
        .await;
    }
    assert_eq!(listed(client).await, [cid]);
    node.stop().await;
}

/// The CIDs of every record by a search, sorted.
async fn all(client: &Client) -> Vec<String> {
    let answers = client.ask(SEARCH_CIDS, &[json!({})]).await.unwrap();
    let mut cids: Vec<String> = answers
        .iter()
        .map(|answer| answer["record_cid"].as_str().unwrap().to_owned())
        .collect();
    cids.sort();
    cids
}

#[tokio::test]
async fn records_are_found_and_listed_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let (mut stored, mut published) = (Vec::new(), Vec::new());
    for round in 0..3 {
        let mut program = Program::start(folder.path(), &[], &[]);
        let client = program.client().await;
        assert_eq!(all(&client).await, sorted(&stored), "round {round}");
        assert_eq!(listed(&client).await, sorted(&published), "round {round}");
        // The stream stays open, and nothing tells the node that it ends.
        let messages: Vec<Bytes> = (0..12)
            .map(|n| client.encode(PUSH, &sample(&format!("v{round}.{n}"))))
            .collect();
        let mut answers = client
            .open(PUSH, stream::iter(messages).boxed(), End::KeepOpen)
            .await
            .unwrap();
        let mut fresh = Vec::new();
        for _ in 0..12 {
            let answer = answers.message().await.unwrap().unwrap();
            fresh.push(cid_of(&client.decode(PUSH, &answer)));
        }
        stored.extend(fresh.clone());
        client.ask(PUBLISH, &[refs(&fresh[..8])]).await.unwrap();
        published.extend(fresh[..8].to_vec());
        // Published is what Publish acknowledged, whether its job had ended by then or not.
        eventually(Duration::from_secs(10), || async {
            let now = listed(&client).await;
            let there = now == sorted(&published);
            there
                .then_some(())
                .ok_or_else(|| format!("{} are listed", now.len()))
        })
        .await;
        client.ask(UNPUBLISH, &[refs(&fresh[..2])]).await.unwrap();
        published.retain(|cid| !fresh[..2].contains(cid));
        client.ask(DELETE, &[json!({"cid": fresh[11]})]).await.unwrap();
        stored.retain(|cid| *cid != fresh[11]);
        program.kill().await;
    }
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    assert_eq!(all(&client).await, sorted(&stored));
    assert_eq!(listed(&client).await, sorted(&published));
    let by_name = json!({"queries": [{"type": 1, "value": "agents.example.org/translator"}, {"type": 2, "value": "v1.*"}]});
    assert_eq!(
        client.ask(COUNT, &[by_name]).await,
        Ok(vec![json!({"total_count": 11})])
    );
}

/// A job that was filed and interrupted is done after the next start.
#[tokio::test]
async fn a_publication_that_a_kill_interrupted_is_done_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let bodies: Vec<Json> = (0..200).map(|n| sample(&format!("v{n}"))).collect();
    let stored: Vec<String> = client
        .ask(PUSH, &bodies)
        .await
        .unwrap()
        .iter()
        .map(cid_of)
        .collect();
    let filed = client.ask(CREATE_PUBLICATION, &[refs(&stored)]).await.unwrap();
    program.kill().await;
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let asked = json!({"publication_id": filed[0]["publication_id"]});
    eventually(DEADLINE, || async {
        let found = client
            .ask(GET_PUBLICATION, std::slice::from_ref(&asked))
            .await
            .unwrap();
        let done = found[0]["status"] == "PUBLICATION_STATUS_COMPLETED";
        done.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    assert_eq!(listed(&client).await, sorted(&stored));
}

#[tokio::test]
async fn a_published_record_is_listed_after_an_orderly_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = Setup::default().start_in(folder.path()).await;
    let pushed = node
        .client
        .ask(PUSH, &[sample("v1"), sample("v2")])
        .await
        .unwrap();
    let cid = cid_of(&pushed[0]);
    node.client
        .ask(PUBLISH, &[refs(std::slice::from_ref(&cid))])
        .await
        .unwrap();
    let before = node.client.ask(LIST, &[json!({})]).await.unwrap();
    assert_eq!(before.len(), 1, "it is listed at once");
    node.stop().await;
    let node = Setup::default().start_in(folder.path()).await;
    assert_eq!(
        node.client.ask(LIST, &[json!({})]).await,
        Ok(before),
        "with the same labels"
    );
    node.stop().await;
}
