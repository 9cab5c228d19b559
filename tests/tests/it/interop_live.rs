//! The wire vectors over a real connection: the pair of peers they are tried on, the tally, and the cases that end
//! otherwise here. A Go peer with the sender's key writes each input to a node of ours, and what comes back is compared.
//! `vectors/p2p/README.md` tells the fields.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dirnode_network::{Config, Library};
use dirnode_tests::go_peer::{GoPeer, Options, Raw, RawAnswer};
use dirnode_tests::p2p::{bytes, text};
use dirnode_tests::vectors::cases;
use dirnode_tests::wait::eventually;

use crate::interop_node::{Node, SOON};

/// A pause that means that nothing more comes.
pub const QUIET: Duration = Duration::from_millis(400);

/// Cases with another outcome here: file, name, outcome, reason. `docs/differences.md` tells them too.
const DIFFERENT: &[(&str, &str, &str, &str)] = &[
    (
        "negotiation",
        "kad-pipelined-ping",
        "no answer",
        "PING is not answered; no node of the network sends it",
    ),
    (
        "negotiation",
        "kad-with-slash-then-without",
        "no answer",
        "the same",
    ),
    (
        "negotiation",
        "ls",
        "listed",
        "the list is given, as multistream-select describes it",
    ),
    (
        "negotiation",
        "no-header",
        "over",
        "the header need not be sent when there is no answer to follow it",
    ),
    ("negotiation", "old-header", "over", "the same"),
    ("negotiation", "no-newline", "over", "the same"),
    ("negotiation", "too-long", "over", "the same"),
    (
        "negotiation",
        "empty-name",
        "over",
        "a name without a letter is malformed, and so is the stream",
    ),
    ("dht", "find-node-empty-key", "answered", "with nothing in it"),
    (
        "dht",
        "get-providers-81-byte-key",
        "answered",
        "with nothing in it: no such key is ever kept",
    ),
    (
        "dht",
        "ping",
        "no answer",
        "PING is not answered; no node of the network sends it",
    ),
    (
        "dht",
        "get-providers-after-add",
        "answered",
        "a peer is not told of itself; the other peers are",
    ),
    (
        "dht",
        "add-provider-no-address",
        "taken silently",
        "kept: the sender is connected, and its addresses are known from there",
    ),
    (
        "dht",
        "add-provider-bad-address",
        "taken silently",
        "kept: the sender is connected, and its addresses are known from there",
    ),
    (
        "dht",
        "add-provider-other-peer",
        "not kept",
        "dropped without a reset",
    ),
    (
        "dht",
        "add-provider-empty-key",
        "not kept",
        "dropped without a reset",
    ),
    (
        "dht",
        "put-value-skill",
        "answered",
        "the sender gets its echo; nobody may store values, so nothing is kept",
    ),
    ("dht", "put-value-locator", "answered", "the same"),
    ("dht", "put-value-pk", "answered", "the same"),
    ("dht", "put-value-key-mismatch", "answered", "the same"),
    ("dht", "put-value-no-record", "answered", "the same"),
    (
        "dht",
        "empty-frame",
        "answered",
        "the same: an empty message is PUT_VALUE without a key",
    ),
    ("dht", "get-value-after-put", "no value", "none was stored"),
    ("dht", "get-value-empty-key", "no value", "none was stored"),
    (
        "gossip_rpc",
        "seqno-missing",
        "nothing",
        "strict signing asks for a sequence number; no node of the network leaves it out",
    ),
    (
        "gossip_rpc",
        "seqno-4-bytes",
        "nothing",
        "strict signing asks for eight bytes; no node of the network sends fewer",
    ),
    (
        "gossip_rpc",
        "unknown-field-signed",
        "nothing",
        "unknown fields are not kept, so their signature does not verify",
    ),
    (
        "rpc",
        "lookup-bad-cid",
        "InvalidArgument",
        "what is no CID is the caller's fault",
    ),
    (
        "rpc",
        "pull-referrer-nil-referrer",
        "InvalidArgument",
        "the reference dies of this request",
    ),
    (
        "rpc",
        "lookup-half-close",
        "ok",
        "a half-close takes nothing away; the answer is the true one",
    ),
];

/// The outcome that is right here, where it is another one.
pub fn different(file: &str, name: &str) -> Option<&'static str> {
    DIFFERENT
        .iter()
        .find(|(in_file, case, ..)| *in_file == file && *case == name)
        .map(|(_, _, outcome, _)| *outcome)
}

/// Right, wrong and excepted cases of one family.
#[derive(Default)]
pub struct Tally {
    right: usize,
    excepted: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts a case.
    pub fn take(&mut self, file: &str, name: &str, outcome: Result<(), String>) {
        match outcome {
            Err(problem) => self.wrong.push(format!("{file}/{name}: {problem}")),
            Ok(()) if different(file, name).is_some() => self.excepted += 1,
            Ok(()) => self.right += 1,
        }
    }

    /// Says the figures, and fails when a case was wrong.
    pub fn finish(self, file: &str) {
        println!(
            "vectors/p2p/{file}, live: {} right, {} wrong, {} excepted",
            self.right,
            self.wrong.len(),
            self.excepted
        );
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(self.right > 0, "something was compared");
    }
}
/// The key in the file of a case of `identity.jsonl`, as the file has it.
fn key_file(name: &str) -> Option<Vec<u8>> {
    let identities = cases("p2p/identity.jsonl")?;
    let case = identities.into_iter().find(|case| text(case, "name") == name)?;
    bytes(&case, "file")
}

/// A node with the key of the receiver (`init-1`) and a Go peer with that of the sender (`init-4`). `None` where there are
/// no vectors or no Go. The node answers out of `library`, if one is given, or out of its own empty shelf.
pub async fn strangers(
    options: Options,
    config: Config,
    library: Option<Arc<dyn Library>>,
) -> Option<(Node, GoPeer, tempfile::TempDir)> {
    let (ours, theirs) = (key_file("init-1")?, key_file("init-4")?);
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, theirs).unwrap();
    let go = GoPeer::start(options.key(&key)).await?;
    let key = dirnode_identity::from_bytes(&ours).unwrap();
    let node = match library {
        Some(library) => Node::start_serving(&key, config, Arc::default(), library),
        None => Node::start_as(&key, config),
    };
    Some((node, go, folder))
}

/// The two, connected and known to one another.
pub async fn pair(
    options: Options,
    library: Option<Arc<dyn Library>>,
) -> Option<(Node, GoPeer, tempfile::TempDir)> {
    let (node, go, folder) = strangers(options, Node::config(), library).await?;
    if !go.speaks_gossip() {
        // A peer without any of these names would be taken for one that cannot gossip at all.
        for name in ["/meshsub/1.3.0", "/meshsub/1.1.0"] {
            go.stand_still_on(name).await;
        }
    }
    go.connect(&node.address("tcp").await).await.unwrap();
    node.peer(go.id(), |view| view.in_table.then_some(())).await;
    Some((node, go, folder))
}

/// Writes on a fresh stream; connects again first where an earlier case cost the connection.
pub async fn write(node: &Node, go: &GoPeer, raw: Raw<'_>) -> RawAnswer {
    let address = node.address("tcp").await;
    eventually(SOON, || async {
        if !go.connected().await.contains(&node.id()) {
            go.connect(&address).await?;
        }
        go.raw(&node.id(), raw.clone()).await
    })
    .await
}

/// The page and the list are for two kinds of readers and must say the same.
#[test]
fn every_live_case_with_another_outcome_is_told_on_the_page() {
    let page = std::fs::read_to_string(dirnode_tests::repository().join("docs/differences.md")).unwrap();
    let (_, live) = page.split_once("## Wire cases over a live connection").unwrap();
    let told: BTreeSet<(&str, &str)> = live
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split("; "))
        .filter_map(|group| group.split_once(": "))
        .flat_map(|(file, names)| names.split(", ").map(move |name| (file, name)))
        .map(|(file, name)| (file.trim_matches('`'), name.trim_matches('`')))
        .collect();
    let listed: BTreeSet<(&str, &str)> = DIFFERENT.iter().map(|(file, name, ..)| (*file, *name)).collect();
    assert_eq!(told, listed);
}
