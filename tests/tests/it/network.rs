//! Nodes that meet: by way of a bootstrap node, over its end and return; who has a record, and who may have it.

use std::path::Path;
use std::time::Duration;

use dirnode_network::{NetworkError, RpcCode};
use dirnode_record::RecordCid;
use dirnode_server::node::Node;
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::program::{Program, run};
use dirnode_tests::wait::eventually;
use serde_json::{Value as Json, json};
use tempfile::tempdir;

use crate::common::{PUBLISH, PUSH, UNPUBLISH, at, cid_of, json_of, ok, sample};

const STATUS: &str = "/dirnode.node.v1.NodeService/GetStatus";
const PEERS: &str = "/dirnode.node.v1.NodeService/ListPeers";
const PING: &str = "/dirnode.node.v1.NodeService/Ping";
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// As long as something that needs several nodes may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node as a process, and what others need of it.
struct Member {
    program: Program,
    api: String,
    id: String,
    addresses: Vec<String>,
}

async fn member(dir: &Path, env: &[(&str, &str)]) -> Member {
    let mut program = Program::start(dir, &[], env);
    let api = program.listening("grpc").await;
    let (id, addresses) = eventually(DEADLINE, || async {
        let known = json_of(&ok(at(&api, &["id", "-o", "json"], b"")));
        let addresses: Vec<String> = serde_json::from_value(known["addresses"].clone()).unwrap();
        let id = known["peer_id"].as_str().unwrap().to_owned();
        if addresses.is_empty() {
            return Err("it does not listen for peers".to_owned());
        }
        Ok((id, addresses))
    })
    .await;
    Member {
        program,
        api,
        id,
        addresses,
    }
}

/// Waits until `dirnode peers` on a node holds all of `wanted` and none of `unwanted`.
async fn connected(api: &str, wanted: &[&str], unwanted: &[&str], deadline: Duration) {
    eventually(deadline, || async {
        let peers = ok(at(api, &["peers", "-o", "raw"], b""));
        let has = |id: &&&str| peers.lines().any(|line| line == **id);
        if wanted.iter().all(|id| has(&id)) && !unwanted.iter().any(|id| has(&id)) {
            Ok(())
        } else {
            Err(format!(
                "wanted {wanted:?} without {unwanted:?}, connected to:\n{peers}"
            ))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_meet_by_way_of_a_bootstrap_node_and_do_not_need_it_afterwards() {
    let dirs = [
        tempdir().unwrap(),
        tempdir().unwrap(),
        tempdir().unwrap(),
        tempdir().unwrap(),
    ];
    let mut hub = member(dirs[0].path(), &[]).await;
    let join = [(
        "DIRECTORY_SERVER_ROUTING_BOOTSTRAP_PEERS",
        hub.addresses[0].as_str(),
    )];
    let mut first = member(dirs[1].path(), &join).await;
    let second = member(dirs[2].path(), &join).await;
    connected(&first.api, &[&hub.id, &second.id], &[], DEADLINE).await;
    connected(&second.api, &[&hub.id, &first.id], &[], DEADLINE).await;
    first.program.client().await;

    hub.program.terminate();
    assert!(hub.program.ended(DEADLINE).await.success());
    connected(&first.api, &[&second.id], &[&hub.id], DEADLINE).await;
    connected(&second.api, &[&first.id], &[&hub.id], DEADLINE).await;

    // It comes back on the same port with the same key, because it keeps its key; others join through it again.
    let port = hub.addresses[0].split('/').nth(4).unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let again = member(
        dirs[0].path(),
        &[("DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS", &listen)],
    )
    .await;
    assert_eq!((&again.id, &again.addresses), (&hub.id, &hub.addresses));
    let mut third = member(dirs[3].path(), &join).await;
    connected(&third.api, &[&hub.id], &[], Duration::from_secs(10)).await;
    third.program.client().await;
    connected(&third.api, &[&first.id, &second.id], &[], DEADLINE).await;
}

/// Two nodes inside the test, the second of which has joined the first.
async fn pair() -> (TestNode, TestNode) {
    let one = Setup::default().start().await;
    let two = Setup::default().joining(&one).await.start().await;
    (one, two)
}

async fn pushed(node: &TestNode, version: &str) -> RecordCid {
    let answers = node.client.ask(PUSH, &[sample(version)]).await.unwrap();
    RecordCid::parse(&cid_of(&answers[0])).unwrap()
}

fn refs(cid: RecordCid) -> Json {
    json!({"record_refs": {"refs": [{"cid": cid.to_string()}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_get_published_records_and_learn_nothing_of_others() {
    let (one, two) = pair().await;
    let (known, secret) = (pushed(&one, "v1").await, pushed(&one, "v2").await);
    let absent = RecordCid::of(b"{}");
    one.client.ask(PUBLISH, &[refs(known)]).await.unwrap();
    let peer = one.network().id();

    let pulled = two.network().pull(peer, known).await.unwrap();
    assert_eq!(RecordCid::of(&pulled.data), known);
    assert_eq!(pulled.annotations["version"], "v1");
    assert_eq!(
        pulled.annotations["team"], "languages",
        "the record's own are among them"
    );
    assert_eq!(
        two.network().lookup(peer, known).await.unwrap(),
        pulled.annotations
    );
    assert!(
        two.network()
            .list_referrers(peer, known)
            .await
            .unwrap()
            .referrers
            .is_empty()
    );

    let refusal = |cid: RecordCid, error: NetworkError| match error {
        NetworkError::Remote { code, message, .. } => {
            assert_eq!(code, RpcCode::NotFound, "{message}");
            message.replace(&cid.to_string(), "CID")
        }
        other => panic!("{other}"),
    };
    // What is stored and not published is refused in the same words as what is not there.
    for cid in [secret, absent] {
        let network = two.network();
        let said = [
            refusal(cid, network.lookup(peer, cid).await.unwrap_err()),
            refusal(cid, network.pull(peer, cid).await.unwrap_err()),
            refusal(cid, network.list_referrers(peer, cid).await.unwrap_err()),
        ];
        assert_eq!(
            said,
            [
                "failed to lookup: record not found: CID",
                "failed to lookup: record not found: CID",
                "failed to list referrers: record not found: CID"
            ]
        );
    }
    one.client.ask(UNPUBLISH, &[refs(known)]).await.unwrap();
    refusal(known, two.network().pull(peer, known).await.unwrap_err());
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_get_the_referrers_of_published_records() {
    const PUSH_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PushReferrer";
    let (one, two) = pair().await;
    let cid = pushed(&one, "v1").await;
    one.client.ask(PUBLISH, &[refs(cid)]).await.unwrap();
    let kind = "agntcy.dir.sign.v1.Signature";
    let referrer = json!({
        "record_ref": {"cid": cid.to_string()},
        "type": kind,
        "data": {"signature": "c2ln", "list": [1, true, null]},
    });
    one.client.ask(PUSH_REFERRER, &[referrer]).await.unwrap();
    let (network, peer) = (two.network(), one.network().id());
    let list = network.list_referrers(peer, cid).await.unwrap();
    assert_eq!((list.referrers.len(), list.truncated), (1, false));
    let descriptor = list.referrers[0].clone();
    assert_eq!(descriptor.kind, kind);
    let pulled = network
        .pull_referrer(peer, cid, descriptor.clone())
        .await
        .unwrap();
    assert_eq!(
        (pulled.kind.as_str(), pulled.record_cid.as_deref()),
        (kind, Some(cid.to_string().as_str()))
    );
    assert_eq!(pulled.referrer_ref.as_deref(), Some(descriptor.cid.as_str()));
    assert_eq!(pulled.data.unwrap().fields.len(), 2);

    let mut other_class = descriptor;
    other_class.kind = "agntcy.dir.sign.v1.PublicKey".to_owned();
    let error = network.pull_referrer(peer, cid, other_class).await.unwrap_err();
    assert!(
        matches!(
            &error,
            NetworkError::Remote {
                code: RpcCode::NotFound,
                ..
            }
        ),
        "{error}"
    );
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_stored_is_served_where_the_operator_says_so() {
    let one = Setup::default()
        .set("routing.serve_unpublished", "true")
        .start()
        .await;
    let two = Setup::default().joining(&one).await.start().await;
    let cid = pushed(&one, "v1").await;
    let pulled = two.network().pull(one.network().id(), cid).await.unwrap();
    assert_eq!(RecordCid::of(&pulled.data), cid);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_peers_and_providers() {
    let (one, two) = pair().await;
    let cid = pushed(&one, "v1").await;
    let (first, second) = (one.network().id().to_string(), two.network().id().to_string());
    one.network().provide(cid.multihash().to_vec()).await.unwrap();

    let text = cid.to_string();
    let found = json_of(&ok(at(
        &two.address,
        &["find-providers", &text, "-o", "json"],
        b"",
    )));
    assert_eq!(found[0]["peer_id"], first, "{found}");
    assert!(
        found[0]["addresses"][0]
            .as_str()
            .unwrap()
            .starts_with("/ip4/127.0.0.1/tcp/"),
        "{found}"
    );
    assert_eq!(
        ok(at(&two.address, &["find-providers", &text, "-o", "raw"], b"")),
        format!("{first}\n")
    );
    let unknown = RecordCid::of(b"nobody has this").to_string();
    assert_eq!(
        ok(at(&two.address, &["find-providers", &unknown], b"")),
        "No providers found\n"
    );
    assert_eq!(
        ok(at(&two.address, &["find-providers", &unknown, "-o", "json"], b"")),
        "[]\n"
    );
    assert_eq!(at(&two.address, &["find-providers", "baearei"], b"").code, 1);

    let peers = json_of(&ok(at(&one.address, &["peers", "-o", "json"], b"")));
    assert_eq!(peers[0]["peer_id"], second);
    assert_eq!(peers[0]["connections"][0]["direction"], "inbound");
    assert_eq!(peers[0]["connections"][0]["transport"], "tcp");
    let table = ok(at(&one.address, &["peers"], b""));
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["PEER", "WAY", "RTT", "IN", "ADDRESS", "AGENT"]);
    assert!(table.contains(&second) && table.contains("dirnode/"), "{table}");

    let pong = ok(at(&one.address, &["ping", &second], b""));
    assert!(
        pong.starts_with(&format!("{second}: ")) && pong.ends_with(" ms\n"),
        "{pong}"
    );
    let pong = json_of(&ok(at(
        &two.address,
        &["ping", &one.peer_addresses().await[0], "-o", "json"],
        b"",
    )));
    assert!(
        pong["peer_id"] == first && pong["rtt_microseconds"].as_u64().is_some(),
        "{pong}"
    );
    assert_eq!(
        one.client
            .ask(PING, &[json!({"peer": first})])
            .await
            .unwrap_err()
            .0,
        tonic::Code::InvalidArgument
    );
    let nobody = dirnode_network::PeerId::random().to_string();
    let answer = at(&one.address, &["ping", &nobody], b"");
    assert!(answer.code == 1 && answer.err.contains(&nobody), "{answer:?}");

    let status = json_of(&ok(at(&two.address, &["status", "-o", "json"], b"")));
    assert_eq!(status["network"]["role"], "member");
    assert_eq!(status["network"]["ready"], true, "{status}");
    assert_eq!(ok(at(&two.address, &["status", "-o", "raw"], b"")), "ready\n");
    let words = ok(at(&one.address, &["status"], b""));
    assert!(
        words.contains("Role:") && words.contains("bootstrap") && words.contains("1, 0 published"),
        "{words}"
    );
    assert_eq!(
        ok(at(&one.address, &["id", "-o", "raw"], b"")),
        format!("{first}\n")
    );
    let key = one.dir.join("identity.pem");
    assert_eq!(
        ok(run(
            &["id", "--key", &key.display().to_string(), "-o", "raw"],
            b"",
            &[]
        )),
        format!("{first}\n")
    );
    one.stop().await;
    two.stop().await;
}

/// A node that stands still: its connections stay open and nothing answers. It goes on, and ends, when this is dropped.
struct Frozen {
    thaw: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Frozen {
    /// Joins a node, and freezes once it is in that node's routing table.
    async fn beside(node: &TestNode) -> Self {
        let setup = Setup::default().joining(node).await;
        let (thaw, frozen) = std::sync::mpsc::sync_channel::<()>(1);
        let (told, id) = tokio::sync::oneshot::channel();
        let (freeze, now) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let node = setup.start().await;
                told.send(node.network().id()).unwrap();
                now.await.unwrap();
                // This thread is all that the node has.
                let _ = frozen.recv();
                node.stop().await;
            });
        });
        let id = id.await.unwrap();
        eventually(DEADLINE, || async {
            let peers = node.network().peers().await.map_err(|error| error.to_string())?;
            let there = peers.iter().any(|peer| peer.peer == id && peer.in_table);
            there.then_some(()).ok_or_else(|| format!("{peers:?}"))
        })
        .await;
        freeze.send(()).unwrap();
        Self {
            thaw: Some(thaw),
            thread: Some(thread),
        }
    }

    fn end(mut self) {
        drop(self.thaw.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A query of the DHT ends when every peer that it asked has answered or failed, which takes longer than the command waits
/// when one of them hangs. Who was found in the first moment was then lost behind "no answer".
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_told_within_the_timeout_of_the_command_although_a_peer_hangs() {
    let (one, two) = pair().await;
    let cid = pushed(&one, "v1").await;
    one.network().provide(cid.multihash().to_vec()).await.unwrap();
    let frozen = Frozen::beside(&two).await;
    let ask = |cid: &RecordCid| {
        let args = ["find-providers", &cid.to_string(), "-o", "raw", "--timeout", "4"];
        at(&two.address, &args, b"")
    };
    assert_eq!(ok(ask(&cid)), format!("{}\n", one.network().id()));
    // Nobody known by then does not say that there is nobody.
    let nobody = ask(&RecordCid::of(b"nobody has this"));
    assert_eq!((nobody.code, nobody.out.as_str()), (1, ""), "{nobody:?}");
    assert!(nobody.err.contains("find providers got no answer"), "{nobody:?}");
    frozen.end();
    one.stop().await;
    two.stop().await;
}

/// A peer id is all that an announcement tells of its publisher. A node that had not met the peer before could not ping it.
#[tokio::test(flavor = "multi_thread")]
async fn a_ping_finds_a_peer_that_the_node_has_never_met() {
    let hub = Setup::default().start().await;
    // It listens nowhere, so that the third node cannot introduce itself.
    let dials_only = Setup::default().set("routing.listen_address", "");
    let seeker = dials_only.joining(&hub).await.start().await;
    let third = Setup::default().joining(&hub).await.start().await;
    let id = third.network().id();
    eventually(DEADLINE, || async {
        let peers = hub.network().peers().await.map_err(|error| error.to_string())?;
        let there = peers.iter().any(|peer| peer.peer == id && peer.in_table);
        there.then_some(()).ok_or_else(|| format!("{peers:?}"))
    })
    .await;
    let pong = ok(at(&seeker.address, &["ping", &id.to_string()], b""));
    assert!(pong.starts_with(&format!("{id}: ")), "{pong}");
    let nobody = dirnode_network::PeerId::random().to_string();
    let answer = at(&seeker.address, &["ping", &nobody], b"");
    assert!(
        answer.code == 1 && answer.err.contains("no peer knows an address"),
        "{answer:?}"
    );
    for node in [third, seeker, hub] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_to_join_through_is_one_that_others_reach() {
    let announced = "/dns4/dir.example.org/tcp/4001";
    let node = Setup::default()
        .set("routing.listen_address", "/ip4/0.0.0.0/tcp/0")
        .set("routing.announce_addresses", announced)
        .start()
        .await;
    let id = node.network().id();
    node.peer_addresses().await;
    let told = json_of(&ok(at(&node.address, &["id", "-o", "json"], b"")));
    let told: Vec<String> = serde_json::from_value(told["addresses"].clone()).unwrap();
    assert_eq!(told[0], format!("{announced}/p2p/{id}"), "{told:?}");
    assert!(
        told.iter()
            .all(|address| address.ends_with(&format!("/p2p/{id}"))),
        "{told:?}"
    );
    let loopback = told.iter().position(|address| address.starts_with("/ip4/127."));
    assert!(loopback.is_none_or(|place| place == told.len() - 1), "{told:?}");
    let human = ok(at(&node.address, &["id"], b""));
    assert!(
        human.contains(&format!("Addresses: {announced}/p2p/{id}\n")),
        "{human}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_not_joined_is_not_ready_and_says_what_is_missing() {
    let dir = tempdir().unwrap();
    let gone = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", dirnode_network::PeerId::random());
    let config = Setup::default()
        .set("routing.bootstrap_peers", &gone)
        .config(dir.path());
    let node = Node::start(config).await.unwrap();
    let client = dirnode_tests::grpc::Client::connect(&node.addresses()[0].to_string())
        .await
        .unwrap();
    let serving = |name: &'static str| {
        let client = &client;
        async move { client.ask(CHECK, &[json!({"service": name})]).await.unwrap()[0]["status"].clone() }
    };
    eventually(DEADLINE, || async {
        let status = client.ask(STATUS, &[json!({})]).await.map_err(|error| error.1)?;
        let missing = &status[0]["network"]["missing"];
        let expected = json!([
            "no peer is connected",
            "not bootstrapped",
            "the routing table is empty",
            "no peer on the labels topic"
        ]);
        if *missing == expected && serving("store").await == "SERVING" {
            Ok(())
        } else {
            Err(format!("missing: {missing}"))
        }
    })
    .await;
    assert_eq!(serving("network").await, "NOT_SERVING");
    assert_eq!(serving("").await, "NOT_SERVING");
    drop(client);
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_network_says_so() {
    let node = Setup::default().set("routing.enabled", "false").start().await;
    assert_eq!(
        node.client.ask(PEERS, &[json!({})]).await.unwrap_err().0,
        tonic::Code::FailedPrecondition
    );
    assert_eq!(
        ok(at(&node.address, &["status", "-o", "raw"], b"")),
        "network off\n"
    );
    assert_eq!(at(&node.address, &["id"], b"").code, 1);
    assert!(!node.dir.join("identity.pem").exists());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_stops_the_start_and_is_named() {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let first = member(dirs[0].path(), &[]).await;
    let (listen, _) = first.addresses[0].split_once("/p2p/").unwrap();
    let mut second = Program::start(
        dirs[1].path(),
        &[],
        &[("DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS", listen)],
    );
    let ended = second.ended(DEADLINE).await;
    assert_eq!(ended.code(), Some(1));
    let log = second.log().join("\n");
    for part in ["routing.listen_address", listen, "stop what uses it"] {
        assert!(log.contains(part), "{part} missing in: {log}");
    }
}

/// The swarm task that ends by itself must not leave a node behind that looks alive.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_network_is_the_end_of_the_node() {
    let mut node = Setup::default().start().await;
    node.network().shutdown();
    let part = tokio::time::timeout(DEADLINE, node.node.ended()).await.unwrap();
    assert!(part.starts_with("network"), "{part}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_the_network_are_served_with_a_label_each() {
    let one = Setup::default().with_metrics().start().await;
    let two = Setup::default().joining(&one).await.start().await;
    let address = one.node.metrics_address().unwrap().to_string();
    eventually(DEADLINE, || async {
        let page = dirnode_tests::scrape::get(&address, "/metrics", "text/plain").await;
        let samples = dirnode_tests::scrape::samples(&page.body);
        let peers = samples
            .iter()
            .find(|(series, _)| series.starts_with("dirnode_network_peers{"));
        match peers {
            Some((series, value)) if *value == 1.0 && series.contains("room=\"network\"") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    one.stop().await;
    two.stop().await;
}
