//! Too much of what is allowed one by one: provider records, announcements, connections, substreams. The caps hold, what
//! goes over them is counted, and an honest peer is answered all the while.
//!
//! `DIRNODE_FLOOD_RECORDS`, `DIRNODE_FLOOD_MESSAGES`, `DIRNODE_FLOOD_CONNECTIONS` and `DIRNODE_FLOOD_SUBSTREAMS` set how
//! much; the defaults suit a debug build.

use dirnode_network::config::{EVENT_QUEUE, EVENT_RESERVE};
use dirnode_network::wire::gossip::PublishedMessage;
use dirnode_network::wire::kad::Message;
use dirnode_network::wire::protobuf::{framed, put_bytes};
use dirnode_network::{Announced, Config, Keypair, Limits, Multiaddr, NetworkEvent, PeerId, Verdict};
use dirnode_record::RecordCid;
use futures_util::AsyncWriteExt as _;

use super::common::{Node, Way, config, eventually, wait};
use super::raw::{BarePeer, RawPeer, Security};
use super::victim::{GOSSIP, Honest, KAD, limits, scale, victim, victim_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_provider_records_stops_at_the_cap() {
    const CAP: usize = 300;
    let count = scale("DIRNODE_FLOOD_RECORDS", 1500);
    let (node, cid) = victim(Limits {
        provider_records: CAP,
        ..limits()
    })
    .await;
    let honest = Honest::beside(&node, cid).await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    let mut stream = peer.open(node.id(), KAD).await;
    for n in 0..count {
        let key = RecordCid::of(&n.to_be_bytes());
        // Every tenth is in the name of somebody else, which is nobody's.
        let provider = if n % 10 == 9 { PeerId::random() } else { peer.id };
        let frame = Message::add_provider(&key, &provider, vec![addr.to_vec()]).to_frame();
        stream.write_all(&frame).await.unwrap();
    }
    stream.flush().await.unwrap();
    let own = u64::try_from(count - count / 10).unwrap();
    let refused = "dirnode_network_provider_records_refused_total{reason=\"store_full\"}";
    node.counted(refused, own - u64::try_from(CAP).unwrap()).await;
    assert_eq!(node.handle.status().await.unwrap().provider_records, CAP);
    assert_eq!(
        node.figure("dirnode_network_provider_store_records"),
        u64::try_from(CAP).unwrap()
    );
    honest.was_served().await;
}

/// A frame with one message in it, as `author` would sign it if `signer` were its key.
pub fn frame(author: &PeerId, signer: &Keypair, sequence: u64, data: &[u8]) -> Vec<u8> {
    let mut message = PublishedMessage {
        from: Some(author.to_bytes()),
        data: Some(data.to_vec()),
        sequence: Some(sequence.to_be_bytes().to_vec()),
        topic: Some(b"dir/labels/v1".to_vec()),
        ..PublishedMessage::default()
    };
    message.signature = Some(signer.sign(&message.signed_bytes()).unwrap());
    let mut rpc = Vec::new();
    put_bytes(&mut rpc, 2, &message.to_bytes());
    framed(&rpc)
}

async fn announced(node: &mut Node) -> Announced {
    node.event("an announcement", |event| match event {
        NetworkEvent::Announced(announced) => Some(announced),
        _ => None,
    })
    .await
}

const INVALID: &str = "libp2p_gossipsub_router_invalid_messages_per_topic_total{hash=\"dir/labels/v1\"}";

/// Forged messages reach nobody and are counted, and who passes them on is still heard: nodes of the reference pass on
/// some of what our router refuses.
#[tokio::test(flavor = "multi_thread")]
async fn forged_authors_reach_nobody_and_whoever_forwards_them_is_still_heard() {
    let count = scale("DIRNODE_FLOOD_MESSAGES", 100);
    let (mut node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut stream = peer.open(node.id(), GOSSIP).await;
    let (author, number) = (honest.node.id(), u64::try_from(count).unwrap());
    for n in 0..number {
        let forged = frame(&author, &peer.keypair, n, b"forged");
        stream.write_all(&forged).await.unwrap();
    }
    // Of another author, well signed, and of its own.
    let stranger = Keypair::generate_ed25519();
    let id = stranger.public().to_peer_id();
    stream
        .write_all(&frame(&id, &stranger, 1, b"carried"))
        .await
        .unwrap();
    stream
        .write_all(&frame(&peer.id, &peer.keypair, 1, b"own"))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    for (data, publisher) in [(&b"carried"[..], id), (b"own", peer.id)] {
        let heard = announced(&mut node).await;
        assert_eq!(
            (&heard.data[..], heard.publisher, heard.forwarder),
            (data, publisher, peer.id)
        );
        node.handle.report(heard.token, Verdict::Accept).await.unwrap();
    }
    assert_eq!(node.figure(INVALID), number);
    honest.was_served().await;
}

/// A peer is deaf to us after nine refused messages of its own; the same messages carried for another cost it nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_author_of_refused_messages_is_no_longer_heard_and_a_carrier_is() {
    let (mut node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let carrier = RawPeer::dial(&node.addr, Security::Tls).await;
    let author = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut carried = carrier.open(node.id(), GOSSIP).await;
    let mut own = author.open(node.id(), GOSSIP).await;
    let stranger = Keypair::generate_ed25519();
    let id = stranger.public().to_peer_id();
    for n in 0..9 {
        carried
            .write_all(&frame(&id, &stranger, n, b"bad"))
            .await
            .unwrap();
        carried.flush().await.unwrap();
        let heard = announced(&mut node).await;
        node.handle.report(heard.token, Verdict::Reject).await.unwrap();
        own.write_all(&frame(&author.id, &author.keypair, n, b"bad"))
            .await
            .unwrap();
        own.flush().await.unwrap();
        let heard = announced(&mut node).await;
        assert_eq!(heard.publisher, author.id);
        node.handle.report(heard.token, Verdict::Reject).await.unwrap();
    }
    own.write_all(&frame(&author.id, &author.keypair, 100, b"not heard"))
        .await
        .unwrap();
    own.flush().await.unwrap();
    carried
        .write_all(&frame(&carrier.id, &carrier.keypair, 1, b"heard"))
        .await
        .unwrap();
    carried.flush().await.unwrap();
    let heard = announced(&mut node).await;
    assert_eq!(heard.data, b"heard".as_slice());
    node.counted("dirnode_network_announcements_total{result=\"rejected\"}", 18)
        .await;
    honest.was_served().await;
}

/// Nobody reads the events: the queue fills to its cap and no further, what no longer fits is counted, and what is about
/// the peers themselves still has room. Once somebody reads again, the honest peer is heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_nobody_reads_stops_at_the_queue() {
    let over = scale("DIRNODE_FLOOD_MESSAGES", 100);
    let (mut node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let peer = RawPeer::dial(&node.addr, Security::Tls).await;
    let mut stream = peer.open(node.id(), KAD).await;
    let addr: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse().unwrap();
    for n in 0..EVENT_QUEUE - EVENT_RESERVE + over {
        let key = RecordCid::of(&n.to_be_bytes());
        let frame = Message::add_provider(&key, &peer.id, vec![addr.to_vec()]).to_frame();
        stream.write_all(&frame).await.unwrap();
    }
    stream.flush().await.unwrap();
    let number = u64::try_from(over).unwrap();
    node.counted("dirnode_network_events_dropped_total{kind=\"provided\"}", number)
        .await;
    let mut stream = peer.open(node.id(), GOSSIP).await;
    for n in 0..number {
        let message = frame(&peer.id, &peer.keypair, n, b"flood");
        stream.write_all(&message).await.unwrap();
    }
    stream.flush().await.unwrap();
    node.counted("dirnode_network_announcements_total{result=\"dropped\"}", number)
        .await;
    // A verdict that nobody can give is not owed.
    assert_eq!(node.handle.status().await.unwrap().awaiting_verdict, 0);
    let later = RawPeer::dial(&node.addr, Security::Tls).await;
    eventually("the later peer to be let in", || async {
        let views = node.handle.peers().await.unwrap();
        views.iter().any(|view| view.peer == later.id).then_some(())
    })
    .await;
    honest.is_heard_by(&mut node, later.id).await;
    honest.was_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_stop_at_the_limit() {
    const CAP: u32 = 24;
    let count = scale("DIRNODE_FLOOD_CONNECTIONS", 60);
    let (node, cid) = victim_with(Config {
        limits: Limits {
            established_inbound: CAP,
            ..limits()
        },
        ..config(Way::Tcp, &[])
    })
    .await;
    let honest = Honest::beside(&node, cid).await;
    let mut held = Vec::new();
    for _ in 0..count {
        // One that is turned away may not even have noticed yet.
        if let Ok(peer) = BarePeer::dial(&node.addr).await {
            held.push(peer);
        }
        let connections = node.handle.status().await.unwrap().connections;
        assert!(connections <= CAP as usize, "{connections}");
    }
    let denied = u64::try_from(count).unwrap() + 1 - u64::from(CAP);
    node.counted("dirnode_network_inbound_failed_total{reason=\"denied\"}", denied)
        .await;
    drop(held);
    eventually("room for others", || async {
        (node.handle.status().await.unwrap().connections == 1).then_some(())
    })
    .await;
    wait("a later peer", RawPeer::dial(&node.addr, Security::Noise)).await;
    honest.was_served().await;
}

/// Streams that are opened and left: without a word, in the middle of the negotiation, and agreed on but never used.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_substreams_cost_their_own_connection() {
    let count = scale("DIRNODE_FLOOD_SUBSTREAMS", 1500);
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let (mut opened, mut connections) = (0, 0);
    while opened < count {
        let bare = BarePeer::dial(&node.addr).await.unwrap();
        connections += 1;
        let mut held = Vec::new();
        // The muxer gives up a connection with too many streams; then the next one goes on.
        while opened < count && held.len() < 1000 {
            let Some(mut stream) = bare.open().await else {
                break;
            };
            let words: [&[u8]; 3] = [
                b"",
                b"\x13/multistream/1.0.0\n",
                b"\x13/multistream/1.0.0\n\x0edir/kad/1.0.0\n",
            ];
            let word = words.get(opened % 3).unwrap();
            if stream.write_all(word).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            held.push(stream);
            opened += 1;
        }
    }
    println!("{opened} substreams over {connections} connections");
    // The ones that were dropped for want of room or time are counted once their connection is gone.
    node.counted("dirnode_network_shim_negotiations_failed_total", 1)
        .await;
    eventually("the connections to be gone", || async {
        (node.handle.status().await.unwrap().connections == 1).then_some(())
    })
    .await;
    honest.was_served().await;
}
