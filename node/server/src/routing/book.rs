//! What is known of peers that matters to searchers: where their directory is, and where they can be dialled.
//!
//! Soft state: claims of the peers themselves, the newest ones, for a bounded number of peers.

use std::collections::BTreeMap;

use dirnode_network::{EndpointKind, EndpointSeen, Multiaddr, PeerId};

/// Peers that are kept; beyond it the one heard of longest ago goes.
const MAX_PEERS: usize = 65_536;
/// Addresses of one peer.
const MAX_ADDRS: usize = 8;

/// One peer, by what it said itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// `/dir/…` without its prefix.
    pub directory_api: Option<String>,
    /// `/oci/…` without its prefix.
    pub oci: Option<String>,
    /// Where it can be dialled.
    pub addrs: Vec<Multiaddr>,
    heard: u64,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    peers: BTreeMap<PeerId, Known>,
    by_age: BTreeMap<u64, PeerId>,
    count: u64,
}

impl Book {
    fn hear(&mut self, peer: PeerId) -> &mut Known {
        self.count += 1;
        let known = self.peers.entry(peer).or_default();
        self.by_age.remove(&known.heard);
        known.heard = self.count;
        self.by_age.insert(self.count, peer);
        while self.by_age.len() > MAX_PEERS {
            if let Some((_, oldest)) = self.by_age.pop_first() {
                self.peers.remove(&oldest);
            }
        }
        self.peers.entry(peer).or_default()
    }

    pub(super) fn addrs(&mut self, peer: PeerId, mut addrs: Vec<Multiaddr>) {
        if !addrs.is_empty() {
            addrs.truncate(MAX_ADDRS);
            self.hear(peer).addrs = addrs;
        }
    }

    pub(super) fn endpoint(&mut self, seen: EndpointSeen) {
        let known = self.hear(seen.peer);
        let place = match seen.kind {
            EndpointKind::DirectoryApi => &mut known.directory_api,
            EndpointKind::Oci => &mut known.oci,
        };
        // What a third party says does not replace what is known.
        if seen.reporter.is_none() || place.is_none() {
            *place = Some(seen.value);
        }
    }

    pub(super) fn get(&self, peer: &PeerId) -> Option<&Known> {
        self.peers.get(peer)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.peers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: PeerId, value: &str) -> EndpointSeen {
        EndpointSeen {
            peer,
            kind: EndpointKind::DirectoryApi,
            value: value.to_owned(),
            reporter: None,
        }
    }

    #[test]
    fn the_newest_claim_counts_and_the_oldest_peer_goes() {
        let mut book = Book::default();
        let first = PeerId::random();
        book.endpoint(seen(first, "a"));
        book.endpoint(seen(first, "b"));
        assert_eq!(book.get(&first).unwrap().directory_api.as_deref(), Some("b"));
        for _ in 0..MAX_PEERS {
            book.endpoint(seen(PeerId::random(), "c"));
        }
        assert_eq!(book.len(), MAX_PEERS);
        assert!(book.get(&first).is_none());
    }
}
