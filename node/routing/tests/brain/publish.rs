//! Publications and withdrawals: durable first, then told, until they are.

use std::collections::BTreeSet;
use std::time::Duration;

use dirnode_record::{Label, Namespace, RecordCid};
use dirnode_routing::config::{REPROVIDE_INTERVAL, TOMBSTONE_TTL};
use dirnode_routing::{
    Action, Change, Config, DueRow, Failure, Input, Kind, OutboxRow, Progress, Refused, RequestId, Restored,
    Timestamp,
};

use crate::{BEGIN, Harness, announces, cid, find, labels, load, persists, provide};

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
        labels: Ok(Some(labels(&["a"]))),
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
            .any(|(_, change)| matches!(change, Change::Forget { cid: which, .. } if *which == cid(1)))
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
        labels: Ok(Some(Vec::new())),
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
        labels: Ok(Some(many.clone())),
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
        labels: Ok(Some(labels(&["a"]))),
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
        provided_at: Timestamp::EPOCH,
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
    let forgotten: Vec<RecordCid> = persists(&actions)
        .into_iter()
        .filter_map(|(_, change)| match change {
            Change::Forget { cid, .. } => Some(cid),
            _ => None,
        })
        .collect();
    assert!(forgotten.contains(&cid(2)) && forgotten.contains(&cid(3)));
}

#[test]
fn unpublish_stops_serving_at_once_and_is_announced_with_a_newer_time() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let loading = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket: loading,
        labels: Ok(Some(labels(&["a"]))),
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
        labels: Ok(Some(labels(&["a"]))),
    });
    assert!(announces(&actions).iter().all(|(_, told)| told.withdrawn));
}

#[test]
fn too_many_open_publications_are_refused_and_taking_back_is_not() {
    let config = Config {
        max_open: 1,
        ..Config::default()
    };
    let mut node = Harness::with(config, Restored::default());
    node.publish(1);
    let actions = node.feed(Input::Publish {
        request: RequestId(2),
        cid: cid(2),
    });
    let outcome = Err(Refused::Full { open: 1, limit: 1 });
    assert_eq!(
        actions,
        [Action::Acknowledge {
            request: RequestId(2),
            outcome
        }]
    );
    let actions = node.feed(Input::Unpublish {
        request: RequestId(3),
        cid: cid(1),
    });
    assert!(matches!(persists(&actions)[0].1, Change::Withdraw(_)));
    // Taking back what was never published is done already.
    let actions = node.feed(Input::Unpublish {
        request: RequestId(4),
        cid: cid(9),
    });
    assert_eq!(
        actions,
        [Action::Acknowledge {
            request: RequestId(4),
            outcome: Ok(())
        }]
    );
}

/// A record that was deleted while it was published: nobody is to look for it here any more, now or after a restart.
#[test]
fn a_record_that_is_gone_is_taken_back() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket,
        labels: Ok(None),
    });
    let (ticket, change) = persists(&actions).remove(0);
    assert!(
        matches!(&change, Change::Withdraw(row) if row.cid == cid(1)),
        "{change:?}"
    );
    assert_eq!(node.brain.counters().orphans, 1);
    let actions = node.feed(Input::Persisted {
        ticket,
        result: Ok(()),
    });
    assert!(actions.contains(&Action::StopServing { cid: cid(1) }));
    assert_eq!(settled(&actions), 1, "whoever follows its news learns of it");
    assert!(!node.brain.is_published(&cid(1)));
    let told = announces(&actions);
    assert!(told[0].1.withdrawn && told[0].1.cid == cid(1));
}

/// The index of a large store is not there at once after a start.
#[test]
fn labels_that_cannot_be_read_now_are_read_later() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket,
        labels: Err(Failure::Busy),
    });
    assert!(announces(&actions).is_empty() && persists(&actions).is_empty());
    assert!(node.brain.is_published(&cid(1)));
    let actions = node.pass(Duration::from_secs(60));
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels {
        ticket,
        labels: Ok(Some(labels(&["a"]))),
    });
    assert_eq!(announces(&actions).len(), 1);
}

/// Taken back and published again at once: what tidies up behind the withdrawal must not touch the new row.
#[test]
fn tidying_up_behind_a_request_names_its_own_row() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let actions = node.feed(Input::Labels {
        ticket: load(&actions),
        labels: Ok(Some(labels(&["a"]))),
    });
    let (ticket, result) = (announces(&actions)[0].0, Ok(()));
    node.feed(Input::AnnounceSent { ticket, result });
    let actions = node.feed(Input::Unpublish {
        request: RequestId(2),
        cid: cid(1),
    });
    let (ticket, change) = persists(&actions).remove(0);
    let Change::Withdraw(withdrawal) = change else {
        panic!("{change:?}")
    };
    let result = Ok(());
    let actions = node.feed(Input::Persisted { ticket, result });
    let (announce, _) = announces(&actions).remove(0);
    let actions = node.feed(Input::Publish {
        request: RequestId(3),
        cid: cid(1),
    });
    let (_, change) = persists(&actions).remove(0);
    let Change::Publish(publication) = change else {
        panic!("{change:?}")
    };
    let result = Ok(());
    let actions = node.feed(Input::AnnounceSent {
        ticket: announce,
        result,
    });
    let changes = persists(&actions);
    let [(_, Change::Update { row, was })] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((row.kind, *was), (Kind::Withdraw, withdrawal.stamp));
    assert_ne!(*was, publication.stamp);
}

/// A clock that was ahead for a while: nobody listens to stamps of tomorrow, so they must not bind us.
#[test]
fn stamps_of_a_clock_that_was_ahead_are_given_up() {
    let tomorrow = BEGIN + Duration::from_secs(24 * 3600);
    let mut node = Harness::new().connected();
    let now = node.now;
    node.now = tomorrow;
    let actions = node.publish(1);
    let ticket = load(&actions);
    let read = |ticket| Input::Labels {
        ticket,
        labels: Ok(Some(labels(&["a"]))),
    };
    let actions = node.feed(read(ticket));
    assert!(announces(&actions)[0].1.timestamp >= tomorrow);
    node.now = now;
    let actions = node.publish(2);
    let ticket = load(&actions);
    let actions = node.feed(read(ticket));
    assert!(announces(&actions)[0].1.timestamp < now + Duration::from_secs(1));

    // The same with rows of a run whose clock was ahead.
    let rows = Restored {
        outbox: vec![OutboxRow {
            cid: cid(3),
            kind: Kind::Withdraw,
            stamp: tomorrow,
            filed_at: tomorrow,
            announced: true,
        }],
        published: vec![DueRow {
            cid: cid(4),
            due: tomorrow,
            stamp: tomorrow,
            provided_at: tomorrow,
        }],
        ..Restored::default()
    };
    let mut node = Harness::with(Config::default(), rows).connected();
    let mut told = Vec::new();
    let mut actions = node.feed(Input::Wake);
    for _ in 0..2 {
        let loading: Vec<_> = actions
            .iter()
            .filter_map(|action| match action {
                Action::LoadLabels { ticket, .. } => Some(*ticket),
                _ => None,
            })
            .collect();
        told.extend(announces(&actions).into_iter().map(|(_, told)| told));
        actions = Vec::new();
        for ticket in loading {
            actions.extend(node.feed(read(ticket)));
        }
    }
    assert!(
        told.iter().all(|told| told.timestamp < tomorrow) && told.len() <= 2,
        "{told:?}"
    );
}

/// Keys were due, and then the clock was put back by a day.
#[test]
fn a_clock_that_is_put_back_holds_nothing_up() {
    for count in [2_u32, 200] {
        let published = (0..count)
            .map(|n| DueRow {
                cid: cid(n),
                due: BEGIN + Duration::from_secs(3600),
                stamp: BEGIN,
                provided_at: BEGIN,
            })
            .collect();
        let rows = Restored {
            published,
            ..Restored::default()
        };
        let mut node = Harness::with(Config::default(), rows);
        node.now = BEGIN + Duration::from_secs(7200);
        // Nobody to tell: what is due waits.
        node.feed(Input::Table { table: 0, mesh: 0 });
        node.feed(Input::Wake);
        node.now = BEGIN.before(Duration::from_secs(24 * 3600));
        node.feed(Input::Table { table: 30, mesh: 0 });
        node.now = BEGIN + Duration::from_secs(7201);
        node.feed(Input::Wake);
        let status = node.brain.status();
        assert!(status.provides + status.sweeps > 0, "{status:?}");
    }
}

#[test]
fn a_disk_that_never_answers_does_not_keep_callers_waiting() {
    let mut node = Harness::new();
    let actions = node.feed(Input::Publish {
        request: RequestId(1),
        cid: cid(1),
    });
    let ticket = persists(&actions)[0].0;
    let wake = node.brain.next_wake().unwrap();
    let actions = node.pass(wake.since(node.now));
    let outcome = Err(Refused::NotRecorded(Failure::TimedOut));
    assert_eq!(
        actions,
        [Action::Acknowledge {
            request: RequestId(1),
            outcome
        }]
    );
    assert!(
        node.feed(Input::Persisted {
            ticket,
            result: Ok(())
        })
        .is_empty()
    );
}

fn settled(actions: &[Action]) -> usize {
    let is_it = |action: &&Action| matches!(action, Action::Settled { cid: which } if *which == cid(1));
    actions.iter().filter(is_it).count()
}

#[test]
fn news_tells_what_was_tried_what_went_through_and_what_comes_next() {
    let mut node = Harness::new();
    let actions = node.publish(1);
    assert_eq!(settled(&actions), 0);
    let news = node.brain.news(&cid(1)).unwrap();
    assert_eq!(news.progress, Progress::Pending(Some(Failure::NoPeers)));
    assert_eq!((news.open_since, news.provided_at), (Some(BEGIN), None));

    let actions = node.feed(Input::Table { table: 30, mesh: 6 });
    let (load, ticket) = (load(&actions), provide(&actions));
    let result = Err(Failure::TimedOut);
    node.feed(Input::Provided { ticket, result });
    let news = node.brain.news(&cid(1)).unwrap();
    assert_eq!((news.provide_tries, news.failure), (1, Some(Failure::TimedOut)));
    assert!(news.next_provide > Some(node.now));
    let labels = Ok(Some(labels(&["a"])));
    let actions = node.feed(Input::Labels { ticket: load, labels });
    let ticket = announces(&actions)[0].0;
    let result = Ok(());
    node.feed(Input::AnnounceSent { ticket, result });
    let news = node.brain.news(&cid(1)).unwrap();
    assert_eq!((news.announced_at, news.provided_at), (Some(BEGIN), None));
    assert_eq!(news.progress, Progress::InProgress(Some(Failure::TimedOut)));

    let ticket = provide(&node.pass(Duration::from_secs(6)));
    let actions = node.feed(Input::Provided {
        ticket,
        result: Ok(()),
    });
    assert_eq!(settled(&actions), 1, "who waits for it is told once");
    let news = node.brain.news(&cid(1)).unwrap();
    assert_eq!((news.progress, news.failure), (Progress::Completed, None));
    assert_eq!((news.open_since, news.provide_tries), (None, 0));
    assert_eq!(news.provided_at, Some(node.now));
    assert!(news.next_provide > Some(node.now + REPROVIDE_INTERVAL / 2));
    assert_eq!(node.brain.news(&cid(2)), None);
}

#[test]
fn the_next_round_comes_within_the_interval_that_is_set_and_never_later_than_peers_forget() {
    for (wanted, most) in [
        (Duration::from_secs(7200), Duration::from_secs(7200)),
        (Duration::from_secs(36 * 3600), REPROVIDE_INTERVAL),
    ] {
        let config = Config {
            reprovide_interval: wanted,
            ..Config::default()
        };
        let mut node = Harness::with(config, Restored::default()).connected();
        let actions = node.publish(1);
        let ticket = provide(&actions);
        node.feed(Input::Provided {
            ticket,
            result: Ok(()),
        });
        let next = node.brain.news(&cid(1)).unwrap().next_provide.unwrap();
        assert!(
            next > node.now + most / 2 && next <= node.now + most,
            "{wanted:?}"
        );
    }
}
