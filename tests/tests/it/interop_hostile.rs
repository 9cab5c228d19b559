//! Malformed bytes from a Go peer on every protocol. Afterwards both it and another peer are served as before.

use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_tests::go_peer::{End, GoPeer, Options, Raw};
use dirnode_tests::wait::eventually;
use serde_json::json;

use crate::interop_node::{Node, SOON};

const HEADER: &[u8] = b"\x13/multistream/1.0.0\n";

/// Bytes that no reader of length-prefixed protobuf may stumble over, each with a name.
fn broken_frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut nested = vec![0x0a_u8; 2000];
    nested.insert(0, 0x0f);
    nested.insert(0, 0xd1);
    vec![
        ("empty frame", vec![0x00]),
        ("length that never ends", vec![0xff; 16]),
        ("length of four gigabytes", vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        (
            "length just above every limit",
            vec![0x81, 0x80, 0x80, 0x04, 0x08],
        ),
        ("unknown wire type", vec![0x02, 0x0f, 0x0f]),
        ("field longer than its frame", vec![0x03, 0x12, 0x7f, 0x01]),
        ("field with an endless varint", {
            let mut frame = vec![0x0c, 0x08];
            frame.extend([0xff; 11]);
            frame
        }),
        ("unknown type", vec![0x02, 0x08, 0x63]),
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("nested heads", nested),
        ("frame cut short", vec![0x20, 0x08, 0x04, 0x12]),
    ]
}

fn broken_calls() -> Vec<(&'static str, Vec<u8>)> {
    let call = |method: &str, argument: &[u8]| {
        let mut bytes = b"\x82\xa4Name\xa6RPCAPI\xa6Method".to_vec();
        bytes.push(0xa0 | u8::try_from(method.len()).unwrap());
        bytes.extend_from_slice(method.as_bytes());
        bytes.extend_from_slice(argument);
        bytes
    };
    vec![
        ("reserved byte", vec![0xc1; 3]),
        ("map of four billion", vec![0xdf, 0xff, 0xff, 0xff, 0xff]),
        ("text of four gigabytes", vec![0xdb, 0xff, 0xff, 0xff, 0xff, 0x61]),
        ("list in a list in a list", vec![0x91; 5000]),
        ("no end of a key", vec![0x81, 0xd9, 0xff]),
        ("argument of deep lists", call("Pull", &[0x91; 4000])),
        ("argument that is a number", call("Pull", &[0x01])),
        (
            "no referrer",
            call("PullReferrer", b"\x81\xa9RecordRef\x81\xa3cid\xa3abc"),
        ),
        (
            "nil referrer",
            call("PullReferrer", b"\x82\xa9RecordRef\xc0\xa8Referrer\xc0"),
        ),
        ("unknown method", call("Nope", b"\x80")),
        ("cid of 60 kilobytes", {
            let mut argument = b"\x81\xa3cid\xda\xea\x60".to_vec();
            argument.extend(vec![b'a'; 60_000]);
            call("Pull", &argument)
        }),
    ]
}

fn broken_negotiations() -> Vec<(&'static str, Vec<u8>)> {
    let with_header = |rest: &[u8]| [HEADER, rest].concat();
    vec![
        ("nothing but zeros", vec![0; 64]),
        ("no header", b"\x0edir/kad/1.0.0\n".to_vec()),
        ("endless length", vec![0xff; 32]),
        ("no newline", with_header(b"\x0ddir/kad/1.0.0")),
        ("empty frame", with_header(&[0])),
        ("name above a kilobyte", {
            let mut long = with_header(&[0x81, 0x08]);
            long.extend(vec![b'x'; 1025]);
            long
        }),
        ("many names nobody knows", {
            let mut many = HEADER.to_vec();
            for _ in 0..500 {
                many.extend_from_slice(b"\x05/abc\n");
            }
            many
        }),
        ("the reserved name", with_header(b"\x0f/dir/kad/1.0.0\n")),
    ]
}

/// A name, and the bytes.
type Input = (&'static str, Vec<u8>);

/// Every protocol a node offers, with its malformed inputs; the last one stands for none agreed on yet.
pub fn malformed() -> [(&'static str, Vec<Input>); 9] {
    [
        ("dir/kad/1.0.0", broken_frames()),
        ("/meshsub/1.1.0", broken_frames()),
        ("/meshsub/1.3.0", broken_frames()),
        ("/ipfs/id/push/1.0.0", broken_frames()),
        ("/ipfs/ping/1.0.0", broken_frames()),
        ("/libp2p/autonat/1.0.0", broken_frames()),
        ("/dir/rpc/1.0.0", broken_calls()),
        ("/dirnode/catchup/1", broken_frames()),
        ("", broken_negotiations()),
    ]
}

/// Everything a well-behaved peer can do still works between `node` and `go`.
async fn serves(node: &Node, go: &GoPeer, cid: RecordCid, after: &str) {
    let pulled = go
        .ask("pull", json!({"peer": node.id(), "cid": cid.to_string()}))
        .await
        .unwrap_or_else(|problem| panic!("after {after}: {problem}"));
    assert_eq!(pulled["matches"], true, "after {after}");
    let ask = Raw {
        protocol: Some("dir/kad/1.0.0"),
        // FIND_NODE for a key of four bytes.
        data: b"\x08\x08\x04\x12\x04want",
        quiet: Some(Duration::from_millis(500)),
        ..Raw::default()
    };
    eventually(SOON, || async {
        let answer = go.raw(&node.id(), ask.clone()).await?;
        (answer.data.len() > 2)
            .then_some(())
            .ok_or_else(|| format!("after {after}: {answer:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_malformed_bytes_on_every_protocol_hurt_nobody() {
    // The bad one leaves gossip to the raw streams.
    let (Some(bad), Some(good)) = (
        GoPeer::start(Options::new().no_gossip()).await,
        GoPeer::start(Options::new()).await,
    ) else {
        return;
    };
    let node = Node::start(Node::config());
    let address = node.address("tcp").await;
    let cid = node.shelf.put(br#"{"name":"a"}"#, &[]);
    for name in ["/meshsub/1.1.0", "/meshsub/1.3.0"] {
        bad.stand_still_on(name).await;
    }
    for go in [&good, &bad] {
        go.connect(&address).await.unwrap();
        node.peer(go.id(), |view| view.in_table.then_some(())).await;
    }
    let mut tried = 0;
    for (protocol, cases) in malformed() {
        for (index, (_, data)) in cases.iter().enumerate() {
            let raw = Raw {
                protocol: (!protocol.is_empty()).then_some(protocol),
                data,
                // Every third comes byte by byte, every second ends there.
                chunk_bytes: if index % 3 == 2 && data.len() < 100 { 1 } else { 0 },
                half_close: index % 2 == 1,
                quiet: Some(Duration::from_millis(150)),
                ..Raw::default()
            };
            // A peer that was told to go may have to come back; it is let in, and says what it wanted to say.
            eventually(SOON, || async {
                let answer = bad.raw(&node.id(), raw.clone()).await;
                if answer.is_err() {
                    bad.disconnect(&node.id()).await;
                    bad.connect(&address).await?;
                }
                answer
            })
            .await;
            tried += 1;
        }
        let what = if protocol.is_empty() {
            "negotiation"
        } else {
            protocol
        };
        serves(&node, &good, cid, what).await;
        eventually(SOON, || async { bad.connect(&address).await }).await;
        serves(&node, &bad, cid, what).await;
        println!(
            "| {what} | {} malformed inputs | both peers served |",
            cases.len()
        );
    }
    assert!(tried > 80, "{tried}");
    // The good one never had to come back.
    let left = good
        .events()
        .iter()
        .any(|event| event["event"] == "peer_disconnected");
    assert!(!left, "the other peer lost its connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_a_peer_with_a_broken_identify_is_served_all_the_same() {
    let Some(go) = GoPeer::start(Options::new()).await else {
        return;
    };
    let node = Node::start(Node::config());
    let address = node.address("tcp").await;
    let cid = node.shelf.put(br#"{"name":"a"}"#, &[]);
    // Length 5, then a public key that is longer than the frame.
    for reply in ["BQp/AAAA", "/////w8=", "AA==", "R0VUIC8="] {
        go.must(
            "handle_raw",
            json!({"protocol": "/ipfs/id/1.0.0", "reply_b64": reply, "timeout_ms": 50}),
        )
        .await;
        go.connect(&address).await.unwrap();
        go.event("stream_in", |event| {
            (event["protocol"] == "/ipfs/id/1.0.0").then_some(())
        })
        .await;
        let pulled = go
            .must("pull", json!({"peer": node.id(), "cid": cid.to_string()}))
            .await;
        assert_eq!(pulled["matches"], true);
        go.disconnect(&node.id()).await;
    }
    // Silence is no answer either; the others do not wait for it.
    go.must(
        "handle_raw",
        json!({"protocol": "/ipfs/id/1.0.0", "hang": true, "timeout_ms": 10_000}),
    )
    .await;
    go.connect(&address).await.unwrap();
    let pulled = go
        .must("pull", json!({"peer": node.id(), "cid": cid.to_string()}))
        .await;
    assert_eq!(pulled["matches"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_a_peer_that_never_answers_costs_a_deadline_and_no_more() {
    let (Some(silent), Some(good)) = (
        GoPeer::start(Options::new()).await,
        GoPeer::start(Options::new()).await,
    ) else {
        return;
    };
    silent
        .must(
            "handle_raw",
            json!({"protocol": "/dir/rpc/1.0.0", "hang": true, "timeout_ms": 200}),
        )
        .await;
    let node = Node::start(Node::config());
    let cid = good.serve_record(&json!({"name": "a"}), &json!({})).await;
    let cid = RecordCid::parse(&cid).unwrap();
    for go in [&silent, &good] {
        node.handle.connect(go.address().parse().unwrap()).await.unwrap();
    }
    let waiting = {
        let (handle, peer) = (node.handle.clone(), silent.id().parse().unwrap());
        async move { tokio::time::timeout(Duration::from_secs(5), handle.pull(peer, cid)).await }
    };
    let beside = async {
        let peer = good.id().parse().unwrap();
        for _ in 0..20 {
            node.handle.pull(peer, cid).await.unwrap();
        }
    };
    let (given_up, ()) = tokio::join!(waiting, beside);
    assert!(
        !matches!(given_up, Ok(Ok(_))),
        "the silent peer cannot have answered"
    );
    // Half an answer and a reset are errors, not waits.
    for (reply, reset) in [("gadTZXJ2aWNl", false), ("", false), ("", true)] {
        silent
            .must(
                "handle_raw",
                json!({"protocol": "/dir/rpc/1.0.0", "reply_b64": reply, "reset": reset, "timeout_ms": 100}),
            )
            .await;
        let peer = silent.id().parse().unwrap();
        let answer = tokio::time::timeout(SOON, node.handle.pull(peer, cid)).await;
        answer.expect("an end before the deadline").unwrap_err();
    }
    let echo = Raw {
        protocol: Some("/ipfs/ping/1.0.0"),
        data: &[7; 32],
        ..Raw::default()
    };
    assert_eq!(silent.raw(&node.id(), echo).await.unwrap().end, End::Open);
}
