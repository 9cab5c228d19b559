//! Replay of `vectors/routing`: records pushed over one stream, then calls in file order on one node that knows no other.

use dirnode_tests::grpc::Client;
use dirnode_tests::judge::Captured;
use dirnode_tests::node::Setup;
use dirnode_tests::vectors::{self, Tally};
use serde_json::{Value as Json, json};

use crate::common::{PUSH, cid_of};
use crate::replay::{replay, with_better_code};

/// Pushes the records of a file over one stream and checks the CID of each.
pub async fn push_all(client: &Client, records: &[Json]) {
    let bodies: Vec<Json> = records
        .iter()
        .map(|record| json!({"data": record["data"]}))
        .collect();
    let answers = client.ask(PUSH, &bodies).await.unwrap();
    let got: Vec<String> = answers.iter().map(cid_of).collect();
    let want: Vec<String> = records.iter().map(cid_of).collect();
    assert_eq!(got, want, "the records have the CIDs of the vectors");
}

#[tokio::test]
async fn vectors_routing_calls_are_answered_as_recorded() {
    let (Some(records), Some(calls)) = (
        vectors::cases("routing/records.jsonl"),
        vectors::cases("routing/calls.jsonl"),
    ) else {
        return;
    };
    let exceptions = vectors::exceptions();
    let node = Setup::unchecked().start().await;
    push_all(&node.client, &records).await;
    let (mut tally, mut captured) = (Tally::default(), Captured::new());
    for case in &calls {
        let id = case["id"].as_str().unwrap();
        let exception = exceptions.get(id);
        let fault = match exception {
            None => replay(&node.client, case, &mut captured).await,
            Some(better) => replay(&node.client, &with_better_code(case, &better.code), &mut captured).await,
        };
        tally.ran(id, exception.is_some(), fault);
    }
    tally.finish("routing calls");
    node.stop().await;
}
