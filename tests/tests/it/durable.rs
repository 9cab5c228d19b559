//! A node over its life: what is kept across kill -9 and restarts, who may share its folder, how it starts and ends.

use std::time::Duration;

use bytes::Bytes;
use dirnode_proto::core::v1::RecordRef;
use dirnode_record::read_struct;
use dirnode_tests::grpc::End;
use dirnode_tests::node::Setup;
use dirnode_tests::program::{Program, run};
use dirnode_tests::wait::eventually;
use futures_util::StreamExt as _;
use futures_util::stream;
use prost::Message as _;
use serde_json::{Value as Json, json};

use crate::common::{DELETE, PULL, PUSH, RESOLVE, cid_of, sample};

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
