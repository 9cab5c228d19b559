//! Whole nodes of ours and Go peers: what either side publishes, the other finds by its own search; what a Go peer says
//! falsely is found out; and what we take back does not disturb it.

use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_tests::go_peer::{GoPeer, Options};
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::wait::eventually;
use serde_json::{Value as Json, json};

use crate::common::{PUBLISH, PUSH, UNPUBLISH, cid_of, sample};

const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
const PROVIDERS: &str = "/agntcy.dir.routing.v1.RoutingService/GetProviderCount";
const PEERS: &str = "/dirnode.node.v1.NodeService/ListPeers";
/// As long as something may take on a machine that does other things as well.
const DEADLINE: Duration = Duration::from_secs(60);

fn refs(cid: &str) -> Json {
    json!({ "record_refs": { "refs": [{ "cid": cid }] } })
}

fn skill(value: &str) -> Json {
    json!({ "type": "RECORD_QUERY_TYPE_SKILL", "value": value })
}

async fn search(node: &TestNode, queries: &[Json]) -> Vec<Json> {
    let request = json!({ "queries": queries });
    node.client.ask(SEARCH, &[request]).await.unwrap()
}

/// The answer of a search that names `cid`, once `fits` takes it.
async fn finds(node: &TestNode, queries: &[Json], cid: &str, fits: impl Fn(&Json) -> bool) -> Json {
    eventually(DEADLINE, || async {
        let hits = search(node, queries).await;
        let hit = hits.iter().find(|hit| cid_of(&hit["record_ref"]) == cid);
        hit.filter(|hit| fits(hit))
            .cloned()
            .ok_or_else(|| format!("{cid} is not among {hits:?}"))
    })
    .await
}

/// Waits until a search does not name `cid`.
async fn forgets(node: &TestNode, queries: &[Json], cid: &str) {
    eventually(DEADLINE, || async {
        let hits = search(node, queries).await;
        let hit = hits.iter().find(|hit| cid_of(&hit["record_ref"]) == cid);
        hit.map_or(Ok(()), |hit| Err(format!("{hit}")))
    })
    .await;
}

/// Waits until a node thinks as little of a peer as that.
async fn falls_below(node: &TestNode, go: &GoPeer, wanted: f64) {
    eventually(DEADLINE, || async {
        let peers = node.client.ask(PEERS, &[json!({})]).await.unwrap();
        let peer = peers.iter().find(|peer| peer["peer_id"] == go.id());
        let score = peer.and_then(|peer| peer["score"].as_f64()).unwrap_or(0.0);
        (score < wanted).then_some(()).ok_or_else(|| format!("{peer:?}"))
    })
    .await;
}

async fn published(node: &TestNode, version: &str) -> String {
    let answers = node.client.ask(PUSH, &[sample(version)]).await.unwrap();
    let cid = cid_of(&answers[0]);
    node.client.ask(PUBLISH, &[refs(&cid)]).await.unwrap();
    cid
}

/// A node of ours and a Go peer that has joined it. `None` where there is no Go.
async fn pair(options: Options) -> Option<(TestNode, GoPeer)> {
    let node = Setup::default().with_metrics().start().await;
    let address = node.peer_addresses().await.remove(0);
    let go = GoPeer::start(options.bootstrap(&address)).await?;
    let here = node.network().id().to_string();
    eventually(DEADLINE, || async {
        let (table, topic) = (go.routing_table().await, topic_peers(&go).await);
        let there = table.contains(&here) && topic.is_none_or(|topic| topic.contains(&here));
        there.then_some(()).ok_or_else(|| format!("{table:?}"))
    })
    .await;
    Some((node, go))
}

async fn topic_peers(go: &GoPeer) -> Option<Vec<String>> {
    if go.speaks_gossip() {
        Some(go.topic_peers().await)
    } else {
        None
    }
}

/// A record that is nobody else's, with these skills; the name keeps it apart.
fn record(name: &str, skills: &[&str]) -> Json {
    let skills: Vec<Json> = skills
        .iter()
        .zip(1..)
        .map(|(name, id)| json!({"name": name, "id": id}))
        .collect();
    json!({"name": name, "version": "v1", "schema_version": "1.0.0", "skills": skills})
}

/// Announces until a search on `node` finds it: an announcement before the mesh stands goes nowhere.
async fn announced(go: &GoPeer, node: &TestNode, cid: &str, labels: &[&str], queries: &[Json]) -> Json {
    eventually(DEADLINE, || async {
        go.announce(cid, labels).await?;
        let hits = search(node, queries).await;
        let hit = hits.iter().find(|hit| cid_of(&hit["record_ref"]) == cid);
        hit.cloned().ok_or_else(|| format!("{cid} is not among {hits:?}"))
    })
    .await
}

/// The Go peer is connected to one of our nodes only; the other hears it through that one.
#[tokio::test(flavor = "multi_thread")]
async fn interop_labels_that_go_announces_are_found_by_every_node() {
    let options = Options::new()
        .directory("go.example.com:8888")
        .oci("ghcr.io/go/records");
    let Some((near, go)) = pair(options).await else {
        return;
    };
    let far = Setup::default().joining(&near).await.start().await;
    let mut truthful = record("announced", &["nlp/summarization"]);
    truthful["domains"] = json!([{ "name": "finance/banking", "id": 1 }]);
    let cid = go.serve_record(&truthful, &json!({})).await;
    let labels = ["/skills/nlp/summarization", "/domains/finance/banking"];
    let queries = [
        skill("nlp"),
        json!({ "type": "RECORD_QUERY_TYPE_DOMAIN", "value": "finance/banking" }),
        skill("vision"),
    ];
    announced(&go, &near, &cid, &labels, &queries).await;
    for node in [&near, &far] {
        let hit = finds(node, &queries, &cid, |hit| hit["match_score"] == 2).await;
        assert_eq!(hit["peer"]["id"], go.id(), "{hit}");
        assert_eq!(hit["match_queries"], json!(queries[..2]), "{hit}");
        // A value is matched by its parts, not by its letters.
        assert!(search(node, &[skill("nl")]).await.is_empty());
        let count = node.client.ask(PROVIDERS, &[json!({ "cid": cid })]).await;
        assert_eq!(count.unwrap(), [json!({ "count": 1 })]);
    }
    // Where its directory is, the node that it told knows at once.
    let endpoints = json!(["/dir/go.example.com:8888", "/oci/ghcr.io/go/records"]);
    finds(&near, &queries, &cid, |hit| hit["peer"]["addrs"] == endpoints).await;
}

/// One Go peer hears us by gossip; the other has no gossip, sees our provider record and pulls the record from us.
#[tokio::test(flavor = "multi_thread")]
async fn interop_what_we_publish_is_found_by_go() {
    for (name, options) in [
        ("gossip", Options::new().cache()),
        ("provider record", Options::new().cache().no_gossip()),
    ] {
        let gossips = name == "gossip";
        let Some((node, go)) = pair(options).await else {
            return;
        };
        let cid = published(&node, "v1").await;
        let here = node.network().id().to_string();
        eventually(DEADLINE, || async {
            for (kind, value) in [
                ("skill", "language_processing"),
                ("domain", "transportation/logistics"),
                ("module", "integration/mcp"),
                ("locator", "container_image"),
            ] {
                let found = go.search(kind, value).await?;
                if found != [(cid.clone(), here.clone())] {
                    return Err(format!("{name}: {kind} {value} finds {found:?}"));
                }
            }
            Ok(())
        })
        .await;
        assert!(go.search("skill", "language").await.unwrap().is_empty());
        // By either way it learns the same.
        let learned = go
            .events()
            .iter()
            .filter(|event| event["event"] == "learned")
            .count();
        assert_eq!(learned, usize::from(!gossips), "{name}");
        // Whoever found it can have it.
        let pulled = go.must("pull", json!({ "peer": here, "cid": cid })).await;
        assert_eq!(pulled["matches"], true, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interop_a_bare_provider_record_leads_to_a_fetch_and_to_labels() {
    let Some((node, go)) = pair(Options::new().no_gossip()).await else {
        return;
    };
    let cid = go
        .serve_record(&record("silent", &["vision/ocr", "vision/depth"]), &json!({}))
        .await;
    go.provide(&cid).await.unwrap();
    let queries = [skill("vision/ocr"), skill("vision/depth")];
    let hit = finds(&node, &queries, &cid, |hit| hit["match_score"] == 2).await;
    assert_eq!(hit["peer"]["id"], go.id());
    let here = node.network().id().to_string();
    let asked = go
        .event("rpc_request", |event| {
            (event["method"] == "Pull").then(|| event["peer"].clone())
        })
        .await;
    assert_eq!(asked, here.as_str());
    assert_eq!(node.routing_figure("claims_verified").await, 1.0);
    // The next provider record says nothing new, and nothing is fetched again.
    let fetches = node.routing_figure("fetches").await;
    go.provide(&cid).await.unwrap();
    eventually(DEADLINE, || async {
        let seen = node.routing_figure("sightings").await;
        (seen >= 2.0).then_some(()).ok_or_else(|| format!("{seen} seen"))
    })
    .await;
    assert_eq!(node.routing_figure("fetches").await, fetches);
    // Without gossip and without a fetch nothing would be known: a key that is no record's is nobody's.
    go.ask(
        "provide",
        json!({ "key": "1220ccaaeb898d0dd2d458aa14e7cc3dd479bb3ed0c904f8995d5dafc7fade76304a" }),
    )
    .await
    .unwrap();
    assert_eq!(search(&node, &[json!({})]).await.len(), 1);
}

/// Bytes that do not hash to their name lead to no labels, and cost the peer that served them.
#[tokio::test(flavor = "multi_thread")]
async fn interop_a_peer_that_serves_other_bytes_is_not_believed() {
    let Some((node, go)) = pair(Options::new()).await else {
        return;
    };
    let name = RecordCid::of(b"what was asked for").to_string();
    // {"skills":[{"name":"x/y"}]} under the name of something else.
    let data = "eyJza2lsbHMiOlt7Im5hbWUiOiJ4L3kifV19";
    go.must("serve_raw", json!({ "data_b64": data, "cid": name }))
        .await;
    go.provide(&name).await.unwrap();
    eventually(DEADLINE, || async {
        let failed = node.routing_figure("fetch_failures").await;
        (failed >= 1.0)
            .then_some(())
            .ok_or_else(|| format!("{failed} failed"))
    })
    .await;
    assert!(search(&node, &[json!({})]).await.is_empty());
    falls_below(&node, &go, -10.0).await;

    // It is still heard. A claim about it is shown until somebody has looked; to be shown makes the node look.
    let other = RecordCid::of(b"what was announced").to_string();
    go.must("serve_raw", json!({ "data_b64": data, "cid": other }))
        .await;
    announced(&go, &node, &other, &["/skills/x/y"], &[skill("x/y")]).await;
    forgets(&node, &[skill("x/y")], &other).await;
}

/// Labels that the record does not have are struck when its bytes are seen, and who goes on lying is not heard any more.
#[tokio::test(flavor = "multi_thread")]
async fn interop_a_peer_that_announces_labels_its_records_do_not_have_is_struck() {
    let Some((node, go)) = pair(Options::new()).await else {
        return;
    };
    // The mesh stands once one announcement has come through; each lie is told once.
    let first = go
        .serve_record(&record("first", &["honest/work"]), &json!({}))
        .await;
    announced(&go, &node, &first, &["/skills/honest/work"], &[skill("honest")]).await;
    for lie in 0_u8..3 {
        let skills = ["honest/skill"];
        let cid = go
            .serve_record(&record(&format!("lie {lie}"), &skills), &json!({}))
            .await;
        let labels = ["/skills/honest/skill", "/skills/wanted/skill"];
        go.announce(&cid, &labels).await.unwrap();
        finds(&node, &[skill("wanted")], &cid, |_| true).await;
        forgets(&node, &[skill("wanted")], &cid).await;
        // What the record does say is known from its bytes now.
        finds(&node, &[skill("honest")], &cid, |hit| {
            hit["peer"]["id"] == go.id()
        })
        .await;
        assert!(node.routing_figure("lies").await >= f64::from(lie + 1));
    }
    // Announcements of such a peer do not get past the router, and its provider records count for nothing.
    falls_below(&node, &go, -60.0).await;
    let cid = go
        .serve_record(&record("too late", &["honest/skill"]), &json!({}))
        .await;
    eventually(DEADLINE, || async {
        go.announce(&cid, &["/skills/honest/skill"]).await?;
        go.provide(&cid).await?;
        let ignored = node.routing_figure("sightings_ignored").await;
        (ignored >= 1.0)
            .then_some(())
            .ok_or_else(|| format!("{ignored} ignored"))
    })
    .await;
    let hits = search(&node, &[skill("honest")]).await;
    assert!(
        hits.iter().all(|hit| cid_of(&hit["record_ref"]) != cid),
        "{hits:?}"
    );
}

/// A withdrawal is an announcement that Go nodes call invalid and pass over. It must not cost us their ear.
#[tokio::test(flavor = "multi_thread")]
async fn interop_go_bears_a_withdrawal_of_ours() {
    let Some((near, go)) = pair(Options::new().cache()).await else {
        return;
    };
    let far = Setup::default().joining(&near).await.start().await;
    let here = far.network().id().to_string();
    let kept = published(&far, "v1").await;
    let gone = published(&far, "v2").await;
    let by_go = |cid: String| {
        let (go, here) = (&go, here.clone());
        async move {
            let found = go.search("skill", "language_processing").await?;
            let hit = found.contains(&(cid, here));
            hit.then_some(()).ok_or_else(|| format!("{found:?}"))
        }
    };
    for cid in [&kept, &gone] {
        eventually(DEADLINE, || by_go(cid.clone())).await;
        finds(&near, &[skill("language_processing")], cid, |_| true).await;
    }
    far.client.ask(UNPUBLISH, &[refs(&gone)]).await.unwrap();
    forgets(&near, &[skill("language_processing")], &gone).await;
    let said = go
        .event("labels_invalid", |event| {
            (event["from"] == here.as_str()).then(|| event["error"].clone())
        })
        .await;
    assert_eq!(said, "no labels");
    // It keeps what it had, as reference nodes do until it expires, but cannot have the record any more.
    by_go(gone.clone()).await.unwrap();
    let refused = go.ask("pull", json!({ "peer": here, "cid": gone })).await;
    assert!(refused.unwrap_err().contains("NotFound"));
    // It has stayed, hears what comes next, and serves what it is asked for.
    let next = published(&far, "v3").await;
    eventually(DEADLINE, || by_go(next.clone())).await;
    assert!(go.connected().await.contains(&near.network().id().to_string()));
    let pulled = go.must("pull", json!({ "peer": here, "cid": kept })).await;
    assert_eq!(pulled["matches"], true);
    let warnings = go
        .events()
        .iter()
        .filter(|event| event["event"] == "labels_invalid")
        .count();
    assert_eq!(warnings, 1, "one withdrawal is one warning in their logs");
}
