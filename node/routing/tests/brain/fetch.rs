//! Provider records, fetches, verification of claims, and copying from listed peers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_routing::{
    Action, Config, Failure, Fault, IndexChange, Input, PeerId, Restored, Standing, SyncOutcome, Ticket,
    Token, Verdict,
};

use crate::{Harness, cid, fetch, index, labels, peer, said};

#[test]
fn a_bare_provider_record_is_fetched_and_its_labels_are_true() {
    let mut node = Harness::new();
    let actions = node.sight(1, 1);
    let (ticket, wanted, from) = fetch(&actions);
    assert_eq!((wanted, from), (cid(1), peer(1)));
    assert!(node.sight(1, 1).is_empty(), "one fetch is enough");
    let actions = node.feed(Input::Fetched {
        ticket,
        labels: labels(&["a"]),
    });
    assert!(matches!(
        &index(&actions)[..],
        [IndexChange::Put {
            standing: Standing::Verified,
            ..
        }]
    ));
}

#[test]
fn the_rendezvous_key_and_ourselves_are_no_records() {
    let mut node = Harness::new();
    let mut digest = [0; 32];
    let hex = "ccaaeb898d0dd2d458aa14e7cc3dd479bb3ed0c904f8995d5dafc7fade76304a";
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap();
    }
    let rendezvous = RecordCid::from_digest(digest);
    assert_eq!(rendezvous, RecordCid::of(b"dir/connect"));
    assert!(
        node.feed(Input::ProviderSeen {
            cid: rendezvous,
            peer: peer(1)
        })
        .is_empty()
    );
    assert!(node.sight(1, 0).is_empty());
}

#[test]
fn one_peer_cannot_take_all_fetches_and_failures_are_not_repeated_at_once() {
    let mut node = Harness::new();
    for n in 0..100 {
        let (cid, peer) = (cid(n), peer(1));
        assert!(node.feed(Input::ProviderSeen { cid, peer }).is_empty());
    }
    let actions = node.sight(1, 2);
    let mut begun: BTreeMap<PeerId, Vec<Ticket>> = BTreeMap::new();
    for action in &actions {
        if let Action::Fetch { ticket, peer, .. } = action {
            begun.entry(peer.clone()).or_default().push(*ticket);
        }
    }
    assert_eq!((begun[&peer(1)].len(), begun[&peer(2)].len()), (2, 1));
    let ticket = begun[&peer(2)][0];
    let reason = Failure::NotFound;
    node.feed(Input::FetchFailed { ticket, reason });
    assert!(node.sight(1, 2).is_empty());
    assert_eq!(node.brain.counters().fetch_negative, 1);
    // A silent peer: its fetches end at their deadline, and the next two begin.
    let actions = node.pass(Duration::from_secs(30));
    let fetches = actions
        .iter()
        .filter(|action| matches!(action, Action::Fetch { .. }));
    assert_eq!(fetches.count(), 2);
    assert_eq!(node.brain.counters().fetch_timeouts, 2);
}

/// Twenty peers hear of a new record by its provider record first; the announcement that follows spares the fetches.
#[test]
fn an_announcement_that_comes_in_time_spares_the_fetch() {
    let mut node = Harness::with(
        Config {
            verify: false,
            ..Config::default()
        },
        Restored::default(),
    );
    let (one, other) = (cid(1), peer(1));
    node.feed(Input::ProviderSeen {
        cid: one,
        peer: other,
    });
    node.hear(1, said(1, &["a"], node.now));
    assert!(node.pass(Duration::from_secs(10)).is_empty());
    assert_eq!(node.brain.counters().fetches, 0);
}

#[test]
fn a_lie_is_struck_and_costs_its_author() {
    let mut node = Harness::new();
    let now = node.now;
    node.hear(1, said(1, &["a", "made up"], now));
    node.hear(2, said(1, &["a"], now));
    let actions = node.sight(1, 3);
    let (ticket, ..) = fetch(&actions);
    let actions = node.feed(Input::Fetched {
        ticket,
        labels: labels(&["a", "b"]),
    });
    assert!(actions.contains(&Action::Score {
        peer: peer(1),
        fault: Fault::Lied
    }));
    let changes = index(&actions);
    assert!(changes.contains(&IndexChange::Remove {
        cid: cid(1),
        peer: peer(1)
    }));
    let verified = |change: &&IndexChange| matches!(change, IndexChange::Refresh { peer: other, standing: Standing::Verified, .. } if *other == peer(2));
    assert_eq!(changes.iter().filter(verified).count(), 1);
    // Who said no more than the truth may say the rest of it, but nothing else.
    assert_eq!(node.hear(2, said(1, &["a", "b"], now.next())).0, Verdict::Accept);
    assert_eq!(
        node.hear(2, said(1, &["a", "c"], now.next().next())).0,
        Verdict::Ignore
    );
    assert_eq!(node.brain.counters().lies, 2);
}

#[test]
fn an_author_that_lies_again_and_again_is_not_listened_to() {
    let mut node = Harness::new();
    let now = node.now;
    for n in 0..3 {
        node.hear(1, said(n, &["made up"], now));
        let actions = node.feed(Input::Shown {
            rows: vec![(cid(n), peer(1))],
        });
        let (ticket, ..) = fetch(&actions);
        node.feed(Input::Fetched {
            ticket,
            labels: labels(&["a"]),
        });
    }
    assert_eq!(node.hear(1, said(7, &["a"], now)).0, Verdict::Ignore);
    assert_eq!(node.brain.counters().ignored_muted, 1);
    node.pass(Duration::from_secs(25 * 3600));
    assert_eq!(node.hear(1, said(7, &["a"], node.now)).0, Verdict::Accept);
}

#[test]
fn claims_are_verified_in_the_background_shown_ones_first() {
    let mut node = Harness::new();
    let now = node.now;
    node.hear(1, said(1, &["a"], now));
    node.hear(2, said(2, &["a"], now));
    let actions = node.feed(Input::Shown {
        rows: vec![(cid(2), peer(2)), (cid(9), peer(9))],
    });
    let (ticket, wanted, _) = fetch(&actions);
    assert_eq!(wanted, cid(2));
    node.feed(Input::Fetched {
        ticket,
        labels: labels(&["a"]),
    });
    let wake = node.brain.next_wake().unwrap();
    let actions = node.pass(wake.since(now));
    let (ticket, wanted, _) = fetch(&actions);
    assert_eq!(wanted, cid(1));
    node.feed(Input::FetchFailed {
        ticket,
        reason: Failure::NotFound,
    });
    assert_eq!(
        (node.brain.status().claimed, node.brain.status().verified),
        (0, 1)
    );
    assert_eq!(node.brain.counters().not_held, 1);
}

#[test]
fn wrong_bytes_cost_score_and_silence_does_not() {
    for (reason, fault) in [
        (Failure::Mismatch, Some(Fault::WrongBytes)),
        (Failure::Invalid, Some(Fault::NoRecord)),
        (Failure::Unreachable, None),
        (Failure::NotFound, None),
    ] {
        let mut node = Harness::new();
        let actions = node.sight(1, 1);
        let (ticket, ..) = fetch(&actions);
        let actions = node.feed(Input::FetchFailed { ticket, reason });
        let scored: Vec<Fault> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Score { fault, .. } => Some(*fault),
                _ => None,
            })
            .collect();
        assert_eq!(scored, Vec::from_iter(fault));
    }
}

#[test]
fn nobody_is_copied_from_unless_listed_and_another_source_is_tried() {
    let config = Config {
        sync_from: BTreeSet::from([peer(1), peer(2)]),
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    let now = node.now;
    let sync = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Sync { ticket, peer, .. } => Some((*ticket, peer.clone())),
            _ => None,
        })
    };
    let announce = |node: &mut Harness, author| {
        let announcement = said(1, &["a"], now);
        node.feed(Input::Announced {
            token: Token(1),
            publisher: peer(author),
            permitted: true,
            announcement,
        })
    };
    assert!(sync(&announce(&mut node, 3)).is_none());
    let (ticket, from) = sync(&announce(&mut node, 1)).unwrap();
    assert_eq!(from, peer(1));
    assert!(sync(&announce(&mut node, 2)).is_none(), "one job for one record");
    node.feed(Input::Synced {
        ticket,
        outcome: SyncOutcome::Failed(Failure::Unreachable),
    });
    let actions = node.pass(Duration::from_secs(10));
    let (ticket, from) = sync(&actions).unwrap();
    assert_eq!(from, peer(2));
    node.feed(Input::Synced {
        ticket,
        outcome: SyncOutcome::Imported,
    });
    assert_eq!(node.brain.status().sync_jobs, 0);

    // Announced again, since a referrer may have come; now with other bytes, which costs score and is not tried again.
    let announcement = said(1, &["a", "b"], now + Duration::from_secs(1));
    let actions = node.feed(Input::Announced {
        token: Token(1),
        publisher: peer(2),
        permitted: true,
        announcement,
    });
    let (ticket, from) = sync(&actions).unwrap();
    let outcome = SyncOutcome::Failed(Failure::Mismatch);
    let actions = node.feed(Input::Synced { ticket, outcome });
    let fault = Fault::WrongBytes;
    assert!(actions.contains(&Action::Score { peer: from, fault }));
    assert_eq!(node.brain.status().sync_jobs, 0);
}
