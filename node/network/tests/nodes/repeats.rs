//! What costs a peer a few bytes and would cost us an event each time: subscriptions said again, changes of mind in
//! identify pushes, announcements of authors made up for one message. Nobody reads the events meanwhile; the queue keeps its
//! reserve, and an honest peer is answered all the while.
//!
//! `DIRNODE_FLOOD_MESSAGES` sets how many subscriptions and pushes; the default suits a debug build.

use dirnode_network::config::{EVENT_QUEUE, EVENT_RESERVE};
use dirnode_network::wire::protobuf::{framed, put_bytes, put_varint};
use dirnode_network::{Keypair, NetworkEvent};
use futures_util::AsyncWriteExt as _;

use super::common::{Node, eventually};
use super::floods::frame;
use super::raw::{RawPeer, Security};
use super::victim::{GOSSIP, Honest, PUSH, limits, scale, victim};

fn dropped(kind: &str) -> String {
    format!("dirnode_network_events_dropped_total{{kind=\"{kind}\"}}")
}

fn announcements(result: &str) -> String {
    format!("dirnode_network_announcements_total{{result=\"{result}\"}}")
}

/// The queue never came into its reserve, so a peer that comes now is told of, and what the honest one says is heard.
async fn the_reserve_is_free(mut node: Node, honest: Honest) {
    assert_eq!(node.figure(&dropped("peer")), 0);
    let queued = node.figure("dirnode_network_events_queued");
    assert!(
        queued <= u64::try_from(EVENT_QUEUE - EVENT_RESERVE).unwrap(),
        "{queued}"
    );
    let later = RawPeer::dial(&node.addr, Security::Noise).await;
    honest.is_heard_by(&mut node, later.id).await;
    honest.was_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_told_once_however_often_it_is_said() {
    let count = scale("DIRNODE_FLOOD_MESSAGES", 2 * EVENT_QUEUE);
    let (mut node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut stream = peer.open(node.id(), GOSSIP).await;
    let mut subscription = Vec::new();
    put_varint(&mut subscription, 1, 1);
    put_bytes(&mut subscription, 2, b"dir/labels/v1");
    let mut rpc = Vec::new();
    put_bytes(&mut rpc, 1, &subscription);
    let again = framed(&rpc);
    for _ in 0..count {
        stream.write_all(&again).await.unwrap();
    }
    // What comes behind them on the same stream is heard after them.
    stream
        .write_all(&frame(&peer.id, &peer.keypair, 1, b"behind them"))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    node.counted(&announcements("received"), 1).await;
    let (mut subscribed, id) = (0, peer.id);
    node.event("the message behind them", |event| match event {
        NetworkEvent::PeerSubscribed { peer } if peer == id => {
            subscribed += 1;
            None
        }
        NetworkEvent::Announced(announced) if announced.publisher == id => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(subscribed, 1);
    the_reserve_is_free(node, honest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_changes_its_mind_as_often_as_it_may() {
    let count = scale("DIRNODE_FLOOD_MESSAGES", 300);
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let keypair = Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let said = |agent: &str| {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, &keypair.public().encode_protobuf());
        put_bytes(&mut message, 6, agent.as_bytes());
        framed(&message)
    };
    let peer = RawPeer::dial_as(&keypair, &node.addr, Security::Tls, Some(said("somebody/first"))).await;
    eventually("the first identify", || async {
        let views = node.handle.peers().await.unwrap();
        views
            .iter()
            .find(|view| view.peer == id && view.agent == "somebody/first")
            .map(|_| ())
    })
    .await;
    for n in 0..count {
        // The node may be busy with as many as it takes at once; what it does not take is not missed.
        if let Ok(mut stream) = peer.try_open(node.id(), PUSH).await {
            let _ = stream.write_all(&said(&format!("somebody/{n}"))).await;
            let _ = stream.close().await;
        }
    }
    node.counted(&dropped("identify"), 1).await;
    let views = node.handle.peers().await.unwrap();
    let agent = &views.iter().find(|view| view.peer == id).unwrap().agent;
    assert!(agent.starts_with("somebody/"), "{agent}");
    the_reserve_is_free(node, honest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authors_made_up_for_one_message_count_against_who_brings_them() {
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut stream = peer.open(node.id(), GOSSIP).await;
    let refused = announcements("too_many_authors");
    let mut sent = 0u64;
    while node.figure(&refused) == 0 {
        assert!(sent < 20_000, "every one of {sent} authors was heard");
        for _ in 0..50 {
            let author = Keypair::generate_ed25519();
            let id = author.public().to_peer_id();
            stream.write_all(&frame(&id, &author, 1, b"who?")).await.unwrap();
            sent += 1;
        }
        stream.flush().await.unwrap();
    }
    the_reserve_is_free(node, honest).await;
}
