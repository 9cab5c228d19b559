//! `/dir` and `/oci` endpoints that peers told us of themselves, so that our answers about providers can carry them.
//!
//! No multiaddr type of ours can hold such an address, so the answers that the DHT composes come without them; the shim asks
//! here and puts them back. Only what a peer says of itself is kept, never what another says of it: hearsay that we
//! repeated would look like ours. A claim all the same, and never judged here. Soft state: so many peers, the one heard of
//! longest ago making room, one endpoint of each kind, for as long as a provider record lasts. Follows p2p-wire §1.7.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use libp2p::PeerId;
use parking_lot::Mutex;

use crate::config::PROVIDER_RECORD_TTL;
use crate::shim::{Clock, EndpointBook, MAX_ENDPOINTS_PER_PEER};
use crate::wire::{Endpoint, EndpointKind};

/// Peers whose endpoints are kept: with the longest endpoints under ten megabytes.
const MAX_PEERS: usize = 8192;

/// Longest endpoint kept, with its code and length. Twenty providers with two of them stay within the 16 KiB that an answer
/// may have for every reader.
const MAX_BYTES: usize = 300;

/// Of each peer: one `/dir` and one `/oci`.
const KINDS: usize = 2;
const _: () = assert!(KINDS <= MAX_ENDPOINTS_PER_PEER);

/// One endpoint and when it was told, in unix seconds.
#[derive(Debug, Clone)]
struct Told {
    raw: Bytes,
    at: u64,
}

#[derive(Debug, Default)]
struct Known {
    turn: u64,
    told: [Option<Told>; KINDS],
}

#[derive(Debug, Default)]
struct Peers {
    known: HashMap<PeerId, Known>,
    /// Who was heard of when, by turn.
    order: BTreeMap<u64, PeerId>,
    turn: u64,
}

/// What peers told of themselves.
pub(crate) struct KnownEndpoints {
    clock: Clock,
    max_peers: usize,
    peers: Mutex<Peers>,
}

impl KnownEndpoints {
    pub(crate) fn new(clock: Clock) -> Self {
        Self::with_room(clock, MAX_PEERS)
    }

    fn with_room(clock: Clock, max_peers: usize) -> Self {
        Self {
            clock,
            max_peers,
            peers: Mutex::default(),
        }
    }

    /// Keeps an endpoint that the peer told of itself, in place of the one of that kind it told before.
    pub(crate) fn remember(&self, peer: PeerId, endpoint: &Endpoint) {
        let raw = Bytes::from(endpoint.to_bytes());
        if raw.len() > MAX_BYTES {
            return;
        }
        let place = match endpoint.kind {
            EndpointKind::DirectoryApi => 0,
            EndpointKind::Oci => 1,
        };
        let at = (self.clock)();
        let mut guard = self.peers.lock();
        let peers = &mut *guard;
        peers.turn = peers.turn.saturating_add(1);
        let known = peers.known.entry(peer).or_default();
        peers
            .order
            .remove(&std::mem::replace(&mut known.turn, peers.turn));
        peers.order.insert(peers.turn, peer);
        if let Some(slot) = known.told.get_mut(place) {
            *slot = Some(Told { raw, at });
        }
        while peers.known.len() > self.max_peers {
            let Some((_, oldest)) = peers.order.pop_first() else {
                break;
            };
            peers.known.remove(&oldest);
        }
    }

    /// Peers of whom something is kept.
    pub(crate) fn len(&self) -> usize {
        self.peers.lock().known.len()
    }
}

impl EndpointBook for KnownEndpoints {
    fn endpoints_of(&self, peer: &PeerId) -> Vec<Bytes> {
        let now = (self.clock)();
        let peers = self.peers.lock();
        let Some(known) = peers.known.get(peer) else {
            return Vec::new();
        };
        let fresh = |told: &&Told| now.saturating_sub(told.at) < PROVIDER_RECORD_TTL.as_secs();
        let told = known.told.iter().flatten().filter(fresh);
        told.map(|told| told.raw.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn book(room: usize) -> (KnownEndpoints, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(1_800_000_000));
        let clock: Clock = Arc::new({
            let now = Arc::clone(&now);
            move || now.load(Ordering::Relaxed)
        });
        (KnownEndpoints::with_room(clock, room), now)
    }

    fn endpoint(kind: EndpointKind, value: &str) -> Endpoint {
        Endpoint::new(kind, value).unwrap()
    }

    fn dir(value: &str) -> Endpoint {
        endpoint(EndpointKind::DirectoryApi, value)
    }

    #[test]
    fn the_newest_of_each_kind_is_kept() {
        let (book, _) = book(8);
        let peer = PeerId::random();
        let oci = endpoint(EndpointKind::Oci, "ghcr.io/org/repo");
        for told in [&dir("old:1"), &oci, &dir("new:2")] {
            book.remember(peer, told);
        }
        assert_eq!(
            book.endpoints_of(&peer),
            [dir("new:2").to_bytes(), oci.to_bytes()]
        );
        assert!(book.endpoints_of(&PeerId::random()).is_empty());
    }

    #[test]
    fn what_is_not_told_again_is_forgotten_with_the_provider_records() {
        let (book, now) = book(8);
        let peer = PeerId::random();
        book.remember(peer, &dir("a:1"));
        now.fetch_add(47 * 3600, Ordering::Relaxed);
        book.remember(peer, &endpoint(EndpointKind::Oci, "b"));
        assert_eq!(book.endpoints_of(&peer).len(), 2);
        now.fetch_add(3600, Ordering::Relaxed);
        assert_eq!(
            book.endpoints_of(&peer),
            [endpoint(EndpointKind::Oci, "b").to_bytes()]
        );
        book.remember(peer, &dir("a:1"));
        assert_eq!(book.endpoints_of(&peer).len(), 2);
    }

    #[test]
    fn peers_and_endpoints_are_bounded() {
        let (book, _) = book(3);
        let peers: Vec<PeerId> = (0..5).map(|_| PeerId::random()).collect();
        for peer in &peers[..3] {
            book.remember(*peer, &dir("a:1"));
        }
        for _ in 0..100 {
            book.remember(peers[0], &dir("a:1"));
        }
        for peer in &peers[3..] {
            book.remember(*peer, &dir("a:1"));
        }
        let kept: Vec<bool> = peers
            .iter()
            .map(|peer| !book.endpoints_of(peer).is_empty())
            .collect();
        assert_eq!(
            kept,
            [true, false, false, true, true],
            "those heard of longest ago went"
        );
        assert_eq!((book.len(), book.peers.lock().order.len()), (3, 3));
        book.remember(peers[4], &dir(&"x".repeat(MAX_BYTES)));
        assert_eq!(book.endpoints_of(&peers[4]), [dir("a:1").to_bytes()]);
    }
}
