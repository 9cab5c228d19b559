//! The bootstrap node as others meet it: Go peers that know nobody else find one another through the real binary, their
//! announcements pass it, and what it must not be made of is not in its dependency tree.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_tests::go_peer::{GoPeer, Options};
use dirnode_tests::program::bootstrap_binary;
use dirnode_tests::repository;
use dirnode_tests::wait::eventually;
use serde_json::{Value as Json, json};

use crate::interop_node::Node;

const SOON: Duration = Duration::from_secs(60);

/// A running `dirnode-bootstrap`.
struct Bootstrap {
    child: Child,
    lines: Arc<Mutex<Vec<Json>>>,
    folder: tempfile::TempDir,
}

impl Bootstrap {
    fn start() -> Self {
        let listen = ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"];
        Self::start_in(tempfile::tempdir().unwrap(), &listen)
    }

    /// Its key is kept in the folder.
    fn start_in(folder: tempfile::TempDir, listen: &[&str]) -> Self {
        let mut child = Command::new(bootstrap_binary())
            .arg("run")
            .args(listen.iter().flat_map(|address| ["--listen", *address]))
            .args([
                "--metrics-address",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--data-dir",
            ])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    heard.lock().unwrap().push(line);
                }
            }
        });
        Self { child, lines, folder }
    }

    /// Ends it without a word of warning; what it kept is there for the next one.
    fn killed(self) -> tempfile::TempDir {
        let mut this = self;
        this.child.kill().unwrap();
        this.child.wait().unwrap();
        std::mem::replace(&mut this.folder, tempfile::tempdir().unwrap())
    }

    /// Its full address over `transport`.
    async fn address(&self, transport: &str) -> String {
        eventually(SOON, || {
            let lines = self.lines.lock().unwrap();
            let found = lines
                .iter()
                .filter(|line| line["message"] == "listening")
                .filter_map(|line| line["multiaddr"].as_str())
                .find(|address| address.contains(transport))
                .map(str::to_owned);
            std::future::ready(found.ok_or_else(|| format!("{lines:#?}")))
        })
        .await
    }
}

impl Drop for Bootstrap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_go_peers_find_one_another_through_the_bootstrap_node() {
    if dirnode_tests::go_peer::available().is_none() {
        return;
    }
    let bootstrap = Bootstrap::start();
    let (tcp, quic) = (
        bootstrap.address("/tcp/").await,
        bootstrap.address("/quic-v1").await,
    );
    // One comes over TCP, the other over QUIC; neither knows the other.
    let one = GoPeer::start(Options::new().bootstrap(&tcp)).await.unwrap();
    let two = GoPeer::start(Options::new().quic().bootstrap(&quic))
        .await
        .unwrap();
    let middle = tcp.rsplit('/').next().unwrap().to_owned();
    for go in [&one, &two] {
        eventually(SOON, || async {
            let (table, topic) = (go.routing_table().await, go.topic_peers().await);
            let there = table.contains(&middle) && topic.contains(&middle);
            there.then_some(()).ok_or_else(|| format!("{table:?} {topic:?}"))
        })
        .await;
    }

    // The DHT: a record provided by one is found by the other.
    let cid = RecordCid::of(b"provided by one").to_string();
    eventually(SOON, || async {
        one.provide(&cid).await?;
        let found = two.find_providers(&cid, 1).await?;
        let found = found.iter().any(|provider| provider.peer == one.id());
        found.then_some(()).ok_or_else(|| "not found".to_owned())
    })
    .await;

    // Gossip: what is well-formed passes, what is not stops there.
    let labels = ["/skills/nlp/summarization"];
    eventually(SOON, || async {
        one.announce(&cid, &labels).await?;
        let heard = two.events().into_iter().any(|event| {
            event["event"] == "labels" && event["from"] == one.id() && event["cid"] == cid.as_str()
        });
        heard.then_some(()).ok_or_else(|| "no labels heard".to_owned())
    })
    .await;
    println!("bootstrap node: joined over tcp and quic, provider found, labels passed on");
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_the_bootstrap_node_passes_on_nothing_malformed() {
    if dirnode_tests::go_peer::available().is_none() {
        return;
    }
    let bootstrap = Bootstrap::start();
    let tcp = bootstrap.address("/tcp/").await;
    // Without a DHT of their own the two do not meet: what crosses went through the middle.
    let client = || Options::new().listen("none").bootstrap(&tcp);
    let one = GoPeer::start(client()).await.unwrap();
    let two = GoPeer::start(client()).await.unwrap();
    let old = json!({"cid": RecordCid::of(b"a").to_string(), "labels": ["/skills/a"], "timestamp": "2001-01-01T00:00:00Z"});
    let odd = json!({"cid": "hello", "labels": ["/skills/a"], "timestamp": "2001-01-01T00:00:00Z"});
    let good = RecordCid::of(b"good").to_string();
    eventually(SOON, || async {
        for payload in [old.to_string(), odd.to_string(), "nonsense".to_owned()] {
            let data = base64_of(payload.as_bytes());
            one.ask("gossip_raw", json!({"data_b64": data})).await?;
        }
        one.announce(&good, &["/skills/a"]).await?;
        let heard = two
            .events()
            .into_iter()
            .any(|event| event["event"] == "labels" && event["cid"] == good.as_str());
        heard
            .then_some(())
            .ok_or_else(|| "the good one was not heard".to_owned())
    })
    .await;
    let connected = two.connected().await;
    assert!(
        !connected.contains(&one.id().to_owned()),
        "the two have met: {connected:?}"
    );
    for event in two.events() {
        assert_ne!(event["event"], "labels_invalid", "{event}");
        assert!(
            event["event"] != "labels" || event["cid"] == good.as_str(),
            "{event}"
        );
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Killed, not stopped: nobody is told. Those who are joined stay together, and soon after it is back others join through it.
#[tokio::test(flavor = "multi_thread")]
async fn after_its_end_and_return_new_nodes_join_through_the_bootstrap_node_within_ten_seconds() {
    let bootstrap = Bootstrap::start();
    let address = bootstrap.address("/tcp/").await;
    let member = || {
        let mut config = Node::config();
        config.bootstrap = vec![address.parse().unwrap()];
        Node::start(config)
    };
    let middle = address.rsplit('/').next().unwrap().to_owned();
    let (one, two) = (member(), member());
    one.peer(&two.id(), |view| view.in_table.then_some(())).await;
    two.peer(&one.id(), |view| view.in_table.then_some(())).await;

    let folder = bootstrap.killed();
    eventually(SOON, || async {
        let peers = one.handle.peers().await.map_err(|error| error.to_string())?;
        let gone = !peers.iter().any(|view| view.peer.to_string() == middle);
        gone.then_some(()).ok_or_else(|| "still connected".to_owned())
    })
    .await;
    one.handle.ping(two.handle.id()).await.unwrap();
    let orphan = member();

    let listen = address.split("/p2p/").next().unwrap().to_owned();
    let again = Bootstrap::start_in(folder, &[&listen]);
    assert_eq!(
        again.address("/tcp/").await,
        address,
        "the same key on the same port"
    );
    let joined = |node: &Node| {
        let handle = node.handle.clone();
        async move {
            let status = handle.status().await.map_err(|error| error.to_string())?;
            (status.bootstrapped && status.table > 0)
                .then_some(())
                .ok_or_else(|| format!("{status:?}"))
        }
    };
    let late = member();
    eventually(Duration::from_secs(10), || joined(&late)).await;
    // Who came while it was away, and who had lost it, find it again too, and through it one another.
    eventually(SOON, || joined(&orphan)).await;
    for node in [&one, &two, &orphan] {
        late.peer(&node.id(), |view| view.in_table.then_some(())).await;
    }
    println!("bootstrap node: killed and back, new nodes join within ten seconds");
}

#[test]
fn the_bootstrap_node_is_made_of_network_and_identity_alone() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "tree",
            "--offline",
            "-p",
            "dirnode-bootstrap",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    for wanted in ["dirnode-network", "dirnode-identity"] {
        assert!(names.contains(&wanted), "{wanted}");
    }
    for kept_out in [
        "dirnode-store",
        "dirnode-record",
        "dirnode-routing",
        "dirnode-server",
        "dirnode-proto",
        "tonic",
        "sled",
    ] {
        assert!(
            !names.contains(&kept_out),
            "{kept_out} is in the tree of dirnode-bootstrap"
        );
    }
}
