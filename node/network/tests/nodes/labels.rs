//! The labels topic: announcements reach everyone who is let have them.

use std::time::Duration;

use bytes::Bytes;
use dirnode_network::{AnnounceOutcome, Announced, Config, NetworkError, NetworkEvent, Verdict};

use super::common::{Node, Way, config, eventually, joined};

async fn announced(node: &mut Node) -> Announced {
    node.event("an announcement", |event| match event {
        NetworkEvent::Announced(announced) => Some(announced),
        _ => None,
    })
    .await
}

async fn announce(node: &Node, data: &'static [u8]) {
    eventually("peers on the topic", || async {
        let outcome = node.handle.announce(Bytes::from_static(data)).await.unwrap();
        (outcome == AnnounceOutcome::Sent).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_reaches_all_with_its_author() {
    let mut nodes = joined(6, Way::Tcp).await;
    let publisher = nodes.pop().unwrap();
    announce(&publisher, b"payload").await;
    for node in &mut nodes {
        let announced = announced(node).await;
        assert_eq!(announced.publisher, publisher.id());
        assert_eq!(announced.data, b"payload".as_slice());
        node.handle
            .report(announced.token, Verdict::Accept)
            .await
            .unwrap();
    }
}

/// Three nodes in a row: the one in the middle decides what the last one hears.
async fn row() -> (Node, Node, Node) {
    let first = Node::start(config(Way::Tcp, &[])).await;
    let middle = Node::start(config(Way::Tcp, &[])).await;
    let last = Node::start(config(Way::Tcp, &[])).await;
    // The ends must not find each other through the table of the middle.
    first.handle.block(last.id(), true).await.unwrap();
    last.handle.block(first.id(), true).await.unwrap();
    first.handle.connect(middle.addr.clone()).await.unwrap();
    last.handle.connect(middle.addr.clone()).await.unwrap();
    for node in [&first, &last] {
        eventually("the mesh", || async {
            (node.handle.status().await.unwrap().mesh_peers == 1).then_some(())
        })
        .await;
    }
    eventually("the mesh in the middle", || async {
        (middle.handle.status().await.unwrap().mesh_peers == 2).then_some(())
    })
    .await;
    (first, middle, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_accepted_announcements_are_forwarded() {
    let (first, mut middle, mut last) = row().await;
    announce(&first, b"ignored").await;
    let token = announced(&mut middle).await.token;
    middle.handle.report(token, Verdict::Ignore).await.unwrap();
    announce(&first, b"accepted").await;
    let heard = announced(&mut middle).await;
    assert_eq!(heard.data, b"accepted".as_slice());
    middle.handle.report(heard.token, Verdict::Accept).await.unwrap();
    let forwarded = announced(&mut last).await;
    assert_eq!(
        forwarded.data,
        b"accepted".as_slice(),
        "the ignored one did not pass"
    );
    assert_eq!(forwarded.publisher, first.id());
    assert_eq!(forwarded.forwarder, middle.id());
    assert_eq!(forwarded.seqno, heard.seqno);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_verdict_an_announcement_is_ignored_in_time() {
    let (first, mut middle, _last) = row().await;
    announce(&first, b"payload").await;
    announced(&mut middle).await;
    assert_eq!(middle.handle.status().await.unwrap().awaiting_verdict, 1);
    eventually("the deadline", || async {
        (middle.handle.status().await.unwrap().awaiting_verdict == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_on_the_topic_that_is_said_clearly() {
    let node = Node::start(config(Way::Tcp, &[])).await;
    assert_eq!(
        node.handle.announce(Bytes::from_static(b"x")).await,
        Ok(AnnounceOutcome::NoPeersYet)
    );
    let error = node.handle.announce(vec![0; 10_001].into()).await.unwrap_err();
    assert!(matches!(
        error,
        NetworkError::TooLarge {
            size_bytes: 10_001,
            ..
        }
    ));
    let mute = Node::start(Config {
        gossip: false,
        ..config(Way::Tcp, &[])
    })
    .await;
    assert_eq!(
        mute.handle.announce(Bytes::from_static(b"x")).await,
        Err(NetworkError::GossipDisabled)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_announcement_travels() {
    let mut nodes = joined(2, Way::Quic).await;
    let publisher = nodes.pop().unwrap();
    let data = Bytes::from(vec![b'x'; 10_000]);
    eventually("peers on the topic", || async {
        let outcome = publisher.handle.announce(data.clone()).await.unwrap();
        (outcome == AnnounceOutcome::Sent).then_some(())
    })
    .await;
    assert_eq!(announced(&mut nodes[0]).await.data, data);
}

/// A reader that never reads costs announcements, nothing else: commands are answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_event_queue_drops_announcements_and_nothing_stops() {
    let nodes = joined(2, Way::Tcp).await;
    eventually("peers on the topic", || async {
        (nodes[1].handle.status().await.unwrap().topic_peers == 1).then_some(())
    })
    .await;
    let mut sent = 0u32;
    while sent < 3500 {
        let data = Bytes::from(sent.to_be_bytes().to_vec());
        match nodes[1].handle.announce(data).await.unwrap() {
            AnnounceOutcome::Sent => sent += 1,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    eventually("all to be judged or dropped", || async {
        let status = nodes[0].handle.status().await.unwrap();
        (status.awaiting_verdict == 0).then_some(())
    })
    .await;
    assert!(
        nodes[0].events.len() <= 4096 - 1024 + 64,
        "{}",
        nodes[0].events.len()
    );
    nodes[0].handle.ping(nodes[1].id()).await.unwrap();
}
