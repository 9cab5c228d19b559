//! The wire vectors over a real connection: negotiation, identify, the DHT and gossip.

use std::time::Duration;

use dirnode_network::NetworkEvent;
use dirnode_tests::go_peer::{End, Options, Raw};
use dirnode_tests::p2p::{bytes, text, unhex};
use dirnode_tests::vectors::cases;
use dirnode_tests::wait::{eventually, within};
use prost::Message as _;
use serde_json::Value as Json;

use crate::interop_live::{QUIET, Tally, different, pair, strangers, write};
use crate::interop_node::{Node, SOON};

/// The multistream header with its length.
const HEADER_BYTES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn vectors_p2p_live_negotiation() {
    let Some(list) = cases("p2p/negotiation.jsonl") else {
        return;
    };
    let Some((node, go, _folder)) = pair(Options::new().no_gossip(), None).await else {
        return;
    };
    let mut tally = Tally::default();
    for case in list {
        let raw = Raw {
            data: &unhex(text(&case, "sent_hex")),
            half_close: case["half_close"] == true,
            quiet: Some(QUIET),
            ..Raw::default()
        };
        let answer = write(&node, &go, raw).await;
        let expected = unhex(text(&case, "received_hex"));
        let is_over = answer.end != End::Open;
        let fits = match different("negotiation", text(&case, "name")) {
            Some("no answer") => {
                is_over && expected.starts_with(&answer.data) && answer.data.len() > HEADER_BYTES
            }
            Some("listed") => !is_over && answer.data.windows(14).any(|name| name == b"dir/kad/1.0.0\n"),
            Some(_) => is_over && expected.starts_with(&answer.data),
            // The head is fixed, what follows is the node's own identify message.
            None if case["varies"] == true => {
                answer.data.len() > 100 && answer.data.get(..36) == expected.get(..36)
            }
            // How a refused stream ends is told apart by nobody: closed and reset both mean that it is over.
            None => answer.data == expected && is_over == (text(&case, "stream_end") != "open"),
        };
        let problem = || {
            format!(
                "{:?} and {:?} rather than {:?} and {}",
                String::from_utf8_lossy(&answer.data),
                answer.end,
                String::from_utf8_lossy(&expected),
                text(&case, "stream_end")
            )
        };
        tally.take(
            "negotiation",
            text(&case, "name"),
            fits.then_some(()).ok_or_else(problem),
        );
    }
    tally.finish("negotiation");
}

/// A DHT message, as far as the answers are looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct KadMessage {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    record: Option<KadRecord>,
    #[prost(message, repeated, tag = "8")]
    closer: Vec<KadPeer>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<KadPeer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KadRecord {
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KadPeer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addrs: Vec<Vec<u8>>,
}

fn reads_as_answer(case: &Json, data: &[u8]) -> Result<(), String> {
    let answer = KadMessage::decode_length_delimited(data).map_err(|error| error.to_string())?;
    let asked = KadMessage::decode_length_delimited(&unhex(text(case, "request_hex"))[..]).unwrap();
    if answer.kind != asked.kind {
        return Err(format!("type {} for {}", answer.kind, asked.kind));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_p2p_live_dht_requests() {
    let Some(list) = cases("p2p/dht.jsonl") else {
        return;
    };
    let Some((node, go, _folder)) = pair(Options::new(), None).await else {
        return;
    };
    let mut tally = Tally::default();
    for case in list.iter().filter(|case| case["op"] == "request") {
        let name = text(case, "name");
        let request = unhex(text(case, "request_hex"));
        let noticed = || {
            let events = node.events();
            events
                .iter()
                .filter(|event| matches!(event, NetworkEvent::Provided { .. }))
                .count()
        };
        let before = noticed();
        let raw = Raw {
            protocol: Some("dir/kad/1.0.0"),
            data: &request,
            quiet: Some(QUIET),
            ..Raw::default()
        };
        let answer = write(&node, &go, raw).await;
        let is_silent = answer.data.is_empty() && answer.end == End::Open;
        let verdict = different("dht", name).unwrap_or_else(|| text(case, "verdict"));
        let outcome = match verdict {
            "answered" => reads_as_answer(case, &answer.data),
            "no value" => reads_as_answer(case, &answer.data).and_then(|()| {
                let answer = KadMessage::decode_length_delimited(&answer.data[..]).unwrap();
                answer
                    .record
                    .is_none()
                    .then_some(())
                    .ok_or_else(|| "a value".to_owned())
            }),
            "no answer" if answer.data.is_empty() => Ok(()),
            "taken silently" if is_silent => Ok(()),
            "not kept" if is_silent && noticed() == before => Ok(()),
            "refused" if answer.data.is_empty() && answer.end != End::Open => Ok(()),
            _ => Err(String::new()),
        };
        let outcome = outcome.map_err(|problem| format!("{verdict} was expected; {problem} {answer:?}"));
        tally.take("dht", name, outcome);
        if name == "get-providers-after-add" {
            // What was kept can be found.
            let asked = KadMessage::decode_length_delimited(&request[..]).unwrap();
            let found = eventually(SOON, || async {
                let found = node
                    .handle
                    .find_providers(asked.key.clone(), 1)
                    .await
                    .map_err(|error| error.to_string())?;
                let kept = found
                    .into_iter()
                    .find(|provider| provider.peer.to_string() == go.id());
                kept.ok_or_else(|| "not kept".to_owned())
            })
            .await;
            assert!(!found.addrs.is_empty(), "its addresses were kept: {found:?}");
        }
    }
    tally.finish("dht");
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_p2p_live_gossip_receiver() {
    let Some(list) = cases("p2p/gossip_rpc.jsonl") else {
        return;
    };
    // The frames are written by hand, so the peer's own router is left out.
    let Some((node, go, _folder)) = pair(Options::new().no_gossip(), None).await else {
        return;
    };
    let address = node.address("tcp").await;
    let mut tally = Tally::default();
    for case in list.iter().filter(|case| case["op"] == "frame") {
        let name = text(case, "name");
        let before = node.announced().len();
        // A receiver counts streams of one connection and gives up on peers that open many; each case has its own.
        go.disconnect(&node.id()).await;
        eventually(SOON, || async { go.connect(&address).await }).await;
        let frame = bytes(case, "frame").expect("a frame");
        let raw = Raw {
            protocol: Some("/meshsub/1.3.0"),
            data: &frame,
            quiet: Some(QUIET),
            ..Raw::default()
        };
        write(&node, &go, raw).await;
        // Accepted are those that reach the application; what it makes of the payload is told by the other cases.
        let expected = match different("gossip_rpc", name).unwrap_or_else(|| text(case, "receiver")) {
            "labels stored" | "payload refused" => 1,
            _ => 0,
        };
        let heard = || node.announced().len() - before;
        let _ = within(Duration::from_secs(3), || {
            let enough = expected > 0 && heard() >= expected;
            std::future::ready(if enough || expected == 0 {
                Ok(())
            } else {
                Err(String::new())
            })
        })
        .await;
        let seen = heard();
        let outcome = if seen == expected {
            Ok(())
        } else {
            Err(format!("{seen} announcements rather than {expected}"))
        };
        tally.take("gossip_rpc", name, outcome);
    }
    tally.finish("gossip_rpc");
}

/// An identify message.
#[derive(Clone, PartialEq, prost::Message)]
struct Identify {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addrs: Vec<Vec<u8>>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes = "vec", tag = "4")]
    observed: Vec<u8>,
    #[prost(string, optional, tag = "5")]
    protocol_version: Option<String>,
    #[prost(string, tag = "6")]
    agent: String,
    #[prost(bytes = "vec", optional, tag = "8")]
    signed_record: Option<Vec<u8>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_p2p_live_identify() {
    let Some(list) = cases("p2p/identify.jsonl") else {
        return;
    };
    let mut config = Node::config();
    config.directory_api_address = Some("127.0.0.1:38881".to_owned());
    config.directory_oci_address = Some("ghcr.io/org/repo with space".to_owned());
    let Some((node, go, _folder)) = strangers(Options::new(), config, None).await else {
        return;
    };
    node.address("quic-v1").await;
    go.connect(&node.address("tcp").await).await.unwrap();
    let raw = Raw {
        protocol: Some("/ipfs/id/1.0.0"),
        quiet: Some(QUIET),
        ..Raw::default()
    };
    let answer = write(&node, &go, raw).await;
    assert!(
        answer.data.len() <= 4096 && answer.end == End::Closed,
        "{answer:?}"
    );
    let answer = Identify::decode_length_delimited(&answer.data[..]).unwrap();
    let decoded = &list[0]["decoded"];
    assert_eq!(answer.public_key, unhex(text(decoded, "publicKey_hex")));
    let wanted = |key: &str| -> Vec<String> { serde_json::from_value(decoded[key].clone()).unwrap() };
    for protocol in wanted("protocols")
        .iter()
        .filter(|name| !name.starts_with("/floodsub"))
    {
        assert!(
            answer.protocols.contains(protocol),
            "{protocol} in {:?}",
            answer.protocols
        );
    }
    assert!(!answer.protocols.iter().any(|name| name == "/dir/kad/1.0.0"));
    // The private addresses are there, byte for byte.
    for address in decoded["listenAddrs"].as_array().unwrap() {
        let bytes = unhex(text(address, "hex"));
        if bytes.starts_with(&[0xff]) || bytes.starts_with(&[0xfe]) {
            assert!(answer.addrs.contains(&bytes), "{address}");
        }
    }
    assert!(
        answer
            .addrs
            .iter()
            .any(|addr| addr.starts_with(&[4, 127, 0, 0, 1, 6])),
        "our TCP address"
    );
    // A record in the form of this library would not verify at the others (p2p-wire §1.6).
    assert_eq!(answer.signed_record, None);
    println!("vectors/p2p/identify, live: 1 right, 0 wrong, 0 excepted");
}
