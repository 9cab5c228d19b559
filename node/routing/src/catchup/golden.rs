//! One message of each kind, byte for byte: what is on the wire between two releases.

use dirnode_record::{Label, Namespace, RecordCid};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn check_request(request: &Request, expected: &str) {
    let bytes = encode_request(request);
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode_request(&bytes).as_ref(), Ok(request));
}

fn check_reply(reply: &Reply, expected: &str) {
    let bytes = encode_reply(reply);
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode_reply(&bytes).as_ref(), Ok(reply));
}

fn peer() -> PeerId {
    PeerId::from_bytes(&[0, 0x24, 8, 1]).unwrap()
}

const CID: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

#[test]
fn requests() {
    check_request(&Request::Summary { after: None }, "010100");
    check_request(&Request::Summary { after: Some(peer()) }, "0101010400240801");
    let cursor = Cursor {
        author: peer(),
        since: Timestamp::from_nanos(0x0102_0304_0506_0708),
        after: RecordCid::of(b"{}"),
    };
    check_request(
        &Request::Rows {
            cursors: vec![cursor],
        },
        &format!("0102010400240801{}{CID}", "0102030405060708"),
    );
}

#[test]
fn replies() {
    let author = AuthorSummary {
        author: peer(),
        rows: 300,
        newest: Timestamp::from_nanos(-2),
        digest: 0x1122_3344_5566_7788,
    };
    check_reply(
        &Reply::Summary {
            authors: vec![author],
            more: true,
        },
        "010101010400240801ac02fffffffffffffffe1122334455667788",
    );
    let row = |withdrawn, labels| Row {
        cid: RecordCid::of(b"{}"),
        timestamp: Timestamp::from_nanos(1),
        withdrawn,
        labels,
    };
    let sections = vec![Section {
        cursor: 5,
        complete: true,
        rows: vec![
            row(false, vec![Label::new(Namespace::Skills, "nlp")]),
            row(true, Vec::new()),
        ],
    }];
    check_reply(
        &Reply::Rows {
            sections,
            authors: Vec::new(),
        },
        &format!(
            "010201050102{CID}000000000000000100010b{}{CID}000000000000000101",
            "2f736b696c6c732f6e6c70"
        ),
    );
    check_reply(&Reply::Busy { retry_seconds: 30 }, "01031e");
}
