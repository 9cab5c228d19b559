//! A node of ours and a Go peer, over real connections: who dials, what carries, what is agreed on, and everything that
//! crosses afterwards. Each combination runs the whole walk and the matrix is printed at the end.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::{AnnounceOutcome, EndpointKind, NetworkEvent, PeerId, ReferrerDescriptor};
use dirnode_record::{RecordCid, Referrer, read_struct};
use dirnode_tests::go_peer::{GoPeer, Options, Raw};
use dirnode_tests::wait::eventually;
use serde_json::json;

use crate::interop_hostile;
use crate::interop_node::{Node, SOON};

/// One combination.
#[derive(Clone, Copy)]
struct Pair {
    name: &'static str,
    we_dial: bool,
    transport: &'static str,
    security: &'static str,
}

const PAIRS: [Pair; 8] = [
    Pair {
        name: "tcp, tls, we dial",
        we_dial: true,
        transport: "tcp",
        security: "tls",
    },
    Pair {
        name: "tcp, tls, Go dials",
        we_dial: false,
        transport: "tcp",
        security: "tls",
    },
    Pair {
        name: "tcp, noise, we dial",
        we_dial: true,
        transport: "tcp",
        security: "noise",
    },
    Pair {
        name: "tcp, noise, Go dials",
        we_dial: false,
        transport: "tcp",
        security: "noise",
    },
    Pair {
        name: "tcp, both, we dial",
        we_dial: true,
        transport: "tcp",
        security: "both",
    },
    Pair {
        name: "tcp, both, Go dials",
        we_dial: false,
        transport: "tcp",
        security: "both",
    },
    Pair {
        name: "quic, we dial",
        we_dial: true,
        transport: "quic-v1",
        security: "tls",
    },
    Pair {
        name: "quic, Go dials",
        we_dial: false,
        transport: "quic-v1",
        security: "tls",
    },
];

/// Columns of the matrix.
const FACTS: usize = 13;

/// What was seen to hold, by combination: the columns of the matrix.
#[derive(Default)]
struct Matrix(Mutex<BTreeMap<&'static str, Vec<(&'static str, String)>>>);

impl Matrix {
    fn holds(&self, pair: Pair, fact: &'static str, how: impl Into<String>) {
        self.0
            .lock()
            .unwrap()
            .entry(pair.name)
            .or_default()
            .push((fact, how.into()));
    }

    fn print(&self) {
        let rows = self.0.lock().unwrap();
        let facts: Vec<&str> = rows
            .values()
            .next()
            .map(|row| row.iter().map(|(fact, _)| *fact).collect())
            .unwrap_or_default();
        println!("\n| pair | {} |", facts.join(" | "));
        println!("|{}", "---|".repeat(facts.len() + 1));
        for (pair, row) in rows.iter() {
            let cells: Vec<&str> = row.iter().map(|(_, how)| how.as_str()).collect();
            println!("| {pair} | {} |", cells.join(" | "));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_matrix_of_dialler_transport_and_security() {
    let matrix = Matrix::default();
    for pair in PAIRS {
        if !walk(pair, &matrix).await {
            return;
        }
    }
    matrix.print();
    let rows = matrix.0.lock().unwrap();
    assert_eq!(rows.len(), PAIRS.len());
    assert!(
        rows.values().all(|row| row.len() == FACTS),
        "every row has every fact"
    );
}

/// The whole walk of one combination; false where there is no Go.
async fn walk(pair: Pair, matrix: &Matrix) -> bool {
    let listen = if pair.transport == "tcp" {
        "/ip4/127.0.0.1/tcp/0"
    } else {
        "/ip4/127.0.0.1/udp/0/quic-v1"
    };
    let options = Options::new()
        .listen(listen)
        .security(pair.security)
        .directory("go.example.com:8888")
        .oci("ghcr.io/go/records");
    let Some(go) = GoPeer::start(options).await else {
        return false;
    };
    let mut config = Node::config();
    config.directory_api_address = Some("dir.example.com:443".to_owned());
    config.directory_oci_address = Some("ghcr.io/org/repo with space".to_owned());
    let node = Node::start(config);
    // Both ports are open before anybody dials: what identify tells is complete then.
    let address = node.address(pair.transport).await;
    node.address("quic-v1").await;
    if pair.we_dial {
        let reached = node.handle.connect(go.address().parse().unwrap()).await;
        assert_eq!(reached.unwrap().to_string(), go.id(), "{}", pair.name);
    } else {
        go.connect(&address)
            .await
            .unwrap_or_else(|problem| panic!("{}: {problem}", pair.name));
    }

    connected(pair, &node, &go, matrix).await;
    tables(pair, &node, &go, matrix).await;
    endpoints(pair, &node, &go, matrix).await;
    providers(pair, &node, &go, matrix).await;
    labels(pair, &node, &go, matrix).await;
    records(pair, &node, &go, matrix).await;
    referrers(pair, &node, &go, matrix).await;
    malformed(pair, &node, &go, matrix).await;
    true
}

async fn connected(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    let how = go
        .event("peer_connected", |event| {
            (event["peer"] == node.id().as_str()).then(|| {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                (text("addr"), text("direction"), text("security"), text("muxer"))
            })
        })
        .await;
    let (addr, direction, security, muxer) = how;
    assert!(addr.contains(&format!("/{}", pair.transport)), "{addr}");
    assert_eq!(direction, if pair.we_dial { "Inbound" } else { "Outbound" });
    let expected = match (pair.transport, pair.security, pair.we_dial) {
        ("tcp", "noise", _) => "/noise",
        // Who dials chooses; both sides name TLS first.
        ("tcp", ..) => "/tls/1.0.0",
        _ => "",
    };
    if !expected.is_empty() {
        assert_eq!(security, expected, "{}", pair.name);
        assert_eq!(muxer, "/yamux/1.0.0", "{}", pair.name);
    }
    matrix.holds(
        pair,
        "security",
        if security.is_empty() {
            "in QUIC".to_owned()
        } else {
            security
        },
    );

    // Identify, both ways: the DHT's name is on the wire without a slash.
    let protocols = eventually(SOON, || async {
        let info = go.ask("peer_info", json!({"peer": node.id()})).await?;
        let protocols: Vec<String> = serde_json::from_value(info["protocols"].clone()).unwrap_or_default();
        let known = protocols.iter().any(|name| name == "dir/kad/1.0.0");
        known
            .then_some(protocols.clone())
            .ok_or_else(|| format!("{protocols:?}"))
    })
    .await;
    for name in [
        "/dir/rpc/1.0.0",
        "/meshsub/1.1.0",
        "/ipfs/ping/1.0.0",
        "/ipfs/id/1.0.0",
    ] {
        assert!(
            protocols.iter().any(|found| found == name),
            "{name} in {protocols:?}"
        );
    }
    assert!(
        !protocols.iter().any(|name| name == "/dir/kad/1.0.0"),
        "{protocols:?}"
    );
    node.peer(go.id(), |view| {
        view.protocols
            .iter()
            .any(|name| name.contains("dir/kad/1.0.0"))
            .then_some(())
    })
    .await;
    matrix.holds(pair, "identify", "ok");
}

async fn tables(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    node.peer(go.id(), |view| view.in_table.then_some(())).await;
    eventually(SOON, || async {
        let table = go.routing_table().await;
        table
            .contains(&node.id())
            .then_some(())
            .ok_or_else(|| format!("{table:?}"))
    })
    .await;
    matrix.holds(pair, "tables", "both");
}

async fn endpoints(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    eventually(SOON, || async {
        let info = go.ask("peer_info", json!({"peer": node.id()})).await?;
        let fits = info["dir"] == "dir.example.com:443" && info["oci"] == "ghcr.io/org/repo with space";
        fits.then_some(()).ok_or_else(|| info.to_string())
    })
    .await;
    matrix.holds(pair, "/dir /oci at Go", "ok");
    for (kind, value) in [
        (EndpointKind::DirectoryApi, "go.example.com:8888"),
        (EndpointKind::Oci, "ghcr.io/go/records"),
    ] {
        node.event("endpoint", |event| match event {
            NetworkEvent::EndpointSeen(seen) => {
                (seen.peer.to_string() == go.id() && seen.kind == kind && seen.value == value).then_some(())
            }
            _ => None,
        })
        .await;
    }
    node.peer(go.id(), |view| {
        (view.directory_api.as_deref() == Some("go.example.com:8888")
            && view.oci.as_deref() == Some("ghcr.io/go/records"))
        .then_some(())
    })
    .await;
    matrix.holds(pair, "/dir /oci here", "ok");
}

async fn providers(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    // Ours, found there.
    let ours = RecordCid::of(pair.name.as_bytes());
    eventually(SOON, || async {
        node.handle
            .provide(ours.multihash().to_vec())
            .await
            .map_err(|error| error.to_string())?;
        let found = go.find_providers(&ours.to_string(), 1).await?;
        let ours = found.iter().find(|provider| provider.peer == node.id());
        ours.map(|_| ()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    // It came with an address that can be dialled, and with the endpoints.
    let event = go
        .event("provider_added", |event| {
            (event["cid"] == ours.to_string().as_str()).then(|| event.clone())
        })
        .await;
    assert!(event["addrs"].to_string().contains("127.0.0.1"), "{event}");
    assert_eq!(event["dir"], "dir.example.com:443", "{event}");
    assert_eq!(event["oci"], "ghcr.io/org/repo with space", "{event}");
    matrix.holds(pair, "our provider at Go", "ok");

    // Theirs, found here.
    let theirs = RecordCid::of(format!("{} of Go", pair.name).as_bytes());
    go.provide(&theirs.to_string()).await.unwrap();
    let key = theirs.multihash().to_vec();
    node.event("provided", |event| match event {
        NetworkEvent::Provided { peer, key: given, .. } => {
            (peer.to_string() == go.id() && given[..] == key[..]).then_some(())
        }
        _ => None,
    })
    .await;
    eventually(SOON, || async {
        let found = node
            .handle
            .find_providers(key.clone(), 1)
            .await
            .map_err(|error| error.to_string())?;
        let go_is_there = found.iter().any(|provider| provider.peer.to_string() == go.id());
        go_is_there.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    matrix.holds(pair, "Go's provider here", "ok");
}

async fn labels(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    let cid = RecordCid::of(b"announced").to_string();
    let payload = json!({
        "cid": cid, "labels": ["/skills/nlp/summarization"], "timestamp": "2026-08-21T14:39:57.123456789Z"
    })
    .to_string();
    let sent = Bytes::from(payload);
    // Repeated until the mesh stands: an announcement before that goes nowhere.
    eventually(SOON, || async {
        let outcome = node
            .handle
            .announce(sent.clone())
            .await
            .map_err(|error| error.to_string())?;
        if outcome != AnnounceOutcome::Sent {
            return Err(format!("{outcome:?}"));
        }
        let heard = go
            .events()
            .into_iter()
            .find(|event| event["event"] == "labels" && event["cid"] == cid.as_str())
            .ok_or("Go has heard no labels")?;
        assert_eq!(heard["from"], node.id().as_str());
        assert_eq!(heard["labels"], json!(["/skills/nlp/summarization"]));
        Ok(())
    })
    .await;
    eventually(SOON, || async {
        go.announce(&cid, &["/domains/finance", "/locators/docker_image"])
            .await?;
        let heard = node.announced();
        let heard = heard.first().ok_or("no announcement of Go has come")?;
        assert_eq!(heard.publisher.to_string(), go.id());
        assert_eq!(heard.forwarder.to_string(), go.id());
        let payload: serde_json::Value = serde_json::from_slice(&heard.data).unwrap();
        assert_eq!(payload["cid"], cid.as_str());
        assert_eq!(
            payload["labels"],
            json!(["/domains/finance", "/locators/docker_image"])
        );
        Ok(())
    })
    .await;
    matrix.holds(pair, "labels", "both ways");
}

async fn records(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    let data = br#"{"name":"a","schema_version":"1.0.0","skills":[{"id":1,"name":"x/y"}]}"#;
    let cid = node.shelf.put(data, &[("name", "a")]);
    let lookup = go
        .must("lookup", json!({"peer": node.id(), "cid": cid.to_string()}))
        .await;
    assert_eq!(lookup["cid"], cid.to_string().as_str());
    assert_eq!(lookup["annotations"], json!({"name": "a"}));
    let peer: PeerId = go.id().parse().unwrap();
    let theirs = go
        .serve_record(&json!({"name": "of go", "n": 1.5}), &json!({"name": "of go"}))
        .await;
    let theirs = RecordCid::parse(&theirs).unwrap();
    let annotations = node.handle.lookup(peer, theirs).await.unwrap();
    assert_eq!(annotations.get("name").map(String::as_str), Some("of go"));
    let refusal = node.handle.lookup(peer, RecordCid::of(b"missing")).await;
    let refusal = refusal.unwrap_err().to_string();
    assert!(refusal.contains("NotFound"), "{refusal}");
    matrix.holds(pair, "Lookup", "both ways");

    let pulled = go
        .must("pull", json!({"peer": node.id(), "cid": cid.to_string()}))
        .await;
    assert_eq!(pulled["matches"], true, "{pulled}");
    // Above 64 KiB the length takes its widest form.
    let large = format!("{{\"name\":\"{}\"}}", "b".repeat(200_000));
    let large_cid = node.shelf.put(large.as_bytes(), &[]);
    let pulled = go
        .must("pull", json!({"peer": node.id(), "cid": large_cid.to_string()}))
        .await;
    assert_eq!(
        (pulled["matches"].as_bool(), pulled["size"].as_u64()),
        (Some(true), Some(large.len() as u64))
    );
    let missing = RecordCid::of(b"missing").to_string();
    let refusal = go
        .ask("pull", json!({"peer": node.id(), "cid": missing}))
        .await
        .unwrap_err();
    assert!(refusal.contains("code = NotFound"), "{refusal}");

    let pulled = node.handle.pull(peer, theirs).await.unwrap();
    assert_eq!(&pulled.data[..], br#"{"n":1.5,"name":"of go"}"#);
    let refusal = node
        .handle
        .pull(peer, RecordCid::of(b"missing"))
        .await
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("NotFound"), "{refusal}");
    // A peer that serves other bytes under a name is found out.
    let name = RecordCid::of(b"what was asked for");
    go.must("serve_raw", json!({"data_b64": "e30=", "cid": name.to_string()}))
        .await;
    node.handle.pull(peer, name).await.unwrap_err();
    matrix.holds(pair, "Pull", "both ways");
}

async fn referrers(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    const KIND: &str = "agntcy.dir.sign.v1.Signature";
    let data = br#"{"name":"with referrers"}"#;
    let cid = node.shelf.put(data, &[]);
    let referrer = Referrer {
        kind: KIND.to_owned(),
        record_cid: Some(cid.to_string()),
        annotations: BTreeMap::from([("by".to_owned(), "us".to_owned())]),
        created_at: "2026-08-21T14:39:57Z".to_owned(),
        data: read_struct(br#"{"signature":"c2ln","deep":{"list":[1,"two",null,true]}}"#).unwrap(),
        referrer_ref: None,
    };
    let ours = node.shelf.attach(cid, referrer);
    let listed = go
        .must(
            "list_referrers",
            json!({"peer": node.id(), "cid": cid.to_string()}),
        )
        .await;
    assert_eq!(listed["referrers"], json!([{"referrer_cid": ours, "type": KIND}]));
    let peer: PeerId = go.id().parse().unwrap();
    let record = go
        .serve_record(&json!({"name": "with referrers of go"}), &json!({}))
        .await;
    let theirs = go
        .serve_referrer(&record, KIND, &json!({"text": "hello", "n": [1, null]}))
        .await;
    let record = RecordCid::parse(&record).unwrap();
    let wanted = ReferrerDescriptor {
        cid: theirs,
        kind: KIND.to_owned(),
    };
    let list = node.handle.list_referrers(peer, record).await.unwrap();
    assert_eq!(list.referrers, std::slice::from_ref(&wanted));
    assert!(!list.truncated);
    matrix.holds(pair, "ListReferrers", "both ways");

    let asked = json!({"peer": node.id(), "cid": cid.to_string(), "type": KIND, "referrer_cid": ours});
    let fetched = go.must("pull_referrer", asked).await;
    assert_eq!(fetched["type"], KIND, "{fetched}");
    assert_eq!(
        fetched["data"],
        json!({"signature": "c2ln", "deep": {"list": [1, "two", null, true]}})
    );

    let fetched = node.handle.pull_referrer(peer, record, wanted).await.unwrap();
    assert_eq!(fetched.kind, KIND);
    assert_eq!(
        fetched.data,
        read_struct(br#"{"text":"hello","n":[1,null]}"#).unwrap()
    );
    matrix.holds(pair, "PullReferrer", "both ways");
}

/// One malformed input on each protocol, over this very transport; another one for each combination. Afterwards both
/// sides are served as before.
async fn malformed(pair: Pair, node: &Node, go: &GoPeer, matrix: &Matrix) {
    let turn = PAIRS.iter().position(|other| other.name == pair.name).unwrap();
    let inputs = interop_hostile::malformed();
    let number = inputs.len();
    for (protocol, cases) in inputs {
        let (case, data) = &cases[turn % cases.len()];
        let raw = Raw {
            protocol: (!protocol.is_empty()).then_some(protocol),
            data,
            half_close: turn % 2 == 1,
            quiet: Some(Duration::from_millis(100)),
            ..Raw::default()
        };
        go.raw(&node.id(), raw)
            .await
            .unwrap_or_else(|problem| panic!("{}: {case} on {protocol}: {problem}", pair.name));
    }
    let cid = node.shelf.put(br#"{"name":"after"}"#, &[]);
    let asked = json!({"peer": node.id(), "cid": cid.to_string()});
    assert_eq!(go.must("pull", asked).await["matches"], true, "{}", pair.name);
    let theirs = go.serve_record(&json!({"name": "after"}), &json!({})).await;
    let peer: PeerId = go.id().parse().unwrap();
    node.handle
        .pull(peer, RecordCid::parse(&theirs).unwrap())
        .await
        .unwrap();
    let left = go
        .events()
        .iter()
        .any(|event| event["event"] == "peer_disconnected");
    assert!(!left, "{}: the connection did not last", pair.name);
    matrix.holds(pair, "malformed", format!("{number} protocols, still served"));
}
