//! Publications and withdrawals: durable first, then told, until they are.

use std::collections::BTreeSet;
use std::time::Duration;

use dirnode_record::{Label, Namespace};
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

#[test]
fn a_record_that_is_gone_is_announced_no_more() {
    let mut node = Harness::new().connected();
    let actions = node.publish(1);
    let ticket = load(&actions);
    let actions = node.feed(Input::Labels { ticket, labels: None });
    assert!(actions.contains(&Action::StopServing { cid: cid(1) }));
    assert!(!node.brain.is_published(&cid(1)));
    assert_eq!(node.brain.counters().orphans, 1);
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
    let labels = Some(labels(&["a"]));
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
