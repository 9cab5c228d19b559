//! A node from outside: durability across kill -9, refusal of a second process, hostile input, health, reflection,
//! metrics, rate limit, start-up record, addresses and stopping.

use std::time::Duration;

use bytes::Bytes;
use dirnode_proto::core::v1::{Record, RecordRef};
use dirnode_proto::{Struct, Value};
use dirnode_record::read_struct;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::node::Setup;
use dirnode_tests::program::{Program, run};
use dirnode_tests::wait::eventually;
use dirnode_tests::{repository, scrape};
use futures_util::StreamExt as _;
use futures_util::stream;
use prost::Message as _;
use serde_json::{Value as Json, json};

const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
const PULL: &str = "/agntcy.dir.store.v1.StoreService/Pull";
const DELETE: &str = "/agntcy.dir.store.v1.StoreService/Delete";
const RESOLVE: &str = "/agntcy.dir.naming.v1.NamingService/Resolve";

fn sample(version: &str) -> Json {
    let text = std::fs::read_to_string(repository().join("tests/records/translator.json")).unwrap();
    let mut record: Json = serde_json::from_str(&text).unwrap();
    record["version"] = json!(version);
    json!({"data": record})
}

fn cid_of(answer: &Json) -> String {
    answer["cid"].as_str().unwrap().to_owned()
}

/// The one refusal of a call that must fail.
async fn refused(client: &Client, path: &str, message: Bytes) -> (&'static str, String) {
    let outcome = client.call(path, vec![message], End::HalfClose, DEADLINE).await;
    assert!(outcome.responses.is_empty(), "{outcome:?}");
    (code_name(outcome.code), outcome.message)
}

#[tokio::test]
async fn pushing_twice_gives_the_same_cid_and_one_record() {
    let node = Setup::default().start().await;
    let first = node
        .client
        .ask(PUSH, &[sample("v1"), sample("v1")])
        .await
        .unwrap();
    let again = node.client.ask(PUSH, &[sample("v1")]).await.unwrap();
    assert_eq!(first, [again[0].clone(), again[0].clone()]);
    assert_eq!(node.node.store().stats().records, 1);
    node.stop().await;
}

#[tokio::test]
async fn referrers_do_not_come_back_when_their_record_is_pushed_again_at_once() {
    const PUSH_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PushReferrer";
    const PULL_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PullReferrer";
    let node = Setup::default().start().await;
    let cid = cid_of(&node.client.ask(PUSH, &[sample("v1")]).await.unwrap()[0]);
    let referrer =
        json!({"record_ref": {"cid": cid}, "type": "agntcy.dir.sign.v1.PublicKey", "data": {"key": "K"}});
    let pushed = node
        .client
        .ask(PUSH_REFERRER, &[referrer.clone(), referrer])
        .await
        .unwrap();
    assert_eq!(
        pushed[0], pushed[1],
        "the same referrer twice is one, and no error"
    );
    let of_record = json!({"record_ref": {"cid": cid}});
    assert_eq!(
        node.client
            .ask(PULL_REFERRER, std::slice::from_ref(&of_record))
            .await
            .unwrap()
            .len(),
        1
    );
    node.client.ask(DELETE, &[json!({"cid": cid})]).await.unwrap();
    node.client.ask(PUSH, &[sample("v1")]).await.unwrap();
    assert_eq!(node.client.ask(PULL_REFERRER, &[of_record]).await, Ok(vec![]));
    node.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut cids = Vec::new();
    for round in 0..3 {
        let mut program = Program::start(folder.path(), &[], &[]);
        let client = program.client().await;
        for cid in &cids {
            let pulled = client.ask(PULL, &[json!({"cid": cid})]).await.unwrap();
            assert_eq!(pulled.len(), 1, "round {round}: {cid} is gone");
        }
        // The stream stays open: nothing tells the node that this was all.
        let messages: Vec<Bytes> = (0..25)
            .map(|n| client.encode(PUSH, &sample(&format!("v{round}.{n}"))))
            .collect();
        let mut answers = client
            .open(PUSH, stream::iter(messages).boxed(), End::KeepOpen)
            .await
            .unwrap();
        for _ in 0..25 {
            let answer = answers.message().await.unwrap().unwrap();
            cids.push(RecordRef::decode(answer).unwrap().cid);
        }
        program.kill().await;
    }
    let report = run(
        &[
            "store",
            "verify",
            "--data-dir",
            folder.path().to_str().unwrap(),
            "-o",
            "json",
        ],
        b"",
        &[],
    );
    assert_eq!(report.code, 0, "{report:?}");
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let named = client
        .ask(RESOLVE, &[json!({"name": "agents.example.org/translator"})])
        .await
        .unwrap();
    assert_eq!(named[0]["records"].as_array().unwrap().len(), cids.len());
}

#[tokio::test]
async fn a_deleted_record_stays_deleted_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let cid = cid_of(&client.ask(PUSH, &[sample("v1")]).await.unwrap()[0]);
    client.ask(DELETE, &[json!({"cid": cid})]).await.unwrap();
    program.kill().await;
    let mut program = Program::start(folder.path(), &[], &[]);
    let gone = program
        .client()
        .await
        .ask(PULL, &[json!({"cid": cid})])
        .await
        .unwrap_err();
    assert_eq!(
        gone,
        (
            tonic::Code::NotFound,
            format!("failed to pull record: record not found: {cid}")
        )
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Program::start(folder.path(), &[], &[]);
    let client = first.client().await;
    let mut second = Program::start(folder.path(), &[], &[]);
    let status = second.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(1));
    let folder_name = folder.path().display().to_string();
    eventually(Duration::from_secs(5), || async {
        let log = second.log();
        let said = log.iter().any(|line| {
            line.starts_with("Error: ") && line.contains(&folder_name) && line.contains("process")
        });
        said.then_some(()).ok_or_else(|| format!("{log:#?}"))
    })
    .await;
    client
        .ask(PUSH, &[sample("v1")])
        .await
        .expect("the first goes on");
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
    let deep = Record { data: Some(data) }.encode_to_vec();
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
        Record {
            data: Some(Struct::default()),
        }
        .encode_to_vec()
        .into(),
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
async fn health_knows_the_node_and_nothing_else() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let node = Setup::default().start().await;
    assert_eq!(
        node.client.ask(CHECK, &[json!({})]).await,
        Ok(vec![json!({"status": "SERVING"})])
    );
    assert_eq!(
        node.client
            .ask(CHECK, &[json!({"service": "nope"})])
            .await
            .unwrap_err()
            .0,
        tonic::Code::NotFound
    );
    let watched = node.client.encode("/grpc.health.v1.Health/Watch", &json!({}));
    let mut watch = node
        .client
        .open(
            "/grpc.health.v1.Health/Watch",
            stream::iter([watched]).boxed(),
            End::HalfClose,
        )
        .await
        .unwrap();
    let serving = watch.message().await.unwrap().unwrap();
    assert_eq!(
        node.client.decode("/grpc.health.v1.Health/Watch", &serving),
        json!({"status": "SERVING"})
    );
    let last = async {
        let answer = watch.message().await.unwrap().unwrap();
        let said = node.client.decode("/grpc.health.v1.Health/Watch", &answer);
        // A watcher goes when it has heard it; the node waits for its calls.
        drop(watch);
        said
    };
    let (said, stopped) = tokio::join!(last, node.node.stop());
    stopped.unwrap();
    assert_eq!(
        said,
        json!({"status": "NOT_SERVING"}),
        "a watcher hears it before the node goes"
    );
}

#[tokio::test]
async fn both_reflections_list_and_describe_every_service() {
    let node = Setup::default().start().await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answers = node
            .client
            .ask(&path, &[json!({"list_services": "*"})])
            .await
            .unwrap();
        let listed: Vec<&str> = answers[0]["list_services_response"]["service"]
            .as_array()
            .unwrap()
            .iter()
            .map(|service| service["name"].as_str().unwrap())
            .collect();
        for service in [
            "agntcy.dir.store.v1.StoreService",
            "agntcy.dir.store.v1.SyncService",
            "agntcy.dir.routing.v1.RoutingService",
            "agntcy.dir.routing.v1.PublicationService",
            "agntcy.dir.search.v1.SearchService",
            "agntcy.dir.events.v1.EventService",
            "agntcy.dir.naming.v1.NamingService",
            "agntcy.dir.sign.v1.SignService",
            "grpc.health.v1.Health",
        ] {
            assert!(
                listed.contains(&service),
                "{version} does not list {service}: {listed:?}"
            );
            let answers = node
                .client
                .ask(&path, &[json!({"file_containing_symbol": service})])
                .await
                .unwrap();
            assert!(
                answers[0]["file_descriptor_response"]["file_descriptor_proto"].is_array(),
                "{version} {service}"
            );
        }
        let odd = [
            json!({"file_containing_symbol": "no.such.Symbol"}),
            json!({"list_services": ""}),
        ];
        let answers = node.client.ask(&path, &odd).await.unwrap();
        assert_eq!(
            answers[0]["error_response"]["error_code"], 5,
            "{version}: an unknown name is no end of the stream"
        );
        assert!(answers[1]["list_services_response"].is_object());
    }
    node.stop().await;
}

#[tokio::test]
async fn metrics_are_as_scrapers_of_the_network_expect() {
    let node = Setup::default().with_metrics().start().await;
    let metrics = node.node.metrics_address().unwrap().to_string();
    let cid = cid_of(&node.client.ask(PUSH, &[sample("v1")]).await.unwrap()[0]);
    node.client
        .ask(PULL, &[json!({"cid": cid}), json!({"cid": cid})])
        .await
        .unwrap();
    node.client.ask(PULL, &[json!({})]).await.unwrap_err();
    let page = scrape::get(&metrics, "/metrics", "text/plain").await;
    assert_eq!(page.status, 200);
    assert!(
        page.content_type.starts_with("text/plain"),
        "{}",
        page.content_type
    );
    let samples = scrape::samples(&page.body);
    assert!(samples.len() > 50);
    assert!(samples.values().all(|value| *value >= 0.0));
    assert!(
        samples.keys().all(|series| series.contains('{')),
        "a series without labels"
    );
    for family in ["started", "handled", "msg_received", "msg_sent"] {
        let name = format!("grpc_server_{family}_total");
        assert!(
            page.body.contains(&format!("# TYPE {name} counter")),
            "{name} has no TYPE line"
        );
        assert!(
            page.body.contains(&format!("# HELP {name} ")),
            "{name} has no HELP line"
        );
        assert!(scrape::total(&page.body, &name) > 0.0, "{name} counts nothing");
    }
    for service in [
        "StoreService",
        "RoutingService",
        "EventService",
        "SearchService",
        "SyncService",
        "PublicationService",
        "SignService",
        "Health",
    ] {
        assert!(
            page.body.contains(&format!("{service}\"")),
            "{service} is not counted"
        );
    }
    for label in [
        "unary",
        "bidi_stream",
        "server_stream",
        "client_stream",
        "OK",
        "InvalidArgument",
        "NotFound",
    ] {
        assert!(
            page.body.contains(&format!("\"{label}\"")),
            "{label} does not appear"
        );
    }
    let value = |metric: &str, labels: &[&str]| {
        let found = samples.iter().filter(|(series, _)| {
            series.starts_with(metric) && labels.iter().all(|label| series.contains(label))
        });
        found.map(|(_, value)| value).sum::<f64>()
    };
    let pull = ["StoreService\"", "grpc_method=\"Pull\""];
    assert_eq!(value("grpc_server_started_total", &pull), 2.0);
    assert_eq!(value("grpc_server_msg_received_total", &pull), 3.0);
    assert_eq!(value("grpc_server_msg_sent_total", &pull), 2.0);
    assert_eq!(
        value(
            "grpc_server_handled_total",
            &[pull[0], pull[1], "\"InvalidArgument\""]
        ),
        1.0
    );
    assert_eq!(value("dirnode_store_records", &[]), 1.0);
    let open = scrape::get(&metrics, "/metrics", "application/openmetrics-text").await;
    assert!(open.content_type.starts_with("application/openmetrics-text") && open.body.ends_with("# EOF\n"));
    assert_eq!(scrape::get(&metrics, "/", "text/plain").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn sigterm_ends_the_node_within_seconds_although_somebody_listens() {
    const LISTEN: &str = "/agntcy.dir.events.v1.EventService/Listen";
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let request = client.encode(LISTEN, &json!({}));
    let mut events = client
        .open(LISTEN, stream::iter([request]).boxed(), End::HalfClose)
        .await
        .unwrap();
    // A push stream that nobody closes is no reason to stay either.
    let message = client.encode(PUSH, &sample("v1"));
    let mut pushes = client
        .open(PUSH, stream::iter([message]).boxed(), End::KeepOpen)
        .await
        .unwrap();
    let cid = RecordRef::decode(pushes.message().await.unwrap().unwrap())
        .unwrap()
        .cid;
    assert!(events.message().await.unwrap().is_some());
    drop(pushes);
    program.terminate();
    let status = program.ended(Duration::from_secs(5)).await;
    assert_eq!(status.code(), Some(0), "{:#?}", program.log());
    assert!(
        matches!(events.message().await, Ok(None) | Err(_)),
        "the stream ends with the node"
    );
    let mut program = Program::start(folder.path(), &[], &[]);
    program
        .client()
        .await
        .ask(PULL, &[json!({"cid": cid})])
        .await
        .expect("the record is there after an orderly stop");
}

#[tokio::test]
async fn an_open_push_stream_does_not_keep_the_node_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Program::start(folder.path(), &[], &[]);
    let client = program.client().await;
    let message = client.encode(PUSH, &sample("v1"));
    let mut pushes = client
        .open(PUSH, stream::iter([message]).boxed(), End::KeepOpen)
        .await
        .unwrap();
    pushes.message().await.unwrap().unwrap();
    program.terminate();
    let status = program.ended(Duration::from_secs(20)).await;
    assert_eq!(status.code(), Some(0), "{:#?}", program.log());
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

#[tokio::test]
async fn the_start_up_record_is_there_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = None;
    for _ in 0..2 {
        let node = Setup::default()
            .set("startup_record.enabled", "true")
            .start_in(folder.path())
            .await;
        let found = eventually(Duration::from_secs(10), || async {
            let request = json!({"name": "org.agntcy/directory"});
            node.client
                .ask(RESOLVE, &[request])
                .await
                .map_err(|refusal| format!("{refusal:?}"))
        })
        .await;
        let records = found[0]["records"].as_array().unwrap();
        assert_eq!(records.len(), 1);
        let cid = cid_of(&records[0]);
        assert_eq!(
            first.get_or_insert_with(|| cid.clone()),
            &cid,
            "the record of the first start is kept"
        );
        let pulled = node.client.ask(PULL, &[json!({"cid": cid})]).await.unwrap();
        let modules = pulled[0]["data"]["modules"].as_array().unwrap();
        let names: Vec<&Json> = modules.iter().map(|module| &module["name"]).collect();
        assert_eq!(names, ["core/language_model/agentskills", "integration/mcp"]);
        let artifact = &modules[0]["artifact"];
        assert!(artifact["digest"].as_str().unwrap().starts_with("sha256:"));
        assert_eq!(artifact["media_type"], "application/agent-skills+md");
        let text = dirnode_record::to_canonical(
            &read_struct(pulled[0]["data"].to_string().as_bytes())
                .unwrap()
                .unwrap(),
        )
        .unwrap();
        let verdict = run(&["validate", "-o", "raw"], &text, &[]);
        assert_eq!(
            verdict.out, "valid\n",
            "the node's own record passes the node's own check: {verdict:?}"
        );
        // Nothing else is there, and the second start adds nothing.
        assert_eq!(node.node.store().stats().records, 1);
        node.stop().await;
    }
}

#[tokio::test]
async fn localhost_listens_on_loopback_only() {
    let node = Setup::default()
        .set("listen_address", "localhost:0")
        .start()
        .await;
    assert!(!node.node.addresses().is_empty());
    assert!(
        node.node
            .addresses()
            .iter()
            .all(|address| address.ip().is_loopback()),
        "{:?}",
        node.node.addresses()
    );
    node.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_said_with_what_to_do_about_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let address = taken.local_addr().unwrap().to_string();
    let mut program = Program::start(&data, &["--listen-address", &address], &[]);
    assert_eq!(program.ended(Duration::from_secs(20)).await.code(), Some(1));
    eventually(Duration::from_secs(5), || async {
        let log = program.log();
        let said = log.iter().any(|line| {
            line.contains("listen_address: cannot listen on")
                && line.contains(&address)
                && line.contains("another address")
        });
        said.then_some(()).ok_or_else(|| format!("{log:#?}"))
    })
    .await;
}
