//! Stopping: whoever waits gets an answer.

use std::sync::Arc;

use dirnode_network::{NetworkError, PeerId};
use dirnode_record::RecordCid;

use super::common::{Node, Shelf, Way, config, eventually, joined, wait};

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_ends_every_wait() {
    let mut nodes = joined(3, Way::Tcp).await;
    let node = nodes.pop().unwrap();
    // An address that takes packets and never answers, so that the dial is still under way.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = format!(
        "/ip4/127.0.0.1/udp/{}/quic-v1",
        silent.local_addr().unwrap().port()
    );
    let handle = node.handle.clone();
    let dialling = tokio::spawn(async move { handle.connect(addr.parse().unwrap()).await });
    let mut queries = Vec::new();
    for n in 0..200u8 {
        let handle = node.handle.clone();
        queries.push(tokio::spawn(async move { handle.closest(vec![n; 32]).await }));
    }
    let handle = node.handle.clone();
    handle.status().await.unwrap();
    handle.shutdown();
    wait("the task to end", node.task).await.unwrap();
    assert_eq!(
        wait("the dial", dialling).await.unwrap(),
        Err(NetworkError::Closed)
    );
    for query in queries {
        let answer = wait("a query", query).await.unwrap();
        assert!(matches!(answer, Ok(_) | Err(NetworkError::Closed)), "{answer:?}");
    }
    assert_eq!(handle.status().await, Err(NetworkError::Closed));
    assert_eq!(handle.ping(PeerId::random()).await, Err(NetworkError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_ends_when_every_handle_is_gone() {
    let node = Node::start(config(Way::Tcp, &[])).await;
    drop(node.handle);
    wait("the task to end", node.task).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_leaves_in_the_middle_of_a_call_is_gone() {
    let cid = RecordCid::of(b"{}");
    for way in [Way::Tcp, Way::Quic] {
        let shelf = Arc::new(Shelf {
            stuck: Some(cid),
            ..Shelf::default()
        });
        let holder = Node::start_with(config(way, &[]), Some(shelf)).await;
        let reader = Node::start(config(way, &[])).await;
        reader.handle.connect(holder.addr.clone()).await.unwrap();
        let (handle, at) = (reader.handle.clone(), holder.id());
        let call = tokio::spawn(async move { handle.pull(at, cid).await });
        eventually("the call to be under way", || async {
            (holder.handle.status().await.unwrap().serving == 1).then_some(())
        })
        .await;
        holder.handle.shutdown();
        let error = wait("the call", call).await.unwrap().unwrap_err();
        assert!(matches!(error, NetworkError::PeerGone { .. }), "{error}");
    }
}
