//! Calls of the vectors, performed and held against what they expect; the rules are those of `vectors/README.md`.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::judge::{Captured, How, Seen, capture, difference, fill_in};
use dirnode_tests::wait::within;
use serde_json::Value as Json;

/// A span that a case names in milliseconds.
pub fn millis(case: &Json, key: &str) -> Option<Duration> {
    case[key].as_u64().map(Duration::from_millis)
}

/// The messages of a case as bytes.
fn messages(client: &Client, case: &Json, captured: &Captured) -> Vec<Bytes> {
    let method = case["method"].as_str().unwrap();
    let items = case["send"].as_array().map(Vec::as_slice).unwrap_or_default();
    let encode = |item: &Json| {
        if let Some(raw) = item["b64"].as_str() {
            return STANDARD.decode(raw).unwrap().into();
        }
        let mut body = fill_in(&item["json"], captured);
        if let Some(fill) = item.get("fill") {
            let long = fill["char"]
                .as_str()
                .unwrap()
                .repeat(fill["count"].as_u64().unwrap().try_into().unwrap());
            let path = fill["path"]
                .as_array()
                .unwrap()
                .iter()
                .map(|step| step.as_str().unwrap());
            *path.fold(&mut body, |value, key| &mut value[key]) = Json::from(long);
        }
        client.encode(method, &body)
    };
    items.iter().map(encode).collect()
}

/// Performs a call once.
pub async fn perform(client: &Client, case: &Json, captured: &Captured) -> Seen {
    let method = case["method"].as_str().unwrap();
    let end = match case["end"].as_str() {
        Some("keep_open") => End::KeepOpen,
        Some("cancel") => End::CancelAfter(
            case["cancel_after_responses"]
                .as_u64()
                .unwrap_or(0)
                .try_into()
                .unwrap(),
        ),
        _ => End::HalfClose,
    };
    let deadline = millis(case, "deadline_ms").unwrap_or(DEADLINE);
    let outcome = client
        .call(method, messages(client, case, captured), end, deadline)
        .await;
    let responses = outcome
        .responses
        .iter()
        .map(|answer| client.decode(method, answer))
        .collect();
    Seen {
        code: code_name(outcome.code).to_owned(),
        message: outcome.message,
        responses,
    }
}

/// Performs a case until it fits or its patience is over; gives what differs at the end.
pub async fn replay(client: &Client, case: &Json, captured: &mut Captured) -> Option<String> {
    let last = Mutex::new(None);
    let expected = &case["expect"];
    let patience = millis(case, "delay_ms").unwrap_or_default() + millis(case, "poll_ms").unwrap_or_default();
    let known: &Captured = captured;
    let fitted = within(patience, || async {
        let seen = perform(client, case, known).await;
        let fault = difference(expected, &seen, &How::of(case, "exact"), known);
        *last.lock().unwrap() = Some(seen);
        fault.map_or(Ok(()), Err)
    })
    .await;
    let seen = last.into_inner().unwrap().unwrap();
    let fault = fitted.err().and_then(|fault| {
        let others = case["also_accept"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let fits = |other: &Json| difference(other, &seen, &How::of(other, "any"), captured).is_none();
        (!others.iter().any(fits)).then_some(fault)
    });
    capture(case, &seen, captured);
    fault
}

/// The case as it is right here: another code, the message the same as far as it is the contract's.
pub fn with_better_code(case: &Json, code: &str) -> Json {
    let mut case = case.clone();
    assert!(!code.is_empty(), "{}: the exception names no code", case["id"]);
    case["expect"]["code"] = code.into();
    if case["message_match"].is_null() {
        case["message_match"] = "prefix".into();
    }
    case
}
