//! Catching up with others, and what is made of what they tell.

use std::time::Duration;

use dirnode_routing::catchup::{Cursor, Reply, Request, Section};
use dirnode_routing::config::{CATCHUP_EXCHANGE, CLAIM_TTL};
use dirnode_routing::{
    Action, Brain, Config, Failure, Fault, IndexChange, Input, Restored, RestoredClaim, Standing, Timestamp,
    Token,
};
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
    for answer in [Err(Failure::NotFound), Ok(())] {
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
        let known = (status.claimed + status.verified, status.tombstones);
        assert_eq!(known, if answer.is_ok() { (1, 0) } else { (0, 1) });
        // It tells what others told it.
        let scored = |action: &Action| matches!(action, Action::Score { .. });
        assert!(!actions.iter().any(scored), "{actions:?}");
    }
}

/// A relay says that a record which we know from a third party, or do not know, was withdrawn, and another that it was not.
#[test]
fn where_third_parties_contradict_each_other_the_author_is_asked() {
    let mut node = Harness::new();
    let now = node.now;
    tell(&mut node, 9, 1, vec![row(1, &["a"], now)]);
    assert_eq!(node.brain.status().hearsay, 1);
    node.now = node.now + Duration::from_secs(5);
    let actions = tell(&mut node, 8, 1, vec![row(1, &[], now + Duration::from_secs(5))]);
    assert_eq!(
        node.brain.status().hearsay,
        1,
        "not removed on the word of a third party"
    );
    let (ticket, wanted, from) = fetch(&actions);
    assert_eq!((wanted, from), (cid(1), peer(1)));
    let reason = Failure::NotFound;
    node.feed(Input::FetchFailed { ticket, reason });
    assert_eq!(
        (node.brain.status().hearsay, node.brain.status().tombstones),
        (0, 1)
    );

    tell(&mut node, 8, 1, vec![row(2, &[], now + Duration::from_secs(60))]);
    let actions = tell(&mut node, 9, 1, vec![row(2, &["a"], now)]);
    let (ticket, wanted, _) = fetch(&actions);
    assert_eq!(wanted, cid(2));
    node.feed(Input::Fetched {
        ticket,
        labels: labels(&["a"]),
    });
    assert_eq!(
        (node.brain.status().verified, node.brain.status().tombstones),
        (1, 1)
    );
}

/// One peer that is busy for an hour keeps nobody else from telling.
#[test]
fn a_busy_peer_is_left_alone_and_the_next_is_asked() {
    let mut node = Harness::new();
    let actions = node.feed(Input::PeerConnected {
        peer: peer(9),
        catchup: true,
    });
    let (exchange, ..) = ask(&actions);
    node.feed(Input::PeerConnected {
        peer: peer(8),
        catchup: true,
    });
    let result = Ok(Reply::Busy { retry_seconds: 3600 });
    let mut actions = node.feed(Input::CatchupReplied { exchange, result });
    let begin = node.now;
    while !is_asking(&actions) {
        actions = node.pass(Duration::from_secs(1));
    }
    assert!(node.now.since(begin) <= Duration::from_secs(15));
    let (exchange, asked, _) = ask(&actions);
    assert_eq!(asked, peer(8));
    let (authors, more) = (Vec::new(), false);
    let result = Ok(Reply::Summary { authors, more });
    actions = node.feed(Input::CatchupReplied { exchange, result });
    while !is_asking(&actions) {
        actions = node.pass(Duration::from_secs(1));
    }
    assert_eq!(ask(&actions).1, peer(8), "the other is still busy");
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
        while is_asking(&actions) {
            pages += 1;
            actions = exchange_page(&mut full, &mut empty, &actions).1;
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

/// Joins `relay`, which lists `authors`; gives what is asked next.
fn listed(
    node: &mut Harness,
    relay: u32,
    authors: Vec<dirnode_routing::catchup::AuthorSummary>,
) -> Vec<Action> {
    let mut actions = node.feed(Input::PeerConnected {
        peer: peer(relay),
        catchup: true,
    });
    if !is_asking(&actions) {
        actions = node.pass(Duration::from_secs(30));
    }
    let (exchange, asked, request) = ask(&actions);
    assert_eq!((asked, request), (peer(relay), Request::Summary { after: None }));
    let result = Ok(Reply::Summary { authors, more: false });
    node.feed(Input::CatchupReplied { exchange, result })
}

fn is_asking(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::CatchupAsk { .. }))
}

/// The first peer says that it has told everything of an author and that the newest of it is from tomorrow.
#[test]
fn a_peer_that_tells_too_little_does_not_keep_the_next_from_telling() {
    let mut node = Harness::new();
    let tomorrow = node.now + Duration::from_secs(24 * 3600);
    let actions = listed(&mut node, 9, vec![summary(1, tomorrow)]);
    let (exchange, ..) = ask(&actions);
    let sections = vec![Section {
        cursor: 0,
        complete: true,
        rows: vec![row(1, &["a"], tomorrow)],
    }];
    let result = Ok(Reply::Rows {
        sections,
        authors: Vec::new(),
    });
    node.feed(Input::CatchupReplied { exchange, result });
    assert_eq!(node.brain.status().caught_up, 1);
    let newest = node.now.before(Duration::from_secs(60));
    let actions = listed(&mut node, 8, vec![summary(1, newest)]);
    let (_, asked, request) = ask(&actions);
    assert_eq!(asked, peer(8));
    let Request::Rows { cursors } = request else {
        panic!("{request:?}")
    };
    assert_eq!(
        (&cursors[0].author, cursors[0].since),
        (&peer(1), Timestamp::EPOCH)
    );
}

#[test]
fn a_summary_that_goes_round_in_circles_ends_the_exchange() {
    let mut node = Harness::new();
    let actions = node.feed(Input::PeerConnected {
        peer: peer(9),
        catchup: true,
    });
    let mut next = ask(&actions);
    for round in 0..2 {
        let authors = vec![summary(1, BEGIN), summary(2, BEGIN)];
        let result = Ok(Reply::Summary { authors, more: true });
        let actions = node.feed(Input::CatchupReplied {
            exchange: next.0,
            result,
        });
        let fault = Action::Score {
            peer: peer(9),
            fault: Fault::BadPage,
        };
        assert_eq!(actions.contains(&fault), round == 1, "{actions:?}");
        if round == 0 {
            next = ask(&actions);
            assert_eq!(next.2, Request::Summary { after: Some(peer(2)) });
        }
    }
    assert_eq!(node.brain.status().catchup_peers, 0);
}

/// Every page comes in time and there is always one more row; after minutes somebody else has his turn.
#[test]
fn an_exchange_without_end_is_ended() {
    let mut node = Harness::new();
    let begin = node.now;
    let mut actions = listed(&mut node, 9, vec![summary(1, begin)]);
    node.feed(Input::PeerConnected {
        peer: peer(8),
        catchup: true,
    });
    let mut pages = 0_u32;
    while is_asking(&actions) {
        let (exchange, asked, _) = ask(&actions);
        assert_eq!(asked, peer(9));
        pages += 1;
        assert!(pages < 100, "it goes on for {:?}", node.now.since(begin));
        node.pass(Duration::from_secs(29));
        let sections = vec![Section {
            cursor: 0,
            complete: false,
            rows: vec![row(pages, &["a"], begin + Duration::from_nanos(pages.into()))],
        }];
        let result = Ok(Reply::Rows {
            sections,
            authors: Vec::new(),
        });
        actions = node.feed(Input::CatchupReplied { exchange, result });
    }
    assert!(node.now.since(begin) <= CATCHUP_EXCHANGE + Duration::from_secs(60));
    let actions = node.pass(Duration::from_secs(30));
    let (_, asked, request) = ask(&actions);
    assert_eq!((asked, request), (peer(8), Request::Summary { after: None }));
}

/// Two nodes with the same rows, one of which starts again and has missed what came meanwhile.
#[test]
fn after_a_restart_what_is_newer_is_read_first_and_gaps_are_found_all_the_same() {
    for gap in [false, true] {
        let config = Config {
            verify: false,
            ..Config::default()
        };
        let mut full = Harness::with(config.clone(), Restored::default());
        let begin = full.now;
        let at = |n: u32| begin + Duration::from_secs(u64::from(n) * 10);
        let mut kept = Restored::default();
        for n in 0..100 {
            full.now = at(n);
            full.hear(1, said(n, &["a"], at(n)));
            // The last run ended at number 90, and in one of the cases number 10 was not kept.
            if n < 90 && !(gap && n == 10) {
                kept.claims.push(RestoredClaim {
                    cid: cid(n),
                    peer: peer(1),
                    labels: labels(&["a"]),
                    timestamp: at(n),
                    last_seen: at(n),
                    standing: Standing::Claimed,
                });
            }
        }
        let now = full.now;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut again = Harness::with(config.clone(), Restored::default());
        again.now = now;
        again.brain = Brain::restore(config, peer(77), kept, now, &mut rng);
        let mut told: Vec<usize> = Vec::new();
        let mut actions = again.feed(Input::PeerConnected {
            peer: peer(0),
            catchup: true,
        });
        while is_asking(&actions) {
            let asks_rows = matches!(ask(&actions).2, Request::Rows { .. });
            let (rows, next) = exchange_page(&mut full, &mut again, &actions);
            if asks_rows {
                told.push(rows);
            }
            actions = next;
            if !is_asking(&actions) {
                // What was read from a guess on is compared once more, and soon.
                actions = again.pass(Duration::from_secs(30));
            }
        }
        let status = again.brain.status();
        assert_eq!(status.claimed + status.hearsay, 100);
        let expected: &[usize] = if gap { &[17, 100] } else { &[17] };
        assert_eq!(told, expected, "ten that are new, and a minute's overlap");
    }
}

/// Pauses of seconds at first, for what was lost while the mesh came together; then of half an hour.
#[test]
fn once_joined_everything_is_compared_again_at_pauses_that_grow() {
    let mut node = Harness::new();
    let mut actions = Vec::new();
    for relay in 1..=3 {
        actions.extend(node.feed(Input::PeerConnected {
            peer: peer(relay),
            catchup: true,
        }));
    }
    let (mut asked_at, begin) = (Vec::new(), node.now);
    while node.now.since(begin) < Duration::from_secs(4 * 3600) {
        while is_asking(&actions) {
            asked_at.push(node.now.since(begin).as_secs());
            let (exchange, ..) = ask(&actions);
            let (authors, more) = (Vec::new(), false);
            let result = Ok(Reply::Summary { authors, more });
            actions = node.feed(Input::CatchupReplied { exchange, result });
        }
        actions = node.pass(Duration::from_secs(1));
    }
    assert_eq!(asked_at[..3], [0, 0, 0]);
    let pauses: Vec<u64> = asked_at[2..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, wanted) in pauses.iter().zip([10, 20, 40, 80, 160, 320, 640, 1_280]) {
        assert!((wanted..=wanted * 3 / 2 + 1).contains(pause), "{pauses:?}");
    }
    for pause in &pauses[8..] {
        assert!((1_300..=2_300).contains(pause), "{pauses:?}");
    }
}

/// Single announcements get lost: everything is known of an author but one row in the middle, and more comes every day.
#[test]
fn a_row_that_was_lost_in_the_middle_is_found_by_the_next_exchange() {
    let mut full = Harness::new();
    let config = Config {
        verify: false,
        ..Config::default()
    };
    let mut node = Harness::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    node.brain = Brain::restore(config, peer(77), Restored::default(), BEGIN, &mut rng);
    let mut actions = node.feed(Input::PeerConnected {
        peer: peer(0),
        catchup: true,
    });
    let mut read = Vec::new();
    for round in 0..4_u32 {
        let mut told = 0;
        while is_asking(&actions) {
            let (rows, next) = exchange_page(&mut full, &mut node, &actions);
            (told, actions) = (told + rows, next);
        }
        read.push(told);
        let known = node.brain.status();
        assert_eq!(
            known.claimed + known.hearsay,
            usize::try_from(round).unwrap() * 100
        );
        for n in round * 100..(round + 1) * 100 {
            for hearing in [&mut full, &mut node] {
                hearing.now = hearing.now + Duration::from_millis(10);
            }
            let news = said(n, &["a"], full.now);
            full.hear(1, news.clone());
            if n % 100 != 50 {
                node.hear(1, news);
            }
        }
        // One by one, as an exchange may come in between.
        actions = Vec::new();
        while !is_asking(&actions) {
            full.now = full.now + Duration::from_secs(1);
            actions = node.pass(Duration::from_secs(1));
        }
    }
    // Nothing at first; then what is newer than the last reading, which holds the lost row.
    assert_eq!(read, [0, 100, 100, 100]);

    while is_asking(&actions) {
        actions = exchange_page(&mut full, &mut node, &actions).1;
    }

    // The other comes to know a row from before the place where the last reading ended, and a new one.
    let now = full.now;
    full.hear(1, said(1_000, &["a"], now.before(Duration::from_secs(600))));
    full.hear(1, said(1_001, &["a"], now));
    while !is_asking(&actions) {
        full.now = full.now + Duration::from_secs(1);
        actions = node.pass(Duration::from_secs(1));
    }
    let mut told = Vec::new();
    while is_asking(&actions) {
        let (rows, next) = exchange_page(&mut full, &mut node, &actions);
        told.push(rows);
        actions = next;
    }
    assert_eq!(
        told,
        [0, 1, 0, 402],
        "what is newer, a second look, and then all of it"
    );
    let known = node.brain.status();
    assert_eq!(known.claimed + known.hearsay, 402);
}

/// Lets `full` answer what `node` asks for in `actions`: the rows it told, and what is asked next.
fn exchange_page(full: &mut Harness, node: &mut Harness, actions: &[Action]) -> (usize, Vec<Action>) {
    let (exchange, _, request) = ask(actions);
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
    // As it crosses the wire.
    let bytes = dirnode_routing::catchup::codec::encode_reply(&reply);
    let reply = dirnode_routing::catchup::codec::decode_reply(&bytes).unwrap();
    let rows = match &reply {
        Reply::Rows { sections, .. } => sections.iter().map(|section| section.rows.len()).sum(),
        _ => 0,
    };
    let result = Ok(reply);
    (rows, node.feed(Input::CatchupReplied { exchange, result }))
}
