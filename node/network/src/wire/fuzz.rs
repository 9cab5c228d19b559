//! The readers of this room as plain functions of bytes, for the fuzzer and for the test that replays its seeds.
//!
//! Each asserts what must hold for any input; none is used by the node.

use libp2p::PeerId;

use super::announcement::{Announcement, MAX_LABELS, Payload};
use super::rpc::{Call, Served, Status, read_reply, serve};
use super::{RawAddr, gossip, identify, kad, protobuf};

/// Addresses: one that is known has a text, and its endpoints are never empty.
pub fn address(data: &[u8]) {
    let read = RawAddr::read(data);
    assert!(
        read.is_known() == read.to_text().is_some(),
        "what is known has a text"
    );
    for endpoint in read.endpoints() {
        assert!(!endpoint.value.is_empty(), "an endpoint has a value");
    }
}

/// Announcements: what we admit is bounded, and a claim is one that the reference takes too.
pub fn announcement(data: &[u8]) {
    let Ok(admitted) = Announcement::admit(data) else {
        return;
    };
    if let Announcement::Claim { labels, .. } = admitted.announcement {
        assert!(
            (1..=MAX_LABELS).contains(&labels.len()),
            "a claim has labels, and not too many"
        );
        assert!(
            Payload::read(data).is_ok_and(|payload| payload.check().is_ok()),
            "we are stricter than the reference"
        );
    }
}

/// RPC requests and replies: every request gets an answer, and any bytes a verdict.
pub fn rpc(data: &[u8]) {
    let served = serve(data, true, |call| Err(Status::record_not_found(call.cid())));
    assert!(
        matches!(served, Served::Answer(answer) if !answer.is_empty()),
        "a request that has ended is answered"
    );
    let cid = String::new();
    for call in [
        Call::Lookup { cid: cid.clone() },
        Call::Pull { cid: cid.clone() },
        Call::ListReferrers { cid: cid.clone() },
        Call::PullReferrer {
            cid,
            referrer: super::rpc::ReferrerDescriptor::default(),
        },
    ] {
        // Any outcome is right but a panic.
        let _ = read_reply(&call, data);
    }
}

/// Protobuf messages of the DHT, of gossip and of identify: what is read can be written and read again.
pub fn messages(data: &[u8]) {
    if let Ok(message) = kad::Message::read(data) {
        assert!(
            kad::Message::read(&message.to_bytes()) == Ok(message),
            "a message reads back"
        );
    }
    if let Ok(message) = gossip::PublishedMessage::read(data) {
        assert!(
            gossip::PublishedMessage::read(&message.to_bytes()) == Ok(message),
            "a message reads back"
        );
    }
    let _ = identify::IdentifyMessage::read(data);
    let _ = identify::SignedPeerRecord::open(data);
    let _ = gossip::read_frame(data);
    if let Some(sender) = nobody() {
        let _ = kad::judge_frame(data, &sender);
    }
    let _ = protobuf::Fields::of(data).count();
}

fn nobody() -> Option<PeerId> {
    PeerId::from_bytes(&[0x00, 0x00]).ok()
}
