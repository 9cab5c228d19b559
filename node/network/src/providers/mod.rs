//! Who provides what: the provider records that Kademlia keeps for others, and our own.
//!
//! The store behind the Kademlia behaviour. Values are never kept (PUT_VALUE is refused), records of others are held
//! in about a hundred bytes each, bounded per key, per peer and in all, and lapse by a wheel that [`ProviderStore::sweep`]
//! turns; nothing is ever searched through. Iterating yields nothing, so that the library's own republishing jobs,
//! which would clone everything, have nothing to do.
//!
//! Records of others are soft state; they are written behind through a [`ProviderLog`] on a thread of its own, so
//! that a restart does not forget what was announced for two days. Our own are a mirror of what is published
//! elsewhere and are not written. Never judges who may announce what: with filtering on, the application does and then
//! calls [`ProviderStore::admit`]. Follows p2p-wire §2.3, §2.4 and §2.7.

mod file;
mod log;
mod metrics;
mod peers;
mod table;
mod wheel;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use libp2p::kad::store::{self, RecordStore};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};

pub use file::FileLog;
pub use log::{Loaded, LogWriter, ProviderLog, ProviderRow};
pub use metrics::{ProviderMetrics, ReasonLabel};
use peers::Peers;
use table::{Put, Slot, Table, TableKey};
use wheel::Wheel;

/// Longest key, as the network has it (p2p-wire §2.4).
pub const MAX_KEY_BYTES: usize = 80;
/// Addresses kept of a provider. An answer with twenty providers has to fit one message.
pub const MAX_ADDRESSES: usize = 4;
/// Longest address kept.
pub const MAX_ADDRESS_BYTES: usize = 256;
/// Unix seconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Bounds of the store.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Seconds a record of another peer is kept after it was announced: 48 h, like everywhere in the network.
    pub ttl_secs: u32,
    /// Providers of a key: as many as the replication has; one more replaces the one that lapses first.
    pub max_per_key: usize,
    /// Records of one peer. In a small network each node holds all keys of each publisher.
    pub max_per_peer: u32,
    /// Records of all peers together: about 100 bytes each.
    pub max_records: usize,
    /// Peers that provide something: about 400 bytes each with their addresses.
    pub max_peers: usize,
    /// Keys of our own.
    pub max_own: usize,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            ttl_secs: 48 * 60 * 60,
            max_per_key: 20,
            max_per_peer: 250_000,
            max_records: 2_000_000,
            max_peers: 20_000,
            max_own: 5_000_000,
        }
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No key of the network's size.
    #[error("key is {0} bytes, allowed are 1 to {MAX_KEY_BYTES}")]
    Key(usize),
    /// This peer has announced enough.
    #[error("peer has {0} records, the most one may have")]
    PeerFull(u32),
    /// The store is full, or has too many peers.
    #[error("store holds {0} records, the most it may")]
    StoreFull(usize),
    /// Too many peers provide something.
    #[error("store knows {0} providers, the most it may")]
    PeersFull(usize),
    /// We provide enough ourselves.
    #[error("store holds {0} keys of our own, the most it may")]
    OwnFull(usize),
}

impl Refusal {
    /// One word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::PeerFull(_) => "peer_full",
            Self::StoreFull(_) => "store_full",
            Self::PeersFull(_) => "peers_full",
            Self::OwnFull(_) => "own_full",
        }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Keys looked at.
    pub visited: usize,
    /// Records dropped.
    pub expired: usize,
    /// The budget ended before the work: sweep again soon.
    pub behind: bool,
}

/// The store. Lives inside the Kademlia behaviour; everything is synchronous and in memory.
pub struct ProviderStore {
    local: PeerId,
    config: ProviderConfig,
    clock: Clock,
    own: HashSet<TableKey>,
    table: Table,
    peers: Peers,
    wheel: Wheel,
    /// Records of others.
    records: usize,
    log: Option<LogWriter>,
    metrics: ProviderMetrics,
}

impl std::fmt::Debug for ProviderStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderStore")
            .field("records", &self.records)
            .field("keys", &self.table.len())
            .field("peers", &self.peers.len())
            .field("own", &self.own.len())
            .finish_non_exhaustive()
    }
}

impl ProviderStore {
    /// An empty store of the peer `local`.
    #[must_use]
    pub fn new(local: PeerId, config: ProviderConfig, clock: Clock) -> Self {
        let wheel = Wheel::new(narrow(clock()));
        Self {
            local,
            config,
            clock,
            own: HashSet::new(),
            table: Table::default(),
            peers: Peers::default(),
            wheel,
            records: 0,
            log: None,
            metrics: ProviderMetrics::default(),
        }
    }

    /// Takes what a log holds, within the bounds, and from then on writes to it.
    ///
    /// # Errors
    /// [`std::io::Error`] if the log cannot be read at all; the store is then as before and writes nowhere.
    pub fn restore(&mut self, mut log: Box<dyn ProviderLog>) -> std::io::Result<Loaded> {
        let now = (self.clock)();
        // Addresses stand with one row of their peer only, and that one may have lapsed before the others.
        let mut told: HashMap<PeerId, Vec<Multiaddr>> = HashMap::new();
        let loaded = log.load(now, &mut |mut row| {
            // A row that lapses later than it could was written by another clock.
            let latest = now.saturating_add(u64::from(self.config.ttl_secs));
            let expires = narrow(row.expires.min(latest));
            if u64::from(expires) <= now {
                let room = told.len() < self.config.max_peers || told.contains_key(&row.peer);
                if !row.addresses.is_empty() && room {
                    told.insert(row.peer, row.addresses);
                }
                return;
            }
            let before = told.remove(&row.peer);
            if row.addresses.is_empty() {
                row.addresses = before.unwrap_or_default();
            }
            if let Some(key) = TableKey::from_bytes(&row.key)
                && row.peer != self.local
                // What no longer fits is left out, as it would be if it were announced now.
                && let Ok(number) = self.insert(key, row.peer, &row.addresses, expires)
                && !row.addresses.is_empty()
            {
                self.peers.set_written(number, LogWriter::FIRST_LIFE);
            }
        })?;
        self.log = Some(LogWriter::start(log, self.clock.clone(), self.metrics.clone())?);
        self.gauge();
        Ok(loaded)
    }

    /// The counters; clones count together.
    #[must_use]
    pub fn metrics(&self) -> &ProviderMetrics {
        &self.metrics
    }

    /// Takes or renews a record of another peer, or takes one of our own.
    ///
    /// # Errors
    /// [`Refusal`], counted by its reason.
    pub fn admit(&mut self, key: &RecordKey, peer: PeerId, addresses: &[Multiaddr]) -> Result<(), Refusal> {
        let admitted = self.try_admit(key, peer, addresses);
        match &admitted {
            Ok(()) if peer != self.local => {
                self.metrics.accepted.inc();
            }
            Ok(()) => {}
            Err(refusal) => {
                let reason = refusal.reason();
                self.metrics.refused.get_or_create(&ReasonLabel { reason }).inc();
            }
        }
        admitted
    }

    fn try_admit(&mut self, key: &RecordKey, peer: PeerId, addresses: &[Multiaddr]) -> Result<(), Refusal> {
        let table_key = TableKey::new(key).ok_or(Refusal::Key(key.as_ref().len()))?;
        if peer == self.local {
            if self.own.len() >= self.config.max_own && !self.own.contains(&table_key) {
                return Err(Refusal::OwnFull(self.own.len()));
            }
            self.own.insert(table_key);
            return Ok(());
        }
        let expires = narrow((self.clock)()).saturating_add(self.config.ttl_secs);
        let number = self.insert(table_key, peer, addresses, expires)?;
        self.write_down(key, peer, number, expires);
        self.gauge();
        Ok(())
    }

    /// Puts one record in place; gives the peer's number.
    fn insert(
        &mut self,
        key: TableKey,
        peer: PeerId,
        addresses: &[Multiaddr],
        expires: u32,
    ) -> Result<u32, Refusal> {
        let known_peer = self.peers.find(&peer);
        let renewed = match (known_peer, self.table.find(&key)) {
            (Some(number), Some(entry)) => self.table.slots(entry).iter().any(|slot| slot.peer == number),
            _ => false,
        };
        if !renewed {
            // A crowded key takes a new provider for an old one, but the store as a whole has no such choice.
            if self.records >= self.config.max_records {
                return Err(Refusal::StoreFull(self.records));
            }
            let records = known_peer.map_or(0, |number| self.peers.records(number));
            if records >= self.config.max_per_peer {
                return Err(Refusal::PeerFull(records));
            }
            if known_peer.is_none() && self.peers.len() >= self.config.max_peers {
                return Err(Refusal::PeersFull(self.peers.len()));
            }
        }
        let number = self
            .peers
            .number(peer)
            .ok_or(Refusal::PeersFull(self.peers.len()))?;
        let slot = Slot {
            peer: number,
            expires,
        };
        let Some((entry, fresh, put)) = self.table.put(key, slot, self.config.max_per_key) else {
            self.peers.forget_idle(number);
            return Err(Refusal::StoreFull(self.records));
        };
        if fresh {
            let due = self.wheel.add(entry, expires);
            self.table.set_due(entry, due);
        }
        match put {
            Put::Renewed => {}
            Put::Added => {
                self.peers.add_record(number);
                self.records = self.records.saturating_add(1);
            }
            Put::Replaced(other) => {
                self.peers.add_record(number);
                self.peers.drop_record(other);
                self.metrics.evicted.inc();
            }
        }
        self.peers.set_addresses(number, addresses);
        Ok(number)
    }

    /// Hands the record to the log, with the peer's addresses unless the log has them.
    fn write_down(&mut self, key: &RecordKey, peer: PeerId, number: u32, expires: u32) {
        let Some(log) = &self.log else { return };
        let life = log.life();
        let addresses = self.peers.unwritten(number, life);
        let with_addresses = !addresses.is_empty();
        let row = ProviderRow {
            key: key.to_vec(),
            peer,
            expires: u64::from(expires),
            addresses,
        };
        if !log.offer(row, self.records) {
            self.metrics.unlogged.inc();
        } else if with_addresses {
            self.peers.set_written(number, life);
        }
    }

    /// Drops what has lapsed, looking at no more than `budget` keys.
    pub fn sweep(&mut self, budget: usize) -> Swept {
        let now = narrow((self.clock)());
        let mut swept = Swept {
            behind: true,
            ..Swept::default()
        };
        while swept.visited < budget {
            let Some((entry, tick)) = self.wheel.next(now) else {
                swept.behind = false;
                break;
            };
            swept.visited = swept.visited.saturating_add(1);
            if !self.table.is_due(entry, tick) {
                continue;
            }
            let peers = &mut self.peers;
            let mut gone = 0usize;
            let next = self.table.retain(
                entry,
                |slot| slot.expires <= now,
                |slot| {
                    peers.drop_record(slot.peer);
                    gone = gone.saturating_add(1);
                },
            );
            self.records = self.records.saturating_sub(gone);
            swept.expired = swept.expired.saturating_add(gone);
            if let Some(expires) = next {
                let due = self.wheel.add(entry, expires);
                self.table.set_due(entry, due);
            }
        }
        self.metrics
            .expired
            .inc_by(u64::try_from(swept.expired).unwrap_or(u64::MAX));
        self.metrics
            .memory
            .set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
        self.gauge();
        swept
    }

    /// Records of other peers held, lapsed ones that were not swept yet among them.
    #[must_use]
    pub fn record_count(&self) -> usize {
        self.records
    }

    /// Keys of our own.
    #[must_use]
    pub fn own_count(&self) -> usize {
        self.own.len()
    }

    /// Bytes held for records of others, allocator overhead not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table
            .bytes()
            .saturating_add(self.peers.bytes())
            .saturating_add(self.wheel.bytes())
    }

    fn gauge(&self) {
        let as_gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.records.set(as_gauge(self.records));
        self.metrics.keys.set(as_gauge(self.table.len()));
        self.metrics.peers.set(as_gauge(self.peers.len()));
    }

    /// Waits until all that was taken so far is written, and ends the writing.
    pub fn close(&mut self) {
        if let Some(log) = self.log.take() {
            log.close();
        }
    }
}

/// Unix seconds in the size they are kept in; later than 2106 is 2106.
fn narrow(secs: u64) -> u32 {
    u32::try_from(secs).unwrap_or(u32::MAX)
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    /// The network of this node keeps no values (p2p-wire §2.5).
    fn put(&mut self, _: Record) -> store::Result<()> {
        Err(store::Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    /// The record's own expiry is left aside: it is on a clock that says nothing after a restart, and is the same
    /// 48 h for everybody.
    fn add_provider(&mut self, record: ProviderRecord) -> store::Result<()> {
        self.admit(&record.key, record.provider, &record.addresses)
            .map_err(|refusal| match refusal {
                Refusal::Key(_) => store::Error::ValueTooLarge,
                _ => store::Error::MaxProvidedKeys,
            })
    }

    /// At most [`ProviderConfig::max_per_key`] and ourselves, ourselves first; none that has lapsed.
    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let Some(table_key) = TableKey::new(key) else {
            return Vec::new();
        };
        let now = narrow((self.clock)());
        let record = |provider, addresses| ProviderRecord {
            key: key.clone(),
            provider,
            expires: None,
            addresses,
        };
        let own = self
            .own
            .contains(&table_key)
            .then(|| record(self.local, Vec::new()));
        let slots = self
            .table
            .find(&table_key)
            .map_or(&[][..], |at| self.table.slots(at));
        let others = slots
            .iter()
            .filter(|slot| slot.expires > now)
            .filter_map(|slot| self.peers.peer(slot.peer))
            .map(|(peer, addresses)| record(peer, addresses.to_vec()));
        own.into_iter().chain(others).collect()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        let Some(table_key) = TableKey::new(key) else {
            return;
        };
        if *peer == self.local {
            self.own.remove(&table_key);
            return;
        }
        let (Some(number), Some(entry)) = (self.peers.find(peer), self.table.find(&table_key)) else {
            return;
        };
        let mut gone = 0usize;
        self.table.retain(
            entry,
            |slot| slot.peer == number,
            |_| gone = gone.saturating_add(1),
        );
        for _ in 0..gone {
            self.peers.drop_record(number);
        }
        self.records = self.records.saturating_sub(gone);
        self.gauge();
    }
}

#[cfg(test)]
mod tests;
