//! Rounds of provides: shared lookups, exact peers, failures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_routing::{Action, Config, DueRow, Failure, Input, PeerId, Point, Restored};

use crate::{BEGIN, Harness, cid, peer};

/// A network of peers that a sweep can ask: the nearest exactly, as a settled network answers.
struct Network(Vec<(Point, PeerId)>);

impl Network {
    fn new(count: u32) -> Self {
        let with_point = |peer: PeerId| (Point::of_peer(&peer), peer);
        Self((1..=count).map(|number| with_point(peer(number))).collect())
    }

    fn nearest(&self, key: &[u8]) -> Vec<PeerId> {
        let target = Point::of_key(key);
        let mut sorted = self.0.clone();
        sorted.sort_by_key(|(point, _)| point.distance(&target));
        sorted.into_iter().take(20).map(|(_, peer)| peer).collect()
    }
}

#[test]
fn a_round_of_many_keys_shares_lookups_and_reaches_the_nearest() {
    let network = Network::new(400);
    let keys = 1_000;
    let rows = Restored {
        published: (0..keys)
            .map(|n| DueRow {
                cid: cid(n),
                due: BEGIN,
                stamp: BEGIN,
                provided_at: BEGIN,
            })
            .collect(),
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows);
    let mut todo = node.feed(Input::Table { table: 400, mesh: 0 });
    let (mut lookups, mut placed) = (0, BTreeMap::<RecordCid, BTreeSet<PeerId>>::new());
    while let Some(action) = todo.pop() {
        match action {
            Action::FindClosest { ticket, key } => {
                lookups += 1;
                todo.extend(node.feed(Input::Closest {
                    ticket,
                    result: Ok(network.nearest(&key)),
                }));
            }
            Action::ProvideMany { ticket, peer, cids } => {
                assert!(cids.len() <= 256);
                for cid in cids {
                    placed.entry(cid).or_default().insert(peer.clone());
                }
                todo.extend(node.feed(Input::ProvidedMany {
                    ticket,
                    result: Ok(()),
                }));
            }
            Action::Provide { ticket, .. } => {
                lookups += 1;
                todo.extend(node.feed(Input::Provided {
                    ticket,
                    result: Ok(()),
                }));
            }
            _ => {}
        }
    }
    assert_eq!(node.brain.counters().provided_keys, u64::from(keys));
    assert!(lookups < 120, "{lookups} lookups for {keys} keys");
    for (cid, holders) in &placed {
        assert_eq!(*holders, network.nearest(&cid.multihash()).into_iter().collect());
    }
    assert!(placed.len() > 950);
    assert_eq!(node.brain.status().overdue, 0);
}

#[test]
fn a_sweep_whose_peers_fail_leaves_its_keys_due() {
    let rows = Restored {
        published: (0..100)
            .map(|n| DueRow {
                cid: cid(n),
                due: BEGIN,
                stamp: BEGIN,
                provided_at: BEGIN,
            })
            .collect(),
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows);
    let mut todo = node.feed(Input::Table { table: 30, mesh: 0 });
    let network = Network::new(30);
    while let Some(action) = todo.pop() {
        match action {
            Action::FindClosest { ticket, key } => {
                todo.extend(node.feed(Input::Closest {
                    ticket,
                    result: Ok(network.nearest(&key)),
                }));
            }
            Action::ProvideMany { ticket, .. } => {
                todo.extend(node.feed(Input::ProvidedMany {
                    ticket,
                    result: Err(Failure::Unreachable),
                }));
            }
            _ => {}
        }
    }
    let counters = node.brain.counters();
    assert_eq!((counters.provided_keys, counters.provide_failures), (0, 100));
    let wake = node.brain.next_wake().unwrap();
    assert!(wake.since(node.now) <= Duration::from_secs(5));
    // What never reports is lost after a while, not for ever.
    let actions = node.pass(Duration::from_secs(5));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::FindClosest { .. }))
    );
    node.pass(Duration::from_secs(3_600));
    assert!(node.brain.counters().lost_steps > 0);
}
