//! The published set on one node: what Publish acknowledged is listed, also after a kill or a restart; and publications,
//! which end when their news is out and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dirnode_server::node::Node;
use dirnode_server::runtime::{Clock, system_clock};
use dirnode_tests::grpc::{Client, End};
use dirnode_tests::node::{Setup, wait_serving};
use dirnode_tests::program::Program;
use dirnode_tests::scrape;
use dirnode_tests::wait::eventually;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value as Json, json};

use crate::common::{COUNT, DELETE, LIST, PUBLISH, PUSH, SEARCH_CIDS, UNPUBLISH, cid_of, sample};

/// As long as something that needs several nodes may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const CREATE_PUBLICATION: &str = "/agntcy.dir.routing.v1.PublicationService/CreatePublication";
const GET_PUBLICATION: &str = "/agntcy.dir.routing.v1.PublicationService/GetPublication";

const STATUS: &str = "/dirnode.node.v1.NodeService/GetStatus";
const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
const IN_PROGRESS: &str = "PUBLICATION_STATUS_IN_PROGRESS";
const COMPLETED: &str = "PUBLICATION_STATUS_COMPLETED";
const FAILED: &str = "PUBLICATION_STATUS_FAILED";

/// Files a publication; its id.
async fn filed(client: &Client, request: &Json) -> String {
    let filed = client
        .ask(CREATE_PUBLICATION, std::slice::from_ref(request))
        .await
        .unwrap();
    filed[0]["publication_id"].as_str().unwrap().to_owned()
}

async fn status(client: &Client, id: &str) -> String {
    let asked = json!({"publication_id": id});
    let found = client.ask(GET_PUBLICATION, &[asked]).await.unwrap();
    found[0]["status"].as_str().unwrap_or_default().to_owned()
}

/// Waits until a publication is there.
async fn reaches(client: &Client, id: &str, wanted: &str) {
    eventually(DEADLINE, || async {
        let now = status(client, id).await;
        (now == wanted)
            .then_some(())
            .ok_or_else(|| format!("{id} is {now}, not {wanted}"))
    })
    .await;
}

/// Waits until a search for everything finds so many records of others.
async fn finds(client: &Client, count: usize) {
    let any = json!({"queries": [{"type": 0, "value": ""}]});
    eventually(DEADLINE, || async {
        let found = client.ask(SEARCH, std::slice::from_ref(&any)).await.unwrap();
        (found.len() == count)
            .then_some(())
            .ok_or_else(|| format!("{} are found", found.len()))
    })
    .await;
}

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
        (refs(&["no cid".to_owned(), unknown.clone()]), FAILED),
        (json!({"queries": {"queries": many}}), FAILED),
        (refs(&[unknown, cid.clone()]), FAILED),
        (
            json!({"queries": {"queries": [{"type": 1, "value": "no.such/record"}]}}),
            COMPLETED,
        ),
    ] {
        let id = filed(client, &request).await;
        reaches(client, &id, status).await;
    }
    assert_eq!(listed(client).await, [cid]);
    node.stop().await;
}

/// Nobody was there to be told; when somebody comes, what was deleted meanwhile is taken back rather than announced.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_deleted_before_its_news_was_out_is_taken_back() {
    let node = Setup::default().start().await;
    let pushed = node
        .client
        .ask(PUSH, &[sample("kept"), sample("gone")])
        .await
        .unwrap();
    let (kept, gone) = (cid_of(&pushed[0]), cid_of(&pushed[1]));
    let job = filed(&node.client, &refs(std::slice::from_ref(&gone))).await;
    let other = filed(&node.client, &refs(std::slice::from_ref(&kept))).await;
    reaches(&node.client, &job, IN_PROGRESS).await;
    node.client.ask(DELETE, &[json!({"cid": gone})]).await.unwrap();

    let peer = Setup::default().joining(&node).await.start().await;
    reaches(&node.client, &other, COMPLETED).await;
    reaches(&node.client, &job, FAILED).await;
    eventually(DEADLINE, || async {
        let listed = listed(&node.client).await;
        (listed == [kept.clone()])
            .then_some(())
            .ok_or_else(|| format!("{listed:?}"))
    })
    .await;
    finds(&peer.client, 1).await;
    peer.stop().await;
    node.stop().await;
}

/// Published, taken back and published again while the news of each is on its way, and then killed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_again_survives_kill_9() {
    let peer = Setup::default().start().await;
    let address = peer.peer_addresses().await.remove(0);
    let folder = tempfile::tempdir().unwrap();
    let args = ["--bootstrap-peer", address.as_str()];
    let mut program = Program::start(folder.path(), &args, &[]);
    let client = program.client().await;
    let bodies: Vec<Json> = (0..60).map(|n| sample(&format!("again.{n}"))).collect();
    let pushed = client.ask(PUSH, &bodies).await.unwrap();
    let cids: Vec<String> = pushed.iter().map(cid_of).collect();
    for round in 0..3 {
        if round > 0 {
            client.ask(UNPUBLISH, &[refs(&cids)]).await.unwrap();
        }
        client.ask(PUBLISH, &[refs(&cids)]).await.unwrap();
        finds(&peer.client, cids.len()).await;
    }
    client.ask(UNPUBLISH, &[refs(&cids)]).await.unwrap();
    client.ask(PUBLISH, &[refs(&cids)]).await.unwrap();
    program.kill().await;

    let mut program = Program::start(folder.path(), &args, &[]);
    let client = program.client().await;
    assert_eq!(listed(&client).await, sorted(&cids));
    finds(&peer.client, cids.len()).await;
    program.kill().await;
    peer.stop().await;
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

/// A job that was filed and interrupted goes on after the next start, and ends when there is somebody to tell.
#[tokio::test(flavor = "multi_thread")]
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
    let id = filed(&client, &refs(&stored)).await;
    program.kill().await;
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    eventually(DEADLINE, || async {
        let now = listed(&client).await;
        let there = now == sorted(&stored);
        there
            .then_some(())
            .ok_or_else(|| format!("{} are listed", now.len()))
    })
    .await;
    // There is nobody to tell, and another end does not change that.
    assert_eq!(status(&client, &id).await, IN_PROGRESS);
    program.kill().await;
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    assert_eq!(status(&client, &id).await, IN_PROGRESS);

    let state = client.ask(STATUS, &[json!({})]).await.unwrap();
    let address = state[0]["network"]["listening"][0].as_str().unwrap();
    let other = Setup::default()
        .set("routing.bootstrap_peers", address)
        .start()
        .await;
    reaches(&client, &id, COMPLETED).await;
    let any = json!({"queries": [{"type": 0, "value": ""}], "limit": 1000});
    eventually(DEADLINE, || async {
        let found = other
            .client
            .ask(SEARCH, std::slice::from_ref(&any))
            .await
            .unwrap();
        let all = found.len() == stored.len();
        all.then_some(())
            .ok_or_else(|| format!("{} are found", found.len()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_to_tell_a_publication_says_so_until_its_records_are_taken_back() {
    let node = Setup::default().with_metrics().start().await;
    let client = &node.client;
    let pushed = client.ask(PUSH, &[sample("v1"), sample("v2")]).await.unwrap();
    let cids: Vec<String> = pushed.iter().map(cid_of).collect();
    let (one, two) = (
        filed(client, &refs(&cids[..1])).await,
        filed(client, &refs(&cids)).await,
    );
    let metrics = node.node.metrics_address().unwrap().to_string();
    eventually(DEADLINE, || async {
        let page = scrape::get(&metrics, "/metrics", "text/plain").await;
        let waiting = scrape::total(&page.body, "dirnode_publications_waiting_for_peers");
        let open = scrape::total(&page.body, "dirnode_routing_outbox_open");
        ((waiting, open) == (2.0, 2.0))
            .then_some(())
            .ok_or_else(|| format!("{waiting} wait, {open} are open"))
    })
    .await;
    assert_eq!(status(client, &one).await, IN_PROGRESS);
    client.ask(UNPUBLISH, &[refs(&cids[1..])]).await.unwrap();
    reaches(client, &two, FAILED).await;
    assert_eq!(status(client, &one).await, IN_PROGRESS);
    node.stop().await;
}

/// A day without anybody to tell is reported as a failure; the outbox goes on all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_nobody_heard_of_for_a_day_fails_and_is_told_when_somebody_comes() {
    const PROGRESS: &str = "/dirnode.node.v1.NodeService/GetPublicationProgress";
    let folder = tempfile::tempdir().unwrap();
    let ahead = Arc::new(AtomicI64::new(0));
    let (machine, shift) = (system_clock(), Arc::clone(&ahead));
    let clock: Clock = Arc::new(move || machine() + shift.load(Ordering::Relaxed));
    let config = Setup::default().config(folder.path());
    let node = Box::pin(Node::start_with_clock(config, clock)).await.unwrap();
    let client = Client::connect(&node.addresses()[0].to_string()).await.unwrap();
    wait_serving(&client).await;
    let pushed = client.ask(PUSH, &[sample("v1")]).await.unwrap();
    let cid = cid_of(&pushed[0]);
    let id = filed(&client, &refs(std::slice::from_ref(&cid))).await;
    reaches(&client, &id, IN_PROGRESS).await;

    ahead.store(25 * 3600 * 1_000_000_000, Ordering::Relaxed);
    reaches(&client, &id, FAILED).await;
    let asked = json!({"publication_id": id});
    let answer = client.ask(PROGRESS, &[asked]).await.unwrap();
    let reason = answer[0]["reason"].as_str().unwrap();
    assert!(reason.contains("a day: no peers yet"), "{reason}");

    ahead.store(0, Ordering::Relaxed);
    let state = client.ask(STATUS, &[json!({})]).await.unwrap();
    let address = state[0]["network"]["listening"][0].as_str().unwrap();
    let joining = Setup::default().set("routing.bootstrap_peers", address);
    let other = joining.start().await;
    finds(&other.client, 1).await;
    other.stop().await;
    node.stop().await.unwrap();
}

/// Without gossip the DHT alone carries news: labels come by fetching the record.
#[tokio::test(flavor = "multi_thread")]
async fn without_gossip_a_publication_ends_when_its_records_are_provided_and_they_are_found() {
    let quiet = || Setup::default().set("routing.gossipsub.enabled", "false");
    // Where only the other has it off it takes longer to be sure that nobody listens.
    for one in [quiet(), Setup::default()] {
        let one = one.start().await;
        let two = quiet().joining(&one).await.start().await;
        let pushed = one.client.ask(PUSH, &[sample("v1")]).await.unwrap();
        let cid = cid_of(&pushed[0]);
        let id = filed(&one.client, &refs(std::slice::from_ref(&cid))).await;
        reaches(&one.client, &id, COMPLETED).await;
        finds(&two.client, 1).await;
        one.stop().await;
        two.stop().await;
    }
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
