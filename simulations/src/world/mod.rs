//! The world: one queue of events, the nodes, the links between them, and the driver of every brain.
//!
//! Each action of a brain is carried out here as the server's driver would do it: with a delay, over a link, on a disk
//! that can be interrupted. Events with the same time happen in the order in which they were put in. Never decides
//! anything that a brain decides.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes and records are made here and never taken away"
)]

mod act;
mod life;
mod lookup;
mod talk;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use dirnode_record::{Label, Namespace, RecordCid};
use dirnode_routing::{Config, ExchangeId, Failure, Input, PeerId, Point, Timestamp};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::kad::K;
use crate::link::Links;
use crate::message::{Event, Gossip, Input2, KINDS};
use crate::node::Node;
use crate::scenario::{Fault, Scenario};
use crate::trace::Trace;

/// When the virtual time begins: 2026-01-01.
pub const BEGIN: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);
/// Links of the mesh that a node wants, and takes at most.
const MESH: (usize, usize) = (6, 12);
/// Nodes that a starting node knows.
const BOOTSTRAP: u32 = 3;
/// How long a node waits for an answer to a lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a node waits until provider records are taken.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a node looks after its table.
const REFRESH: Duration = Duration::from_secs(600);
/// How long messages are offered to others, and to how many.
const OFFER: (Duration, usize) = (Duration::from_secs(3), 6);
/// A client whose node is down tries again after this.
const CLIENT_RETRY: Duration = Duration::from_millis(500);

/// A record of the run.
#[derive(Debug)]
pub struct Record {
    /// Its name.
    pub cid: RecordCid,
    /// What it says.
    pub labels: Vec<Label>,
    /// Who publishes it.
    pub publisher: u32,
    /// When publishing was first asked for.
    pub asked_at: Option<Timestamp>,
    /// When it was acknowledged.
    pub acked_at: Option<Timestamp>,
    /// When taking back was first asked for.
    pub withdraw_asked_at: Option<Timestamp>,
    /// When that was acknowledged.
    pub withdrawn_at: Option<Timestamp>,
    /// When the last node forgot it.
    pub last_drop: Timestamp,
    /// When each node first had it; zero for never.
    pub found: Vec<Timestamp>,
    /// Whether the network was split when it was published.
    pub split: bool,
}

#[derive(Debug)]
struct Scheduled {
    at: Timestamp,
    number: u64,
    node: u32,
    epoch: u32,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What a message that is being handled belongs to.
#[derive(Debug, Clone, Copy, Default)]
struct Context {
    /// Who sent it.
    from: u32,
    /// The page that was asked for.
    exchange: Option<ExchangeId>,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// The time.
    pub now: Timestamp,
    /// Every node by its number.
    pub nodes: Vec<Node>,
    /// Every record by its number.
    pub records: Vec<Record>,
    /// The hash over everything.
    pub trace: Trace,
    /// Messages sent, by kind.
    pub sent: [u64; KINDS.len()],
    /// Lookup requests that node 0 sent.
    pub requests_of_first: u64,
    /// When the parts came together.
    pub healed_at: Timestamp,
    /// When the publishers died.
    pub killed_at: Timestamp,
    /// Whether nodes gossip; off when only provides are measured.
    pub gossiping: bool,
    /// Whether brains are told of provider records; off when only provides are measured.
    pub sighting: bool,
    queue: BinaryHeap<Reverse<Scheduled>>,
    numbers: u64,
    by_peer: HashMap<PeerId, u32>,
    by_cid: HashMap<RecordCid, u32>,
    gossips: Vec<Arc<Gossip>>,
    links: Links,
    rng: ChaCha8Rng,
    config: Config,
    faults: Vec<Fault>,
    catchup: f64,
    seed: u64,
    context: Context,
    split: bool,
}

impl World {
    /// The links between the nodes.
    pub(crate) fn links(&self) -> &Links {
        &self.links
    }

    /// The world of a scenario, with its nodes about to start and everything planned that is to happen.
    #[must_use]
    pub fn new(scenario: &Scenario, seed: u64, config: Config) -> Self {
        let mut world = Self {
            now: BEGIN,
            nodes: Vec::new(),
            records: Vec::new(),
            trace: Trace::default(),
            sent: [0; KINDS.len()],
            requests_of_first: 0,
            healed_at: BEGIN,
            killed_at: BEGIN,
            gossiping: true,
            sighting: true,
            queue: BinaryHeap::new(),
            numbers: 0,
            by_peer: HashMap::new(),
            by_cid: HashMap::new(),
            gossips: Vec::new(),
            links: Links::new(scenario.latency, scenario.spread, scenario.loss, seed),
            rng: ChaCha8Rng::seed_from_u64(seed),
            config,
            faults: scenario.faults.clone(),
            catchup: scenario.catchup,
            seed,
            context: Context::default(),
            split: false,
        };
        for _ in 0..scenario.nodes {
            world.add_node();
        }
        world.fill_tables();
        for node in 0..scenario.nodes {
            let after = world.within(Duration::from_secs(1));
            world.schedule(node, after, Event::Start);
        }
        for place in 0..world.faults.len() {
            let at = world.faults[place].at;
            let number = u32::try_from(place).unwrap_or(u32::MAX);
            world.schedule(u32::MAX, at, Event::Fault(number));
        }
        world
    }

    /// Plans the publishing of records by nodes picked at random, evenly over a time.
    pub fn plan_records(&mut self, scenario: &Scenario) {
        let publishers: Vec<u32> = (0..scenario.publishers.max(1))
            .map(|_| self.rng.random_range(0..scenario.nodes.max(1)))
            .collect();
        let warm_up = Duration::from_secs(5);
        for number in 0..scenario.records {
            let publisher = publishers[usize::try_from(number).unwrap_or(0) % publishers.len()];
            self.add_record(publisher);
            let part = f64::from(number) / f64::from(scenario.records.max(1));
            self.schedule(
                publisher,
                warm_up + scenario.publish_over.mul_f64(part),
                Event::Publish(number),
            );
        }
    }

    /// Makes a record for a node to publish.
    pub fn add_record(&mut self, publisher: u32) -> RecordCid {
        let number = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        let cid = RecordCid::of(format!("record {number} of seed {}", self.seed).as_bytes());
        let labels = (0..self.rng.random_range(1..=6))
            .map(|_| {
                Label::new(
                    Namespace::Skills,
                    &format!("field{}/skill{}", number % 10, self.rng.random_range(0..50)),
                )
            })
            .collect();
        self.by_cid.insert(cid, number);
        self.records.push(Record {
            cid,
            labels,
            publisher,
            asked_at: None,
            acked_at: None,
            withdraw_asked_at: None,
            withdrawn_at: None,
            last_drop: BEGIN,
            found: Vec::new(),
            split: false,
        });
        cid
    }

    fn add_node(&mut self) -> u32 {
        let number = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let rng =
            ChaCha8Rng::seed_from_u64(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(number));
        let catchup = self.catchup >= 1.0 || self.rng.random_bool(self.catchup.clamp(0.0, 1.0));
        let node = Node::new(rng, catchup, self.now);
        self.by_peer.insert(node.peer.clone(), number);
        self.nodes.push(node);
        number
    }

    /// Gives every node the table that it would have after a while.
    fn fill_tables(&mut self) {
        let mut sorted: Vec<(Point, u32)> = (0..)
            .zip(&self.nodes)
            .map(|(number, node)| (node.point, number))
            .collect();
        sorted.sort_unstable();
        for (point, number) in sorted.clone() {
            for bits in 0..Point::BITS {
                let Some(bucket) = point.prefix(bits + 1).sibling() else {
                    break;
                };
                let from = sorted.partition_point(|(other, _)| *other < bucket.first());
                let to = sorted.partition_point(|(other, _)| *other <= bucket.last());
                for _ in 0..(to - from).min(2 * K) {
                    let (other, node) = sorted[self.rng.random_range(from..to)];
                    self.nodes[number as usize].table.insert(other, node);
                }
                let near = point.prefix(bits + 1);
                let from = sorted.partition_point(|(other, _)| *other < near.first());
                let to = sorted.partition_point(|(other, _)| *other <= near.last());
                if to - from <= K {
                    for (other, node) in &sorted[from..to] {
                        self.nodes[number as usize].table.insert(*other, *node);
                    }
                    break;
                }
            }
        }
    }

    fn within(&mut self, span: Duration) -> Duration {
        span.mul_f64(self.rng.random_range(0.0..1.0))
    }

    fn schedule(&mut self, node: u32, after: Duration, event: Event) {
        let epoch = self.nodes.get(node as usize).map_or(0, |node| node.epoch);
        self.schedule_at(node, epoch, self.now + after, event);
    }

    fn schedule_at(&mut self, node: u32, epoch: u32, at: Timestamp, event: Event) {
        self.numbers += 1;
        let number = self.numbers;
        self.queue.push(Reverse(Scheduled {
            at,
            number,
            node,
            epoch,
            event,
        }));
    }

    /// Lets everything happen until `end`, or until `done` says so.
    pub fn run_until(&mut self, end: Timestamp, mut done: impl FnMut(&Self) -> bool) {
        while let Some(Reverse(next)) = self.queue.peek() {
            if next.at > end {
                break;
            }
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.now = next.at;
            self.happen(next);
            if done(self) {
                return;
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, scheduled: Scheduled) {
        let Scheduled {
            node, epoch, event, ..
        } = scheduled;
        let stale = self
            .nodes
            .get(node as usize)
            .is_some_and(|node| node.epoch != epoch);
        let (kind, from, detail) = match &event {
            Event::Wake => (1, 0, 0),
            Event::Input(_) => (2, 0, 0),
            Event::Written(ticket) => (3, 0, ticket.0),
            Event::Message(from, message) => (16 + u8::try_from(message.kind()).unwrap_or(0), *from, 0),
            Event::LookupTimeout(lookup, _, from) => (5, *from, *lookup),
            Event::SendTimeout(ticket) => (6, 0, ticket.0),
            Event::Unreachable(_) => (7, 0, 0),
            Event::Heartbeat => (8, 0, 0),
            Event::Maintain => (9, 0, 0),
            Event::Refresh => (10, 0, 0),
            Event::Start => (11, 0, 0),
            Event::Kill(_) => (12, 0, 0),
            Event::Publish(record) => (13, 0, u64::from(*record)),
            Event::Withdraw(record) => (14, 0, u64::from(*record)),
            Event::Fault(number) => (15, 0, u64::from(*number)),
        };
        self.trace.event(self.now, kind, node, from, detail);
        match event {
            Event::Fault(number) => self.fault(number),
            // Clients and operators do not care how often the node was started.
            Event::Publish(record) => self.ask_publish(record),
            Event::Withdraw(record) => self.ask_withdraw(record),
            Event::Start => self.start(node),
            Event::Kill(again) => self.kill(node, again),
            _ if stale || !self.nodes[node as usize].is_up() => {}
            Event::Wake => {
                if self.nodes[node as usize].wake_at == Some(self.now) {
                    self.nodes[node as usize].wake_at = None;
                    self.feed(node, Input::Wake);
                }
            }
            Event::Input(input) => self.feed(node, *input),
            Event::Written(ticket) => {
                self.nodes[node as usize].disk.write_one();
                self.feed(
                    node,
                    Input::Persisted {
                        ticket,
                        result: Ok(()),
                    },
                );
            }
            Event::Message(from, message) => self.receive(node, from, message),
            Event::LookupTimeout(lookup, point, from) => self.lookup_timeout(node, lookup, &point, from),
            Event::SendTimeout(ticket) => {
                if self.nodes[node as usize].sends.remove(&ticket) {
                    self.feed(
                        node,
                        Input::ProvidedMany {
                            ticket,
                            result: Err(Failure::TimedOut),
                        },
                    );
                }
            }
            Event::Unreachable(Input2::Fetch(ticket)) => {
                self.feed(
                    node,
                    Input::FetchFailed {
                        ticket,
                        reason: Failure::Unreachable,
                    },
                );
            }
            Event::Unreachable(Input2::Catchup(exchange)) => {
                self.feed(
                    node,
                    Input::CatchupReplied {
                        exchange,
                        result: Err(Failure::Unreachable),
                    },
                );
            }
            Event::Heartbeat => self.heartbeat(node),
            Event::Maintain => self.maintain(node),
            Event::Refresh => self.refresh(node),
        }
    }

    /// Gives a brain one input and carries out what it asks for.
    fn feed(&mut self, number: u32, input: Input) {
        let now = self.now;
        let node = &mut self.nodes[number as usize];
        let Some(brain) = &mut node.brain else { return };
        let actions = brain.on(input, now, &mut node.rng);
        let wake = brain.next_wake();
        for action in actions {
            self.perform(number, action);
        }
        let node = &mut self.nodes[number as usize];
        if let Some(at) = wake.map(|at| at.max(now))
            && node.wake_at.is_none_or(|there| there > at || there < now)
        {
            node.wake_at = Some(at);
            let epoch = node.epoch;
            self.schedule_at(number, epoch, at, Event::Wake);
        }
    }
}
