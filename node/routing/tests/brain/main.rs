//! What the state machine promises, told by feeding it and looking at what it asks for.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail loudly"
)]

mod catchup;
mod fetch;
mod hear;
mod provide;
mod publish;

use std::time::Duration;

use dirnode_record::{Label, Namespace, RecordCid};
use dirnode_routing::catchup::{AuthorSummary, Reply, Request, Row, Section};
use dirnode_routing::{
    Action, Announcement, Brain, Change, Config, ExchangeId, IndexChange, Input, PeerId, RequestId, Restored,
    Ticket, Timestamp, Token, Verdict,
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
