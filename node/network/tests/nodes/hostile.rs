//! Peers that write what they should not: it costs them their stream, and nobody else anything.

use std::time::Duration;

use dirnode_network::wire::kad::Message;
use dirnode_network::wire::rpc::{Call, ClientError, Code, encode_call, read_reply};
use dirnode_network::{Config, Multiaddr, NetworkEvent, PeerId};
use dirnode_record::RecordCid;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};

use super::common::{Node, Way, config, eventually, wait};
use super::raw::{RawPeer, Security};
use super::victim::{KAD, RPC, limits, victim};

async fn node() -> (Node, RecordCid) {
    victim(limits()).await
}

/// Writes bytes and reads until the end.
async fn exchange(peer: &RawPeer, node: &Node, protocol: &'static str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = peer.open(node.id(), protocol).await;
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = wait("the end of the stream", stream.read_to_end(&mut answer)).await;
    answer
}

async fn still_serves(node: &Node, cid: RecordCid) {
    let reader = Node::start(config(Way::Tcp, &[])).await;
    reader.handle.connect(node.addr.clone()).await.unwrap();
    reader.handle.pull(node.id(), cid).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_with_either_security_get_in() {
    let (node, cid) = node().await;
    for security in [Security::Tls, Security::Noise] {
        let peer = RawPeer::dial(&node.addr, security).await;
        let call = Call::Pull { cid: cid.to_string() };
        let answer = exchange(&peer, &node, RPC, &encode_call(&call)).await;
        read_reply(&call, &answer).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_cannot_be_read_is_refused_and_the_next_one_served() {
    let (node, cid) = node().await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let unknown = b"\x82\xa4Name\xa6RPCAPI\xa6Method\xa4Nope\x80";
    for bytes in [
        vec![0xc1; 64],
        vec![0xdb, 0xff, 0xff, 0xff, 0xff],
        vec![0x91; 2000],
        unknown.to_vec(),
    ] {
        let answer = exchange(&peer, &node, RPC, &bytes).await;
        assert!(!answer.is_empty(), "{:?}", bytes.get(..8));
    }
    let call = Call::Lookup {
        cid: "../../etc/passwd".to_owned(),
    };
    let answer = exchange(&peer, &node, RPC, &encode_call(&call)).await;
    let refused = read_reply(&call, &answer).unwrap_err();
    assert!(
        matches!(&refused, ClientError::Remote { status, .. } if status.code == Code::InvalidArgument),
        "{refused}"
    );
    let call = Call::Pull { cid: cid.to_string() };
    let answer = exchange(&peer, &node, RPC, &encode_call(&call)).await;
    read_reply(&call, &answer).unwrap();
}

/// The reference cancels the call when the caller half-closes too early and answers that a stored record is missing.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_half_close_does_not_change_the_answer() {
    let (node, cid) = node().await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let call = Call::Pull { cid: cid.to_string() };
    let mut stream = peer.open(node.id(), RPC).await;
    stream.write_all(&encode_call(&call)).await.unwrap();
    stream.close().await.unwrap();
    let mut answer = Vec::new();
    wait("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    read_reply(&call, &answer).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_streams_lose_their_place() {
    let (node, cid) = node().await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(peer.open(node.id(), RPC).await);
    }
    // All places of this peer are taken by streams that say nothing; their time is over soon.
    let call = Call::Pull { cid: cid.to_string() };
    eventually("a place", || async {
        let answer = exchange(&peer, &node, RPC, &encode_call(&call)).await;
        read_reply(&call, &answer).ok()
    })
    .await;
    still_serves(&node, cid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_for_the_dht_and_for_gossip_costs_only_its_stream() {
    let (node, cid) = node().await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    for protocol in [KAD, "/meshsub/1.1.0", "/ipfs/id/push/1.0.0"] {
        for bytes in [
            vec![0xff; 32],
            vec![0x05, 1, 2, 3, 4, 5],
            vec![0xff, 0xff, 0xff, 0x7f],
            vec![0],
        ] {
            // After some garbage the node no longer takes this protocol from us.
            let Ok(mut stream) = peer.try_open(node.id(), protocol).await else {
                break;
            };
            // The node may reset the stream while we still write.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.close().await;
        }
    }
    let call = Call::Pull { cid: cid.to_string() };
    let answer = exchange(&peer, &node, RPC, &encode_call(&call)).await;
    read_reply(&call, &answer).unwrap();
    still_serves(&node, cid).await;
}

/// A provider record in the name of somebody else is nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_provider_itself_is_believed() {
    let (mut node, _) = node().await;
    let peer = RawPeer::dial(&node.addr, Security::Noise).await;
    let cid = RecordCid::of(b"x");
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let says = |provider: PeerId| Message::add_provider(&cid, &provider, vec![addr.to_vec()]).to_frame();
    let foreign = says(PeerId::random());
    let own = says(peer.id);
    let mut stream = peer.open(node.id(), KAD).await;
    stream.write_all(&foreign).await.unwrap();
    stream.flush().await.unwrap();
    let mut stream = peer.open(node.id(), KAD).await;
    stream.write_all(&own).await.unwrap();
    stream.flush().await.unwrap();
    let told = node
        .event("the notice", |event| match event {
            NetworkEvent::Provided { peer, .. } => Some(peer),
            _ => None,
        })
        .await;
    assert_eq!(told, peer.id);
    assert_eq!(node.handle.status().await.unwrap().provider_records, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_high_mark_ebb_to_the_low_one() {
    let node = Node::start(Config {
        low_water: 3,
        high_water: 6,
        grace: Duration::ZERO,
        ..config(Way::Tcp, &[])
    })
    .await;
    let mut peers = Vec::new();
    for _ in 0..10 {
        peers.push(RawPeer::dial(&node.addr, Security::Tls).await);
    }
    eventually("the low mark", || async {
        (node.handle.status().await.unwrap().connections <= 3).then_some(())
    })
    .await;
}
