//! Catching up with others, and what is made of what they tell.

use std::time::Duration;

use dirnode_routing::catchup::{Cursor, Reply, Request};
use dirnode_routing::config::CLAIM_TTL;
use dirnode_routing::{Action, Brain, Config, Failure, Fault, IndexChange, Input, Restored, Standing, Token};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{BEGIN, Harness, ask, cid, fetch, find, index, labels, peer, row, said, summary, tell};

#[test]
fn peers_that_do_not_speak_the_protocol_are_not_asked() {
    let mut node = Harness::new();
    assert!(
        node.feed(Input::PeerConnected {
            peer: peer(1),
            catchup: false
        })
        .is_empty()
    );
    assert_eq!(node.brain.next_wake(), None);
}

#[test]
fn rows_of_third_parties_are_hearsay_until_the_author_speaks() {
    let mut node = Harness::new();
    let now = node.now;
    let old = now.before(Duration::from_secs(20 * 3600));
    let actions = tell(&mut node, 9, 1, vec![row(1, &["a"], old)]);
    let changes = index(&actions);
    let IndexChange::Put {
        standing, expires_at, ..
    } = &changes[0]
    else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (*standing, *expires_at),
        (Standing::Hearsay, old + CLAIM_TTL),
        "no longer than the author's own words"
    );
    let (_, changes) = node.hear(1, said(1, &["b"], now));
    assert!(matches!(
        &changes[..],
        [IndexChange::Put {
            standing: Standing::Claimed,
            ..
        }]
    ));
    assert_eq!((node.brain.status().hearsay, node.brain.status().claimed), (0, 1));
    // And not the other way round.
    let again = vec![row(1, &["c"], node.now)];
    let actions = tell(&mut node, 9, 1, again);
    assert!(index(&actions).is_empty());
}

#[test]
fn rows_told_by_their_author_are_claims() {
    let mut node = Harness::new();
    let old = node.now.before(Duration::from_secs(20 * 3600));
    let actions = tell(
        &mut node,
        1,
        1,
        vec![row(1, &["a"], old), row(2, &[], old.next())],
    );
    let changes = index(&actions);
    assert!(matches!(
        &changes[0],
        IndexChange::Put {
            standing: Standing::Claimed,
            ..
        }
    ));
    assert!(matches!(&changes[1], IndexChange::Bury { first_hand: true, .. }));
}

#[test]
fn hearsay_of_a_withdrawal_makes_us_ask_the_author() {
    for (answer, fault) in [
        (Err(Failure::NotFound), None),
        (Ok(()), Some(Fault::FalseHearsay)),
    ] {
        let mut node = Harness::new();
        node.hear(1, said(1, &["a"], node.now));
        node.now = node.now + Duration::from_secs(5);
        let withdrawal = vec![row(1, &[], node.now)];
        let actions = tell(&mut node, 9, 1, withdrawal);
        assert!(
            index(&actions).is_empty(),
            "nothing is removed on the word of a third party"
        );
        let (ticket, wanted, from) = fetch(&actions);
        assert_eq!((wanted, from), (cid(1), peer(1)));
        let actions = match answer {
            Ok(()) => node.feed(Input::Fetched {
                ticket,
                labels: labels(&["a"]),
            }),
            Err(reason) => node.feed(Input::FetchFailed { ticket, reason }),
        };
        let status = node.brain.status();
        match fault {
            None => assert_eq!((status.claimed + status.verified, status.tombstones), (0, 1)),
            Some(fault) => {
                assert_eq!(status.verified, 1);
                assert!(actions.contains(&Action::Score { peer: peer(9), fault }));
            }
        }
    }
}

#[test]
fn a_relay_has_a_quota_and_does_not_put_out_what_authors_said() {
    let config = Config {
        max_hearsay_per_relay: 2,
        max_claims: 3,
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    let now = node.now;
    node.hear(1, said(100, &["a"], now));
    let rows = |from: u32| {
        (from..from + 5)
            .map(|n| row(n, &["a"], now + Duration::from_nanos(n.into())))
            .collect()
    };
    tell(&mut node, 9, 2, rows(0));
    assert_eq!(node.brain.status().hearsay, 2);
    tell(&mut node, 8, 3, rows(0));
    assert_eq!((node.brain.status().hearsay, node.brain.status().claimed), (2, 1));
}

#[test]
fn pages_that_break_the_order_end_the_exchange() {
    let mut node = Harness::new();
    let actions = node.feed(Input::PeerConnected {
        peer: peer(9),
        catchup: true,
    });
    let (exchange, ..) = ask(&actions);
    let reply = Reply::Summary {
        authors: vec![summary(2, BEGIN), summary(1, BEGIN)],
        more: false,
    };
    let actions = node.feed(Input::CatchupReplied {
        exchange,
        result: Ok(reply),
    });
    assert!(actions.contains(&Action::Score {
        peer: peer(9),
        fault: Fault::BadPage
    }));
    assert_eq!(node.brain.status().catchup_peers, 0);
}

/// One node knows, the other asks, page by page, until both have the same; the second time nothing is asked for.
#[test]
fn two_nodes_come_to_know_the_same() {
    let mut full = Harness::new();
    full.feed(Input::Table { table: 0, mesh: 0 });
    let begin = full.now;
    for author in 1..=3_u32 {
        for n in 0..400 {
            let time = begin + Duration::from_micros(n.into());
            let names: &[&str] = if n % 10 == 9 { &[] } else { &["a"] };
            full.hear(author, said(n, names, time));
        }
    }
    full.publish(9_999);
    let mut empty = Harness::with(
        Config {
            verify: false,
            ..Config::default()
        },
        Restored::default(),
    );
    // Not the id of the other, as every harness has the same.
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    empty.brain = Brain::restore(
        Config {
            verify: false,
            ..Config::default()
        },
        peer(77),
        Restored::default(),
        BEGIN,
        &mut rng,
    );
    let mut asks = Vec::new();
    for round in 0..2 {
        let mut actions = if round == 0 {
            empty.feed(Input::PeerConnected {
                peer: peer(0),
                catchup: true,
            })
        } else {
            empty.pass(Duration::from_secs(40 * 60))
        };
        let mut pages = 0;
        while actions
            .iter()
            .any(|action| matches!(action, Action::CatchupAsk { .. }))
        {
            let (exchange, _, request) = ask(&actions);
            pages += 1;
            let answer = full.feed(Input::CatchupAsked {
                token: Token(1),
                peer: peer(77),
                request,
            });
            let mut reply = find(&answer, |action| match action {
                Action::CatchupAnswer { reply, .. } => Some(reply.clone()),
                _ => None,
            });
            reply.fill(|_, _| labels(&["a"]));
            let bytes = dirnode_routing::catchup::codec::encode_reply(&reply);
            let reply = dirnode_routing::catchup::codec::decode_reply(&bytes).unwrap();
            actions = empty.feed(Input::CatchupReplied {
                exchange,
                result: Ok(reply),
            });
        }
        asks.push(pages);
    }
    let status = empty.brain.status();
    assert_eq!(
        (status.hearsay, status.claimed, status.tombstones),
        (3 * 360, 1, 120)
    );
    assert!(asks[0] >= 4, "{asks:?}");
    assert!(asks[1] <= 1, "the second time the digests are the same: {asks:?}");
    assert_eq!(status.caught_up, 2);
}

#[test]
fn a_page_that_is_asked_for_goes_on_where_the_last_ended() {
    let mut node = Harness::new();
    let now = node.now;
    for n in 0..5 {
        node.hear(1, said(n, &["a"], now + Duration::from_secs(n.into())));
    }
    let cursor = Cursor {
        author: peer(1),
        since: now + Duration::from_secs(2),
        after: cid(2),
    };
    let request = Request::Rows {
        cursors: vec![cursor],
    };
    let actions = node.feed(Input::CatchupAsked {
        token: Token(1),
        peer: peer(5),
        request,
    });
    let Action::CatchupAnswer {
        reply: Reply::Rows { sections, authors },
        ..
    } = &actions[0]
    else {
        panic!()
    };
    assert_eq!(authors, &[peer(1)]);
    assert_eq!(
        sections[0].rows.iter().map(|row| row.cid).collect::<Vec<_>>(),
        [cid(3), cid(4)]
    );
    assert!(sections[0].complete);
    let busy = (0..300).any(|_| {
        let request = Request::Summary { after: None };
        let actions = node.feed(Input::CatchupAsked {
            token: Token(1),
            peer: peer(5),
            request,
        });
        matches!(
            &actions[0],
            Action::CatchupAnswer {
                reply: Reply::Busy { .. },
                ..
            }
        )
    });
    assert!(busy, "a peer that asks without end is told to wait");
}
