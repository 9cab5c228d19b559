//! `/dir` and `/oci` endpoints that cross the shim: our own, those of others, and the channel that reports them.
//!
//! Deals in raw address bytes only: code varint, length varint, value (p2p-wire §1.7). Never decodes or judges a
//! value and never keeps one. Soft state: a fingerprint per reported endpoint and connection, so that a peer that
//! repeats itself, or invents endpoints, takes a bounded share of the channel.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use libp2p::PeerId;
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::{Clock, ShimError, ShimMetrics};

/// The varints of `/dir` (65535) and `/oci` (65534).
const CODES: [&[u8]; 2] = [&[0xff, 0xff, 0x03], &[0xfe, 0xff, 0x03]];

/// Longest endpoint address that is read or written, in bytes with its code and length.
pub const MAX_ENDPOINT_BYTES: usize = 1024;
/// Most endpoint addresses of one peer that are taken from one message or written into one.
pub const MAX_ENDPOINTS_PER_PEER: usize = 4;
/// All of our own together; identify has to stay within one frame of 4096 bytes.
pub const MAX_OWN_BYTES: usize = 1024;
/// Most endpoints taken from one message: twenty providers with two each, and room.
pub(super) const MAX_ENDPOINTS_PER_MESSAGE: usize = 64;
/// Reports in flight. Identify brings two per new connection; a reader that is 256 behind has other worries, and
/// what is dropped comes again with the next announcement.
pub const TAP_CAPACITY: usize = 256;
/// The same endpoint on the same connection is reported once in this many seconds.
pub const REPEAT_AFTER_SECS: u64 = 600;
/// Different endpoints one connection may report within [`REPEAT_AFTER_SECS`].
pub const MAX_FINGERPRINTS: usize = 128;

/// Where an endpoint was seen. None of them is proof that the endpoint belongs to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointSource {
    /// The peer itself said so in identify or identify push.
    Identify,
    /// The peer itself said so with an ADD_PROVIDER.
    Announcement,
    /// Another peer said so, answering GET_PROVIDERS.
    Answer {
        /// Who answered.
        reporter: PeerId,
    },
}

/// One endpoint address of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSeen {
    /// Whose endpoint it is said to be.
    pub peer: PeerId,
    /// Who said so, and where.
    pub source: EndpointSource,
    /// The raw address: `ff ff 03` or `fe ff 03`, then the rest as it came; at most [`MAX_ENDPOINT_BYTES`].
    pub endpoint: Bytes,
}

/// The reports of all connections. Bounded by [`TAP_CAPACITY`]; what does not fit is dropped and counted.
#[derive(Debug)]
pub struct Taps {
    receiver: mpsc::Receiver<EndpointSeen>,
}

impl Taps {
    pub(super) fn channel() -> (mpsc::Sender<EndpointSeen>, Self) {
        let (sender, receiver) = mpsc::channel(TAP_CAPACITY);
        (sender, Self { receiver })
    }

    /// The next report; none once the shim and all its connections are gone.
    pub async fn recv(&mut self) -> Option<EndpointSeen> {
        self.receiver.recv().await
    }

    /// A report that is waiting, if there is one.
    pub fn try_recv(&mut self) -> Option<EndpointSeen> {
        self.receiver.try_recv().ok()
    }
}

/// Our own endpoint addresses; clones share the value, and setting it takes effect from the next message on.
#[derive(Debug, Clone, Default)]
pub struct OwnEndpoints {
    raw: Arc<RwLock<Arc<[Bytes]>>>,
}

impl OwnEndpoints {
    /// Replaces all of them.
    ///
    /// # Errors
    /// [`ShimError::Endpoint`] if one is no well-formed `/dir` or `/oci` address of at most [`MAX_ENDPOINT_BYTES`],
    /// or they are more than [`MAX_ENDPOINTS_PER_PEER`] or [`MAX_OWN_BYTES`] in all. Nothing is replaced then.
    pub fn set(&self, endpoints: Vec<Bytes>) -> Result<(), ShimError> {
        if endpoints.len() > MAX_ENDPOINTS_PER_PEER {
            return Err(ShimError::Endpoint {
                reason: "too many of them",
            });
        }
        if endpoints.iter().map(Bytes::len).sum::<usize>() > MAX_OWN_BYTES {
            return Err(ShimError::Endpoint {
                reason: "together longer than 1024 bytes",
            });
        }
        for endpoint in &endpoints {
            if !is_endpoint(endpoint) || !is_one_component(endpoint) {
                return Err(ShimError::Endpoint {
                    reason: "not one /dir or /oci component",
                });
            }
        }
        *self.raw.write() = endpoints.into();
        Ok(())
    }

    /// What is set now.
    #[must_use]
    pub fn get(&self) -> Arc<[Bytes]> {
        self.raw.read().clone()
    }
}

/// Endpoints known of other peers, to be handed on with their provider records. Asked from within the connection's
/// task: it must answer at once.
pub trait EndpointBook: Send + Sync {
    /// Raw endpoint addresses of `peer`; what goes beyond [`MAX_ENDPOINTS_PER_PEER`] is not used.
    fn endpoints_of(&self, peer: &PeerId) -> Vec<Bytes>;
}

/// Whether an address is one of ours to read: it starts with a code we know and is not too long.
pub(super) fn is_endpoint(address: &[u8]) -> bool {
    address.len() <= MAX_ENDPOINT_BYTES && CODES.iter().any(|code| address.starts_with(code))
}

/// Whether the length in the address covers exactly the rest of it, and there is one.
fn is_one_component(address: &[u8]) -> bool {
    address
        .get(3..)
        .and_then(|behind| unsigned_varint::decode::usize(behind).ok())
        .is_some_and(|(length, value)| length == value.len() && length > 0)
}

/// What one connection reports through.
#[derive(Debug)]
pub(super) struct Reports {
    sender: mpsc::Sender<EndpointSeen>,
    hasher: RandomState,
    /// (fingerprint, unix seconds when it was reported); at most [`MAX_FINGERPRINTS`].
    told: Mutex<Vec<(u64, u64)>>,
}

impl Reports {
    pub(super) fn new(sender: mpsc::Sender<EndpointSeen>) -> Self {
        Self {
            sender,
            hasher: RandomState::new(),
            told: Mutex::new(Vec::new()),
        }
    }

    /// Reports one endpoint unless it was told a short while ago, this connection told too much, or the channel is
    /// full.
    pub(super) fn tell(
        &self,
        peer: PeerId,
        source: EndpointSource,
        endpoint: &[u8],
        clock: &Clock,
        metrics: &ShimMetrics,
    ) {
        let fingerprint = self.hasher.hash_one((peer, source, endpoint));
        let now = clock();
        let mut told = self.told.lock();
        told.retain(|(_, at)| now.saturating_sub(*at) < REPEAT_AFTER_SECS);
        if told.iter().any(|(known, _)| *known == fingerprint) {
            return;
        }
        if told.len() >= MAX_FINGERPRINTS {
            metrics.endpoints_over_limit.inc();
            return;
        }
        let seen = EndpointSeen {
            peer,
            source,
            endpoint: Bytes::copy_from_slice(endpoint),
        };
        match self.sender.try_send(seen) {
            Ok(()) => {
                told.push((fingerprint, now));
                metrics.endpoints_seen.inc();
            }
            // Not remembered, so that the next time it may pass.
            Err(_) => {
                metrics.endpoints_dropped.inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const DIR: &[u8] = b"\xff\xff\x03\x04a:81";

    #[test]
    fn own_endpoints_are_checked_as_a_whole() {
        let own = OwnEndpoints::default();
        own.set(vec![Bytes::from_static(DIR)]).unwrap();
        for wrong in [
            vec![Bytes::from_static(b"\xff\xff\x03\x05a:81")],
            vec![Bytes::from_static(b"\xff\xff\x03\x00")],
            vec![Bytes::from_static(b"\xff\xff\x03")],
            vec![Bytes::from_static(b"\x04\x7f\x00\x00\x01")],
            vec![Bytes::from_static(DIR); 5],
        ] {
            assert!(own.set(wrong).is_err());
        }
        assert_eq!(own.get()[..], [Bytes::from_static(DIR)]);
        own.set(Vec::new()).unwrap();
        assert!(own.get().is_empty());
    }

    #[test]
    fn a_connection_repeats_itself_seldom_and_cannot_fill_the_channel() {
        let (sender, mut taps) = Taps::channel();
        let metrics = ShimMetrics::default();
        let now = Arc::new(AtomicU64::new(1000));
        let clock: Clock = Arc::new({
            let now = now.clone();
            move || now.load(Ordering::Relaxed)
        });
        let peer = PeerId::random();
        let reports = Reports::new(sender.clone());
        for _ in 0..3 {
            reports.tell(peer, EndpointSource::Identify, DIR, &clock, &metrics);
        }
        reports.tell(peer, EndpointSource::Announcement, DIR, &clock, &metrics);
        assert_eq!(taps.try_recv().unwrap().source, EndpointSource::Identify);
        assert_eq!(taps.try_recv().unwrap().source, EndpointSource::Announcement);
        assert!(taps.try_recv().is_none());
        now.fetch_add(REPEAT_AFTER_SECS, Ordering::Relaxed);
        reports.tell(peer, EndpointSource::Identify, DIR, &clock, &metrics);
        assert!(taps.try_recv().is_some());

        let invented = |at: usize| format!("\u{7f}{at}").into_bytes();
        for at in 0..10_000 {
            reports.tell(
                peer,
                EndpointSource::Announcement,
                &invented(at),
                &clock,
                &metrics,
            );
        }
        let mut seen = 0;
        while taps.try_recv().is_some() {
            seen += 1;
        }
        assert!(seen < MAX_FINGERPRINTS, "{seen}");
        assert!(metrics.endpoints_over_limit.get() > 9_000);

        // Many connections at once fill it, and what is dropped may be told again later.
        let many: Vec<Reports> = (0..=TAP_CAPACITY).map(|_| Reports::new(sender.clone())).collect();
        for reports in &many {
            reports.tell(peer, EndpointSource::Identify, DIR, &clock, &metrics);
        }
        assert_eq!(metrics.endpoints_dropped.get(), 1);
        assert!(taps.try_recv().is_some());
        many.last()
            .unwrap()
            .tell(peer, EndpointSource::Identify, DIR, &clock, &metrics);
        assert_eq!(metrics.endpoints_dropped.get(), 1);
    }
}
