//! Being part of the network: the node's key, its swarm task, what the network reports, and whether it is ready.
//!
//! Thin on purpose: it tells operators what happens and passes every event on to [`crate::routing`], which knows what to
//! believe and what to announce. Never judges records, announcements or peers. State: soft, but for the key file, which is ground and made before anybody learns the peer id.
//! Follows p2p-wire §1.1, §4.2 and §6.7; readiness follows the last as §7-25 advises.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dirnode_identity::{IdentityError, Keypair, from_path, load_or_create};
use dirnode_network::{Library, Network, NetworkError, NetworkEvent, NetworkHandle, Role, Status};
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Routing;
use crate::runtime::{self, Clock, Supervisor};

/// How long the swarm task may take to end once it was told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Events on their way to the routing room; behind them they wait in the network's own queue.
const PASSED_ON: usize = 64;
/// How often readiness is looked at while it is not there, and once it is.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(2);

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The key cannot be used.
    #[error("the node has no identity (routing.key_path, or the data folder without it)")]
    Identity(#[from] IdentityError),
    /// The folder for what the network keeps cannot be made.
    #[error("routing.datastore_dir: cannot make {}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// What the operating system says.
        #[source]
        source: std::io::Error,
    },
    /// The network room refused.
    #[error("the network does not start (routing; routing.enabled: false starts the node without it)")]
    Network(#[from] NetworkError),
    /// A thread ended early.
    #[error("the start of the network panicked")]
    Panicked,
}

/// The node's place in the network, to ask. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Membership {
    handle: NetworkHandle,
    listens: bool,
    gossip: bool,
}

impl Membership {
    /// The network.
    #[must_use]
    pub fn handle(&self) -> &NetworkHandle {
        &self.handle
    }

    /// What readiness waits for, in words (p2p-wire §6.7); nothing once the node is a part of the network.
    #[must_use]
    pub fn missing(&self, status: &Status) -> Vec<&'static str> {
        let joins = status.role == Role::Member;
        [
            (
                self.listens && status.listening.is_empty(),
                "no listen address is open",
            ),
            (joins && status.peers == 0, "no peer is connected"),
            (joins && !status.bootstrapped, "not bootstrapped"),
            (joins && status.table == 0, "the routing table is empty"),
            (
                joins && self.gossip && status.topic_peers == 0,
                "no peer on the labels topic",
            ),
        ]
        .into_iter()
        .filter_map(|(missing, words)| missing.then_some(words))
        .collect()
    }

    /// What is not as it should be although the node is ready.
    #[must_use]
    pub fn degraded(&self, status: &Status) -> Vec<&'static str> {
        [
            (
                status.role == Role::Bootstrap && status.peers == 0,
                "no peer is connected",
            ),
            // Peers on the topic that take us into no mesh pass announcements on late, by gossip about gossip.
            (
                self.gossip && status.topic_peers > 0 && status.mesh_peers == 0,
                "no peer in the gossip mesh",
            ),
            (
                status.external.is_empty(),
                "no external address is known, peers cannot dial this node",
            ),
        ]
        .into_iter()
        .filter_map(|(degraded, words)| degraded.then_some(words))
        .collect()
    }

    /// Tells `say` whenever what is missing changes, until `stop`.
    pub async fn watch(self, say: impl Fn(&[&'static str]) + Send, stop: CancellationToken) {
        let mut last = None;
        loop {
            let Ok(status) = self.handle.status().await else {
                return;
            };
            let missing = self.missing(&status);
            if last.as_ref() != Some(&missing) {
                say(&missing);
                let (peers, missing_words) = (status.peers, missing.join(", "));
                match &last {
                    _ if missing.is_empty() => {
                        tracing::info!(
                            component = "network",
                            role = status.role.name(),
                            peers,
                            "network is ready"
                        );
                    }
                    Some(before) if before.is_empty() => {
                        tracing::warn!(
                            component = "network",
                            missing = missing_words,
                            peers,
                            "network is no longer ready"
                        );
                    }
                    _ => {
                        tracing::info!(
                            component = "network",
                            missing = missing_words,
                            peers,
                            "network is not ready yet"
                        );
                    }
                }
            }
            let pause = if missing.is_empty() { LATER } else { SOON };
            last = Some(missing);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// A running network; it is told to end when this goes away.
#[derive(Debug)]
pub struct Running {
    membership: Membership,
    events: Option<mpsc::Receiver<NetworkEvent>>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts the network: key, folders, swarm task with its ports, and the task that reads its events.
    ///
    /// # Errors
    /// [`MembershipError`], each naming the setting to look at.
    pub async fn start(
        settings: &Routing,
        data_dir: &Path,
        library: Arc<dyn Library>,
        registry: &mut Registry,
        clock: Clock,
        supervisor: &Supervisor,
    ) -> Result<Self, MembershipError> {
        let prepared = settings.clone();
        let dir = data_dir.to_owned();
        let key = tokio::task::spawn_blocking(move || prepare(&prepared, &dir))
            .await
            .map_err(|_| MembershipError::Panicked)??;
        let rooms = dirnode_network::Runtime {
            clock,
            spawn: Arc::new(|name, task| drop(runtime::spawn(name, task))),
        };
        let config = settings.network(data_dir);
        let Network { handle, events, task } = Network::start(config, &key, Some(library), registry, rooms)?;
        tracing::info!(
            component = "network",
            peer = %handle.id(),
            role = handle.role().name(),
            bootstrap_peers = handle.bootstrap_peers().len(),
            "network starts"
        );
        let task = supervisor.spawn("network", task);
        let (passed_on, followed) = mpsc::channel(PASSED_ON);
        supervisor.spawn("network-events", follow(events, passed_on));
        Ok(Self {
            events: Some(followed),
            membership: Membership {
                handle,
                listens: !settings.listen.is_empty(),
                gossip: settings.gossip,
            },
            task: Some(task),
        })
    }

    /// What happens in the network; once.
    pub fn take_events(&mut self) -> Option<mpsc::Receiver<NetworkEvent>> {
        self.events.take()
    }

    /// The network, to ask.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Closes every connection and ends the swarm task.
    pub async fn stop(mut self) {
        self.membership.handle.shutdown();
        if let Some(task) = self.task.take()
            && tokio::time::timeout(STOP_LIMIT, task).await.is_err()
        {
            tracing::warn!(
                component = "network",
                "the network did not end in {STOP_LIMIT:?} and was left"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.membership.handle.shutdown();
    }
}

/// Everything that touches the disk, before the network starts.
fn prepare(settings: &Routing, data_dir: &Path) -> Result<Keypair, MembershipError> {
    let (path, ours) = settings.key_file(data_dir);
    let loaded = if ours {
        load_or_create(&path)?
    } else {
        from_path(&path)?
    };
    let peer = loaded.key.public().to_peer_id();
    if loaded.created {
        tracing::info!(component = "network", %peer, file = %path.display(), "identity made, it is kept");
    }
    if let Some(mode) = loaded.exposed_mode {
        tracing::warn!(
            component = "network",
            file = %path.display(),
            mode = format!("{mode:o}"),
            "others than its owner may use the key file; chmod 600 mends it"
        );
    }
    let dir = settings.datastore(data_dir);
    std::fs::create_dir_all(&dir).map_err(|source| MembershipError::Folder { dir, source })?;
    Ok(loaded.key)
}

/// Reads what the network reports until it ends, and passes it on.
async fn follow(mut events: mpsc::Receiver<NetworkEvent>, passed_on: mpsc::Sender<NetworkEvent>) {
    while let Some(event) = events.recv().await {
        tell(&event);
        // Without the routing room the node is stopping; the rest is told all the same.
        let _ = passed_on.send(event).await;
    }
}

fn tell(event: &NetworkEvent) {
    match event {
        // The network logs what concerns the node itself; addresses that it derives are the exception.
        NetworkEvent::ExternalAddressConfirmed { addr } => {
            tracing::info!(component = "network", multiaddr = %addr, "peers can reach this node");
        }
        NetworkEvent::PeerConnected { peer } => {
            tracing::debug!(component = "network", %peer, "peer connected");
        }
        NetworkEvent::PeerDisconnected { peer } => {
            tracing::debug!(component = "network", %peer, "peer disconnected");
        }
        NetworkEvent::PeerIdentified { peer, agent, .. } => {
            tracing::debug!(component = "network", %peer, %agent, "peer identified");
        }
        NetworkEvent::Discovered { peer, addr } => {
            tracing::debug!(component = "network", %peer, multiaddr = %addr, "peer discovered");
        }
        other => tracing::trace!(component = "network", event = ?other, "network event"),
    }
}
