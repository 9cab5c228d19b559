//! Replay of `vectors/cid` over gRPC: what Push, Pull, Lookup, Delete and the referrer calls answer to each case. The
//! store is empty at the start of each case, and schema validation is off.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dirnode_proto::core::v1::{Record, RecordMeta, RecordRef};
use dirnode_proto::store::v1::{
    PullReferrerRequest, PullReferrerResponse, PushReferrerRequest, PushReferrerResponse,
};
use dirnode_record::{RecordCid, read_struct, to_canonical};
use dirnode_tests::grpc::{Client, DEADLINE, End, Outcome, code_name};
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::vectors::{self, Exception, Tally};
use prost::Message;
use serde_json::{Value as Json, json};

const SERVICE: &str = "/agntcy.dir.store.v1.StoreService/";
/// What the contract says of the answer to a record without a typed view; the rest is a library's wording.
const NO_ADAPTER: &str =
    "failed to push record to store: rpc error: code = Internal desc = failed to create record adapter: ";

/// Collects what differs in one case.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, expected: T) {
        if got != expected {
            let cut = |value: T| format!("{value:?}").chars().take(300).collect::<String>();
            self.0
                .push(format!("{what} is {}, expected {}", cut(got), cut(expected)));
        }
    }

    fn code(&mut self, what: &str, outcome: &Outcome, expected: &str) {
        if code_name(outcome.code) != expected {
            self.0.push(format!(
                "{what} answers {:?} ({}), expected {expected}",
                outcome.code, outcome.message
            ));
        }
    }

    /// The text, as far as the contract quotes it.
    fn message(&mut self, what: &str, outcome: &Outcome, expected: &str) {
        let heads = [
            NO_ADAPTER,
            "failed to validate record: failed to validate record: schema URL validation failed: failed to marshal",
        ];
        let right = match heads.into_iter().find(|head| expected.starts_with(head)) {
            Some(head) => outcome.message.starts_with(head),
            None => outcome.message == expected,
        };
        if !right {
            self.0.push(format!(
                "{what} says {:?}, expected {expected:?}",
                outcome.message
            ));
        }
    }

    fn finish(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

async fn raw(client: &Client, method: &str, messages: Vec<Vec<u8>>) -> Outcome {
    let messages = messages.into_iter().map(Into::into).collect();
    client
        .call(&format!("{SERVICE}{method}"), messages, End::HalfClose, DEADLINE)
        .await
}

async fn with_cid(client: &Client, method: &str, cid: &str) -> Outcome {
    raw(
        client,
        method,
        vec![RecordRef { cid: cid.to_owned() }.encode_to_vec()],
    )
    .await
}

fn only<T: Message + Default>(outcome: &Outcome) -> T {
    assert_eq!(outcome.responses.len(), 1, "{outcome:?}");
    T::decode(outcome.responses[0].clone()).unwrap()
}

/// What Push answers to `bytes`, what is there afterwards, and an empty store again.
async fn check_push(
    node: &TestNode,
    case: &Json,
    bytes: Vec<u8>,
    better: Option<&Exception>,
    faults: &mut Faults,
) {
    let push = &case["push"];
    let outcome = raw(&node.client, "Push", vec![bytes]).await;
    let code = better.map_or(push["code"].as_str().unwrap(), |better| &better.code);
    faults.code("push", &outcome, code);
    let cid = case["cid"].as_str().or(push["cid"].as_str()).unwrap_or_default();
    if outcome.code == tonic::Code::Ok {
        let answer: RecordRef = only(&outcome);
        faults.same(
            "pushed cid",
            answer.cid.as_str(),
            push["cid"].as_str().unwrap_or("none"),
        );
        let pulled = with_cid(&node.client, "Pull", &answer.cid).await;
        faults.code("pull", &pulled, "OK");
        if pulled.code == tonic::Code::Ok {
            let record: Record = only(&pulled);
            let pulled = RecordCid::of(&to_canonical(&record.data.unwrap_or_default()).unwrap());
            faults.same("pulled cid", pulled.to_string().as_str(), answer.cid.as_str());
        }
    } else {
        faults.message("push", &outcome, push["message"].as_str().unwrap_or_default());
        for (method, key) in [("Pull", "pull"), ("Lookup", "lookup")] {
            let listed = case[key]["code"].as_str();
            // Nothing of a refused record is kept, whatever the reference finds.
            if let Some(expected) = better.map(|_| "NOT_FOUND").or(listed)
                && !cid.is_empty()
            {
                faults.code(key, &with_cid(&node.client, method, cid).await, expected);
            }
        }
        faults.same("records kept", node.node.store().stats().records, 0);
    }
}

async fn empty(node: &TestNode, cids: &[&str]) {
    for cid in cids {
        with_cid(&node.client, "Delete", cid).await;
    }
    assert_eq!(node.node.store().stats().records, 0, "a case leaves a record");
}

fn better<'a>(
    exceptions: &'a BTreeMap<String, Exception>,
    case: &Json,
    facet: &str,
) -> Option<&'a Exception> {
    exceptions.get(&format!("{}/{facet}", case["id"].as_str().unwrap()))
}

#[tokio::test]
async fn canonical_cases_are_pushed_and_pulled_as_recorded() {
    let Some(cases) = vectors::cases("cid/canonical.jsonl") else {
        return;
    };
    let (exceptions, node, mut tally) = (
        vectors::exceptions(),
        Setup::unchecked().start().await,
        Tally::default(),
    );
    for case in cases.iter().filter(|case| case.get("push").is_some()) {
        let mut faults = Faults::default();
        let bytes = Record::from(read_struct(&vectors::input(case)).unwrap()).encode_to_vec();
        if let Some(size) = case["wire_size"].as_u64() {
            faults.same("wire size", bytes.len() as u64, size);
        }
        let better = better(&exceptions, case, "push");
        check_push(&node, case, bytes, better, &mut faults).await;
        empty(&node, &[case["cid"].as_str().unwrap_or("none")]).await;
        tally.ran(case["id"].as_str().unwrap(), better.is_some(), faults.finish());
    }
    tally.finish("cid/canonical");
    node.stop().await;
}

#[tokio::test]
async fn wire_cases_are_pushed_and_pulled_as_recorded() {
    let Some(cases) = vectors::cases("cid/wire.jsonl") else {
        return;
    };
    let (exceptions, node, mut tally) = (
        vectors::exceptions(),
        Setup::unchecked().start().await,
        Tally::default(),
    );
    for case in &cases {
        let mut faults = Faults::default();
        let bytes = STANDARD.decode(case["wire_b64"].as_str().unwrap()).unwrap();
        let better = better(&exceptions, case, "push");
        check_push(&node, case, bytes, better, &mut faults).await;
        empty(&node, &[case["cid"].as_str().unwrap_or("none")]).await;
        tally.ran(case["id"].as_str().unwrap(), better.is_some(), faults.finish());
    }
    tally.finish("cid/wire");
    node.stop().await;
}

#[tokio::test]
async fn record_cases_are_looked_up_as_recorded() {
    let Some(cases) = vectors::cases("cid/records.jsonl") else {
        return;
    };
    let (exceptions, node, mut tally) = (
        vectors::exceptions(),
        Setup::unchecked().start().await,
        Tally::default(),
    );
    for case in &cases {
        let mut faults = Faults::default();
        let cid = case["cid"].as_str().unwrap();
        let bytes = Record::from(read_struct(&vectors::input(case)).unwrap()).encode_to_vec();
        faults.same(
            "wire size",
            bytes.len() as u64,
            case["wire_size"].as_u64().unwrap(),
        );
        let better = better(&exceptions, case, "push");
        check_push(&node, case, bytes, better, &mut faults).await;
        if better.is_none() {
            let outcome = with_cid(&node.client, "Lookup", cid).await;
            faults.code("lookup", &outcome, case["lookup"]["code"].as_str().unwrap());
            let meta: RecordMeta = only(&outcome);
            let got = json!({
                "schema_version": meta.schema_version,
                "created_at": meta.created_at,
                "annotations": meta.annotations,
            });
            faults.same("meta", got, case["lookup"]["meta"].clone());
        }
        empty(&node, &[cid]).await;
        tally.ran(case["id"].as_str().unwrap(), better.is_some(), faults.finish());
    }
    tally.finish("cid/records");
    node.stop().await;
}

fn referrer_request(request: &Json) -> PushReferrerRequest {
    let annotations = request["annotations"].as_object().into_iter().flatten();
    PushReferrerRequest {
        record_ref: request["record_cid"]
            .as_str()
            .map(|cid| RecordRef { cid: cid.to_owned() }),
        r#type: request["type"].as_str().unwrap_or_default().to_owned(),
        annotations: annotations
            .map(|(key, value)| (key.clone(), value.as_str().unwrap().to_owned()))
            .collect(),
        created_at: request["created_at"].as_str().unwrap_or_default().to_owned(),
        data: request["data"]
            .as_str()
            .map(|text| read_struct(text.as_bytes()).unwrap().unwrap()),
    }
}

/// Compares the answer to PushReferrer; an in-band refusal names the record as the contract says.
fn check_referrer(faults: &mut Faults, outcome: &Outcome, expected: &Json, cid: &str) {
    faults.code("push_referrer", outcome, expected["code"].as_str().unwrap());
    if outcome.code != tonic::Code::Ok {
        faults.message(
            "push_referrer",
            outcome,
            expected["message"].as_str().unwrap_or_default(),
        );
        return;
    }
    let answer: PushReferrerResponse = only(outcome);
    faults.same(
        "success",
        answer.success,
        expected["success"].as_bool().unwrap_or_default(),
    );
    let referrer = answer.referrer_ref.map(|reference| reference.cid);
    faults.same(
        "referrer cid",
        referrer.as_deref(),
        expected["referrer_cid"].as_str(),
    );
    match (answer.error_message, expected["error_message"].as_str()) {
        (None, None) => {}
        (Some(got), Some(_)) if got.contains(&format!("record not found for CID {cid}")) => {}
        (got, expected) => faults
            .0
            .push(format!("error_message is {got:?}, expected {expected:?}")),
    }
}

#[tokio::test]
async fn referrer_cases_are_pushed_and_pulled_as_recorded() {
    let Some(cases) = vectors::cases("cid/referrers.jsonl") else {
        return;
    };
    let (node, mut tally) = (Setup::unchecked().start().await, Tally::default());
    for case in cases.iter().filter(|case| case.get("push_referrer").is_some()) {
        let mut faults = Faults::default();
        if let Some(record) = case["record"].as_str() {
            let record = Record::from(read_struct(record.as_bytes()).unwrap()).encode_to_vec();
            let pushed: RecordRef = only(&raw(&node.client, "Push", vec![record]).await);
            faults.same(
                "record cid",
                pushed.cid.as_str(),
                case["record_cid"].as_str().unwrap(),
            );
        }
        let request = referrer_request(&case["request"]);
        let target = request.record_ref.clone();
        let cid = target.as_ref().map_or("", |target| &target.cid);
        // A second identical push changes nothing and answers the same.
        for _ in 0..2 {
            let outcome = raw(&node.client, "PushReferrer", vec![request.encode_to_vec()]).await;
            check_referrer(&mut faults, &outcome, &case["push_referrer"], cid);
        }
        if let Some(expected) = case.get("pull_referrer") {
            let request = PullReferrerRequest {
                record_ref: target.clone(),
                ..Default::default()
            };
            let outcome = raw(&node.client, "PullReferrer", vec![request.encode_to_vec()]).await;
            faults.code("pull_referrer", &outcome, expected["code"].as_str().unwrap());
            faults.same(
                "referrers",
                outcome.responses.len() as u64,
                expected["count"].as_u64().unwrap(),
            );
            for answer in &outcome.responses {
                let referrer = PullReferrerResponse::decode(answer.clone())
                    .unwrap()
                    .referrer
                    .unwrap();
                let pulled = referrer
                    .referrer_ref
                    .map(|reference| reference.cid)
                    .unwrap_or_default();
                faults.same("pulled cid", pulled.as_str(), case["cid"].as_str().unwrap());
                faults.same("pulled data", &referrer.data, &request_data(case));
            }
        }
        empty(&node, &[case["record_cid"].as_str().unwrap_or("none")]).await;
        tally.ran(case["id"].as_str().unwrap(), false, faults.finish());
    }
    tally.finish("cid/referrers");
    node.stop().await;
}

fn request_data(case: &Json) -> Option<dirnode_proto::Struct> {
    referrer_request(&case["request"]).data
}

#[tokio::test]
async fn every_text_given_as_a_cid_is_answered_as_recorded() {
    const KNOWN: &[u8] = br#"{"name":"vectors.example/known","schema_version":"1.0.0","version":"0.0.1"}"#;
    let Some(cases) = vectors::cases("cid/cid_strings.jsonl") else {
        return;
    };
    let (exceptions, node, mut tally) = (
        vectors::exceptions(),
        Setup::unchecked().start().await,
        Tally::default(),
    );
    let known = Record::from(read_struct(KNOWN).unwrap()).encode_to_vec();
    for case in &cases {
        let mut faults = Faults::default();
        let pushed: RecordRef = only(&raw(&node.client, "Push", vec![known.clone()]).await);
        faults.same(
            "stored cid",
            pushed.cid.as_str(),
            case["stored_cid"].as_str().unwrap(),
        );
        let text = case["input"].as_str().unwrap();
        let (on_lookup, on_delete) = (
            better(&exceptions, case, "lookup"),
            better(&exceptions, case, "delete"),
        );
        for (method, key) in [("Lookup", "lookup"), ("Pull", "pull")] {
            let outcome = with_cid(&node.client, method, text).await;
            faults.code(
                key,
                &outcome,
                on_lookup.map_or(case[key]["code"].as_str().unwrap(), |better| &better.code),
            );
            if let Some(message) = case[key]["message"].as_str().filter(|_| on_lookup.is_none()) {
                faults.message(key, &outcome, &message.replace("<input>", text));
            }
        }
        let request = json!({"record_cid": text, "type": "agntcy.dir.sign.v1.PublicKey", "data": "{}"});
        let outcome = raw(
            &node.client,
            "PushReferrer",
            vec![referrer_request(&request).encode_to_vec()],
        )
        .await;
        check_referrer(&mut faults, &outcome, &case["push_referrer"], text);

        let outcome = with_cid(&node.client, "Delete", text).await;
        faults.code("delete", &outcome, case["delete"]["code"].as_str().unwrap());
        if let Some(message) = case["delete"]["message"].as_str() {
            faults.message("delete", &outcome, &message.replace("<input>", text));
        }
        for (method, key) in [("Lookup", "lookup"), ("Pull", "pull")] {
            let outcome = with_cid(&node.client, method, &pushed.cid).await;
            let expected =
                on_delete.map_or(case["after_delete"][key].as_str().unwrap(), |better| &better.code);
            faults.code(&format!("{key} after delete"), &outcome, expected);
        }
        empty(&node, &[&pushed.cid]).await;
        let excepted = on_lookup.is_some() || on_delete.is_some();
        tally.ran(case["id"].as_str().unwrap(), excepted, faults.finish());
    }
    tally.finish("cid/cid_strings");
    node.stop().await;
}
