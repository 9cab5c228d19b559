//! Announcements of others: what is believed, for how long, and how much of it.

use std::time::Duration;

use dirnode_routing::config::{CLAIM_TTL, MAX_AGE, MAX_AHEAD};
use dirnode_routing::{
    Action, Announcement, Config, IndexChange, Input, Restored, RestoredClaim, RestoredTomb, Standing, Token,
    Verdict,
};

use crate::{BEGIN, Harness, cid, fetch, index, labels, peer, row, said, tell};

#[test]
fn announcements_are_judged_by_author_and_time() {
    let mut node = Harness::new();
    let now = node.now;
    let (verdict, changes) = node.hear(1, said(1, &["a"], now));
    assert_eq!(verdict, Verdict::Accept);
    assert!(matches!(
        &changes[..],
        [IndexChange::Put {
            standing: Standing::Claimed,
            ..
        }]
    ));
    for (name, author, announcement, expected) in [
        ("the same again", 1, said(1, &["a"], now), Verdict::Ignore),
        (
            "older",
            1,
            said(1, &["b"], now.before(Duration::from_secs(1))),
            Verdict::Ignore,
        ),
        ("our own", 0, said(1, &["a"], now), Verdict::Ignore),
        (
            "too old",
            2,
            said(1, &["a"], now.before(MAX_AGE + Duration::from_secs(1))),
            Verdict::Ignore,
        ),
        (
            "from the future",
            2,
            said(1, &["a"], now + MAX_AHEAD + Duration::from_secs(1)),
            Verdict::Ignore,
        ),
        (
            "another author",
            2,
            said(1, &["a"], now.before(Duration::from_secs(1))),
            Verdict::Accept,
        ),
        (
            "a little ahead",
            3,
            said(1, &["a"], now + Duration::from_secs(60)),
            Verdict::Accept,
        ),
        ("next part", 1, said(1, &["b"], now), Verdict::Accept),
        ("newer", 1, said(1, &["a"], now.next()), Verdict::Accept),
        (
            "nothing",
            1,
            Announcement {
                withdrawn: false,
                ..said(1, &[], now)
            },
            Verdict::Reject,
        ),
    ] {
        assert_eq!(node.hear(author, announcement).0, expected, "{name}");
    }
    let announcement = said(5, &["a"], now);
    let actions = node.feed(Input::Announced {
        token: Token(1),
        publisher: peer(8),
        permitted: false,
        announcement,
    });
    assert_eq!(
        actions,
        [Action::Verdict {
            token: Token(1),
            verdict: Verdict::Ignore
        }]
    );
    let counters = node.brain.counters();
    assert_eq!(
        (counters.accepted, counters.ignored_denied, counters.ignored_own),
        (5, 1, 1)
    );
    assert_eq!(
        (counters.ignored_old, counters.ignored_ahead, counters.rejected),
        (1, 1, 1)
    );
    assert_eq!(counters.freshness.count, 5);
}

/// Of a record that we have looked at nothing is news, but others behind us have not seen all parts of its announcement.
#[test]
fn every_part_of_a_long_announcement_is_passed_on() {
    let mut node = Harness::new();
    let actions = node.sight(1, 1);
    let (ticket, ..) = fetch(&actions);
    node.feed(Input::Fetched {
        ticket,
        labels: labels(&["a", "b", "c"]),
    });
    assert_eq!(node.brain.status().verified, 1);
    let now = node.now;
    for part in ["a", "b", "c"] {
        assert_eq!(
            node.hear(1, said(1, &[part], now)).0,
            Verdict::Accept,
            "part {part}"
        );
    }
}

/// What the index had no room for is put anew when it is heard of again, verified or not.
#[test]
fn rows_that_the_index_does_not_hold_are_put_anew() {
    let mut node = Harness::new();
    let actions = node.sight(1, 1);
    let (ticket, ..) = fetch(&actions);
    let labels = labels(&["a"]);
    node.feed(Input::Fetched { ticket, labels });
    node.hear(1, said(1, &["a"], node.now));
    let rows = vec![(cid(1), peer(1)), (cid(2), peer(9))];
    node.feed(Input::Unindexed { rows });
    assert_eq!(
        (node.brain.status().verified, node.brain.counters().unindexed),
        (0, 1)
    );
    let (verdict, changes) = node.hear(1, said(1, &["a"], node.now.next()));
    assert_eq!(verdict, Verdict::Accept);
    assert!(matches!(&changes[..], [IndexChange::Put { .. }]), "{changes:?}");
}

#[test]
fn index_times_are_never_later_than_receipt() {
    let mut node = Harness::new();
    let (_, changes) = node.hear(1, said(1, &["a"], node.now + Duration::from_secs(300)));
    let IndexChange::Put {
        timestamp,
        last_seen,
        expires_at,
        ..
    } = &changes[0]
    else {
        panic!()
    };
    assert_eq!(
        (*timestamp, *last_seen, *expires_at),
        (node.now, node.now, node.now + CLAIM_TTL)
    );
}

#[test]
fn a_withdrawal_wins_over_older_words_and_loses_to_newer() {
    let mut node = Harness::new();
    let now = node.now;
    node.hear(1, said(1, &["a"], now));
    let (verdict, changes) = node.hear(1, said(1, &[], now.next()));
    assert_eq!(verdict, Verdict::Accept);
    assert!(matches!(
        &changes[..],
        [IndexChange::Bury { first_hand: true, .. }]
    ));
    assert_eq!(node.hear(1, said(1, &["a"], now)).0, Verdict::Ignore);
    assert_eq!(node.hear(1, said(1, &["a"], now.next())).0, Verdict::Ignore);
    // Nobody else's withdrawal counts.
    node.hear(2, said(2, &["a"], now));
    let (_, changes) = node.hear(1, said(2, &[], now.next()));
    assert!(
        changes
            .iter()
            .all(|change| matches!(change, IndexChange::Bury { peer: other, .. } if *other == peer(1)))
    );
    assert_eq!(node.brain.status().claimed, 1);
    assert_eq!(
        node.hear(1, said(1, &["a"], now.next().next())).0,
        Verdict::Accept
    );
}

#[test]
fn rows_end_when_they_are_not_heard_of_again() {
    let mut node = Harness::with(
        Config {
            verify: false,
            ..Config::default()
        },
        Restored::default(),
    );
    let begin = node.now;
    node.hear(1, said(1, &["a"], begin));
    node.hear(2, said(1, &["a"], begin));
    node.now = begin + CLAIM_TTL / 2;
    let seen = node.feed(Input::ProviderSeen {
        cid: cid(1),
        peer: peer(2),
    });
    assert!(matches!(&index(&seen)[..], [IndexChange::Refresh { .. }]));
    assert_eq!(node.brain.next_wake(), Some(begin + CLAIM_TTL));
    let actions = node.pass(CLAIM_TTL / 2);
    assert_eq!(
        index(&actions),
        [IndexChange::Remove {
            cid: cid(1),
            peer: peer(1)
        }]
    );
    let actions = node.pass(CLAIM_TTL / 2);
    assert_eq!(
        index(&actions),
        [IndexChange::Remove {
            cid: cid(1),
            peer: peer(2)
        }]
    );
    assert_eq!(node.brain.next_wake(), None);
}

#[test]
fn quotas_put_out_the_oldest_of_whoever_has_most() {
    let config = Config {
        max_claims_per_author: 3,
        max_claims: 4,
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    let now = node.now;
    for n in 0..4 {
        let time = now + Duration::from_secs(n);
        let (_, changes) = node.hear(1, said(u32::try_from(n).unwrap(), &["a"], time));
        let removed = changes.contains(&IndexChange::Remove {
            cid: cid(0),
            peer: peer(1),
        });
        assert_eq!(removed, n == 3);
    }
    assert!(node.hear(2, said(9, &["a"], now)).1.len() == 1);
    let (_, changes) = node.hear(3, said(9, &["a"], now));
    assert!(
        changes.contains(&IndexChange::Remove {
            cid: cid(1),
            peer: peer(1)
        }),
        "{changes:?}"
    );
    let counters = node.brain.counters();
    assert_eq!((counters.evicted_author, counters.evicted_total), (1, 1));
}

#[test]
fn a_fast_author_is_slowed_down_and_others_are_not() {
    let mut node = Harness::with(
        Config {
            verify: false,
            ..Config::default()
        },
        Restored::default(),
    );
    let now = node.now;
    let taken = (0..4_000)
        .filter(|n| node.hear(1, said(*n, &["a"], now)).0 == Verdict::Accept)
        .count();
    assert_eq!(taken, 3_000);
    assert_eq!(node.hear(2, said(1, &["a"], now)).0, Verdict::Accept);
}

#[test]
fn what_was_withdrawn_does_not_come_back_after_a_restart() {
    let now = BEGIN;
    let rows = Restored {
        claims: vec![RestoredClaim {
            cid: cid(2),
            peer: peer(1),
            labels: labels(&["a"]),
            timestamp: now,
            last_seen: now,
            standing: Standing::Claimed,
        }],
        tombs: vec![RestoredTomb {
            cid: cid(1),
            peer: peer(1),
            timestamp: now,
            first_hand: true,
        }],
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows);
    assert_eq!(
        (node.brain.status().claimed, node.brain.status().tombstones),
        (1, 1)
    );
    assert_eq!(node.hear(1, said(1, &["a"], now)).0, Verdict::Ignore);
    assert_eq!(
        node.hear(1, said(2, &["a"], now)).0,
        Verdict::Ignore,
        "and what is known is known"
    );
    let older = now.before(Duration::from_secs(60));
    let actions = tell(&mut node, 9, 1, vec![row(1, &["a"], older)]);
    assert!(index(&actions).is_empty());
}

#[test]
fn one_author_cannot_make_us_forget_withdrawals_of_others() {
    let config = Config {
        max_tombstones: 80,
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    let now = node.now;
    node.hear(1, said(1, &[], now));
    for n in 0..200 {
        node.hear(2, said(n, &[], now + Duration::from_millis(n.into())));
    }
    assert_eq!(node.brain.status().tombstones, 11);
    assert_eq!(node.hear(1, said(1, &["a"], now)).0, Verdict::Ignore);
}

#[test]
fn a_row_with_many_labels_counts_for_several() {
    let config = Config {
        max_claims_per_author: 10,
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    let now = node.now;
    let names: Vec<String> = (0..96).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for n in 0..3 {
        node.hear(1, said(n, &names, now + Duration::from_millis(n.into())));
    }
    assert_eq!(
        (node.brain.status().claimed, node.brain.counters().evicted_author),
        (1, 2)
    );
}
