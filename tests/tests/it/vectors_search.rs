//! Replay of `vectors/search`: records pushed over one stream, the steps that make the state, then the queries.
//!
//! What background tasks find out elsewhere (who is trusted, which names are verified, how many provide a record) is told
//! to the node's store, as those tasks do; the step that would wait for them then checks that a search sees it.

use std::collections::BTreeMap;

use dirnode_proto::search::v1::{CountRecordsResponse, SearchCiDsResponse, SearchRecordsResponse};
use dirnode_record::{RecordCid, to_canonical};
use dirnode_store::Store;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::judge::Captured;
use dirnode_tests::node::Setup;
use dirnode_tests::vectors::{self, Tally};
use prost::Message as _;
use serde_json::Value as Json;

use crate::replay::replay;
use crate::vectors_routing::push_all;

/// What a query came to.
#[derive(Debug, PartialEq)]
enum Answer {
    Fault { code: &'static str, message: String },
    Count(u64),
    Cids(Vec<String>),
}

async fn ask(client: &Client, case: &Json) -> Answer {
    let name = case["method"].as_str().unwrap();
    let path = format!("/agntcy.dir.search.v1.SearchService/{name}");
    let request = client.encode(&path, &case["request"]);
    let outcome = client.call(&path, vec![request], End::HalfClose, DEADLINE).await;
    if outcome.code != tonic::Code::Ok {
        return Answer::Fault {
            code: code_name(outcome.code),
            message: outcome.message,
        };
    }
    let cid_of = |answer| {
        let record = SearchRecordsResponse::decode(answer).unwrap().record.unwrap();
        RecordCid::of(&to_canonical(&record.data.unwrap()).unwrap()).to_string()
    };
    let mut answers = outcome.responses.into_iter();
    match name {
        "CountRecords" => {
            let count = CountRecordsResponse::decode(answers.next().unwrap()).unwrap();
            assert_eq!(answers.next(), None, "one request, one answer");
            Answer::Count(count.total_count.into())
        }
        "SearchRecords" => Answer::Cids(answers.map(cid_of).collect()),
        _ => Answer::Cids(
            answers
                .map(|answer| SearchCiDsResponse::decode(answer).unwrap().record_cid)
                .collect(),
        ),
    }
}

/// Holds an answer against the expectation of a case.
fn objection(case: &Json, answer: &Answer) -> Option<String> {
    let expect = &case["expect"];
    let (code, text) = (
        expect["code"].as_str().unwrap(),
        expect["message"].as_str().unwrap(),
    );
    let fits = match answer {
        Answer::Fault { code: got, message } => {
            *got == code
                && match case["message_match"].as_str() {
                    Some("any") => true,
                    Some("prefix") => message.starts_with(text),
                    Some("contains") => message.contains(text),
                    _ => message == text,
                }
        }
        Answer::Count(count) => code == "OK" && *count == expect["count"].as_u64().unwrap_or(0),
        Answer::Cids(cids) => {
            let none = Vec::new();
            let wanted = expect["results"].as_array().unwrap_or(&none);
            let mut wanted: Vec<&str> = wanted.iter().map(|cid| cid.as_str().unwrap()).collect();
            let mut got: Vec<&str> = cids.iter().map(String::as_str).collect();
            if case["order"] == "any" {
                wanted.sort_unstable();
                got.sort_unstable();
            }
            code == "OK" && wanted == got
        }
    };
    (!fits).then(|| format!("{} gave {answer:?}, expected {expect}", case["request"]))
}

/// The case as it is right here: the better code, or the records that `exceptions.txt` names in its fourth column.
fn better(case: &Json, exception: &vectors::Exception, records: &BTreeMap<String, String>) -> Json {
    let mut case = case.clone();
    case["expect"]["code"] = exception.code.as_str().into();
    if exception.code != "OK" {
        if case["message_match"].is_null() {
            case["message_match"] = "prefix".into();
        }
        return case;
    }
    case["expect"]["message"] = "".into();
    let found: Vec<Json> = exception
        .results
        .iter()
        .map(|id| records[id].as_str().into())
        .collect();
    if case["method"] == "CountRecords" {
        case["expect"]["count"] = found.len().into();
    } else {
        case["expect"]["results"] = found.into();
    }
    case
}

/// Tells the store what a task would have found out by the time of this step.
fn tell(store: &Store, step: &Json) {
    let found = step["expect"]["responses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|answer| RecordCid::parse(answer["record_cid"].as_str()?));
    for cid in found {
        match step["needs"].as_str().unwrap_or_default() {
            "trusted" => store.set_trusted(cid, true),
            "verified" => store.set_verified(cid, true),
            "provider_count" => store.set_provider_count(cid, 1),
            other => assert!(other.is_empty(), "{}: nobody knows {other}", step["id"]),
        }
    }
}

#[tokio::test]
async fn vectors_search_queries_are_answered_as_recorded() {
    let (Some(records), Some(steps), Some(queries)) = (
        vectors::cases("search/records.jsonl"),
        vectors::cases("search/setup.jsonl"),
        vectors::cases("search/queries.jsonl"),
    ) else {
        return;
    };
    let exceptions = vectors::exceptions();
    let node = Setup::unchecked().start().await;
    push_all(&node.client, &records).await;
    let cids: BTreeMap<String, String> = records
        .iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            (text("id"), text("cid"))
        })
        .collect();

    let mut tally = Tally::default();
    // Nobody asks for keys here: what they prove is told to the store.
    for step in steps.iter().filter(|step| step["op"] == "call") {
        tell(node.node.store(), step);
        for _ in 0..step["times"].as_u64().unwrap_or(1) {
            let fault = replay(&node.client, step, &mut Captured::new()).await;
            tally.ran(step["id"].as_str().unwrap(), false, fault);
        }
    }
    tally.finish("search setup");

    let mut tally = Tally::default();
    for case in &queries {
        let id = case["id"].as_str().unwrap();
        let answer = ask(&node.client, case).await;
        let fault = match exceptions.get(id) {
            None => objection(case, &answer),
            Some(exception) => objection(&better(case, exception, &cids), &answer).or_else(|| {
                let needless = objection(case, &answer).is_none();
                needless.then(|| "is an exception and is answered as recorded".to_owned())
            }),
        };
        tally.ran(id, exceptions.contains_key(id), fault);
    }
    tally.finish("search queries");
    node.stop().await;
}
