//! Nodes on loopback, and waiting with a deadline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::{
    Config, Keypair, Library, LibraryError, Multiaddr, Network, NetworkEvent, NetworkHandle, PeerId, Pulled,
    ReferrerDescriptor, ReferrerList, RpcCode, Runtime,
};
use dirnode_record::{RecordCid, Referrer};
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// As long as a test may wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A node whose task runs.
pub struct Node {
    pub handle: NetworkHandle,
    pub events: mpsc::Receiver<NetworkEvent>,
    pub addr: Multiaddr,
    pub task: JoinHandle<()>,
    registry: Registry,
}

/// Which way a node listens.
#[derive(Clone, Copy)]
pub enum Way {
    Tcp,
    Quic,
}

pub fn config(way: Way, bootstrap: &[&Node]) -> Config {
    let listen = match way {
        Way::Tcp => "/ip4/127.0.0.1/tcp/0",
        Way::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
    };
    Config {
        listen: vec![listen.parse().unwrap()],
        bootstrap: bootstrap.iter().map(|node| node.addr.clone()).collect(),
        ..Config::default()
    }
}

impl Node {
    pub async fn start(config: Config) -> Self {
        Self::start_with(config, None).await
    }

    pub async fn start_with(config: Config, library: Option<Arc<dyn Library>>) -> Self {
        let keypair = Keypair::generate_ed25519();
        let mut registry = Registry::default();
        let network = Network::start(config, &keypair, library, &mut registry, Runtime::system()).unwrap();
        let Network {
            handle,
            mut events,
            task,
        } = network;
        let task = tokio::spawn(task);
        let addr = wait("listening", async {
            loop {
                if let Some(NetworkEvent::Listening { addr }) = events.recv().await {
                    return addr;
                }
            }
        })
        .await;
        Self {
            handle,
            events,
            addr,
            task,
            registry,
        }
    }

    /// A figure as it would be scraped; zero while its series is not there.
    pub fn figure(&self, series: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a figure has grown to `least`.
    pub async fn counted(&self, series: &str, least: u64) {
        eventually(series, || async { (self.figure(series) >= least).then_some(()) }).await;
    }

    pub fn id(&self) -> PeerId {
        self.handle.id()
    }

    /// The next event that `pick` wants.
    pub async fn event<T>(&mut self, what: &str, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        wait(what, async {
            loop {
                let event = self.events.recv().await.expect("network ended");
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        })
        .await
    }
}

/// A node that has joined another and then stands still: its connections stay open and nothing answers. It goes on, and
/// ends, when this is dropped.
pub struct Frozen {
    thaw: Option<std::sync::mpsc::SyncSender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Frozen {
    pub async fn beside(other: &Node) -> Self {
        let config = config(Way::Tcp, &[other]);
        let (thaw, frozen) = std::sync::mpsc::sync_channel::<()>(1);
        let (told, id) = tokio::sync::oneshot::channel();
        let (freeze, now) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let node = Node::start(config).await;
                told.send(node.id()).unwrap();
                now.await.unwrap();
                // This thread is all that the node has.
                let _ = frozen.recv();
                drop(node);
            });
        });
        let id = id.await.unwrap();
        eventually("the node in the table", || async {
            let peers = other.handle.peers().await.unwrap();
            peers
                .iter()
                .any(|peer| peer.peer == id && peer.in_table)
                .then_some(())
        })
        .await;
        freeze.send(()).unwrap();
        Self {
            thaw: Some(thaw),
            thread: Some(thread),
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.thaw.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}

pub async fn wait<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("waited too long for: {what}"))
}

/// Asks again and again until the answer is there.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    wait(what, async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Nodes joined through the first one, their tables filled.
pub async fn joined(count: usize, way: Way) -> Vec<Node> {
    let mut nodes = vec![Node::start(config(way, &[])).await];
    for _ in 1..count {
        let node = Node::start(config(way, &[&nodes[0]])).await;
        nodes.push(node);
    }
    for node in &nodes {
        eventually("a filled table", || async {
            let status = node.handle.status().await.unwrap();
            (status.table + 1 >= count.min(12)).then_some(())
        })
        .await;
    }
    nodes
}

/// Records in memory.
#[derive(Default)]
pub struct Shelf {
    pub records: HashMap<RecordCid, Vec<u8>>,
    pub referrers: HashMap<RecordCid, Vec<(ReferrerDescriptor, Referrer)>>,
    /// Pulls of this record never end.
    pub stuck: Option<RecordCid>,
    /// Pulls of this record panic.
    pub broken: Option<RecordCid>,
    /// Pulls of this record give other bytes.
    pub lying: Option<RecordCid>,
}

fn not_found<T>(cid: RecordCid) -> Result<T, LibraryError> {
    Err(LibraryError::new(
        RpcCode::NotFound,
        format!("record not found: {cid}"),
    ))
}

impl Library for Shelf {
    fn lookup(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        let answer = if self.records.contains_key(&cid) {
            Ok(BTreeMap::from([("name".to_owned(), "agent".to_owned())]))
        } else {
            not_found(cid)
        };
        Box::pin(async move { answer })
    }

    fn pull(&self, _: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        if self.stuck == Some(cid) {
            return Box::pin(std::future::pending());
        }
        assert!(self.broken != Some(cid), "a broken library");
        let answer = match self.records.get(&cid) {
            Some(_) if self.lying == Some(cid) => Ok(Pulled {
                data: Bytes::from_static(b"{}"),
                ..Pulled::default()
            }),
            Some(data) => Ok(Pulled {
                annotations: BTreeMap::from([("name".to_owned(), "agent".to_owned())]),
                data: data.clone().into(),
            }),
            None => not_found(cid),
        };
        Box::pin(async move { answer })
    }

    fn list_referrers(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        let answer = match self.referrers.get(&cid) {
            Some(all) => Ok(ReferrerList {
                referrers: all.iter().map(|(descriptor, _)| descriptor.clone()).collect(),
                truncated: false,
            }),
            None => not_found(cid),
        };
        Box::pin(async move { answer })
    }

    fn pull_referrer(
        &self,
        _: PeerId,
        cid: RecordCid,
        wanted: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        let answer = self
            .referrers
            .get(&cid)
            .and_then(|all| all.iter().find(|(descriptor, _)| *descriptor == wanted))
            .map_or_else(|| not_found(cid), |(_, referrer)| Ok(referrer.clone()));
        Box::pin(async move { answer })
    }

    fn catch_up(&self, _: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, LibraryError>> {
        let mut answer = request.to_vec();
        answer.reverse();
        Box::pin(async move { Ok(answer.into()) })
    }
}
