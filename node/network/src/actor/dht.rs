//! The DHT: questions in a bounded line, their answers, and what peers ask of us.

use std::collections::{BTreeMap, HashSet, VecDeque};

use bytes::Bytes;
use libp2p::core::Endpoint;
use libp2p::kad::{
    self, GetClosestPeersError, GetClosestPeersOk, GetProvidersOk, InboundRequest, ProviderRecord, QueryId,
    QueryResult, QueryStats,
};
use libp2p::swarm::{ConnectionId, NetworkBehaviour as _};
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use super::Actor;
use crate::command::{Query, Reply};
use crate::config::{MAX_ADDR_BYTES, MAX_ADDRS_PER_PEER, MAX_KAD_KEY, MAX_WAITING_QUERIES, QUERY_TIMEOUT};
use crate::error::NetworkError;
use crate::event::NetworkEvent;
use crate::pending::{Pending, Waiter};
use crate::scope::without_peer;
use crate::status::PeerAddrs;
use crate::wire::kad::RENDEZVOUS_KEY;

/// The DHT ends queries itself; this much later we stop believing that it will.
const SLACK: std::time::Duration = std::time::Duration::from_secs(10);

/// Providers gathered for one question at most.
const MAX_PROVIDERS: usize = 256;

/// A question at work.
enum Running {
    FindPeer {
        peer: PeerId,
        reply: Reply<Vec<Multiaddr>>,
    },
    Closest {
        reply: Reply<Vec<PeerAddrs>>,
    },
    Provide {
        reply: Reply<()>,
    },
    Providers {
        enough: usize,
        found: BTreeMap<PeerId, Vec<Multiaddr>>,
        reply: Reply<Vec<PeerAddrs>>,
    },
}

impl Running {
    fn kind(&self) -> &'static str {
        match self {
            Self::FindPeer { .. } => "find_peer",
            Self::Closest { .. } => "closest",
            Self::Provide { .. } => "provide",
            Self::Providers { .. } => "find_providers",
        }
    }
}

impl Waiter for Running {
    fn fail(self, error: NetworkError) {
        match self {
            Self::FindPeer { reply, .. } => reply.fail(error),
            Self::Closest { reply } | Self::Providers { reply, .. } => reply.fail(error),
            Self::Provide { reply } => reply.fail(error),
        }
    }

    fn gone(&self) -> bool {
        match self {
            Self::FindPeer { reply, .. } => reply.gone(),
            Self::Closest { reply } | Self::Providers { reply, .. } => reply.gone(),
            Self::Provide { reply } => reply.gone(),
        }
    }
}

impl Waiter for Query {
    fn fail(self, error: NetworkError) {
        match self {
            Self::FindPeer { reply, .. } => reply.fail(error),
            Self::Closest { reply, .. } | Self::Providers { reply, .. } => reply.fail(error),
            Self::Provide { reply, .. } => reply.fail(error),
        }
    }

    fn gone(&self) -> bool {
        match self {
            Self::FindPeer { reply, .. } => reply.gone(),
            Self::Closest { reply, .. } | Self::Providers { reply, .. } => reply.gone(),
            Self::Provide { reply, .. } => reply.gone(),
        }
    }
}

/// Questions at work and in line.
pub(super) struct Queries {
    running: Pending<QueryId, Running>,
    waiting: VecDeque<Query>,
    limit: usize,
}

impl Queries {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            running: Pending::new("queries", limit),
            waiting: VecDeque::new(),
            limit,
        }
    }

    /// At work and in line.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    pub(super) fn fail_all(&mut self, error: &NetworkError) {
        self.running.fail_all(error);
        for query in self.waiting.drain(..) {
            query.fail(error.clone());
        }
    }
}

impl Actor {
    /// Takes a question: answers it from what we know, starts it, or puts it in line.
    pub(super) fn ask_dht(&mut self, query: Query) {
        let Some(query) = self.answer_locally(query) else {
            return;
        };
        if self.queries.running.len() < self.queries.limit {
            self.start_query(query);
        } else if self.queries.waiting.len() < MAX_WAITING_QUERIES {
            self.queries.waiting.push_back(query);
        } else {
            query.fail(NetworkError::Busy {
                what: "line of queries",
                limit: MAX_WAITING_QUERIES,
            });
        }
    }

    /// The question back, unless it needs no query.
    fn answer_locally(&mut self, query: Query) -> Option<Query> {
        match query {
            Query::FindPeer { peer, reply } => {
                let known = self.addresses_of(&peer);
                if known.is_empty() && self.table_size() > 0 {
                    return Some(Query::FindPeer { peer, reply });
                }
                let answer = if known.is_empty() {
                    Err(NetworkError::NoPeers)
                } else {
                    Ok(known)
                };
                let _ = reply.send(answer);
                None
            }
            Query::Provide { key, reply } => {
                if self.swarm.external_addresses().next().is_none() {
                    reply.fail(NetworkError::NoExternalAddress);
                    return None;
                }
                if self.table_size() == 0 {
                    reply.fail(NetworkError::NoPeers);
                    return None;
                }
                Some(Query::Provide { key, reply })
            }
            Query::Closest { key, reply } => {
                if self.table_size() == 0 {
                    reply.fail(NetworkError::NoPeers);
                    return None;
                }
                Some(Query::Closest { key, reply })
            }
            Query::Providers { .. } if self.table_size() > 0 => Some(query),
            Query::Providers { key, reply, .. } => {
                let found = self.local_providers(&key);
                let answer = if found.is_empty() {
                    Err(NetworkError::NoPeers)
                } else {
                    Ok(found)
                };
                let _ = reply.send(answer);
                None
            }
        }
    }

    fn start_query(&mut self, query: Query) {
        let kad = &mut self.swarm.behaviour_mut().kad;
        let mut deadline = Instant::now() + QUERY_TIMEOUT + SLACK;
        let (id, running) = match query {
            Query::FindPeer { peer, reply } => {
                (kad.get_closest_peers(peer), Running::FindPeer { peer, reply })
            }
            Query::Closest { key, reply } => (kad.get_closest_peers(key), Running::Closest { reply }),
            Query::Provide { key, reply } => match kad.start_providing(key.into()) {
                Ok(id) => (id, Running::Provide { reply }),
                Err(error) => {
                    self.metrics.query_ended("provide", "refused_by_store", None, 0);
                    reply.fail(NetworkError::Internal {
                        reason: format!("own provider record: {error}"),
                    });
                    return;
                }
            },
            Query::Providers {
                key,
                enough,
                until,
                reply,
            } => {
                deadline = until.map_or(deadline, |until| until.min(deadline));
                (
                    kad.get_providers(key.into()),
                    Running::Providers {
                        enough: enough.clamp(1, MAX_PROVIDERS),
                        found: BTreeMap::new(),
                        reply,
                    },
                )
            }
        };
        self.queries.running.insert(id, running, deadline);
    }

    /// Starts those in line that fit.
    fn next_queries(&mut self) {
        while self.queries.running.len() < self.queries.limit {
            let Some(query) = self.queries.waiting.pop_front() else {
                return;
            };
            if query.gone() {
                continue;
            }
            self.start_query(query);
        }
    }

    /// Ends queries whose caller has left, those whose caller waits no longer, and those that the DHT forgot to end.
    pub(super) fn expire_queries(&mut self, now: Instant) {
        for (id, running, late) in self.queries.running.overdue(now) {
            if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                query.finish();
            }
            let kind = running.kind();
            let result = match running {
                // What was heard so far is true, whoever has not answered yet.
                Running::Providers { found, reply, .. } if late && !found.is_empty() => {
                    let _ = reply.send(Ok(with_addrs(found)));
                    "cut_short"
                }
                running => {
                    running.fail(NetworkError::Timeout {
                        what: "query",
                        after: QUERY_TIMEOUT,
                    });
                    if late { "timeout" } else { "caller_gone" }
                }
            };
            self.metrics.query_ended(kind, result, None, 0);
        }
        self.next_queries();
    }

    pub(super) fn on_kad(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            } => self.on_progress(id, result, &stats, step.last),
            kad::Event::InboundRequest { request } => self.on_dht_request(request),
            kad::Event::RoutingUpdated { .. } => {
                self.membership.table_changed();
                self.watch_table();
            }
            _ => {}
        }
    }

    fn on_progress(&mut self, id: QueryId, result: QueryResult, stats: &QueryStats, last: bool) {
        if let QueryResult::Bootstrap(outcome) = &result {
            if last {
                self.metrics.query_ended(
                    "refresh",
                    if outcome.is_ok() { "ok" } else { "timeout" },
                    seconds(stats),
                    stats.num_requests(),
                );
                self.on_refreshed();
            }
            return;
        }
        if let QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) = &result {
            self.on_providers(id, providers);
        }
        if !last {
            return;
        }
        let Some(running) = self.queries.running.take(id) else {
            return;
        };
        let kind = running.kind();
        let outcome = self.finish(running, result);
        self.metrics
            .query_ended(kind, outcome, seconds(stats), stats.num_requests());
        self.next_queries();
    }

    /// Answers a query's caller; how it ended, for the metric.
    fn finish(&mut self, running: Running, result: QueryResult) -> &'static str {
        let timeout = || NetworkError::Timeout {
            what: "query",
            after: QUERY_TIMEOUT,
        };
        match (running, result) {
            (Running::Provide { reply }, QueryResult::StartProviding(outcome)) => {
                let ok = outcome.is_ok();
                let _ = reply.send(outcome.map(|_| ()).map_err(|_| timeout()));
                if ok { "ok" } else { "timeout" }
            }
            (Running::Providers { found, reply, .. }, QueryResult::GetProviders(outcome)) => {
                let late = outcome.is_err() && found.is_empty();
                let none = found.is_empty();
                let _ = reply.send(if late {
                    Err(timeout())
                } else {
                    Ok(with_addrs(found))
                });
                match (late, none) {
                    (true, _) => "timeout",
                    (false, true) => "nothing",
                    (false, false) => "ok",
                }
            }
            (Running::Closest { reply }, QueryResult::GetClosestPeers(outcome)) => {
                let (peers, late) = closest(outcome);
                let failed = late && peers.is_empty();
                let _ = reply.send(if failed { Err(timeout()) } else { Ok(peers) });
                if failed { "timeout" } else { "ok" }
            }
            (Running::FindPeer { peer, reply }, QueryResult::GetClosestPeers(outcome)) => {
                let (peers, late) = closest(outcome);
                let mut addrs = peers
                    .into_iter()
                    .find(|found| found.peer == peer)
                    .map(|found| found.addrs)
                    .unwrap_or_default();
                if addrs.is_empty() {
                    // Found and dialled by the query itself, perhaps.
                    addrs = self.addresses_of(&peer);
                }
                if addrs.is_empty() {
                    let _ = reply.send(Err(if late {
                        timeout()
                    } else {
                        NetworkError::Unreachable {
                            peer,
                            reason: "no peer knows an address".to_owned(),
                        }
                    }));
                    return if late { "timeout" } else { "nothing" };
                }
                self.swarm.behaviour_mut().book.remember(peer, addrs.clone());
                let _ = reply.send(Ok(addrs));
                "ok"
            }
            (running, _) => {
                running.fail(NetworkError::Internal {
                    reason: "the DHT answered another question".to_owned(),
                });
                "internal"
            }
        }
    }

    /// Providers come without addresses, and the query that heard them forgets them when it ends: they are asked for
    /// now.
    fn on_providers(&mut self, id: QueryId, providers: &HashSet<PeerId>) {
        let with_addrs: Vec<(PeerId, Vec<Multiaddr>)> = providers
            .iter()
            .take(MAX_PROVIDERS)
            .map(|peer| (*peer, self.addresses_of(peer)))
            .collect();
        for (peer, addrs) in &with_addrs {
            self.swarm.behaviour_mut().book.remember(*peer, addrs.clone());
        }
        let Some(Running::Providers { enough, found, .. }) = self.queries.running.get_mut(id) else {
            return;
        };
        for (peer, addrs) in with_addrs {
            if found.len() < MAX_PROVIDERS {
                found.entry(peer).or_insert(addrs);
            }
        }
        if found.len() >= *enough
            && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
        {
            query.finish();
        }
    }

    /// Everything known about where a peer can be dialled: what it told us, what the table and running queries say,
    /// what we remember. Bounded, without doubles.
    pub(super) fn addresses_of(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        if *peer == self.id {
            return self
                .swarm
                .external_addresses()
                .take(MAX_ADDRS_PER_PEER)
                .cloned()
                .collect();
        }
        let mut all: Vec<Multiaddr> = self
            .peers
            .get(peer)
            .map(|state| state.addrs.clone())
            .unwrap_or_default();
        let behaviour = self.swarm.behaviour_mut();
        // The DHT gives the addresses of its table and of its running queries to dials only, so we ask as one.
        let dialable = behaviour.kad.handle_pending_outbound_connection(
            ConnectionId::new_unchecked(0),
            Some(*peer),
            &[],
            Endpoint::Dialer,
        );
        all.extend(dialable.unwrap_or_default());
        all.extend_from_slice(behaviour.book.of(peer));
        let mut kept: Vec<Multiaddr> = Vec::new();
        for addr in all.into_iter().filter_map(|addr| without_peer(peer, addr)) {
            if kept.len() < MAX_ADDRS_PER_PEER && addr.len() <= MAX_ADDR_BYTES && !kept.contains(&addr) {
                kept.push(addr);
            }
        }
        kept
    }

    fn local_providers(&mut self, key: &[u8]) -> Vec<PeerAddrs> {
        let records = kad::store::RecordStore::providers(
            self.swarm.behaviour_mut().kad.store_mut(),
            &key.to_vec().into(),
        );
        records
            .into_iter()
            .map(|record| PeerAddrs {
                addrs: if record.addresses.is_empty() {
                    self.addresses_of(&record.provider)
                } else {
                    record.addresses
                },
                peer: record.provider,
            })
            .collect()
    }

    fn on_dht_request(&mut self, request: InboundRequest) {
        match request {
            InboundRequest::FindNode { .. } => self.metrics.dht_request("find_node"),
            InboundRequest::GetProvider { .. } => self.metrics.dht_request("get_providers"),
            InboundRequest::GetRecord { .. } => self.metrics.dht_request("get_value"),
            // Not kept: nobody of the network asks for values, and keeping them would be a store open to all.
            InboundRequest::PutRecord { .. } => self.metrics.dht_request("put_value_dropped"),
            InboundRequest::AddProvider { record } => {
                self.metrics.dht_request("add_provider");
                if let Some(record) = record {
                    self.on_provider_record(record);
                }
            }
        }
    }

    fn on_provider_record(&mut self, record: ProviderRecord) {
        let peer = record.provider;
        let key = record.key.to_vec();
        if key.is_empty() || key.len() > MAX_KAD_KEY {
            self.metrics.provider_refused("key_size");
            return;
        }
        // The reference's nodes provide their rendezvous string at start; it is no record, and nobody looks for it
        // (p2p-wire §1.5).
        if key == RENDEZVOUS_KEY {
            self.metrics.provider_refused("rendezvous");
            return;
        }
        let mut addrs: Vec<Multiaddr> = Vec::new();
        for addr in record.addresses {
            let Some(addr) = without_peer(&peer, addr) else {
                continue;
            };
            if addrs.len() < MAX_ADDRS_PER_PEER && addr.len() <= MAX_ADDR_BYTES && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        if addrs.is_empty() {
            // Only private addresses of the endpoint kind, perhaps; then what the peer told us by identify has to do.
            addrs = self.addresses_of(&peer);
        }
        if addrs.is_empty() {
            self.metrics.provider_refused("no_address");
            return;
        }
        let behaviour = self.swarm.behaviour_mut();
        behaviour.book.remember(peer, addrs.clone());
        if let Err(refusal) = behaviour.kad.store_mut().admit(&record.key, peer, &addrs) {
            tracing::debug!(%peer, reason = %refusal, "provider record not kept");
            self.metrics.provider_refused(refusal.reason());
        }
        let event = NetworkEvent::Provided {
            peer,
            key: Bytes::from(key),
            addrs,
            received_at: (self.runtime.clock)(),
        };
        self.out.offer(event, "provided");
    }

    /// Peers in the routing table.
    pub(super) fn table_peers(&mut self) -> HashSet<PeerId> {
        self.swarm
            .behaviour_mut()
            .kad
            .kbuckets()
            .flat_map(|bucket| {
                bucket
                    .iter()
                    .map(|entry| *entry.node.key.preimage())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    pub(super) fn table_size(&mut self) -> usize {
        self.swarm
            .behaviour_mut()
            .kad
            .kbuckets()
            .map(|bucket| bucket.num_entries())
            .sum()
    }

    /// Provider records kept, ours included.
    pub(super) fn provider_records(&mut self) -> usize {
        let store = self.swarm.behaviour_mut().kad.store_mut();
        store.record_count().saturating_add(store.own_count())
    }
}

fn with_addrs(found: BTreeMap<PeerId, Vec<Multiaddr>>) -> Vec<PeerAddrs> {
    found
        .into_iter()
        .map(|(peer, addrs)| PeerAddrs { peer, addrs })
        .collect()
}

fn seconds(stats: &QueryStats) -> Option<f64> {
    stats.duration().map(|took| took.as_secs_f64())
}

/// The peers of a result, and whether it came too late to be complete.
fn closest(outcome: Result<GetClosestPeersOk, GetClosestPeersError>) -> (Vec<PeerAddrs>, bool) {
    let (peers, late) = match outcome {
        Ok(found) => (found.peers, false),
        Err(GetClosestPeersError::Timeout { peers, .. }) => (peers, true),
    };
    let peers = peers
        .into_iter()
        .map(|info| {
            let mut addrs = info.addrs;
            addrs.retain(|addr| addr.len() <= MAX_ADDR_BYTES);
            addrs.truncate(MAX_ADDRS_PER_PEER);
            PeerAddrs {
                peer: info.peer_id,
                addrs,
            }
        })
        .collect();
    (peers, late)
}
