//! Kademlia as far as routing costs messages: tables with bounded buckets, and iterative lookups over them.
//!
//! A node knows at most twenty others for each number of bits that they share with it, so a lookup has to ask its way, and
//! asks dead nodes too until it notices. Never sends anything itself.

use std::collections::BTreeMap;

use dirnode_record::RecordCid;
use dirnode_routing::{Point, Ticket};

/// Nodes of one bucket, and of one answer.
pub const K: usize = 20;
/// Requests of one lookup on their way.
const PARALLEL: usize = 3;

/// What one node knows of others.
#[derive(Debug, Clone)]
pub struct Table {
    me: Point,
    buckets: Vec<Vec<(Point, u32)>>,
    len: usize,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(me: Point) -> Self {
        Self {
            me,
            buckets: Vec::new(),
            len: 0,
        }
    }

    /// Takes a node in, if its bucket has room.
    pub fn insert(&mut self, point: Point, node: u32) {
        if point == self.me {
            return;
        }
        let place = usize::from(self.me.common_bits(&point));
        if self.buckets.len() <= place {
            self.buckets.resize_with(place + 1, Vec::new);
        }
        if let Some(bucket) = self.buckets.get_mut(place)
            && bucket.len() < K
            && !bucket.iter().any(|(_, there)| *there == node)
        {
            bucket.push((point, node));
            self.len += 1;
        }
    }

    /// Takes a node out that does not answer.
    pub fn remove(&mut self, point: &Point, node: u32) {
        let place = usize::from(self.me.common_bits(point));
        if let Some(bucket) = self.buckets.get_mut(place) {
            let before = bucket.len();
            bucket.retain(|(_, there)| *there != node);
            self.len -= before - bucket.len();
        }
    }

    /// Nodes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Every node in it, bucket by bucket.
    pub fn iter(&self) -> impl Iterator<Item = (Point, u32)> + '_ {
        self.buckets.iter().flatten().copied()
    }

    /// The nodes nearest to `target`, nearest first.
    #[must_use]
    pub fn closest(&self, target: &Point) -> Vec<(Point, u32)> {
        let mut all: Vec<([u8; 32], Point, u32)> = self
            .iter()
            .map(|(point, node)| (point.distance(target), point, node))
            .collect();
        if all.len() > K {
            all.select_nth_unstable(K - 1);
            all.truncate(K);
        }
        all.sort_unstable();
        all.into_iter().map(|(_, point, node)| (point, node)).collect()
    }
}

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To fill the table.
    Refresh,
    /// The brain asked for it.
    Closest(Ticket),
    /// To hand out a provider record.
    Provide(Ticket, RecordCid),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

/// One lookup.
#[derive(Debug)]
pub struct Lookup {
    /// What it looks for.
    pub target: Point,
    /// What for.
    pub purpose: Purpose,
    candidates: BTreeMap<[u8; 32], (Point, u32, State)>,
    asked: usize,
}

impl Lookup {
    /// A lookup that begins with these nodes.
    #[must_use]
    pub fn new(target: Point, purpose: Purpose, first: &[(Point, u32)]) -> Self {
        let mut me = Self {
            target,
            purpose,
            candidates: BTreeMap::new(),
            asked: 0,
        };
        me.add(first, u32::MAX);
        me
    }

    fn add(&mut self, nodes: &[(Point, u32)], me: u32) {
        for (point, node) in nodes.iter().filter(|(_, node)| *node != me) {
            let distance = point.distance(&self.target);
            self.candidates
                .entry(distance)
                .or_insert((*point, *node, State::New));
        }
    }

    fn set(&mut self, point: &Point, state: State) {
        if let Some(candidate) = self.candidates.get_mut(&point.distance(&self.target)) {
            if candidate.2 == State::Asked {
                self.asked -= 1;
            }
            candidate.2 = state;
        }
    }

    /// A node answered.
    pub fn answered(&mut self, from: &Point, nodes: &[(Point, u32)], me: u32) {
        self.set(from, State::Answered);
        self.add(nodes, me);
    }

    /// A node did not answer.
    pub fn failed(&mut self, from: &Point) {
        self.set(from, State::Failed);
    }

    /// Whether this node was asked and has not answered yet.
    #[must_use]
    pub fn waits_for(&self, point: &Point) -> bool {
        self.candidates
            .get(&point.distance(&self.target))
            .is_some_and(|(_, _, state)| *state == State::Asked)
    }

    /// The nodes to ask now.
    pub fn to_ask(&mut self) -> Vec<(Point, u32)> {
        let mut next = Vec::new();
        let alive = self
            .candidates
            .values_mut()
            .filter(|(_, _, state)| *state != State::Failed)
            .take(K);
        for (point, node, state) in alive {
            if self.asked >= PARALLEL {
                break;
            }
            if *state == State::New {
                *state = State::Asked;
                self.asked += 1;
                next.push((*point, *node));
            }
        }
        next
    }

    /// Whether the nearest nodes have all answered.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let mut nearest = self
            .candidates
            .values()
            .filter(|(_, _, state)| *state != State::Failed)
            .take(K);
        nearest.all(|(_, _, state)| *state == State::Answered)
    }

    /// The nearest nodes that answered.
    #[must_use]
    pub fn result(&self) -> Vec<(Point, u32)> {
        let answered = self
            .candidates
            .values()
            .filter(|(_, _, state)| *state == State::Answered);
        answered.take(K).map(|(point, node, _)| (*point, *node)).collect()
    }
}
