//! Carrying out what brains ask for, as the server's driver would: with a delay, over a link, on a disk.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes and records are made here and never taken away"
)]

use std::sync::Arc;
use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_routing::catchup::Reply;
use dirnode_routing::{Action, Failure, IndexChange, Input, PeerId, Point, SyncOutcome, Timestamp, Verdict};
use rand::RngExt as _;

use super::{LOOKUP_TIMEOUT, SEND_TIMEOUT, World};
use crate::disk::IndexRow;
use crate::kad::Purpose;
use crate::message::{Event, Gossip, Input2, Message};

impl World {
    pub(super) fn perform(&mut self, number: u32, action: Action) {
        let now = self.now;
        match action {
            Action::Persist { ticket, change } => {
                let delay = Duration::from_micros(self.rng.random_range(500..8_000));
                let node = &mut self.nodes[number as usize];
                node.disk.waiting.push_back(change);
                node.disk_free_at = node.disk_free_at.max(now) + delay;
                let (at, epoch) = (node.disk_free_at, node.epoch);
                self.schedule_at(number, epoch, at, Event::Written(ticket));
            }
            Action::PersistDue { rows } => self.nodes[number as usize].disk.write_due(rows),
            Action::Acknowledge { request, outcome } => self.acknowledged(request, outcome.is_ok()),
            Action::Serve { cid } => {
                self.nodes[number as usize].serving.insert(cid);
            }
            Action::StopServing { cid } => {
                self.nodes[number as usize].serving.remove(&cid);
            }
            Action::LoadLabels { ticket, cid } => {
                let there = self.nodes[number as usize].disk.published.contains_key(&cid);
                let labels = self.by_cid.get(&cid).filter(|_| there);
                let labels = labels.map(|record| self.records[*record as usize].labels.clone());
                let input = Box::new(Input::Labels {
                    ticket,
                    labels: Ok(labels),
                });
                self.schedule(number, Duration::from_millis(1), Event::Input(input));
            }
            Action::Provide { ticket, cid } => {
                self.look_up(number, Point::of_cid(&cid), Purpose::Provide(ticket, cid))
            }
            Action::FindClosest { ticket, key } => {
                self.look_up(number, Point::of_key(&key), Purpose::Closest(ticket));
            }
            Action::ProvideMany { ticket, peer, cids } => {
                let Some(to) = self.by_peer.get(&peer).copied() else {
                    return;
                };
                self.nodes[number as usize].sends.insert(ticket);
                self.send(number, to, Message::AddProvider(Some(ticket), cids.into()));
                self.schedule(number, SEND_TIMEOUT, Event::SendTimeout(ticket));
            }
            Action::Announce { ticket, announcement } => {
                let id = u32::try_from(self.gossips.len()).unwrap_or(u32::MAX);
                self.gossips.push(Arc::new(Gossip {
                    author: number,
                    announcement,
                }));
                let mesh: Vec<u32> = self.nodes[number as usize].mesh.iter().copied().collect();
                self.nodes[number as usize].see(id);
                self.keep(number, id);
                for to in &mesh {
                    self.send(number, *to, Message::Gossip(id));
                }
                let result = if mesh.is_empty() {
                    Err(Failure::NoPeers)
                } else {
                    Ok(())
                };
                let input = Box::new(Input::AnnounceSent { ticket, result });
                self.schedule(number, Duration::from_millis(1), Event::Input(input));
            }
            Action::Verdict {
                token,
                verdict: Verdict::Accept,
            } => {
                let id = u32::try_from(token.0).unwrap_or(u32::MAX);
                let from = self.context.from;
                self.keep(number, id);
                let mesh: Vec<u32> = self.nodes[number as usize].mesh.iter().copied().collect();
                for to in mesh.into_iter().filter(|to| *to != from) {
                    self.send(number, to, Message::Gossip(id));
                }
            }
            Action::Index(change) => self.index(number, change),
            Action::Fetch {
                ticket, cid, peer, ..
            } => {
                let Some(to) = self.by_peer.get(&peer).copied() else {
                    return;
                };
                if self.can_dial(number, to) {
                    self.send(number, to, Message::Fetch(ticket, cid));
                } else {
                    let after = self.links.latency(number, to, &mut self.rng);
                    self.schedule(number, after, Event::Unreachable(Input2::Fetch(ticket)));
                }
            }
            Action::CatchupAsk {
                exchange,
                peer,
                request,
            } => {
                let Some(to) = self.by_peer.get(&peer).copied() else {
                    return;
                };
                if self.can_dial(number, to) {
                    self.send(number, to, Message::CatchupAsk(exchange, request.into()));
                } else {
                    self.schedule(
                        number,
                        LOOKUP_TIMEOUT,
                        Event::Unreachable(Input2::Catchup(exchange)),
                    );
                }
            }
            Action::CatchupAnswer { mut reply, .. } => {
                let Some(exchange) = self.context.exchange else {
                    return;
                };
                self.fill(number, &mut reply);
                self.send(
                    number,
                    self.context.from,
                    Message::CatchupReply(exchange, reply.into()),
                );
            }
            Action::Sync { ticket, cid, peer } => {
                let to = self.by_peer.get(&peer).copied().unwrap_or(number);
                let served = self.can_dial(number, to) && self.nodes[to as usize].serving.contains(&cid);
                let outcome = if served {
                    SyncOutcome::Imported
                } else {
                    SyncOutcome::Failed(Failure::Unreachable)
                };
                let after = 4 * self.links.latency(number, to, &mut self.rng);
                self.schedule(
                    number,
                    after,
                    Event::Input(Box::new(Input::Synced { ticket, outcome })),
                );
            }
            _ => {}
        }
    }

    /// Puts labels into a page, as a driver does from the index and the published set.
    pub(super) fn fill(&self, number: u32, reply: &mut Reply) {
        let node = &self.nodes[number as usize];
        reply.fill(|cid, author| {
            if *author == node.peer {
                let record = self.by_cid.get(cid).map(|record| &self.records[*record as usize]);
                return record.map(|record| record.labels.clone()).unwrap_or_default();
            }
            let row = node.disk.index.get(&(*cid, author.clone()));
            row.map(|row| row.labels.clone()).unwrap_or_default()
        });
    }

    pub(super) fn index(&mut self, number: u32, change: IndexChange) {
        let now = self.now;
        let disk = &mut self.nodes[number as usize].disk;
        match change {
            IndexChange::Put {
                cid,
                peer,
                labels,
                timestamp,
                last_seen,
                standing,
                ..
            } => {
                disk.tombs.remove(&(cid, peer.clone()));
                disk.index.insert(
                    (cid, peer.clone()),
                    IndexRow {
                        labels,
                        timestamp,
                        last_seen,
                        standing,
                    },
                );
                let Some(record) = self.by_cid.get(&cid) else {
                    return;
                };
                let record = &mut self.records[*record as usize];
                if self.by_peer.get(&peer) == Some(&record.publisher) {
                    if record.found.len() <= number as usize {
                        record.found.resize(number as usize + 1, Timestamp::EPOCH);
                    }
                    let found = &mut record.found[number as usize];
                    if *found == Timestamp::EPOCH {
                        *found = now;
                    }
                }
            }
            IndexChange::Add { cid, peer, labels } => {
                if let Some(row) = disk.index.get_mut(&(cid, peer)) {
                    row.labels.extend(labels);
                }
            }
            IndexChange::Refresh {
                cid,
                peer,
                timestamp,
                last_seen,
                standing,
                ..
            } => {
                if let Some(row) = disk.index.get_mut(&(cid, peer)) {
                    (row.timestamp, row.last_seen, row.standing) = (timestamp, last_seen, standing);
                }
            }
            IndexChange::Remove { cid, peer } => self.dropped(number, cid, peer),
            IndexChange::Bury {
                cid,
                peer,
                timestamp,
                first_hand,
                ..
            } => {
                disk.tombs.insert((cid, peer.clone()), (timestamp, first_hand));
                self.dropped(number, cid, peer);
            }
        }
    }

    pub(super) fn dropped(&mut self, number: u32, cid: RecordCid, peer: PeerId) {
        let row = self.nodes[number as usize].disk.index.remove(&(cid, peer));
        if let (Some(_), Some(record)) = (row, self.by_cid.get(&cid)) {
            self.records[*record as usize].last_drop = self.now;
        }
    }
}
