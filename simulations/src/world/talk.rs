//! Messages between nodes, the mesh, and the gossip that heals what was lost.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes and records are made here and never taken away"
)]

use std::sync::Arc;
use std::time::Duration;

use dirnode_routing::{Failure, Input, Point};
use rand::RngExt as _;

use super::{Context, MESH, OFFER, World};
use crate::message::{Event, Message, token_of};

impl World {
    pub(super) fn can_dial(&self, from: u32, to: u32) -> bool {
        self.nodes[to as usize].is_up() && self.links.reaches(from, to)
    }

    pub(super) fn send(&mut self, from: u32, to: u32, message: Message) {
        if let Some(count) = self.sent.get_mut(message.kind()) {
            *count += 1;
        }
        self.requests_of_first += u64::from(from == 0 && matches!(message, Message::FindNode(..)));
        if !self.can_dial(from, to) || self.links.loses(&mut self.rng) {
            return;
        }
        let after = self.links.latency(from, to, &mut self.rng);
        self.schedule(to, after, Event::Message(from, message));
    }

    pub(super) fn receive(&mut self, number: u32, from: u32, message: Message) {
        let from_point = self.nodes[from as usize].point;
        let from_peer = self.nodes[from as usize].peer.clone();
        self.context = Context { from, exchange: None };
        match message {
            Message::FindNode(lookup, target) => {
                let node = &mut self.nodes[number as usize];
                node.table.insert(from_point, from);
                let nodes: Vec<(Point, u32)> = node
                    .table
                    .closest(&target)
                    .into_iter()
                    .filter(|(_, node)| *node != from)
                    .collect();
                self.told(number);
                self.send(number, from, Message::Nodes(lookup, nodes.into()));
            }
            Message::Nodes(lookup, nodes) => {
                let node = &mut self.nodes[number as usize];
                node.table.insert(from_point, from);
                if let Some(lookup) = node.lookups.get_mut(&lookup) {
                    lookup.answered(&from_point, &nodes, number);
                }
                self.told(number);
                self.drive_lookup(number, lookup);
            }
            Message::AddProvider(ticket, cids) => {
                let node = &mut self.nodes[number as usize];
                for cid in cids.iter() {
                    node.providers.entry(*cid).or_default().insert(from);
                }
                if let Some(ticket) = ticket {
                    self.send(number, from, Message::Added(ticket));
                }
                let cids = if self.sighting { cids } else { Arc::new([]) };
                for cid in cids.iter() {
                    self.feed(
                        number,
                        Input::ProviderSeen {
                            cid: *cid,
                            peer: from_peer.clone(),
                        },
                    );
                }
            }
            Message::Added(ticket) => {
                if self.nodes[number as usize].sends.remove(&ticket) {
                    self.feed(
                        number,
                        Input::ProvidedMany {
                            ticket,
                            result: Ok(()),
                        },
                    );
                }
            }
            Message::Gossip(id) => {
                if self.nodes[number as usize].has_seen(id) {
                    return;
                }
                self.nodes[number as usize].see(id);
                let gossip = Arc::clone(&self.gossips[id as usize]);
                let input = Input::Announced {
                    token: token_of(id),
                    publisher: self.nodes[gossip.author as usize].peer.clone(),
                    permitted: true,
                    announcement: gossip.announcement.clone(),
                };
                self.feed(number, input);
            }
            Message::IHave(ids) => {
                let node = &self.nodes[number as usize];
                let missing: Vec<u32> = ids.iter().copied().filter(|id| !node.has_seen(*id)).collect();
                if !missing.is_empty() {
                    self.send(number, from, Message::IWant(missing.into()));
                }
            }
            Message::IWant(ids) => {
                for id in ids.iter() {
                    self.send(number, from, Message::Gossip(*id));
                }
            }
            Message::Graft => {}
            Message::Fetch(ticket, cid) => {
                let served = self.nodes[number as usize].serving.contains(&cid);
                let record = self.by_cid.get(&cid).filter(|_| served);
                let labels = record.map(|record| self.records[*record as usize].labels.clone().into());
                self.send(number, from, Message::Record(ticket, labels));
            }
            Message::Record(ticket, labels) => {
                let input = match labels {
                    Some(labels) => Input::Fetched {
                        ticket,
                        labels: labels.to_vec(),
                    },
                    None => Input::FetchFailed {
                        ticket,
                        reason: Failure::NotFound,
                    },
                };
                self.feed(number, input);
            }
            Message::CatchupAsk(exchange, request) => {
                self.context.exchange = Some(exchange);
                let token = token_of(0);
                let request = (*request).clone();
                self.feed(
                    number,
                    Input::CatchupAsked {
                        token,
                        peer: from_peer,
                        request,
                    },
                );
            }
            Message::CatchupReply(exchange, reply) => {
                let result = Ok((*reply).clone());
                self.feed(number, Input::CatchupReplied { exchange, result });
            }
        }
    }

    /// Keeps a message that was accepted, to be offered to others.
    pub(super) fn keep(&mut self, number: u32, id: u32) {
        let now = self.now;
        let node = &mut self.nodes[number as usize];
        node.recent.push_back((id, now));
        if !node.beating {
            node.beating = true;
            let after = self.within(Duration::from_secs(1));
            self.schedule(number, after, Event::Heartbeat);
        }
    }

    /// Tells some nodes beyond the mesh which messages are here, which heals what was lost.
    pub(super) fn heartbeat(&mut self, number: u32) {
        let now = self.now;
        let node = &mut self.nodes[number as usize];
        while node
            .recent
            .front()
            .is_some_and(|(_, seen)| now.since(*seen) > OFFER.0)
        {
            node.recent.pop_front();
        }
        node.beating = !node.recent.is_empty();
        if !node.beating {
            return;
        }
        let ids: Arc<[u32]> = node.recent.iter().map(|(id, _)| *id).collect();
        let known: Vec<u32> = node.table.iter().map(|(_, other)| other).collect();
        for _ in 0..OFFER.1.min(known.len()) {
            let to = known[self.rng.random_range(0..known.len())];
            self.send(number, to, Message::IHave(Arc::clone(&ids)));
        }
        self.schedule(number, Duration::from_secs(1), Event::Heartbeat);
    }

    /// Tells a brain the sizes of its table and mesh when they matter anew.
    pub(super) fn told(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        let sizes = (node.table.len(), node.mesh.len());
        if node.told != sizes && node.is_up() {
            node.told = sizes;
            self.feed(
                number,
                Input::Table {
                    table: sizes.0,
                    mesh: sizes.1,
                },
            );
        }
    }

    pub(super) fn maintain_soon(&mut self, number: u32, after: Duration) {
        let node = &mut self.nodes[number as usize];
        if node.is_up() && !node.maintaining && self.gossiping {
            node.maintaining = true;
            self.schedule(number, after, Event::Maintain);
        }
    }

    pub(super) fn maintain(&mut self, number: u32) {
        self.nodes[number as usize].maintaining = false;
        let known: Vec<u32> = self.nodes[number as usize]
            .table
            .iter()
            .map(|(_, other)| other)
            .collect();
        for _ in 0..4 * MESH.0 {
            if self.nodes[number as usize].mesh.len() >= MESH.0 || known.is_empty() {
                break;
            }
            let other = known[self.rng.random_range(0..known.len())];
            let room = self.nodes[other as usize].mesh.len() < MESH.1;
            if other != number && self.can_dial(number, other) && room {
                self.connect(number, other);
            }
        }
        if self.nodes[number as usize].mesh.len() < MESH.0 - 2 {
            self.maintain_soon(number, Duration::from_secs(2));
        }
    }

    /// Connects to somebody else and lets go of a link above what is wanted, as refreshing tables and meshes do.
    pub(super) fn rotate(&mut self, number: u32) {
        let known: Vec<u32> = self.nodes[number as usize]
            .table
            .iter()
            .map(|(_, other)| other)
            .collect();
        if known.is_empty() || !self.gossiping {
            return;
        }
        let other = known[self.rng.random_range(0..known.len())];
        let room = self.nodes[other as usize].mesh.len() < MESH.1;
        if other != number && room && self.can_dial(number, other) {
            self.connect(number, other);
        }
        let mesh: Vec<u32> = self.nodes[number as usize].mesh.iter().copied().collect();
        if mesh.len() > MESH.0 + 2 {
            let gone = mesh[self.rng.random_range(0..mesh.len())];
            self.disconnect(number, gone);
        }
    }

    pub(super) fn connect(&mut self, a: u32, b: u32) {
        if !self.nodes[a as usize].mesh.insert(b) {
            return;
        }
        self.nodes[b as usize].mesh.insert(a);
        if let Some(count) = self.sent.get_mut(Message::Graft.kind()) {
            *count += 2;
        }
        for (one, other) in [(a, b), (b, a)] {
            let catchup = self.nodes[one as usize].catchup && self.nodes[other as usize].catchup;
            let (peer, point) = (
                self.nodes[other as usize].peer.clone(),
                self.nodes[other as usize].point,
            );
            self.nodes[one as usize].table.insert(point, other);
            self.told(one);
            self.feed(one, Input::PeerConnected { peer, catchup });
        }
    }

    pub(super) fn disconnect(&mut self, a: u32, b: u32) {
        for (one, other) in [(a, b), (b, a)] {
            if self.nodes[one as usize].mesh.remove(&other) {
                self.told(one);
                let peer = self.nodes[other as usize].peer.clone();
                self.feed(one, Input::PeerDisconnected { peer });
                let after = Duration::from_secs(1);
                self.maintain_soon(one, after);
            }
        }
    }
}
