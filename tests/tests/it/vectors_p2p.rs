//! Replay of `vectors/p2p` without a connection: every case that is a function of its bytes.
//!
//! What needs a live node (negotiation, the content of DHT answers, the forwarding of gossip) is replayed elsewhere on
//! the same files.

use std::collections::BTreeSet;

use dirnode_identity::{
    KeyError, from_bytes, key_space_point, parse_peer_id, peer_id_cid, public_key_protobuf,
};
use dirnode_network::wire::announcement::{Announcement, MAX_LABELS, Payload, TOPIC, encode_reference};
use dirnode_network::wire::gossip::{GossipError, read_frame};
use dirnode_network::wire::identify::{IdentifyMessage, SignedPeerRecord};
use dirnode_network::wire::kad::{self, Message, MessageType, Verdict};
use dirnode_network::wire::label_key::{LabelKey, check_value, in_namespace, join, stored};
use dirnode_network::wire::protobuf::{Frame, frame};
use dirnode_network::wire::rpc::{
    Call, ClientError, Reading, Reply, Served, encode_call, read_reply, read_request, serve,
};
use dirnode_network::wire::{Endpoint, EndpointKind, RawAddr, Timestamp};
use dirnode_record::{RecordCid, Referrer};
use dirnode_tests::p2p::{Family, Faults, Shelf, bytes, hex, in_map_order, text, unhex};
use serde_json::{Value as Json, json};

#[test]
fn key_files_are_read_as_recorded() {
    let Some(mut family) = Family::load("identity") else {
        return;
    };
    family.run("read-key", |case, better, faults| {
        let verdict = better.map_or(text(case, "verdict"), |better| &better.code);
        let read = from_bytes(&bytes(case, "file").unwrap());
        faults.same("verdict", if read.is_ok() { "accept" } else { "refuse" }, verdict);
        match read {
            Ok(key) if better.is_none() => {
                let peer = key.public().to_peer_id();
                faults.same("peer id", peer.to_base58().as_str(), text(case, "peer_id"));
                faults.same(
                    "peer id as cid",
                    peer_id_cid(&peer).as_str(),
                    text(case, "peer_id_cid"),
                );
                faults.same(
                    "peer id bytes",
                    hex(&peer.to_bytes()).as_str(),
                    text(case, "peer_id_hex"),
                );
                let public = public_key_protobuf(&key);
                faults.same(
                    "public key",
                    hex(&public).as_str(),
                    text(case, "public_key_pb_hex"),
                );
                faults.same(
                    "raw public key",
                    hex(&public[4..]).as_str(),
                    text(case, "public_key_raw_hex"),
                );
                let seed = key.clone().try_into_ed25519().unwrap().secret();
                faults.same("seed", hex(seed.as_ref()).as_str(), text(case, "seed_hex"));
                faults.same(
                    "point",
                    hex(&key_space_point(&peer)).as_str(),
                    text(case, "kad_id_hex"),
                );
                for form in ["peer_id", "peer_id_cid"] {
                    faults.same(form, parse_peer_id(text(case, form)), Ok(peer));
                }
            }
            Err(KeyError::Malformed { what, .. }) => {
                let seed = text(case, "seed_hex");
                faults.same("secret shown", !seed.is_empty() && what.contains(seed), false);
            }
            _ => {}
        }
    });
    family.finish();
}

fn kind(name: &str) -> EndpointKind {
    match name {
        "dir" => EndpointKind::DirectoryApi,
        "oci" => EndpointKind::Oci,
        other => panic!("no endpoint is called {other}"),
    }
}

#[test]
fn addresses_are_written_and_read_as_recorded() {
    let Some(mut family) = Family::load("multiaddr") else {
        return;
    };
    family.run("encode", |case, _, faults| {
        let endpoint = Endpoint::new(kind(text(case, "protocol")), text(case, "value"));
        let verdict = if endpoint.is_ok() {
            "advertised"
        } else {
            "not advertised"
        };
        faults.same("verdict", verdict, text(case, "verdict"));
        if let Ok(endpoint) = endpoint {
            faults.same("bytes", Some(endpoint.to_bytes()), bytes(case, "bytes"));
            faults.same("text", endpoint.to_text().as_str(), text(case, "text"));
        }
    });
    family.run("decode", |case, _, faults| {
        let read = RawAddr::read(&bytes(case, "bytes").unwrap());
        faults.same(
            "verdict",
            if read.is_known() { "accept" } else { "refuse" },
            text(case, "verdict"),
        );
        faults.same("text", read.to_text().as_deref(), case["text"].as_str());
        let found: Vec<Endpoint> = read.endpoints().collect();
        for name in ["dir", "oci"] {
            let value = found.iter().find(|endpoint| endpoint.kind == kind(name));
            faults.same(
                name,
                value.map(|endpoint| endpoint.value.as_str()),
                case[name].as_str(),
            );
        }
    });
    family.finish();
}

#[test]
fn announcements_are_written_and_judged_as_recorded() {
    let Some(mut family) = Family::load("gossip_payload") else {
        return;
    };
    family.run("encode", |case, _, faults| {
        // A case in JSON cannot hold bytes that are not UTF-8: there each replacement stands for a bad byte.
        let bad = text(case, "note").contains("bad byte");
        let labels: Vec<Vec<u8>> = case["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|label| {
                let mut out = Vec::new();
                for character in label.as_str().unwrap().chars() {
                    match character {
                        char::REPLACEMENT_CHARACTER if bad => out.push(0xff),
                        other => out.extend(other.to_string().as_bytes()),
                    }
                }
                out
            })
            .collect();
        let timestamp = Timestamp::parse(text(case, "timestamp").as_bytes()).unwrap();
        let written = encode_reference(text(case, "cid"), &labels, timestamp);
        let verdict = if written.is_ok() {
            "announced"
        } else {
            "not announced"
        };
        faults.same("verdict", verdict, text(case, "verdict"));
        if let Ok(written) = written {
            faults.same("size", Some(written.len() as u64), case["size"].as_u64());
            faults.same(
                "payload",
                String::from_utf8(written).unwrap().as_str(),
                text(case, "payload"),
            );
        }
    });
    family.run("decode", |case, _, faults| {
        let payload = bytes(case, "payload").unwrap();
        let read = Payload::read(&payload).and_then(|read| read.check().map(|moment| (read, moment)));
        faults.same(
            "verdict",
            if read.is_ok() { "accept" } else { "refuse" },
            text(case, "verdict"),
        );
        let admitted = Announcement::admit(&payload);
        let Ok((read, moment)) = read else {
            faults.same("what the reference refuses is admitted", admitted.is_ok(), false);
            return;
        };
        faults.same("cid", read.cid.as_str(), text(case, "cid"));
        faults.same("labels", json!(read.labels), case["labels"].clone());
        faults.same("timestamp", moment.to_string().as_str(), text(case, "timestamp"));
        // The reference keeps a key once, whatever labels lead to it.
        let keys: BTreeSet<String> = read
            .labels
            .iter()
            .map(|label| stored(label, &read.cid, text(case, "author")))
            .collect();
        let expected = case["stored_keys"].as_array().unwrap().iter();
        let expected = expected.map(|key| key.as_str().unwrap().to_owned()).collect();
        faults.same("stored keys", keys, expected);
        // We are stricter: a claim is about a record, with labels in the four namespaces.
        if let Ok(admitted) = admitted {
            let Announcement::Claim { cid, labels, .. } = admitted.announcement else {
                panic!("the reference knows no withdrawals");
            };
            faults.same("cid of the claim", cid.to_string(), read.cid.clone());
            faults.same(
                "labels of the claim",
                (1..=MAX_LABELS).contains(&labels.len()),
                true,
            );
        } else {
            let strict = RecordCid::parse(&read.cid).is_some()
                && read
                    .labels
                    .iter()
                    .any(|label| in_namespace(label) && !label.contains(".."));
            faults.same(
                "a plain claim is refused",
                strict && read.labels[0].starts_with('/'),
                false,
            );
        }
    });
    family.finish();
}

#[test]
fn gossip_frames_are_judged_as_recorded() {
    let Some(mut family) = Family::load("gossip_rpc") else {
        return;
    };
    // The receiver was the node that is asked by name in the other families.
    let own = "12D3KooWGamFdxhV4Y1vhvWVBbjvBgZgQMoNUhGkLYZbG9pBGVK4";
    let mut seen = BTreeSet::new();
    family.run("frame", |case, better, faults| {
        let stream = bytes(case, "frame").unwrap();
        let messages = read_frame(&stream);
        if let (Ok(messages), Some(signed)) = (&messages, bytes(case, "signed_bytes")) {
            faults.same("signed bytes", hex(&messages[0].signed_bytes()), hex(&signed));
        }
        if let (Ok(messages), Some(message)) = (&messages, case.get("message")) {
            faults.same(
                "message id",
                hex(&messages[0].message_id()).as_str(),
                text(message, "message_id_hex"),
            );
            faults.same(
                "bytes again",
                messages[0].to_bytes().len() + 3 <= stream.len(),
                true,
            );
        }
        let verdict = match messages.as_deref() {
            Err(_) | Ok([]) => "nothing",
            Ok([message, ..]) => match message.verify(TOPIC) {
                Err(_) => "nothing",
                Ok(verified) if verified.author.to_base58() == own => "nothing",
                Ok(_) if !seen.insert(message.message_id()) => "nothing",
                Ok(verified) => match Payload::read(verified.data).and_then(|payload| payload.check()) {
                    Ok(_) => "labels stored",
                    Err(_) => "payload refused",
                },
            },
        };
        faults.same(
            "verdict",
            verdict,
            better.map_or(text(case, "receiver"), |better| &better.code),
        );
    });
    family.run("recorded", |case, _, faults| {
        let messages = read_frame(&bytes(case, "frame").unwrap()).unwrap();
        let Some(expected) = case.get("message") else {
            faults.same("messages", messages.len(), 0);
            return;
        };
        let verified = messages[0].verify(TOPIC).unwrap();
        faults.same(
            "author",
            verified.author.to_base58().as_str(),
            text(expected, "from"),
        );
        faults.same("data", verified.data, text(expected, "data").as_bytes());
        faults.same("admitted", Announcement::admit(verified.data).is_ok(), true);
    });
    family.finish();
}

#[test]
fn damaged_signatures_never_verify() {
    let Some(family) = Family::load("gossip_rpc") else {
        return;
    };
    let plain = family.cases().iter().find(|case| case["op"] == "frame").unwrap();
    let message = read_frame(&bytes(plain, "frame").unwrap()).unwrap().remove(0);
    assert!(message.verify(TOPIC).is_ok());
    for place in 0..64 {
        let mut damaged = message.clone();
        damaged.signature.as_mut().unwrap()[place] ^= 1;
        assert_eq!(damaged.verify(TOPIC), Err(GossipError::Signature));
    }
}

/// What stands where the reference answers in another way, told by the exception's code.
fn better_answer(family: &[Json], code: &str, case: &Json) -> Option<Vec<u8>> {
    let request = bytes(case, "request").unwrap();
    if let Some(other) = code.strip_prefix("as ") {
        let other = family
            .iter()
            .find(|case| case["name"] == other)
            .expect("the other case is there");
        return bytes(other, "response");
    }
    let (code, message) = code.split_once(": ").expect("a code and a text");
    let Reading::Refused { answer, .. } = read_request(&request, true) else {
        let Reading::Call(call) = read_request(&request, true) else {
            panic!("the request is whole");
        };
        let code =
            dirnode_network::wire::rpc::Status::parse(&format!("rpc error: code = {code} desc = {message}"));
        return Some(dirnode_network::wire::rpc::encode_answer(
            call.method(),
            &Err(code),
        ));
    };
    let text = format!("rpc error: code = {code} desc = {message}");
    let holds = answer.windows(text.len()).any(|window| window == text.as_bytes());
    holds.then_some(answer)
}

#[test]
fn calls_are_answered_as_recorded() {
    let Some(mut family) = Family::load("rpc") else {
        return;
    };
    let cases = family.cases().to_vec();
    let shelf = Shelf::from_answers(&cases);
    family.run("server", |case, better, faults| {
        let request = bytes(case, "request").unwrap();
        let ended = case["half_close"].as_bool().unwrap_or_default();
        let Served::Answer(answer) = serve(&request, ended, |call| shelf.answer(call)) else {
            faults.same("silence", "open", text(case, "stream_end"));
            return;
        };
        let expected = match better {
            Some(better) => better_answer(&cases, &better.code, case),
            None => bytes(case, "response"),
        };
        let expected = expected.unwrap_or_default();
        if case["unordered_maps"].as_bool().unwrap_or_default() {
            faults.same(
                "answer",
                String::from_utf8_lossy(&in_map_order(&answer)),
                String::from_utf8_lossy(&in_map_order(&expected)),
            );
        } else {
            faults.same("answer", hex(&answer), hex(&expected));
        }
        // However the request is cut, the reader asks for no byte that is not its own.
        if let Served::More(count) = serve(&request[..request.len().min(3)], false, |_| unreachable!()) {
            faults.same("asks for too much", count + 3 <= request.len() || ended, true);
        }
    });
    family.run("client", |case, better, faults| {
        let request = bytes(case, "request").unwrap();
        let Reading::Call(call) = read_request(&request, true) else {
            faults.same("request", "not read", "a call");
            return;
        };
        faults.same("cid asked", call.cid(), text(case, "cid"));
        faults.same("request", hex(&encode_call(&call)), hex(&request));
        let Some(answer) = bytes(case, "response") else {
            return;
        };
        let read = read_reply(&call, &answer);
        let verdict = better.map_or(text(case, "verdict"), |better| &better.code);
        faults.same("verdict", if read.is_ok() { "ok" } else { "error" }, verdict);
        match read {
            Ok(reply) => check_reply(&call, reply, &case["result"], faults),
            Err(ClientError::Remote { status, .. }) => {
                faults.same("error", text(case, "error").ends_with(&status.to_string()), true);
            }
            Err(_) => {}
        }
    });
    family.finish();
}

fn check_reply(call: &Call, reply: Reply, expected: &Json, faults: &mut Faults) {
    match reply {
        Reply::Lookup(meta) => faults.same("cid", json!(meta.cid), expected.clone()),
        Reply::Pull(record) => faults.same("cid", json!(record.cid), expected.clone()),
        Reply::ListReferrers(list) => {
            let listed: Vec<Json> = list
                .referrers
                .iter()
                .map(|referrer| json!({"Cid": referrer.cid, "Type": referrer.kind}))
                .collect();
            let listed = if listed.is_empty() {
                Json::Null
            } else {
                json!(listed)
            };
            faults.same("list", listed, expected.clone());
        }
        Reply::PullReferrer(None) => faults.same("referrer", "<nil>", expected.as_str().unwrap_or_default()),
        Reply::PullReferrer(Some(referrer)) => {
            // The recorded text is that of a debugging printer, so its parts are looked for.
            let shown = expected.as_str().unwrap_or_default();
            let Referrer {
                kind,
                data,
                referrer_ref,
                ..
            } = *referrer;
            faults.same(
                "type",
                shown.contains(&format!("type:{kind:?}")),
                !kind.is_empty(),
            );
            faults.same("data", data.is_some(), shown.contains("data:"));
            let named = referrer_ref.map(|cid| format!("referrer_ref:{{cid:{cid:?}}}"));
            faults.same(
                "referrer_ref",
                named.is_none_or(|named| shown.contains(&named)),
                true,
            );
            assert!(matches!(call, Call::PullReferrer { .. }));
        }
    }
}

fn type_name(kind: MessageType) -> String {
    match kind {
        MessageType::PutValue => "PUT_VALUE".to_owned(),
        MessageType::GetValue => "GET_VALUE".to_owned(),
        MessageType::AddProvider => "ADD_PROVIDER".to_owned(),
        MessageType::GetProviders => "GET_PROVIDERS".to_owned(),
        MessageType::FindNode => "FIND_NODE".to_owned(),
        MessageType::Ping => "PING".to_owned(),
        MessageType::Other(number) => number.to_string(),
    }
}

/// Compares a message with what the reference made of the same bytes.
fn same_message(what: &str, message: &Message, expected: &Json, faults: &mut Faults) {
    faults.same(what, type_name(message.kind).as_str(), text(expected, "type"));
    faults.same(what, hex(&message.key).as_str(), text(expected, "key_hex"));
    for (list, peers) in [
        ("closerPeers", &message.closer),
        ("providerPeers", &message.providers),
    ] {
        let listed = expected[list].as_array().cloned().unwrap_or_default();
        faults.same(what, peers.len(), listed.len());
        for (peer, expected) in peers.iter().zip(&listed) {
            let id = peer.peer_id().map(|peer| peer.to_base58());
            faults.same(what, id.as_deref(), expected["id"].as_str());
            let addresses = expected["addrs"].as_array().cloned().unwrap_or_default();
            faults.same(what, peer.addresses.len(), addresses.len());
            for (raw, address) in peer.addresses.iter().zip(&addresses) {
                faults.same(what, hex(raw).as_str(), text(address, "hex"));
                faults.same(
                    what,
                    RawAddr::read(raw).to_text().as_deref(),
                    address["text"].as_str(),
                );
            }
        }
    }
}

fn read_message(stream: &[u8]) -> Option<Message> {
    match frame(stream, kad::MAX_MESSAGE_BYTES) {
        Frame::Whole(message, _) => Message::read(message).ok(),
        _ => None,
    }
}

#[test]
fn dht_keys_and_messages_are_read_and_judged_as_recorded() {
    let Some(mut family) = Family::load("dht") else {
        return;
    };
    family.run("key", |case, _, faults| {
        let key = match RecordCid::parse(text(case, "cid")) {
            Some(cid) => {
                let key = kad::provider_key(&cid);
                faults.same("record of the key", kad::record_of_key(&key), Some(cid));
                key.to_vec()
            }
            None => {
                let digest = kad::key_space_point(text(case, "text").as_bytes());
                let key = [&[0x12, 0x20][..], &digest].concat();
                faults.same("record of the key", kad::record_of_key(&key), None);
                key
            }
        };
        faults.same("key", hex(&key).as_str(), text(case, "provider_key_hex"));
        if let Some(point) = case["kad_id_hex"].as_str() {
            faults.same("point", hex(&kad::key_space_point(&key)).as_str(), point);
        }
    });
    family.run("request", |case, better, faults| {
        let request = bytes(case, "request").unwrap();
        if let (Some(message), Some(expected)) = (read_message(&request), case.get("request")) {
            same_message("request", &message, expected, faults);
        }
        if let (Some(message), Some(expected)) = (
            bytes(case, "response").and_then(|response| read_message(&response)),
            case.get("response"),
        ) {
            same_message("response", &message, expected, faults);
        }
        let sender = parse_peer_id(text(case, "sender")).unwrap();
        let verdict = kad::judge_frame(&request, &sender).unwrap();
        let seen = matches!(&verdict, Verdict::TakenSilently { record: Some(_), .. });
        let said = match verdict {
            Verdict::Answered => "answered",
            Verdict::TakenSilently { .. } => "taken silently",
            Verdict::Refused(_) => "refused",
        };
        let expected_seen = case["announcement_seen_by_directory"]
            .as_bool()
            .unwrap_or_default();
        match better.map(|better| better.code.as_str()) {
            None => {
                faults.same("verdict", said, text(case, "verdict"));
                faults.same("seen by the directory", seen, expected_seen);
            }
            Some("not seen") => {
                faults.same("verdict", said, text(case, "verdict"));
                faults.same("seen by the directory", seen, false);
            }
            Some(code) => faults.same("verdict", said, code),
        }
    });
    family.run("recorded", |case, _, faults| {
        let request = bytes(case, "request").unwrap();
        let message = read_message(&request).unwrap();
        same_message("request", &message, &case["request"], faults);
        faults.same("bytes again", hex(&message.to_frame()), hex(&request));
    });
    family.finish();
}

#[test]
fn label_keys_are_built_and_checked_as_recorded() {
    let Some(mut family) = Family::load("label_keys") else {
        return;
    };
    family.run("build", |case, _, faults| {
        let (label, cid, peer) = (text(case, "label"), text(case, "cid"), text(case, "peer"));
        faults.same("joined", join(label, cid, peer).as_str(), text(case, "joined"));
        let key = stored(label, cid, peer);
        faults.same("stored key", key.as_str(), text(case, "stored_key"));
        faults.same(
            "in a namespace",
            Some(in_namespace(&key)),
            case["in_label_namespace"].as_bool(),
        );
        let read = LabelKey::parse(&key).map_or(
            Json::Null,
            |key| json!({"label": key.label, "cid": key.cid, "peer": key.peer}),
        );
        faults.same("read back", &read, &case["reparsed"]);
    });
    family.run("put_value_check", |case, _, faults| {
        let verdict = check_value(text(case, "key"), text(case, "value").as_bytes());
        faults.same(
            "verdict",
            if verdict.is_ok() { "accept" } else { "refuse" },
            text(case, "verdict"),
        );
    });
    family.finish();
}

fn shown(raw: &[Vec<u8>]) -> Json {
    let addresses: Vec<Json> = raw
        .iter()
        .map(|raw| json!({"hex": hex(raw), "text": RawAddr::read(raw).to_text()}))
        .collect();
    json!(addresses)
}

#[test]
fn identify_messages_are_read_as_recorded() {
    let Some(mut family) = Family::load("identify") else {
        return;
    };
    family.run("answer", |case, _, faults| {
        let stream = bytes(case, "frame").unwrap();
        let Frame::Whole(message, []) = frame(&stream, 8192) else {
            panic!("one whole frame");
        };
        let message = IdentifyMessage::read(message).unwrap();
        let expected = &case["decoded"];
        let as_text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap_or_default()).unwrap();
        faults.same(
            "agent",
            as_text(&message.agent_version).as_str(),
            text(expected, "agentVersion"),
        );
        faults.same(
            "version",
            as_text(&message.protocol_version).as_str(),
            text(expected, "protocolVersion"),
        );
        faults.same(
            "listen addresses",
            &shown(&message.listen_addresses),
            &expected["listenAddrs"],
        );
        let observed: Vec<Vec<u8>> = message.observed_address.iter().cloned().collect();
        faults.same("observed address", &shown(&observed), &expected["observedAddr"]);
        let protocols: Vec<String> = message
            .protocols
            .iter()
            .map(|name| String::from_utf8(name.clone()).unwrap())
            .collect();
        faults.same("protocols", &json!(protocols), &expected["protocols"]);
        faults.same("public key", message.public_key, bytes(expected, "publicKey"));

        let expected = &expected["signedPeerRecord"];
        let envelope = message.signed_peer_record.unwrap();
        faults.same(
            "envelope",
            hex(&envelope).as_str(),
            text(expected, "envelope_hex"),
        );
        let record = SignedPeerRecord::open(&envelope).unwrap();
        faults.same(
            "signer",
            record.peer.to_base58().as_str(),
            text(expected, "peer_id"),
        );
        faults.same(
            "sequence",
            record.sequence.to_string().as_str(),
            text(expected, "seq"),
        );
        faults.same("signed addresses", &shown(&record.addresses), &expected["addrs"]);
        faults.same("domain", text(expected, "domain"), "libp2p-peer-record");
        faults.same(
            "payload type",
            unhex(text(expected, "payload_type_hex")),
            vec![3, 1],
        );
        let own: Vec<&str> = ["/dir/", "/oci/"]
            .into_iter()
            .filter(|head| {
                let found = record
                    .addresses
                    .iter()
                    .filter_map(|raw| RawAddr::read(raw).to_text());
                found.into_iter().any(|text| text.starts_with(head))
            })
            .collect();
        faults.same("private addresses", own, vec!["/dir/", "/oci/"]);
    });
    family.finish();
}
