//! What one node publishes, the others find; what it takes back, they forget.

use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::wait::eventually;
use serde_json::{Value as Json, json};

use crate::common::{PUBLISH, PUSH, UNPUBLISH, cid_of, sample};

const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
const COUNT: &str = "/agntcy.dir.routing.v1.RoutingService/GetProviderCount";
const DEADLINE: Duration = Duration::from_secs(60);

fn refs(cid: RecordCid) -> Json {
    json!({ "record_refs": { "refs": [{ "cid": cid.to_string() }] } })
}

/// What a search for everything finds on a node.
async fn found(node: &TestNode) -> Vec<Json> {
    let request = json!({ "queries": [{ "type": "RECORD_QUERY_TYPE_UNSPECIFIED", "value": "" }] });
    node.client.ask(SEARCH, &[request]).await.unwrap()
}

async fn providers(node: &TestNode, cid: RecordCid) -> u64 {
    let answer = node
        .client
        .ask(COUNT, &[json!({ "cid": cid.to_string() })])
        .await
        .unwrap();
    answer[0]["count"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_found_elsewhere_until_it_is_taken_back() {
    let one = Setup::default().start().await;
    let two = Setup::default().joining(&one).await.start().await;
    let three = Setup::default().joining(&one).await.start().await;
    let answers = two.client.ask(PUSH, &[sample("v1.0.0")]).await.unwrap();
    let cid = RecordCid::parse(&cid_of(&answers[0])).unwrap();
    two.client.ask(PUBLISH, &[refs(cid)]).await.unwrap();

    let publisher = two.network().id().to_string();
    for node in [&one, &three] {
        eventually(DEADLINE, || async {
            let hits = found(node).await;
            let hit = hits
                .iter()
                .find(|hit| cid_of(&hit["record_ref"]) == cid.to_string())
                .ok_or_else(|| format!("found {hits:?}"))?;
            if hit["peer"]["id"] == publisher.as_str() && hit["match_score"] == 1 {
                Ok(())
            } else {
                Err(format!("{hit}"))
            }
        })
        .await;
        assert_eq!(providers(node, cid).await, 1);
    }
    // Its own records are not among what others have.
    assert!(found(&two).await.is_empty());

    two.client.ask(UNPUBLISH, &[refs(cid)]).await.unwrap();
    for node in [&one, &three] {
        eventually(DEADLINE, || async {
            let hits = found(node).await;
            if hits.is_empty() {
                Ok(())
            } else {
                Err(format!("{hits:?}"))
            }
        })
        .await;
        assert_eq!(providers(node, cid).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_late_learns_what_was_announced_before() {
    let one = Setup::default().start().await;
    let two = Setup::default().joining(&one).await.start().await;
    let answers = two.client.ask(PUSH, &[sample("v1.0.0")]).await.unwrap();
    let cid = RecordCid::parse(&cid_of(&answers[0])).unwrap();
    two.client.ask(PUBLISH, &[refs(cid)]).await.unwrap();
    let has = |node: &TestNode| {
        let client = node.client.clone();
        async move {
            let request = json!({ "queries": [{ "type": "RECORD_QUERY_TYPE_UNSPECIFIED", "value": "" }] });
            let hits = client.ask(SEARCH, &[request]).await.unwrap();
            if hits.len() == 1 {
                Ok(())
            } else {
                Err(format!("{hits:?}"))
            }
        }
    };
    eventually(DEADLINE, || has(&one)).await;
    let late = Setup::default().joining(&one).await.start().await;
    eventually(DEADLINE, || has(&late)).await;
}
