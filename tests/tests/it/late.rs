//! Who comes late, or comes back, knows what the others know within seconds; who tells too much, or nonsense, is left
//! aside. And many nodes find everything that all of them publish.
//!
//! `DIRNODE_MANY_NODES` (10) and `DIRNODE_MANY_RECORDS` (200 in all) make the last one smaller or larger. Its nodes have just
//! started, so part of the announcements reaches a part of the mesh only; the rest comes by the exchanges after joining.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dirnode_network::config::CATCH_UP_PROTOCOL;
use dirnode_routing::catchup::codec::encode_reply;
use dirnode_routing::catchup::{AuthorSummary, Reply};
use dirnode_routing::{PeerId, Timestamp};
use dirnode_tests::go_peer::{GoPeer, Options};
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::wait::eventually;
use serde_json::json;

use crate::common::{PUBLISH, PUSH, UNPUBLISH, cid_of, sample};
use crate::publish::refs;

const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
/// As long as something may take on a machine that does other things as well.
const DEADLINE: Duration = Duration::from_secs(240);

/// Publishes so many records that nobody else has; gives their CIDs.
async fn published(node: &TestNode, name: &str, count: usize) -> Vec<String> {
    let bodies: Vec<_> = (0..count)
        .map(|number| sample(&format!("{name}.{number}")))
        .collect();
    let cids: Vec<String> = node
        .client
        .ask(PUSH, &bodies)
        .await
        .unwrap()
        .iter()
        .map(cid_of)
        .collect();
    node.client.ask(PUBLISH, &[refs(&cids)]).await.unwrap();
    cids
}

/// Waits until a search for everything finds these and nothing else.
async fn finds_exactly<'a>(node: &TestNode, cids: impl IntoIterator<Item = &'a String>) {
    let wanted: BTreeSet<String> = cids.into_iter().cloned().collect();
    let everything = json!({ "queries": [{ "type": "RECORD_QUERY_TYPE_UNSPECIFIED", "value": "" }] });
    eventually(DEADLINE, || async {
        let hits = node.client.ask(SEARCH, std::slice::from_ref(&everything)).await;
        let hits = hits.map_err(|(_, text)| text)?;
        let found: BTreeSet<String> = hits.iter().map(|hit| cid_of(&hit["record_ref"])).collect();
        let (missing, surplus) = (
            wanted.difference(&found).count(),
            found.difference(&wanted).count(),
        );
        (missing + surplus == 0).then_some(()).ok_or_else(|| {
            format!(
                "{missing} of {} are missing, {surplus} are too many",
                wanted.len()
            )
        })
    })
    .await;
}

/// Nothing of this is announced while it is there, so that all of it comes by catching up.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_knows_what_came_and_what_went() {
    let one = Setup::default().start().await;
    let two = Setup::default().joining(&one).await.start().await;
    let first = published(&two, "first", 40).await;
    finds_exactly(&one, &first).await;

    let folder = tempfile::tempdir().unwrap();
    let late = Setup::default().joining(&one).await.with_metrics();
    let node = late.start_in(folder.path()).await;
    finds_exactly(&node, &first).await;
    assert!(node.routing_figure("catchups_done").await >= 1.0);
    assert_eq!(
        node.routing_figure("accepted").await,
        0.0,
        "nothing was announced to it"
    );
    node.stop().await;

    let second = published(&two, "second", 10).await;
    let (gone, kept) = first.split_at(8);
    two.client.ask(UNPUBLISH, &[refs(gone)]).await.unwrap();
    let now: Vec<&String> = kept.iter().chain(&second).collect();
    finds_exactly(&one, now.iter().copied()).await;

    back(&late, folder.path(), &now).await;
    // And from its own folder, when the publisher is there no more and only the hub can tell.
    two.stop().await;
    back(&late, folder.path(), &now).await;
}

async fn back(late: &Setup, folder: &Path, now: &[&String]) {
    let node = late.start_in(folder).await;
    finds_exactly(&node, now.iter().copied()).await;
    node.stop().await;
}

/// Answers of the catch-up exchange that no node of ours would give, each with whether it shows bad will.
fn bad_answers() -> Vec<(&'static str, Vec<u8>, bool)> {
    let framed = |page: &[u8]| {
        let mut bytes = vec![0];
        let mut length = page.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes.extend_from_slice(page);
        bytes
    };
    let circular = Reply::Summary {
        authors: vec![AuthorSummary {
            author: PeerId::from_bytes(&[1; 38]).unwrap(),
            rows: u64::MAX,
            newest: Timestamp::from_nanos(i64::MAX),
            digest: 7,
        }],
        more: true,
    };
    vec![
        (
            "a length without end",
            vec![0, 0xff, 0xff, 0xff, 0xff, 0xff],
            false,
        ),
        (
            "a length above the limit",
            [&[0, 0xff, 0xff, 0xff, 0x7f][..], &[7; 4096]].concat(),
            false,
        ),
        ("a page above the limit", framed(&[7; 300_000]), false),
        ("a page cut off", vec![0, 0x40, 1, 2, 3], false),
        ("no page", framed(b"{}"), true),
        ("an empty page", framed(&[]), true),
        (
            "a summary that goes in circles",
            framed(&encode_reply(&circular)),
            true,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_a_peer_that_answers_nonsense_does_not_keep_us_from_catching_up() {
    let honest = Setup::default().start().await;
    let cids = published(&honest, "honest", 10).await;
    for (what, bytes, bad_will) in bad_answers() {
        let Some(go) = GoPeer::start(Options::new()).await else {
            return;
        };
        // The limit of the command is how long it reads before it answers.
        let answer = json!({ "protocol": CATCH_UP_PROTOCOL.as_ref(), "reply_b64": BASE64.encode(&bytes) });
        go.ask_within("handle_raw", answer, Duration::from_millis(100))
            .await
            .unwrap();
        let node = Setup::default().with_metrics().start().await;
        go.connect(&node.peer_addresses().await[0]).await.unwrap();
        eventually(DEADLINE, || async {
            let failed = node.routing_figure("catchup_failures").await;
            (failed >= 1.0)
                .then_some(())
                .ok_or_else(|| format!("{what}: no exchange has failed"))
        })
        .await;
        let address = honest.peer_addresses().await[0].parse().unwrap();
        node.network().connect(address).await.unwrap();
        finds_exactly(&node, &cids).await;
        let peers = node.network().peers().await.unwrap();
        let score = peers
            .iter()
            .find(|view| view.peer.to_string() == go.id())
            .and_then(|view| view.score);
        assert_eq!(
            score.is_some_and(|score| score < 0.0),
            bad_will,
            "{what}: {score:?}"
        );
        println!("{what}: left aside");
        node.stop().await;
    }
}

fn size(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_nodes_publish_is_found_on_all_of_them() {
    let (count, records) = (size("DIRNODE_MANY_NODES", 10), size("DIRNODE_MANY_RECORDS", 200));
    let first = Setup::default().start().await;
    let join = Setup::default().joining(&first).await;
    let others = futures_util::future::join_all((1..count).map(|_| join.start())).await;
    let nodes: Vec<TestNode> = std::iter::once(first).chain(others).collect();
    let shares = nodes.iter().enumerate().map(|(place, node)| async move {
        // The first ones take what does not divide evenly.
        let share = records / count + usize::from(place < records % count);
        published(node, &format!("n{place}"), share).await
    });
    let cids = futures_util::future::join_all(shares).await;
    for (place, node) in nodes.iter().enumerate() {
        let of_others = cids.iter().enumerate().filter(|(other, _)| *other != place);
        finds_exactly(node, of_others.flat_map(|(_, cids)| cids)).await;
    }
    println!("{records}/{records} records of {count} nodes are found on all of them");
    futures_util::future::join_all(nodes.into_iter().map(TestNode::stop)).await;
}
