//! What lookups tell about a part of the key space: which peers are there, and for which prefixes all of them are known.
//!
//! A lookup that gives the twenty nearest peers of a target knows every peer that shares more bits with the target than
//! the farthest of the twenty does. Such prefixes are collected and joined; a key under a joined prefix with at least
//! twenty peers needs no lookup of its own. Holds soft state for the length of one sweep. Never asks anything itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::REPLICATION;
use crate::peer::PeerId;
use crate::point::{Point, Prefix};

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    known: BTreeMap<Point, PeerId>,
    covered: BTreeSet<Prefix>,
}

impl Coverage {
    /// Takes the answer of a lookup; gives the largest prefix around `target` whose peers are all known.
    pub fn learn(&mut self, target: &Point, peers: &[PeerId]) -> Prefix {
        let points: Vec<Point> = peers.iter().map(Point::of_peer).collect();
        let farthest = points.iter().map(|point| point.common_bits(target)).min();
        // Fewer than asked for: there are no others.
        let covered = match farthest {
            Some(bits) if points.len() >= REPLICATION => target.prefix(bits.saturating_add(1)),
            _ => Prefix::ALL,
        };
        self.known.extend(points.into_iter().zip(peers.iter().cloned()));
        self.cover(covered);
        self.around(target).unwrap_or(covered)
    }

    fn cover(&mut self, mut prefix: Prefix) {
        if self
            .around(&prefix.first())
            .is_some_and(|around| around.covers(&prefix))
        {
            return;
        }
        self.covered.retain(|other| !prefix.covers(other));
        while let (Some(sibling), Some(parent)) = (prefix.sibling(), prefix.parent()) {
            if !self.covered.remove(&sibling) {
                break;
            }
            prefix = parent;
        }
        self.covered.insert(prefix);
    }

    /// The covered prefix that `point` is under.
    fn around(&self, point: &Point) -> Option<Prefix> {
        // Covered prefixes do not overlap, so the last one that begins at or before the point is the only candidate.
        let upto = point.prefix(Point::BITS);
        let candidate = self.covered.range(..=upto).next_back()?;
        candidate.contains(point).then_some(*candidate)
    }

    fn count_under(&self, prefix: &Prefix) -> usize {
        self.known
            .range(prefix.first()..=prefix.last())
            .take(REPLICATION)
            .count()
    }

    /// Whether the nearest peers of every key under `prefix` are known. `prefix` must be covered.
    pub fn is_full(&self, prefix: &Prefix) -> bool {
        prefix.bits() == 0 || self.count_under(prefix) >= REPLICATION
    }

    /// The peers nearest to `key` among those under `within`, nearest first not promised.
    pub fn nearest(&self, key: &Point, within: &Prefix) -> Vec<PeerId> {
        let mut near: Vec<([u8; 32], &PeerId)> = self
            .known
            .range(within.first()..=within.last())
            .map(|(point, peer)| (key.distance(point), peer))
            .collect();
        if near.len() > REPLICATION {
            near.select_nth_unstable_by(REPLICATION - 1, |a, b| a.0.cmp(&b.0));
            near.truncate(REPLICATION);
        }
        near.into_iter().map(|(_, peer)| peer.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn network(count: u32) -> Vec<PeerId> {
        (0..count)
            .map(|n| PeerId::from_bytes(&n.to_be_bytes()).unwrap())
            .collect()
    }

    fn nearest_of(all: &[PeerId], key: &Point) -> Vec<PeerId> {
        let mut sorted: Vec<([u8; 32], &PeerId)> = all
            .iter()
            .map(|peer| (Point::of_peer(peer).distance(key), peer))
            .collect();
        sorted.sort_unstable();
        sorted.truncate(REPLICATION);
        sorted.into_iter().map(|(_, peer)| peer.clone()).collect()
    }

    #[test]
    fn a_small_network_is_covered_by_one_answer() {
        let all = network(15);
        let mut coverage = Coverage::default();
        let covered = coverage.learn(&Point::of_key(b"a"), &all);
        assert_eq!(covered, Prefix::ALL);
        assert!(coverage.is_full(&covered));
        assert_eq!(coverage.nearest(&Point::of_key(b"b"), &covered).len(), 15);
    }

    #[test]
    fn what_is_full_gives_exactly_the_nearest() {
        let all = network(700);
        let mut coverage = Coverage::default();
        let mut exact = 0;
        for n in 0..400_u32 {
            let target = Point::of_key(&n.to_le_bytes());
            let covered = coverage.learn(&target, &nearest_of(&all, &target));
            let under = all
                .iter()
                .filter(|peer| covered.contains(&Point::of_peer(peer)))
                .count();
            assert_eq!(
                coverage.known.range(covered.first()..=covered.last()).count(),
                under
            );
            let other = Point::of_key(&(n + 10_000).to_le_bytes());
            if let Some(around) = coverage.around(&other)
                && coverage.is_full(&around)
            {
                let found: BTreeSet<PeerId> = coverage.nearest(&other, &around).into_iter().collect();
                assert_eq!(found, nearest_of(&all, &other).into_iter().collect());
                exact += 1;
            }
        }
        assert!(exact > 200, "{exact}");
        assert_eq!(coverage.known.len(), 700);
    }
}
