//! What the state machine promises, told by feeding it and looking at what it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dirnode_record::{Label, Namespace, RecordCid};
use dirnode_routing::catchup::{AuthorSummary, Cursor, Reply, Request, Row, Section};
use dirnode_routing::config::{CLAIM_TTL, MAX_AGE, MAX_AHEAD, REPROVIDE_INTERVAL, TOMBSTONE_TTL};
use dirnode_routing::{
    Action, Announcement, Brain, Change, Config, DueRow, ExchangeId, Failure, Fault, IndexChange, Input,
    Kind, OutboxRow, PeerId, Point, Progress, Refused, RequestId, Restored, Standing, SyncOutcome, Ticket,
    Timestamp, Token, Verdict,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const BEGIN: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);

struct Harness {
    brain: Brain,
    now: Timestamp,
    rng: ChaCha8Rng,
}

fn peer(number: u32) -> PeerId {
    PeerId::from_bytes(&[&[0, 0x24][..], &number.to_be_bytes()].concat()).unwrap()
}

fn cid(number: u32) -> RecordCid {
    RecordCid::of(&number.to_be_bytes())
}

fn labels(names: &[&str]) -> Vec<Label> {
    names
        .iter()
        .map(|name| Label::new(Namespace::Skills, name))
        .collect()
}

fn said(number: u32, names: &[&str], timestamp: Timestamp) -> Announcement {
    Announcement {
        cid: cid(number),
        labels: labels(names),
        timestamp,
        withdrawn: names.is_empty(),
    }
}

impl Harness {
    fn new() -> Self {
        Self::with(Config::default(), Restored::default())
    }

    fn with(config: Config, rows: Restored) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let brain = Brain::restore(config, peer(0), rows, BEGIN, &mut rng);
        Self {
            brain,
            now: BEGIN,
            rng,
        }
    }

    fn feed(&mut self, input: Input) -> Vec<Action> {
        self.brain.on(input, self.now, &mut self.rng)
    }

    fn pass(&mut self, span: Duration) -> Vec<Action> {
        self.now = self.now + span;
        self.feed(Input::Wake)
    }

    fn connected(mut self) -> Self {
        self.feed(Input::Table { table: 30, mesh: 6 });
        self
    }

    fn hear(&mut self, author: u32, announcement: Announcement) -> (Verdict, Vec<IndexChange>) {
        let publisher = peer(author);
        let token = Token(9);
        let actions = self.feed(Input::Announced {
            token,
            publisher,
            permitted: true,
            announcement,
        });
        let verdicts: Vec<Verdict> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Verdict {
                    token: Token(9),
                    verdict,
                } => Some(*verdict),
                _ => None,
            })
            .collect();
        assert_eq!(verdicts.len(), 1, "one verdict for each announcement");
        (verdicts[0], index(&actions))
    }

    /// Sees a provider record, and waits until no announcement came.
    fn sight(&mut self, number: u32, by: u32) -> Vec<Action> {
        let (cid, peer) = (cid(number), peer(by));
        self.feed(Input::ProviderSeen { cid, peer });
        self.pass(Duration::from_secs(3))
    }

    /// Publishes and carries out everything that is asked for.
    fn publish(&mut self, number: u32) -> Vec<Action> {
        let actions = self.feed(Input::Publish {
            request: RequestId(1),
            cid: cid(number),
        });
        let ticket = persists(&actions)[0].0;
        self.feed(Input::Persisted {
            ticket,
            result: Ok(()),
        })
    }
}

fn index(actions: &[Action]) -> Vec<IndexChange> {
    let change = |action: &Action| match action {
        Action::Index(change) => Some(change.clone()),
        _ => None,
    };
    actions.iter().filter_map(change).collect()
}

fn persists(actions: &[Action]) -> Vec<(Ticket, Change)> {
    let change = |action: &Action| match action {
        Action::Persist { ticket, change } => Some((*ticket, change.clone())),
        _ => None,
    };
    actions.iter().filter_map(change).collect()
}

fn find<T>(actions: &[Action], pick: impl Fn(&Action) -> Option<T>) -> T {
    actions
        .iter()
        .find_map(pick)
        .unwrap_or_else(|| panic!("not among {actions:?}"))
}

fn load(actions: &[Action]) -> Ticket {
    find(actions, |action| match action {
        Action::LoadLabels { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

fn provide(actions: &[Action]) -> Ticket {
    find(actions, |action| match action {
        Action::Provide { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

fn announces(actions: &[Action]) -> Vec<(Ticket, Announcement)> {
    let pick = |action: &Action| match action {
        Action::Announce { ticket, announcement } => Some((*ticket, announcement.clone())),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

fn fetch(actions: &[Action]) -> (Ticket, RecordCid, PeerId) {
    find(actions, |action| match action {
        Action::Fetch {
            ticket, cid, peer, ..
        } => Some((*ticket, *cid, peer.clone())),
        _ => None,
    })
}

#[test]
fn nothing_is_acknowledged_or_told_before_it_is_on_disk() {
    let mut node = Harness::new().connected();
    let actions = node.feed(Input::Publish {
        request: RequestId(1),
        cid: cid(1),
    });
    assert!(
        matches!(
            &actions[..],
            [Action::Persist {
                change: Change::Publish(_),
                ..
            }]
        ),
        "{actions:?}"
    );
    assert_eq!(node.brain.progress(&cid(1)), Some(Progress::Pending(None)));
    let ticket = persists(&actions)[0].0;
    let actions = node.feed(Input::Persisted {
        ticket,
        result: Ok(()),
    });
    assert_eq!(actions[0], Action::Serve { cid: cid(1) });
    assert_eq!(
        actions[1],
        Action::Acknowledge {
            request: RequestId(1),
            outcome: Ok(())
        }
    );
    let (load, provide) = (load(&actions), provide(&actions));
    assert_eq!(node.brain.progress(&cid(1)), Some(Progress::InProgress(None)));
    let actions = node.feed(Input::Labels {
        ticket: load,
        labels: Some(labels(&["a"])),
    });
    let (announce, told) = announces(&actions).remove(0);
    assert_eq!(told.labels, labels(&["a"]));
    node.feed(Input::AnnounceSent {
        ticket: announce,
        result: Ok(()),
    });
    let actions = node.feed(Input::Provided {
        ticket: provide,
        result: Ok(()),
    });
    assert!(
        persists(&actions)
            .iter()
            .any(|(_, change)| *change == Change::Forget(cid(1)))
    );
    let due = find(&actions, |action| match action {
        Action::PersistDue { rows } => Some(rows[0].clone()),
        _ => None,
    });
    assert!(due.due > node.now + REPROVIDE_INTERVAL / 2 && due.due <= node.now + REPROVIDE_INTERVAL);
    assert_eq!(node.brain.progress(&cid(1)), Some(Progress::Completed));
    assert_eq!(node.brain.status().open, 0);
}

#[test]
fn what_the_disk_refuses_is_refused() {
    let mut node = Harness::new().connected();
    let actions = node.feed(Input::Publish {
        request: RequestId(3),
        cid: cid(1),
    });
    let ticket = persists(&actions)[0].0;
    let actions = node.feed(Input::Persisted {
        ticket,
        result: Err(Failure::Storage),
    });
    let outcome = Err(Refused::NotRecorded(Failure::Storage));
    assert_eq!(
        actions,
        [Action::Acknowledge {
            request: RequestId(3),
            outcome
        }]
    );
    assert!(!node.brain.is_published(&cid(1)));
}

#[test]
fn without_peers_a_publication_waits_visibly_and_goes_at_the_first() {
    let mut node = Harness::new();
    node.publish(1);
    assert_eq!(
        node.brain.progress(&cid(1)),
        Some(Progress::Pending(Some(Failure::NoPeers)))
    );
    assert!(node.brain.status().waiting_for_peers);
    let actions = node.feed(Input::Table { table: 1, mesh: 1 });
    provide(&actions);
    load(&actions);
}

#[test]
fn failed_steps_are_tried_again_later_each_time_and_reported_after_a_day() {
    let mut node = Harness::new().connected();
    let mut actions = node.publish(1);
    let ticket = load(&actions);
    let told = node.feed(Input::Labels {
        ticket,
        labels: Some(Vec::new()),
    });
    assert!(
        announces(&told).is_empty(),
        "a record without labels has nothing to announce"
    );
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let ticket = provide(&actions);
        node.feed(Input::Provided {
            ticket,
            result: Err(Failure::TimedOut),
        });
        assert!(matches!(
            node.brain.progress(&cid(1)),
            Some(Progress::InProgress(Some(Failure::TimedOut)))
        ));
        let wake = node.brain.next_wake().unwrap();
        pauses.push(wake.since(node.now));
        actions = node.pass(wake.since(node.now));
    }
    assert!(pauses[0] < Duration::from_secs(6) && pauses[11] > Duration::from_secs(800));
    assert!(pauses.iter().all(|pause| *pause <= Duration::from_secs(1800)));
    node.now = node.now + Duration::from_secs(25 * 3600);
    let ticket = provide(&actions);
    // The report is late; what counts is that the key is tried again and the state is told.
    let mut actions = node.feed(Input::Provided {
        ticket,
        result: Err(Failure::TimedOut),
    });
    assert_eq!(
        node.brain.progress(&cid(1)),
        Some(Progress::Failed(Failure::TimedOut))
    );
    for _ in 0..3 {
        if actions
            .iter()
            .any(|action| matches!(action, Action::Provide { .. }))
        {
            break;
        }
        actions = node.pass(Duration::from_secs(1800));
    }
    let ticket = provide(&actions);
    node.feed(Input::Provided {
        ticket,
        result: Ok(()),
    });
    assert_eq!(
        node.brain.progress(&cid(1)),
        Some(Progress::Completed),
        "the republisher goes on"
    );
}

#[test]
fn long_label_lists_go_out_in_parts_with_one_time() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let many: Vec<Label> = (0..250)
        .map(|n| Label::new(Namespace::Skills, &n.to_string()))
        .collect();
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket,
        labels: Some(many.clone()),
    });
    let parts = announces(&actions);
    assert_eq!(parts.len(), 3);
    assert!(
        parts
            .iter()
            .all(|(_, part)| part.timestamp == parts[0].1.timestamp)
    );
    let told: BTreeSet<Label> = parts.iter().flat_map(|(_, part)| part.labels.clone()).collect();
    assert_eq!(told, many.into_iter().collect());
    // A part that fails sends all of them again, with a newer time.
    let ticket = parts[0].0;
    for result in [Ok(()), Err(Failure::Busy), Ok(())] {
        node.feed(Input::AnnounceSent { ticket, result });
    }
    let actions = node.pass(Duration::from_secs(6));
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket,
        labels: Some(labels(&["a"])),
    });
    assert!(announces(&actions)[0].1.timestamp > parts[0].1.timestamp);
}

#[test]
fn rows_of_the_last_run_are_taken_up() {
    let row = |number, kind, announced| OutboxRow {
        cid: cid(number),
        kind,
        stamp: BEGIN.before(Duration::from_secs(60)),
        filed_at: BEGIN.before(Duration::from_secs(60)),
        announced,
    };
    let due = |number, due| DueRow {
        cid: cid(number),
        due,
        stamp: BEGIN.before(Duration::from_secs(3600)),
    };
    let rows = Restored {
        outbox: vec![
            row(1, Kind::Publish, false),
            row(2, Kind::Withdraw, false),
            row(3, Kind::Withdraw, true),
        ],
        published: vec![
            due(1, Timestamp::EPOCH),
            due(4, BEGIN + Duration::from_secs(7200)),
        ],
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows);
    let actions = node.feed(Input::Table { table: 30, mesh: 6 });
    provide(&actions);
    load(&actions);
    let told = announces(&actions);
    assert_eq!(told.len(), 1);
    assert!(told[0].1.withdrawn && told[0].1.cid == cid(2));
    let ticket = told[0].0;
    node.feed(Input::AnnounceSent {
        ticket,
        result: Ok(()),
    });
    assert_eq!(node.brain.progress(&cid(4)), Some(Progress::Completed));
    let actions = node.pass(Duration::from_secs(7200));
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Provide { cid: due, .. } if *due == cid(4)))
    );
    let actions = node.pass(TOMBSTONE_TTL);
    let forgotten: Vec<Change> = persists(&actions).into_iter().map(|(_, change)| change).collect();
    assert!(forgotten.contains(&Change::Forget(cid(2))) && forgotten.contains(&Change::Forget(cid(3))));
}

#[test]
fn unpublish_stops_serving_at_once_and_is_announced_with_a_newer_time() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let loading = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket: loading,
        labels: Some(labels(&["a"])),
    });
    let (ticket, published) = announces(&actions).remove(0);
    let actions = node.feed(Input::Unpublish {
        request: RequestId(2),
        cid: cid(1),
    });
    let filed = persists(&actions)[0].clone();
    assert!(matches!(filed.1, Change::Withdraw(_)));
    let actions = node.feed(Input::Persisted {
        ticket: filed.0,
        result: Ok(()),
    });
    assert_eq!(
        actions[0],
        Action::StopServing { cid: cid(1) },
        "before anybody is told that it was done"
    );
    assert!(
        announces(&actions).is_empty(),
        "the announcement that is on its way goes first"
    );
    let actions = node.feed(Input::AnnounceSent {
        ticket,
        result: Ok(()),
    });
    let (_, withdrawn) = announces(&actions).remove(0);
    assert!(withdrawn.withdrawn && withdrawn.labels.is_empty() && withdrawn.timestamp > published.timestamp);
    assert!(!node.brain.is_published(&cid(1)));
}

#[test]
fn labels_read_after_a_withdrawal_are_not_announced() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let loading = load(&actions);
    let actions = node.feed(Input::Unpublish {
        request: RequestId(2),
        cid: cid(1),
    });
    let ticket = persists(&actions)[0].0;
    node.feed(Input::Persisted {
        ticket,
        result: Ok(()),
    });
    let actions = node.feed(Input::Labels {
        ticket: loading,
        labels: Some(labels(&["a"])),
    });
    assert!(announces(&actions).iter().all(|(_, told)| told.withdrawn));
}

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

fn ask(actions: &[Action]) -> (ExchangeId, PeerId, Request) {
    find(actions, |action| match action {
        Action::CatchupAsk {
            exchange,
            peer,
            request,
        } => Some((*exchange, peer.clone(), request.clone())),
        _ => None,
    })
}

fn row(number: u32, names: &[&str], timestamp: Timestamp) -> Row {
    Row {
        cid: cid(number),
        timestamp,
        withdrawn: names.is_empty(),
        labels: labels(names),
    }
}

fn summary(author: u32, newest: Timestamp) -> AuthorSummary {
    AuthorSummary {
        author: peer(author),
        rows: 1,
        newest,
        digest: 7,
    }
}

/// Connects to `relay` and lets it tell rows of `author`.
fn tell(node: &mut Harness, relay: u32, author: u32, rows: Vec<Row>) -> Vec<Action> {
    let mut actions = node.feed(Input::PeerConnected {
        peer: peer(relay),
        catchup: true,
    });
    if !actions
        .iter()
        .any(|action| matches!(action, Action::CatchupAsk { .. }))
    {
        actions = node.pass(Duration::from_secs(40 * 60));
    }
    let (exchange, asked, request) = ask(&actions);
    assert_eq!((asked, request), (peer(relay), Request::Summary { after: None }));
    let newest = rows.last().unwrap().timestamp;
    let reply = Reply::Summary {
        authors: vec![summary(author, newest)],
        more: false,
    };
    let actions = node.feed(Input::CatchupReplied {
        exchange,
        result: Ok(reply),
    });
    let (exchange, _, request) = ask(&actions);
    let Request::Rows { cursors } = request else {
        panic!("{request:?}")
    };
    assert_eq!(cursors[0].author, peer(author));
    let sections = vec![Section {
        cursor: 0,
        complete: true,
        rows,
    }];
    let actions = node.feed(Input::CatchupReplied {
        exchange,
        result: Ok(Reply::Rows {
            sections,
            authors: Vec::new(),
        }),
    });
    node.feed(Input::PeerDisconnected { peer: peer(relay) });
    actions
}

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
}

/// A network of peers that a sweep can ask: nearest peers exactly, as a settled network answers.
fn nearest(peers: &[PeerId], key: &[u8]) -> Vec<PeerId> {
    let target = Point::of_key(key);
    let mut sorted = peers.to_vec();
    sorted.sort_by_key(|peer| Point::of_peer(peer).distance(&target));
    sorted.truncate(20);
    sorted
}

#[test]
fn a_round_of_many_keys_shares_lookups_and_reaches_the_nearest() {
    let peers: Vec<PeerId> = (1..=400).map(peer).collect();
    let keys = 3_000;
    let rows = Restored {
        published: (0..keys)
            .map(|n| DueRow {
                cid: cid(n),
                due: BEGIN,
                stamp: BEGIN,
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
                    result: Ok(nearest(&peers, &key)),
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
    assert!(lookups < 150, "{lookups} lookups for {keys} keys");
    for (cid, holders) in &placed {
        assert_eq!(*holders, nearest(&peers, &cid.multihash()).into_iter().collect());
    }
    assert!(placed.len() > 2_900);
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
            })
            .collect(),
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows);
    let mut todo = node.feed(Input::Table { table: 30, mesh: 0 });
    let peers: Vec<PeerId> = (1..=30).map(peer).collect();
    while let Some(action) = todo.pop() {
        match action {
            Action::FindClosest { ticket, key } => {
                todo.extend(node.feed(Input::Closest {
                    ticket,
                    result: Ok(nearest(&peers, &key)),
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
