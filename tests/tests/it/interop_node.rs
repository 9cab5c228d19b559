//! A node of ours inside the test process: the network room through its handle, with a library in memory, and every event
//! kept for the test to look at. Announcements are all accepted; what is tested is the wire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::{
    Announced, Config, Library, LibraryError, Network, NetworkEvent, NetworkHandle, PeerId, Pulled,
    ReferrerDescriptor, ReferrerList, RpcCode, Runtime, Verdict,
};
use dirnode_record::{RecordCid, Referrer};
use dirnode_tests::wait::eventually;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;

/// Soon enough for anything on loopback, on a machine that does other things as well.
pub const SOON: Duration = Duration::from_secs(40);

/// Records and referrers in memory.
#[derive(Default)]
pub struct Shelf {
    records: Mutex<BTreeMap<RecordCid, Pulled>>,
    referrers: Mutex<BTreeMap<RecordCid, Vec<(ReferrerDescriptor, Referrer)>>>,
}

impl Shelf {
    /// Serves `data` as a record; gives its CID.
    pub fn put(&self, data: &[u8], annotations: &[(&str, &str)]) -> RecordCid {
        let cid = RecordCid::of(data);
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let record = Pulled {
            annotations,
            data: Bytes::copy_from_slice(data),
        };
        self.records.lock().unwrap().insert(cid, record);
        cid
    }

    /// Attaches a referrer; gives its CID.
    pub fn attach(&self, record: RecordCid, referrer: Referrer) -> String {
        let descriptor = ReferrerDescriptor {
            cid: referrer.cid().unwrap().to_string(),
            kind: referrer.kind.clone(),
        };
        let cid = descriptor.cid.clone();
        self.referrers
            .lock()
            .unwrap()
            .entry(record)
            .or_default()
            .push((descriptor, referrer));
        cid
    }

    fn missing(cid: RecordCid) -> LibraryError {
        LibraryError::new(
            RpcCode::NotFound,
            format!("failed to lookup: record not found: {cid}"),
        )
    }
}

impl Library for Shelf {
    fn lookup(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        let found = self.records.lock().unwrap().get(&cid).cloned();
        std::future::ready(
            found
                .map(|record| record.annotations)
                .ok_or_else(|| Self::missing(cid)),
        )
        .boxed()
    }

    fn pull(&self, _: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        let found = self.records.lock().unwrap().get(&cid).cloned();
        std::future::ready(found.ok_or_else(|| Self::missing(cid))).boxed()
    }

    fn list_referrers(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        let attached = self
            .referrers
            .lock()
            .unwrap()
            .get(&cid)
            .cloned()
            .unwrap_or_default();
        let list = ReferrerList {
            referrers: attached.into_iter().map(|(descriptor, _)| descriptor).collect(),
            truncated: false,
        };
        std::future::ready(Ok(list)).boxed()
    }

    fn pull_referrer(
        &self,
        _: PeerId,
        cid: RecordCid,
        wanted: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        let attached = self
            .referrers
            .lock()
            .unwrap()
            .get(&cid)
            .cloned()
            .unwrap_or_default();
        let found = attached
            .into_iter()
            .find(|(descriptor, _)| *descriptor == wanted)
            .map(|(_, referrer)| referrer)
            .ok_or_else(|| {
                LibraryError::new(
                    RpcCode::NotFound,
                    format!("referrer {} not found for record {cid}", wanted.cid),
                )
            });
        std::future::ready(found).boxed()
    }
}

/// A running node of ours.
pub struct Node {
    pub handle: NetworkHandle,
    pub shelf: Arc<Shelf>,
    events: Arc<Mutex<Vec<NetworkEvent>>>,
}

impl Node {
    /// TCP and QUIC on free ports of loopback, gossip on, no mDNS.
    pub fn config() -> Config {
        Config {
            listen: vec![
                "/ip4/127.0.0.1/tcp/0".parse().unwrap(),
                "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(),
            ],
            ..Config::default()
        }
    }

    /// Starts a node with a key of its own; it ends with its value.
    pub fn start(config: Config) -> Self {
        Self::start_as(&dirnode_network::Keypair::generate_ed25519(), config)
    }

    /// Starts a node with this key.
    pub fn start_as(key: &dirnode_network::Keypair, config: Config) -> Self {
        let shelf = Arc::new(Shelf::default());
        let library = Arc::clone(&shelf) as Arc<dyn Library>;
        Self::start_serving(key, config, shelf, library)
    }

    /// Starts a node that answers out of `library`, which need not be the shelf.
    pub fn start_serving(
        key: &dirnode_network::Keypair,
        config: Config,
        shelf: Arc<Shelf>,
        library: Arc<dyn Library>,
    ) -> Self {
        let mut registry = Registry::default();
        let runtime = Runtime::system();
        let mut network = Network::start(config, key, Some(library), &mut registry, runtime.clone()).unwrap();
        (runtime.spawn)("network", network.task);
        let events = Arc::new(Mutex::new(Vec::new()));
        let (handle, seen) = (network.handle.clone(), Arc::clone(&events));
        let reader = async move {
            while let Some(event) = network.events.recv().await {
                if let NetworkEvent::Announced(message) = &event {
                    // The network may be closing; then nobody wants the verdict.
                    let _ = handle.report(message.token, Verdict::Accept).await;
                }
                seen.lock().unwrap().push(event);
            }
        };
        (runtime.spawn)("events", reader.boxed());
        Self {
            handle: network.handle,
            shelf,
            events,
        }
    }

    /// Peer id in text form.
    pub fn id(&self) -> String {
        self.handle.id().to_string()
    }

    /// The full listen address over `transport`, `tcp` or `quic-v1`, once it is open.
    pub async fn address(&self, transport: &str) -> String {
        eventually(SOON, || async {
            let status = self.handle.status().await.map_err(|error| error.to_string())?;
            let found =
                status.listening.iter().map(ToString::to_string).find(|address| {
                    address.contains(&format!("/{transport}/")) && address.contains("127.0.0.1")
                });
            let found = found.ok_or_else(|| format!("no {transport} among {:?}", status.listening))?;
            if found.contains("/p2p/") {
                Ok(found)
            } else {
                Ok(format!("{found}/p2p/{}", self.id()))
            }
        })
        .await
    }

    /// Events so far.
    pub fn events(&self) -> Vec<NetworkEvent> {
        self.events.lock().unwrap().clone()
    }

    /// Announcements so far.
    pub fn announced(&self) -> Vec<Announced> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                NetworkEvent::Announced(message) => Some(message),
                _ => None,
            })
            .collect()
    }

    /// The first event that `pick` takes, past or to come.
    pub async fn event<T>(&self, what: &str, pick: impl Fn(&NetworkEvent) -> Option<T>) -> T {
        eventually(SOON, || {
            let events = self.events.lock().unwrap();
            let found = events.iter().find_map(&pick);
            std::future::ready(found.ok_or_else(|| format!("no {what} among {} events", events.len())))
        })
        .await
    }

    /// What this node knows of a peer, once `fits` takes it.
    pub async fn peer<T>(&self, peer: &str, fits: impl Fn(&dirnode_network::PeerView) -> Option<T>) -> T {
        let id: PeerId = peer.parse().unwrap();
        eventually(SOON, || async {
            let peers = self.handle.peers().await.map_err(|error| error.to_string())?;
            let view = peers
                .into_iter()
                .find(|view| view.peer == id)
                .ok_or_else(|| format!("not connected to {id}"))?;
            fits(&view).ok_or_else(|| format!("{view:?}"))
        })
        .await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}
