//! The node that hostile peers are set on, and the honest peer that must notice nothing of it.

use std::sync::Arc;
use std::time::Duration;

use dirnode_network::{AnnounceOutcome, Config, Limits, NetworkEvent, PeerId};
use dirnode_record::RecordCid;
use tokio_util::sync::CancellationToken;

use super::common::{Node, Shelf, Way, config, eventually, wait};

pub const RPC: &str = "/dir/rpc/1.0.0";
pub const CATCH_UP: &str = "/dirnode/catchup/1";
pub const KAD: &str = "/dir/kad/1.0.0";
pub const GOSSIP: &str = "/meshsub/1.1.0";
pub const PUSH: &str = "/ipfs/id/push/1.0.0";

/// Short enough for a test to see it pass, long enough for an honest peer on a busy machine.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// As the default, but for the deadline.
pub fn limits() -> Limits {
    Limits {
        read_timeout: READ_TIMEOUT,
        served_per_peer: 4,
        ..Limits::default()
    }
}

/// A node with one record.
pub async fn victim(limits: Limits) -> (Node, RecordCid) {
    victim_with(Config {
        limits,
        ..config(Way::Tcp, &[])
    })
    .await
}

pub async fn victim_with(config: Config) -> (Node, RecordCid) {
    let bytes = b"{\"name\":\"agent\"}".to_vec();
    let cid = RecordCid::of(&bytes);
    let shelf = Shelf {
        records: [(cid, bytes)].into(),
        ..Shelf::default()
    };
    (Node::start_with(config, Some(Arc::new(shelf))).await, cid)
}

/// How much an attack does: the default suits a debug build, the variable asks for more.
pub fn scale(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A peer that pulls the record again and again, and looks a key up, until it is told to stop.
pub struct Honest {
    pub node: Node,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<usize>,
}

impl Honest {
    /// The event queue never came into its reserve: of a peer that came while others used up their share it was told, and
    /// what the honest one says is heard.
    pub async fn is_heard_by(&self, node: &mut Node, later: PeerId) {
        let meeting = NetworkEvent::PeerConnected { peer: later };
        node.event("the later peer", |event| (event == meeting).then_some(()))
            .await;
        eventually("the honest peer to be heard", || async {
            let outcome = self.node.handle.announce("honest".into()).await.unwrap();
            (outcome == AnnounceOutcome::Sent).then_some(())
        })
        .await;
        let publisher = self.node.id();
        let heard = node
            .event("the honest peer's announcement", |event| match event {
                NetworkEvent::Announced(announced) if announced.publisher == publisher => Some(announced),
                _ => None,
            })
            .await;
        assert_eq!(heard.data, b"honest".as_slice());
    }

    pub async fn beside(victim: &Node, cid: RecordCid) -> Self {
        let node = Node::start(config(Way::Tcp, &[])).await;
        node.handle.connect(victim.addr.clone()).await.unwrap();
        eventually("the honest peer's table", || async {
            (node.handle.status().await.unwrap().table == 1).then_some(())
        })
        .await;
        let (handle, at, stop) = (node.handle.clone(), victim.id(), CancellationToken::new());
        let stopped = stop.clone();
        let work = tokio::spawn(async move {
            let mut served = 0;
            loop {
                wait("the honest peer's pull", handle.pull(at, cid))
                    .await
                    .unwrap();
                wait(
                    "the honest peer's lookup",
                    handle.closest(cid.multihash().to_vec()),
                )
                .await
                .unwrap();
                served += 1;
                if stopped.is_cancelled() {
                    return served;
                }
            }
        });
        Self { node, stop, work }
    }

    /// Every question was answered, and the connection is still the first one.
    pub async fn was_served(self) {
        self.stop.cancel();
        let served = wait("the honest peer", self.work).await.unwrap();
        assert!(served > 0);
        assert_eq!(
            self.node
                .figure("dirnode_network_connections{direction=\"outbound\",transport=\"tcp\"}"),
            1
        );
        assert_eq!(self.node.figure("dirnode_network_dials_total{result=\"ok\"}"), 1);
    }
}
