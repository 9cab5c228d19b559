//! Kill and start every node in turn while all of them publish and take back: what was acknowledged gets done, everything
//! published is found everywhere, nothing that was taken back returns.
//!
//! `DIRNODE_RESTART_NODES` (4) and `DIRNODE_RESTART_RECORDS` (12 a node) make it larger.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dirnode_tests::cluster::{Cluster, Member};
use dirnode_tests::wait::{eventually, within};
use serde_json::{Value as Json, json};

use crate::common::{PUSH, UNPUBLISH, cid_of, sample};
use crate::publish::refs;

const CREATE: &str = "/agntcy.dir.routing.v1.PublicationService/CreatePublication";
const GET: &str = "/agntcy.dir.routing.v1.PublicationService/GetPublication";
const JOBS: &str = "/agntcy.dir.routing.v1.PublicationService/ListPublications";
const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";
const COMPLETED: &str = "PUBLICATION_STATUS_COMPLETED";
/// As long as something may take on a machine that does other things as well.
const DEADLINE: Duration = Duration::from_secs(120);
/// One record of so many is taken back again.
const TAKEN_BACK: usize = 4;

fn size(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// What the clients of one node were told.
#[derive(Default)]
struct Told {
    published: BTreeSet<String>,
    withdrawn: BTreeSet<String>,
    jobs: Vec<String>,
}

/// Publishes records on one node, and takes some of them back, whatever happens to the node meanwhile.
async fn work(member: &Member, place: usize, count: usize, done: &AtomicUsize) -> Told {
    let mut told = Told::default();
    for number in 0..count {
        let pushed = member
            .insist(PUSH, &sample(&format!("n{place}.{number}")), DEADLINE)
            .await;
        let cid = cid_of(&pushed[0]);
        let filed = member
            .insist(CREATE, &refs(std::slice::from_ref(&cid)), DEADLINE)
            .await;
        told.jobs
            .push(filed[0]["publication_id"].as_str().unwrap().to_owned());
        if number % TAKEN_BACK == 1 {
            // A job still to come, also one whose answer was lost, would rightly publish it once more.
            eventually(DEADLINE, || async {
                let jobs = member.insist(JOBS, &json!({}), DEADLINE).await;
                let open = jobs.iter().find(|job| job["status"] != COMPLETED);
                open.map_or(Ok(()), |open| Err(format!("{open}")))
            })
            .await;
            member
                .insist(UNPUBLISH, &refs(std::slice::from_ref(&cid)), DEADLINE)
                .await;
            told.withdrawn.insert(cid);
        } else {
            told.published.insert(cid);
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    told
}

/// Record and publisher of everything that a search finds on a node.
async fn found(member: &Member) -> BTreeSet<(String, String)> {
    let everything = json!({ "queries": [{ "type": "RECORD_QUERY_TYPE_UNSPECIFIED", "value": "" }] });
    let hits = member.insist(SEARCH, &everything, DEADLINE).await;
    let pair = |hit: &Json| {
        let peer = hit["peer"]["id"].as_str().unwrap_or_default();
        (cid_of(&hit["record_ref"]), peer.to_owned())
    };
    hits.iter().map(pair).collect()
}

/// Waits until every node finds what the others have published, and nothing else.
async fn agree(cluster: &Cluster, told: &[Told], when: &str) {
    for (place, member) in cluster.members().iter().enumerate() {
        let expected: BTreeSet<(String, String)> = cluster
            .members()
            .iter()
            .zip(told)
            .enumerate()
            .filter(|(other, _)| *other != place)
            .flat_map(|(_, (author, told))| {
                told.published
                    .iter()
                    .map(|cid| (cid.clone(), author.id().to_owned()))
            })
            .collect();
        let same = within(DEADLINE, || async {
            let found = found(member).await;
            if found == expected {
                return Ok(());
            }
            let missing: Vec<_> = expected.difference(&found).collect();
            let surplus: Vec<_> = found.difference(&expected).collect();
            let returned = surplus
                .iter()
                .filter(|(cid, _)| told.iter().any(|told| told.withdrawn.contains(cid)))
                .count();
            Err(format!(
                "{when}: node {place} ({}) misses {missing:?}, has {} too many, {returned} of them taken back: {surplus:?}",
                member.id(),
                surplus.len()
            ))
        })
        .await;
        if let Err(problem) = same {
            panic!("{problem}\n{}", cluster.logs(40));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_and_nothing_returns_when_every_node_is_killed_under_load() {
    let (nodes, records) = (
        size("DIRNODE_RESTART_NODES", 4),
        size("DIRNODE_RESTART_RECORDS", 12),
    );
    let cluster = Cluster::start(nodes).await;
    let done = AtomicUsize::new(0);
    let workers = futures_util::future::join_all(
        cluster
            .members()
            .iter()
            .enumerate()
            .map(|(place, member)| work(member, place, records, &done)),
    );
    // Spread over the work, so that every node is killed while all of them have something to do.
    let killer = async {
        for (place, member) in cluster.members().iter().enumerate() {
            let enough = (place + 1) * nodes * records / (nodes + 2);
            eventually(DEADLINE, || {
                let done = done.load(Ordering::SeqCst);
                let there = done >= enough;
                std::future::ready(
                    there
                        .then_some(())
                        .ok_or_else(|| format!("{done} of {enough} done")),
                )
            })
            .await;
            member.kill().await;
            cluster.restart(place).await;
        }
    };
    let (told, ()) = tokio::join!(workers, killer);

    for (member, told) in cluster.members().iter().zip(&told) {
        assert_eq!(told.jobs.len(), records);
        for id in &told.jobs {
            eventually(DEADLINE, || async {
                let job = member
                    .insist(GET, &json!({ "publication_id": id }), DEADLINE)
                    .await;
                let over = job[0]["status"] == COMPLETED;
                over.then_some(()).ok_or_else(|| format!("{job:?}"))
            })
            .await;
        }
    }
    agree(&cluster, &told, "after the load").await;

    // Once more, with nothing going on: what a node knows it has from its disk and from the others.
    for (place, member) in cluster.members().iter().enumerate() {
        member.kill().await;
        cluster.restart(place).await;
    }
    agree(&cluster, &told, "after another restart of each").await;
}
