//! A node inside the test's process, on a port of its own and with a folder that goes away with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dirnode_network::NetworkHandle;
use dirnode_server::config::{Config, Layers};
use dirnode_server::node::Node;
use serde_json::json;
use tempfile::TempDir;

use crate::grpc::Client;
use crate::scrape;
use crate::wait::eventually;

/// How a node is started: quiet defaults, and what a test changes of them.
#[derive(Debug, Clone)]
pub struct Setup {
    flags: BTreeMap<String, String>,
    yaml: String,
}

impl Default for Setup {
    /// Loopback, a network of its own, no metrics, no start-up record, records checked as in production.
    fn default() -> Self {
        let flags = [
            ("listen_address", "127.0.0.1:0"),
            ("metrics.enabled", "false"),
            ("routing.listen_address", "/ip4/127.0.0.1/tcp/0"),
            ("startup_record.enabled", "false"),
            ("store.row_cache_bytes", "8388608"),
        ];
        Self {
            flags: flags
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            yaml: String::new(),
        }
    }
}

impl Setup {
    /// Records are taken without a look at their schema, as the vectors ask.
    #[must_use]
    pub fn unchecked() -> Self {
        Self::default().set("oasf_api_validation.mode", "off")
    }

    /// Sets one key by its path.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.flags.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Metrics on a port of their own.
    #[must_use]
    pub fn with_metrics(self) -> Self {
        self.set("metrics.enabled", "true")
            .set("metrics.address", "127.0.0.1:0")
    }

    /// Joins the network of another node.
    pub async fn joining(self, node: &TestNode) -> Self {
        let addresses = node.peer_addresses().await;
        self.set("routing.bootstrap_peers", &addresses.join(","))
    }

    /// A file underneath, for keys that a flag cannot say.
    #[must_use]
    pub fn file(mut self, yaml: &str) -> Self {
        self.yaml = yaml.to_owned();
        self
    }

    /// The configuration of a node that keeps its data in `dir`.
    #[must_use]
    pub fn config(&self, dir: &Path) -> Config {
        let mut layers = Layers::default()
            .file("test.yml", &self.yaml)
            .expect("the test's file parses");
        for (key, value) in &self.flags {
            layers = layers.flag(key, Some(value.clone()));
        }
        layers = layers.flag("data_dir", Some(dir.display().to_string()));
        Config::read(&layers).expect("the test's settings are sound").0
    }

    /// Starts a node with a fresh folder and waits until it serves.
    pub async fn start(&self) -> TestNode {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut node = self.start_in(dir.path()).await;
        node.owned = Some(dir);
        node
    }

    /// Starts a node in a folder of the test's.
    pub async fn start_in(&self, dir: &Path) -> TestNode {
        let node = Box::pin(Node::start(self.config(dir)))
            .await
            .expect("the node starts");
        let address = node.addresses()[0].to_string();
        let client = Client::connect(&address)
            .await
            .expect("the node takes connections");
        wait_serving(&client).await;
        TestNode {
            node,
            client,
            address,
            dir: dir.to_owned(),
            owned: None,
        }
    }
}

/// Waits until health says SERVING.
pub async fn wait_serving(client: &Client) {
    eventually(Duration::from_secs(20), || async {
        let answer = client.ask("/grpc.health.v1.Health/Check", &[json!({})]).await;
        match answer {
            Ok(answers) if answers == [json!({"status": "SERVING"})] => Ok(()),
            other => Err(format!("health says {other:?}")),
        }
    })
    .await;
}

/// A node that serves.
pub struct TestNode {
    /// The node itself.
    pub node: Node,
    /// A connection to it.
    pub client: Client,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Its data folder.
    pub dir: PathBuf,
    owned: Option<TempDir>,
}

impl TestNode {
    /// Its place in the network.
    #[must_use]
    pub fn network(&self) -> &NetworkHandle {
        self.node.network().expect("the node has a network").handle()
    }

    /// Where peers can dial it, with its peer id at the end.
    pub async fn peer_addresses(&self) -> Vec<String> {
        eventually(Duration::from_secs(20), || async {
            let status = self.network().status().await.map_err(|error| error.to_string())?;
            let addresses: Vec<String> = status.listening.iter().map(ToString::to_string).collect();
            if addresses.is_empty() {
                Err("the node does not listen for peers yet".to_owned())
            } else {
                Ok(addresses)
            }
        })
        .await
    }

    /// One figure of the routing room by its name without `dirnode_routing_`. The node must have metrics.
    pub async fn routing_figure(&self, name: &str) -> f64 {
        let address = self.node.metrics_address().expect("the node has metrics");
        let page = scrape::get(&address.to_string(), "/metrics", "text/plain").await;
        let samples = scrape::samples(&page.body);
        let found = ["_total", ""].iter().find_map(|end| {
            let series = format!("dirnode_routing_{name}{end}{{room=\"routing\"}}");
            samples.get(&series).copied()
        });
        found.unwrap_or_else(|| panic!("no {name} in {}", page.body))
    }

    /// Stops it in order; the folder goes away unless the test owns it.
    pub async fn stop(self) {
        let Self {
            node, client, owned, ..
        } = self;
        drop(client);
        node.stop().await.expect("the node stops in order");
        drop(owned);
    }
}
