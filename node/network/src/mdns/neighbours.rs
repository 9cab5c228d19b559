//! Whom discovery has told of, and how many new ones it may tell of in a minute.
//!
//! Pure; time is passed in. Soft state: a neighbour is told of again after a while, so that one that was lost is
//! dialled again.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

/// A neighbour with the same addresses is told of again after this.
const REPEAT: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);
/// Neighbours remembered; beyond it none is told of until some are forgotten.
const MAX_NEIGHBOURS: usize = 2048;

#[derive(Debug)]
pub(super) struct Neighbours {
    told: BTreeMap<PeerId, (Duration, Vec<Multiaddr>)>,
    per_minute: usize,
    minute_began: Duration,
    in_minute: usize,
}

impl Neighbours {
    pub(super) fn new(per_minute: usize) -> Self {
        Self {
            told: BTreeMap::new(),
            per_minute,
            minute_began: Duration::ZERO,
            in_minute: 0,
        }
    }

    /// Whether this is news that may be told now.
    pub(super) fn is_news(&mut self, peer: PeerId, addresses: &[Multiaddr], now: Duration) -> bool {
        if now.saturating_sub(self.minute_began) >= MINUTE {
            self.minute_began = now;
            self.in_minute = 0;
            self.told.retain(|_, (at, _)| now.saturating_sub(*at) < REPEAT);
        }
        if let Some((at, known)) = self.told.get(&peer)
            && known == addresses
            && now.saturating_sub(*at) < REPEAT
        {
            return false;
        }
        let room = self.told.len() < MAX_NEIGHBOURS || self.told.contains_key(&peer);
        if !room || self.in_minute >= self.per_minute {
            return false;
        }
        self.in_minute = self.in_minute.saturating_add(1);
        self.told.insert(peer, (now, addresses.to_vec()));
        true
    }

    /// What was told did not arrive, so it is news still.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.told.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Vec<Multiaddr> {
        vec![format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()]
    }

    #[test]
    fn a_neighbour_is_news_once_until_it_changes_or_time_passes() {
        let mut neighbours = Neighbours::new(10);
        let peer = PeerId::random();
        let secs = Duration::from_secs;
        assert!(neighbours.is_news(peer, &at(1), secs(1)));
        assert!(!neighbours.is_news(peer, &at(1), secs(2)));
        assert!(neighbours.is_news(peer, &at(2), secs(3)));
        assert!(!neighbours.is_news(peer, &at(2), secs(302)));
        assert!(neighbours.is_news(peer, &at(2), secs(303)));
        neighbours.forget(&peer);
        assert!(neighbours.is_news(peer, &at(2), secs(304)));
    }

    #[test]
    fn a_crowd_is_let_in_slowly() {
        let mut neighbours = Neighbours::new(10);
        let mut crowd = |now: u64| {
            (0..100)
                .filter(|_| neighbours.is_news(PeerId::random(), &at(1), Duration::from_secs(now)))
                .count()
        };
        assert_eq!((crowd(1), crowd(30), crowd(61), crowd(62)), (10, 0, 10, 0));
        let mut all = Neighbours::new(usize::MAX);
        let told = (0..5000)
            .filter(|_| all.is_news(PeerId::random(), &at(1), Duration::from_secs(1)))
            .count();
        assert_eq!(told, MAX_NEIGHBOURS);
    }
}
