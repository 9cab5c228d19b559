//! What strangers may send: input that is no record, noise on every method, streams dropped in the middle, floods.

use std::time::Duration;

use bytes::Bytes;
use dirnode_proto::core::v1::{Record, RecordRef};
use dirnode_proto::{Struct, Value};
use dirnode_record::read_struct;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::node::Setup;
use dirnode_tests::scrape;
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::json;

use crate::common::{DELETE, PULL, PUSH, sample};

/// The one refusal of a call that must fail.
async fn refused(client: &Client, path: &str, message: Bytes) -> (&'static str, String) {
    let outcome = client.call(path, vec![message], End::HalfClose, DEADLINE).await;
    assert!(outcome.responses.is_empty(), "{outcome:?}");
    (code_name(outcome.code), outcome.message)
}

#[tokio::test]
async fn hostile_input_is_refused_in_words_and_leaves_nothing_behind() {
    let node = Setup::default().with_metrics().start().await;
    let metrics = node.node.metrics_address().unwrap().to_string();
    let records = async || {
        scrape::total(
            &scrape::get(&metrics, "/metrics", "text/plain").await.body,
            "dirnode_store_records",
        )
    };
    let client = &node.client;
    let valid = client.encode(PUSH, &sample("v1"));

    let (code, text) = refused(client, PUSH, client.encode(PUSH, &json!({"data": {"name": "x"}}))).await;
    assert_eq!(
        (code, text.ends_with("schema_version field is missing")),
        ("INTERNAL", true),
        "{text}"
    );
    let mut unknown = sample("v1");
    unknown["data"]["schema_version"] = json!("7.7.7");
    let (code, text) = refused(client, PUSH, client.encode(PUSH, &unknown)).await;
    assert_eq!(
        (code, text.contains("7.7.7")),
        ("INVALID_ARGUMENT", true),
        "{text}"
    );
    let mut faulty = sample("v1");
    faulty["data"]["skills"] = json!([{"name": "no/such/skill"}]);
    let (code, text) = refused(client, PUSH, client.encode(PUSH, &faulty)).await;
    assert_eq!(
        (code, text.starts_with("record validation failed: [ERROR: ")),
        ("INVALID_ARGUMENT", true),
        "{text}"
    );

    let mut large = sample("v1");
    large["data"]["description"] = json!("x".repeat(5 << 20));
    let large = client.encode(PUSH, &large);
    let size = large.len();
    let (code, text) = refused(client, PUSH, large).await;
    assert_eq!(
        (code, text),
        (
            "RESOURCE_EXHAUSTED",
            format!("grpc: received message larger than max ({size} vs. 4194304)")
        )
    );

    let (code, text) = refused(
        client,
        PUSH,
        Bytes::from_static(b"\x0a\x08\x0a\x06\x0a\x01\xff\x12\x01\x00"),
    )
    .await;
    assert_eq!(
        (code, text.as_str()),
        (
            "INTERNAL",
            "grpc: failed to unmarshal the received message: string field contains invalid UTF-8"
        )
    );
    let (code, _) = refused(client, PUSH, Bytes::from_static(b"\xff\xff\xff\xff")).await;
    assert_eq!(code, "INTERNAL");

    let mut deep = Value::Null;
    for _ in 0..9000 {
        deep = Value::List(vec![deep]);
    }
    let mut data = read_struct(sample("v1")["data"].to_string().as_bytes())
        .unwrap()
        .unwrap();
    data.fields.insert("deep".to_owned(), deep);
    let deep = Record::from(data).encode_to_vec();
    let (code, text) = refused(client, PUSH, deep.into()).await;
    assert_eq!(
        (code, text.contains("exceeded maximum recursion depth")),
        ("INTERNAL", true),
        "{text}"
    );

    let (code, text) = refused(
        client,
        PULL,
        client.encode(PULL, &json!({"cid": "no CID at all"})),
    )
    .await;
    assert_eq!(
        (code, text.as_str()),
        (
            "NOT_FOUND",
            "failed to pull record: record not found: no CID at all"
        )
    );
    let unknown = json!({"cid": "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri"});
    assert_eq!(
        client.ask(DELETE, &[unknown]).await,
        Ok(vec![json!({})]),
        "deleting what is not there is no error"
    );

    assert_eq!((records().await, node.node.store().stats().records), (0.0, 0));
    let outcome = client.call(PUSH, vec![valid], End::HalfClose, DEADLINE).await;
    assert_eq!(
        (code_name(outcome.code), records().await),
        ("OK", 1.0),
        "the node goes on"
    );
    node.stop().await;
}

#[tokio::test]
async fn random_bytes_on_every_method_never_bring_the_node_down() {
    let node = Setup::unchecked().start().await;
    let set = prost_reflect::DescriptorPool::decode(dirnode_proto::FILE_DESCRIPTOR_SET).unwrap();
    // A fixed generator: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut calls = 0;
    for service in set.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            for _ in 0..6 {
                let len = usize::try_from(next() % 200).unwrap();
                let noise: Vec<u8> = (0..len).map(|_| next().to_le_bytes()[3]).collect();
                let patience = Duration::from_millis(100);
                let outcome = node
                    .client
                    .call(&path, vec![noise.into()], End::HalfClose, patience)
                    .await;
                assert_ne!(outcome.message, "internal server error", "{path} panicked");
                assert_ne!(
                    code_name(outcome.code),
                    "UNAVAILABLE",
                    "{path}: the node went away"
                );
                calls += 1;
            }
        }
    }
    assert!(calls > 100);
    assert_eq!(node.node.store().stats().records, 0);
    node.client
        .ask(PUSH, &[sample("v1")])
        .await
        .expect("the node goes on");
    node.stop().await;
}

#[tokio::test]
async fn a_stream_dropped_in_the_middle_leaves_the_earlier_pushes() {
    let node = Setup::default().start().await;
    let messages: Vec<Bytes> = (0..3)
        .map(|n| node.client.encode(PUSH, &sample(&format!("v{n}"))))
        .collect();
    let outcome = node
        .client
        .call(PUSH, messages, End::CancelAfter(3), DEADLINE)
        .await;
    assert_eq!(outcome.responses.len(), 3);
    for answer in outcome.responses {
        let cid = RecordRef::decode(answer).unwrap().cid;
        assert_eq!(
            node.client.ask(PULL, &[json!({"cid": cid})]).await.unwrap().len(),
            1
        );
    }
    // The same when the stream ends by a bad item.
    let mut messages = vec![
        node.client.encode(PUSH, &sample("v7")),
        Record::from(Some(Struct::default())).encode_to_vec().into(),
    ];
    messages.push(node.client.encode(PUSH, &sample("v8")));
    let outcome = node.client.call(PUSH, messages, End::HalfClose, DEADLINE).await;
    assert_eq!(
        (outcome.responses.len(), code_name(outcome.code)),
        (1, "INTERNAL")
    );
    assert_eq!(
        node.node.store().stats().records,
        4,
        "what follows the bad item is not read"
    );
    node.stop().await;
}

#[tokio::test]
async fn calls_beyond_the_rate_limit_are_refused_in_the_networks_words() {
    let yaml = "ratelimit: {enabled: true, method_limits: {/agntcy.dir.store.v1.StoreService/Pull: {rps: 0.001, burst: 2}}}";
    let node = Setup::default().file(yaml).start().await;
    let request = json!({"cid": "foo"});
    for _ in 0..2 {
        assert_eq!(
            node.client
                .ask(PULL, std::slice::from_ref(&request))
                .await
                .unwrap_err()
                .0,
            tonic::Code::NotFound
        );
    }
    let (code, text) = node.client.ask(PULL, &[request]).await.unwrap_err();
    let expected = format!(
        "{PULL} is rejected by grpc_ratelimit middleware, please retry later. rpc error: code = ResourceExhausted desc = \
         rate limit exceeded"
    );
    assert_eq!((code, text), (tonic::Code::ResourceExhausted, expected));
    node.client
        .ask(PUSH, &[sample("v1")])
        .await
        .expect("other methods go on");
    node.stop().await;
}

/// Calls that end before all that was sent is read, thousands of them, on one connection: nobody counts them against it.
#[tokio::test]
async fn a_connection_outlives_thousands_of_calls_that_fail() {
    const CALLS: usize = 1_500;
    const RESOLVE: &str = "/agntcy.dir.naming.v1.NamingService/Resolve";
    const PULL_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PullReferrer";
    const LOOKUP: &str = "/agntcy.dir.store.v1.StoreService/Lookup";
    let node = Setup::default().start().await;
    let missing = "baeareicnurqw7s3yheje5giop7qraev3vr353y2472yndusdl24hgziwze";
    let reference = json!({"cid": missing});
    for (path, body) in [
        (PULL, reference.clone()),
        (LOOKUP, reference.clone()),
        (PULL_REFERRER, json!({"record_ref": reference})),
        (RESOLVE, json!({"name": "example.org/nobody"})),
    ] {
        let client = Client::connect(&node.address).await.unwrap();
        let message = client.encode(path, &body);
        let mut under_way = futures_util::stream::iter(0..CALLS)
            .map(|_| client.call(path, vec![message.clone()], End::HalfClose, DEADLINE))
            .buffer_unordered(6);
        let mut done = 0;
        while let Some(outcome) = under_way.next().await {
            let text = format!("{path}, call {done}: {outcome:?}");
            assert!(["OK", "NOT_FOUND"].contains(&code_name(outcome.code)), "{text}");
            done += 1;
        }
        assert_eq!(done, CALLS);
    }
}
