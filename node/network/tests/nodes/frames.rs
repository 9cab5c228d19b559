//! Single streams gone wrong, on each protocol: malformed, too large, begun and never ended. Each costs its stream, is
//! counted under its name, and an honest peer beside it notices nothing.

use std::any::Any;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::common::{Node, eventually, wait};
use super::raw::{BarePeer, RawPeer, Security};
use super::victim::{CATCH_UP, GOSSIP, Honest, KAD, PUSH, READ_TIMEOUT, RPC, limits, victim};

/// The figure of an offence on a stream that the shim watches.
fn offence(protocol: &str, reason: &str) -> String {
    format!("dirnode_network_shim_offences_total{{protocol=\"{protocol}\",reason=\"{reason}\"}}")
}

fn served(method: &str, result: &str) -> String {
    format!("dirnode_network_rpc_calls_total{{method=\"{method}\",side=\"server\",result=\"{result}\"}}")
}

/// A stream under attack, and the peer that holds it.
struct Attack {
    stream: Box<dyn Duplex>,
    _peer: Box<dyn Any + Send>,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A stream of a peer of its own, because a peer loses more than the stream on some protocols.
async fn begin(node: &Node, protocol: &'static str, bytes: &[u8]) -> Attack {
    let mut attack = if [KAD, PUSH].contains(&protocol) {
        let peer = BarePeer::dial(&node.addr).await.unwrap();
        let name = if protocol == KAD {
            "dir/kad/1.0.0"
        } else {
            protocol
        };
        Attack {
            stream: Box::new(peer.open_on(name).await),
            _peer: Box::new(peer),
        }
    } else {
        let peer = RawPeer::dial(&node.addr, Security::Tls).await;
        Attack {
            stream: Box::new(peer.open(node.id(), protocol).await),
            _peer: Box::new(peer),
        }
    };
    // The node may reset the stream while we still write.
    let _ = attack.stream.write_all(bytes).await;
    let _ = attack.stream.flush().await;
    attack
}

/// Waits for the end of the stream, orderly or not.
async fn ends(mut attack: Attack, what: &str) {
    let mut answer = Vec::new();
    let _ = wait(what, attack.stream.read_to_end(&mut answer)).await;
}

fn framed(length: &[u8], body: usize) -> Vec<u8> {
    [length, &vec![0; body]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_malformed_or_too_large_end_their_stream_and_are_counted() {
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    // A field longer than the message, lengths above what each protocol takes, a length that never ends.
    let broken = vec![0x03, 0x12, 0x7f, 0x01];
    for (protocol, bytes, counted) in [
        (KAD, broken.clone(), offence("kad", "malformed")),
        (KAD, framed(&[0x81, 0x80, 0x02], 100), offence("kad", "oversize")),
        (KAD, vec![0xff; 12], offence("kad", "oversize")),
        (GOSSIP, broken.clone(), offence("gossip", "malformed")),
        // A message inside that is longer than the frame.
        (
            GOSSIP,
            vec![0x04, 0x12, 0x02, 0x0a, 0x7f],
            offence("gossip", "malformed"),
        ),
        (GOSSIP, framed(&[0x81, 0x50], 100), offence("gossip", "oversize")),
        (GOSSIP, vec![0xff; 12], offence("gossip", "oversize")),
        (
            PUSH,
            broken,
            "dirnode_network_shim_messages_unparsed_total".to_owned(),
        ),
        (
            PUSH,
            framed(&[0xff, 0xff, 0x03], 100),
            offence("identify_push", "oversize"),
        ),
        (RPC, vec![0xc1; 8], served("unknown", "refused")),
        (
            RPC,
            vec![0xdb, 0xff, 0xff, 0xff, 0xff],
            served("unknown", "refused"),
        ),
        (CATCH_UP, vec![0xff; 8], served("CatchUp", "unreadable")),
        (CATCH_UP, vec![0x81, 0x80, 0x10], served("CatchUp", "unreadable")),
    ] {
        let before = node.figure(&counted);
        let attack = begin(&node, protocol, &bytes).await;
        ends(attack, protocol).await;
        node.counted(&counted, before + 1).await;
    }
    honest.was_served().await;
}

/// Half a length and then silence; and bytes that trickle, which is the same thing drawn out.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_begun_and_never_ended_lose_their_stream() {
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    for (protocol, bytes, counted) in [
        (KAD, &b"\x80"[..], offence("kad", "slow")),
        (KAD, b"\x20\x08\x04\x12", offence("kad", "slow")),
        (GOSSIP, b"\x80", offence("gossip", "slow")),
        (GOSSIP, b"\x20\x12\x10", offence("gossip", "slow")),
        (PUSH, b"\x80", offence("identify_push", "slow")),
        (PUSH, b"", offence("identify_push", "idle")),
        (RPC, b"\x82\xa4Na", served("unknown", "silent")),
        (CATCH_UP, b"\x80", served("CatchUp", "silent")),
    ] {
        let before = node.figure(&counted);
        let attack = begin(&node, protocol, bytes).await;
        ends(attack, protocol).await;
        node.counted(&counted, before + 1).await;
    }
    for (protocol, counted) in [(KAD, offence("kad", "slow")), (GOSSIP, offence("gossip", "slow"))] {
        let before = node.figure(&counted);
        let mut attack = begin(&node, protocol, &[0xff, 0x01]).await;
        eventually("the end of a trickle", || {
            let _ = futures_util::FutureExt::now_or_never(attack.stream.write_all(&[0x0a]));
            let _ = futures_util::FutureExt::now_or_never(attack.stream.flush());
            std::future::ready((node.figure(&counted) > before).then_some(()))
        })
        .await;
        ends(attack, protocol).await;
    }
    honest.was_served().await;
}

/// What the one stream costs does not touch the next: the same peer is answered on a fresh one.
#[tokio::test(flavor = "multi_thread")]
async fn a_gossip_stream_may_stay_silent_and_a_whole_message_ends_the_watch() {
    let (node, _) = victim(limits()).await;
    // A whole message without content, then silence longer than any deadline of the victim.
    let mut attack = begin(&node, GOSSIP, &[0x00]).await;
    let read = tokio::time::timeout(READ_TIMEOUT * 2, attack.stream.read(&mut [0; 1])).await;
    assert!(read.is_err(), "the stream goes on: {read:?}");
    assert_eq!(node.figure(&offence("gossip", "slow")), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_identify_that_cannot_be_read_cost_nothing_else() {
    let (node, cid) = victim(limits()).await;
    let honest = Honest::beside(&node, cid).await;
    let mut huge = vec![0xff, 0x7f];
    huge.extend(vec![0x0a; 16_383]);
    // They stay until everything is counted.
    let mut peers = Vec::new();
    for answer in [
        vec![0x05, 0x0a, 0x7f, 0, 0, 0],
        vec![0xff; 9],
        huge,
        vec![0x00],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0x80],
    ] {
        let keypair = dirnode_network::Keypair::generate_ed25519();
        let peer = RawPeer::dial_as(&keypair, &node.addr, Security::Tls, Some(answer)).await;
        // It is connected and served, and nothing is believed of it.
        let mut stream = peer.open(node.id(), RPC).await;
        stream
            .write_all(b"\x82\xa4Name\xa6RPCAPI\xa6Method\xa4Nope\x80")
            .await
            .unwrap();
        let mut answer = Vec::new();
        wait("the answer", stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.is_empty());
        let views = node.handle.peers().await.unwrap();
        let view = views.iter().find(|view| view.peer == peer.id).unwrap();
        assert!(!view.in_table && view.protocols.is_empty(), "{view:?}");
        peers.push(peer);
    }
    let unparsed = "dirnode_network_shim_messages_unparsed_total";
    let refused = "dirnode_network_shim_frames_refused_total";
    eventually("the answers to be counted", || {
        let seen = (node.figure(unparsed), node.figure(refused));
        std::future::ready((seen.0 >= 1 && seen.1 >= 2).then_some(()))
    })
    .await;
    honest.was_served().await;
}

/// Before a protocol is agreed on the library gives a stream ten seconds, and a handshake has fifteen.
#[tokio::test(flavor = "multi_thread")]
async fn negotiations_and_handshakes_that_stand_still_are_given_up() {
    let limits = dirnode_network::Limits {
        pending_inbound: 16,
        ..limits()
    };
    let (node, cid) = victim(limits).await;
    let honest = Honest::beside(&node, cid).await;
    let bare = BarePeer::dial(&node.addr).await.unwrap();
    let failed = "dirnode_network_shim_negotiations_failed_total";
    let before = node.figure(failed);
    let mut streams = Vec::new();
    for bytes in [
        &b"\x13"[..],
        b"\x13/multistream",
        b"\x13/multistream/1.0.0\n\x0f/dir",
        b"\xff",
    ] {
        let mut stream = bare.open().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        streams.push(stream);
    }
    // More silent handshakes than there are places for.
    let target = node.addr.to_string();
    let port = target.split('/').nth(4).unwrap();
    let mut silent = Vec::new();
    for _ in 0..24 {
        silent.push(
            tokio::net::TcpStream::connect(format!("127.0.0.1:{port}"))
                .await
                .unwrap(),
        );
    }
    for mut stream in streams {
        let mut answer = Vec::new();
        let _ = wait("the end of the negotiation", stream.read_to_end(&mut answer)).await;
    }
    node.counted(failed, before + 4).await;
    node.counted("dirnode_network_inbound_failed_total{reason=\"denied\"}", 1)
        .await;
    node.counted("dirnode_network_inbound_failed_total{reason=\"handshake\"}", 16)
        .await;
    // Their places are free again.
    RawPeer::dial(&node.addr, Security::Tls).await;
    drop(silent);
    honest.was_served().await;
}
