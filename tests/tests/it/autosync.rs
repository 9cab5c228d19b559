//! Copies of what listed peers announce: whole, checked, validated, durable; and of nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::wire::announcement::encode_reference;
use dirnode_network::wire::timestamp::Timestamp;
use dirnode_network::{
    AnnounceOutcome, Config, Keypair, Library, LibraryError, Network, NetworkHandle, PeerId, Pulled,
    ReferrerDescriptor, ReferrerList, RpcCode, Runtime, Verdict,
};
use dirnode_record::{RecordCid, Referrer, read_struct, to_canonical};
use dirnode_server::runtime::since_epoch;
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::scrape;
use dirnode_tests::wait::eventually;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use serde_json::{Value as Json, json};

use crate::common::{PUBLISH, PULL, PUSH, cid_of, sample};
use crate::publish::refs;

const PUSH_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PushReferrer";
const PULL_REFERRER: &str = "/agntcy.dir.store.v1.StoreService/PullReferrer";
const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
const SIGNATURE: &str = "agntcy.dir.sign.v1.Signature";
/// As long as something that needs several nodes may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The file of a node that copies from one peer.
fn copying_from(peer: PeerId) -> String {
    format!("routing:\n  autosync:\n    enabled: true\n    peerlist:\n      - peer: {peer}\n")
}

async fn published(node: &TestNode, version: &str) -> RecordCid {
    let answers = node.client.ask(PUSH, &[sample(version)]).await.unwrap();
    let cid = cid_of(&answers[0]);
    publish(node, &cid).await;
    RecordCid::parse(&cid).unwrap()
}

async fn publish(node: &TestNode, cid: &str) {
    node.client
        .ask(PUBLISH, &[refs(&[cid.to_owned()])])
        .await
        .unwrap();
}

async fn sign(node: &TestNode, cid: RecordCid, signature: &str) {
    let referrer = json!({
        "record_ref": {"cid": cid.to_string()},
        "type": SIGNATURE,
        "data": {"signature": signature},
    });
    node.client.ask(PUSH_REFERRER, &[referrer]).await.unwrap();
}

/// The signatures of a record on a node, as their data say.
async fn signatures(node: &TestNode, cid: RecordCid) -> Vec<String> {
    let asked = json!({"record_ref": {"cid": cid.to_string()}});
    let answers = node.client.ask(PULL_REFERRER, &[asked]).await.unwrap();
    answers
        .iter()
        .filter_map(|answer| Some(answer["referrer"]["data"]["signature"].as_str()?.to_owned()))
        .collect()
}

async fn figure(node: &TestNode, name: &str) -> f64 {
    let address = node.node.metrics_address().unwrap().to_string();
    let page = scrape::get(&address, "/metrics", "text/plain").await;
    scrape::total(&page.body, &format!("dirnode_routing_{name}"))
}

/// Waits until a figure is there.
async fn reaches(node: &TestNode, name: &str, wanted: f64) {
    eventually(DEADLINE, || async {
        let now = figure(node, name).await;
        (now >= wanted)
            .then_some(())
            .ok_or_else(|| format!("{name} is {now}, not {wanted}"))
    })
    .await;
}

async fn holds(node: &TestNode, cid: RecordCid) {
    eventually(DEADLINE, || {
        let there = node.node.store().contains(cid);
        std::future::ready(there.then_some(()).ok_or_else(|| format!("{cid} is not here")))
    })
    .await;
}

async fn finds(node: &TestNode, cid: RecordCid) {
    let any = json!({"queries": [{"type": 0, "value": ""}]});
    eventually(DEADLINE, || async {
        let found = node.client.ask(SEARCH, std::slice::from_ref(&any)).await.unwrap();
        let there = found
            .iter()
            .any(|hit| cid_of(&hit["record_ref"]) == cid.to_string());
        there.then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_listed_peer_are_copied_with_their_referrers_and_nobody_else_s_are() {
    let listed = Setup::default().start().await;
    let unlisted = Setup::default().joining(&listed).await.start().await;
    let folder = tempfile::tempdir().unwrap();
    let copier = Setup::default()
        .file(&copying_from(listed.network().id()))
        .with_metrics()
        .joining(&listed)
        .await
        .start_in(folder.path())
        .await;

    let answers = listed.client.ask(PUSH, &[sample("v1")]).await.unwrap();
    let cid = RecordCid::parse(&cid_of(&answers[0])).unwrap();
    sign(&listed, cid, "Zmlyc3Q=").await;
    publish(&listed, &cid.to_string()).await;
    let others = published(&unlisted, "v2").await;

    holds(&copier, cid).await;
    reaches(&copier, "copied_referrers_total", 1.0).await;
    assert_eq!(signatures(&copier, cid).await, ["Zmlyc3Q="]);
    let asked = json!({"cid": cid.to_string()});
    let copy = copier
        .client
        .ask(PULL, std::slice::from_ref(&asked))
        .await
        .unwrap();
    assert_eq!(copy, listed.client.ask(PULL, &[asked]).await.unwrap());

    // It has heard of the other record as well, and did not even think of copying it.
    finds(&copier, others).await;
    assert!(!copier.node.store().contains(others));
    reaches(
        &copier,
        "syncs_done_total",
        figure(&copier, "syncs_queued_total").await,
    )
    .await;
    assert_eq!(figure(&copier, "copied_records_total").await, 1.0);

    // What was signed later comes with the next announcement of a record that is here already.
    sign(&listed, cid, "c2Vjb25k").await;
    publish(&listed, &cid.to_string()).await;
    reaches(&copier, "copied_referrers_total", 2.0).await;
    assert_eq!(figure(&copier, "copied_records_total").await, 1.0);
    assert_eq!(signatures(&copier, cid).await, ["Zmlyc3Q=", "c2Vjb25k"]);

    // A copy is not announced by whoever made it, and it stays.
    assert_eq!(copier.node.store().published_len(), 0);
    copier.stop().await;
    let copier = Setup::default().start_in(folder.path()).await;
    assert!(copier.node.store().contains(cid));
    assert_eq!(signatures(&copier, cid).await.len(), 2);
}

/// A peer that serves what a test tells it to, whatever it was asked for.
#[derive(Default)]
struct Shelf {
    records: BTreeMap<RecordCid, Vec<u8>>,
    referrers: BTreeMap<RecordCid, Vec<(ReferrerDescriptor, Referrer)>>,
}

fn missing<T: Send + 'static>(cid: RecordCid) -> BoxFuture<'static, Result<T, LibraryError>> {
    let error = LibraryError::new(RpcCode::NotFound, format!("record not found: {cid}"));
    std::future::ready(Err(error)).boxed()
}

fn given<T: Send + 'static>(answer: T) -> BoxFuture<'static, Result<T, LibraryError>> {
    std::future::ready(Ok(answer)).boxed()
}

impl Library for Shelf {
    fn lookup(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        if self.records.contains_key(&cid) {
            given(BTreeMap::new())
        } else {
            missing(cid)
        }
    }

    fn pull(&self, _: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        match self.records.get(&cid) {
            None => missing(cid),
            Some(data) => given(Pulled {
                data: Bytes::from(data.clone()),
                ..Pulled::default()
            }),
        }
    }

    fn list_referrers(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        let attached = self.referrers.get(&cid).cloned().unwrap_or_default();
        given(ReferrerList {
            referrers: attached.into_iter().map(|(descriptor, _)| descriptor).collect(),
            truncated: false,
        })
    }

    fn pull_referrer(
        &self,
        _: PeerId,
        cid: RecordCid,
        wanted: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        let attached = self.referrers.get(&cid).cloned().unwrap_or_default();
        let found = attached.into_iter().find(|(descriptor, _)| *descriptor == wanted);
        match found {
            None => missing(cid),
            Some((_, referrer)) => given(referrer),
        }
    }
}

/// Starts such a peer, in the network of `node`. It takes every announcement.
async fn peer(key: &Keypair, shelf: Shelf, node: &TestNode) -> NetworkHandle {
    let addresses = node.peer_addresses().await;
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        bootstrap: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ..Config::default()
    };
    let runtime = Runtime::system();
    let mut registry = Registry::default();
    let shelf: Arc<dyn Library> = Arc::new(shelf);
    let mut network = Network::start(config, key, Some(shelf), &mut registry, runtime.clone()).unwrap();
    (runtime.spawn)("network", network.task);
    let handle = network.handle.clone();
    let reader = async move {
        while let Some(event) = network.events.recv().await {
            if let dirnode_network::NetworkEvent::Announced(message) = event {
                // A network that is closing wants no verdict.
                let _ = handle.report(message.token, Verdict::Accept).await;
            }
        }
    };
    (runtime.spawn)("events", reader.boxed());
    network.handle
}

async fn announce(peer: &NetworkHandle, cid: RecordCid) {
    eventually(DEADLINE, || async {
        let now = Timestamp::from_unix_nanos(u64::try_from(since_epoch().as_nanos()).unwrap());
        let labels: [&[u8]; 1] = [b"/skills/language_processing"];
        let bytes = encode_reference(&cid.to_string(), &labels, now).unwrap();
        match peer.announce(Bytes::from(bytes)).await {
            Ok(AnnounceOutcome::Sent) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn canonical(record: &Json) -> Vec<u8> {
    let text = serde_json::to_vec(record).unwrap();
    to_canonical(&read_struct(&text).unwrap().unwrap()).unwrap()
}

fn signature(record: RecordCid, text: &str) -> Referrer {
    let data = serde_json::to_vec(&json!({"signature": text})).unwrap();
    Referrer {
        kind: SIGNATURE.to_owned(),
        record_cid: Some(record.to_string()),
        data: read_struct(&data).unwrap(),
        ..Referrer::default()
    }
}

fn descriptor(referrer: &Referrer) -> ReferrerDescriptor {
    ReferrerDescriptor {
        cid: referrer.cid().unwrap().to_string(),
        kind: referrer.kind.clone(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_peer_that_lies_leaves_nothing_behind() {
    let bodies = ["v1", "v2"].map(|version| canonical(&sample(version)["data"]));
    let good = RecordCid::of(&bodies[0]);
    let other_bytes = RecordCid::of(&bodies[1]);
    // It hashes to what is asked for, and no directory would take it.
    let nonsense = canonical(&json!({"name": "x", "schema_version": "1.1.0"}));
    let no_record = RecordCid::of(&nonsense);
    // A record, in bytes that would make another CID once they are canonical.
    let spaced = serde_json::to_vec_pretty(&sample("v3")["data"]).unwrap();
    let not_canonical = RecordCid::of(&spaced);

    let (honest, forged) = (signature(good, "aG9uZXN0"), signature(good, "Zm9yZ2Vk"));
    let elsewhere = signature(other_bytes, "ZWxzZXdoZXJl");
    let attached = vec![
        (descriptor(&honest), honest),
        // The CID of one document, the content of another; and a document about another record.
        (descriptor(&signature(good, "b3RoZXI=")), forged),
        (descriptor(&elsewhere), elsewhere),
    ];
    let shelf = Shelf {
        records: BTreeMap::from([
            (good, bodies[0].clone()),
            (other_bytes, bodies[0].clone()),
            (no_record, nonsense),
            (not_canonical, spaced),
        ]),
        referrers: BTreeMap::from([(good, attached)]),
    };
    let key = Keypair::generate_ed25519();
    let copier = Setup::default()
        .file(&copying_from(key.public().to_peer_id()))
        .with_metrics()
        .start()
        .await;
    let liar = peer(&key, shelf, &copier).await;

    for cid in [good, other_bytes, no_record, not_canonical] {
        announce(&liar, cid).await;
    }
    holds(&copier, good).await;
    reaches(&copier, "copied_referrers_refused_total", 2.0).await;
    assert_eq!(signatures(&copier, good).await, ["aG9uZXN0"]);

    reaches(&copier, "syncs_failed_total", 3.0).await;
    assert_eq!(figure(&copier, "sync_jobs").await, 0.0);
    let store = copier.node.store();
    assert_eq!(store.stats().records, 1, "what was good, and nothing else");
    copier.stop().await;
}
