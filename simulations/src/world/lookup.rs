//! Iterative lookups, one request at a time over the links.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes and records are made here and never taken away"
)]

use std::sync::Arc;
use std::time::Duration;

use dirnode_routing::{Failure, Input, Point};

use super::{BOOTSTRAP, LOOKUP_TIMEOUT, REFRESH, World};
use crate::kad::{Lookup, Purpose};
use crate::message::{Event, Message};

impl World {
    pub(super) fn refresh(&mut self, number: u32) {
        let mut digest = [0_u8; 32];
        rand::Rng::fill_bytes(&mut self.rng, &mut digest);
        let young = self.now.since(self.nodes[number as usize].up_since) < Duration::from_secs(1);
        let target = if young {
            self.nodes[number as usize].point
        } else {
            Point::from_bytes(digest)
        };
        self.look_up(number, target, Purpose::Refresh);
        if young {
            self.look_up(number, Point::from_bytes(digest), Purpose::Refresh);
            self.maintain_soon(number, Duration::from_secs(1));
        }
        self.rotate(number);
        let after = REFRESH.mul_f64(0.5) + self.within(REFRESH);
        self.schedule(number, after, Event::Refresh);
    }

    pub(super) fn look_up(&mut self, number: u32, target: Point, purpose: Purpose) {
        let mut first = self.nodes[number as usize].table.closest(&target);
        if purpose == Purpose::Refresh {
            // Bootstrap nodes are asked as well, so that parts of a network find together again.
            let bootstrap = (0..BOOTSTRAP).filter(|other| *other != number);
            first.extend(bootstrap.filter_map(|other| Some((self.nodes.get(other as usize)?.point, other))));
        }
        self.numbers += 1;
        let id = self.numbers;
        self.nodes[number as usize]
            .lookups
            .insert(id, Lookup::new(target, purpose, &first));
        self.drive_lookup(number, id);
    }

    pub(super) fn drive_lookup(&mut self, number: u32, id: u64) {
        let node = &mut self.nodes[number as usize];
        let Some(lookup) = node.lookups.get_mut(&id) else {
            return;
        };
        let target = lookup.target;
        let ask = lookup.to_ask();
        let over = ask.is_empty() && lookup.is_over();
        for (point, to) in ask {
            self.send(number, to, Message::FindNode(id, target));
            self.schedule(number, LOOKUP_TIMEOUT, Event::LookupTimeout(id, point, to));
        }
        if !over {
            return;
        }
        let Some(lookup) = self.nodes[number as usize].lookups.remove(&id) else {
            return;
        };
        let nodes = lookup.result();
        match lookup.purpose {
            Purpose::Refresh => {}
            Purpose::Closest(ticket) => {
                let peers = nodes
                    .iter()
                    .map(|(_, node)| self.nodes[*node as usize].peer.clone())
                    .collect();
                let input = Box::new(Input::Closest {
                    ticket,
                    result: Ok(peers),
                });
                self.schedule(number, Duration::ZERO, Event::Input(input));
            }
            Purpose::Provide(ticket, cid) => {
                for (_, to) in &nodes {
                    self.send(number, *to, Message::AddProvider(None, Arc::new([cid])));
                }
                let result = if nodes.is_empty() {
                    Err(Failure::NoPeers)
                } else {
                    Ok(())
                };
                let input = Box::new(Input::Provided { ticket, result });
                self.schedule(number, Duration::ZERO, Event::Input(input));
            }
        }
    }

    pub(super) fn lookup_timeout(&mut self, number: u32, id: u64, point: &Point, from: u32) {
        let node = &mut self.nodes[number as usize];
        let waits = node
            .lookups
            .get(&id)
            .is_some_and(|lookup| lookup.waits_for(point));
        if !waits {
            return;
        }
        if let Some(lookup) = node.lookups.get_mut(&id) {
            lookup.failed(point);
        }
        node.table.remove(point, from);
        self.told(number);
        self.drive_lookup(number, id);
    }
}
