//! The task that owns the swarm: one loop, handlers that never wait.
//!
//! Commands come before swarm events, so that a busy network cannot keep callers waiting; after a run of commands the
//! swarm gets its turn, so that busy callers cannot starve the network. All state is soft.

mod connections;
mod dht;
mod endpoints;
mod labels;
mod membership;
mod reach;
mod upkeep;

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use libp2p::metrics::Recorder as _;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::behaviour::{Behaviour, BehaviourEvent};
use crate::command::Command;
use crate::config::{Config, EVENT_RESERVE, MAX_QUERIES};
use crate::endpoints::KnownEndpoints;
use crate::error::{NO_ADDRESS, NetworkError};
use crate::event::NetworkEvent;
use crate::gossip::{Awaiting, Scores};
use crate::mdns::Neighbour;
use crate::metrics::{Metrics, gauge};
use crate::pending::Pending;
use crate::rpc::server::Server;
use crate::runtime::Runtime;
use crate::shim::Taps;
use crate::status::Status;

use connections::{DialWaiter, Peers};
use dht::Queries;
use membership::Membership;
use reach::Reach;
use upkeep::Upkeep;

/// Deadlines are looked at this often.
const TICK: Duration = Duration::from_millis(250);

/// Slower duties: dials to bootstrap peers, gauges, table repair.
const UPKEEP: Duration = Duration::from_secs(1);

/// Commands taken in a row before the swarm gets a turn.
const COMMAND_RUN: u32 = 32;

/// Keys of the provider store looked at for lapsed records in one go.
const SWEEP_BUDGET: usize = 4096;

/// Explicit dials waiting for their outcome.
const MAX_DIALS: usize = 512;

/// What the loop is built from.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) runtime: Runtime,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<NetworkEvent>,
    pub(crate) watchers: broadcast::Sender<NetworkEvent>,
    pub(crate) stop: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) libp2p_metrics: libp2p::metrics::Metrics,
    pub(crate) server: Option<Server>,
    pub(crate) taps: Taps,
    pub(crate) endpoints: Arc<KnownEndpoints>,
    pub(crate) neighbours: Option<mpsc::Receiver<Neighbour>>,
    pub(crate) announced_to_link: watch::Sender<Vec<Multiaddr>>,
}

/// The loop and everything it knows.
pub(crate) struct Actor {
    config: Config,
    runtime: Runtime,
    id: PeerId,
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    out: Outlet,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
    libp2p_metrics: libp2p::metrics::Metrics,
    server: Option<Server>,
    taps: Taps,
    endpoints: Arc<KnownEndpoints>,
    neighbours: Option<mpsc::Receiver<Neighbour>>,
    announced_to_link: watch::Sender<Vec<Multiaddr>>,
    peers: Peers,
    dials: Pending<libp2p::swarm::ConnectionId, DialWaiter>,
    queries: Queries,
    awaiting: Awaiting,
    scores: Scores,
    authors: labels::Authors,
    membership: Membership,
    reach: Reach,
    upkeep: Upkeep,
    last_upkeep: Instant,
}

/// Where events go.
struct Outlet {
    events: mpsc::Sender<NetworkEvent>,
    watchers: broadcast::Sender<NetworkEvent>,
    metrics: Arc<Metrics>,
}

impl Outlet {
    /// Sends an event about peers, addresses or ourselves; it may use the reserve of the queue.
    fn emit(&self, event: NetworkEvent) {
        // Nobody watching is fine.
        let _ = self.watchers.send(event.clone());
        if self.events.try_send(event).is_err() {
            self.metrics.event_dropped("peer");
        }
    }

    /// Sends an event of which there may be many; false when the queue has no room for these.
    fn offer(&self, event: NetworkEvent, kind: &'static str) -> bool {
        let sent = self.has_room() && self.events.try_send(event).is_ok();
        if !sent {
            self.metrics.event_dropped(kind);
        }
        sent
    }

    fn has_room(&self) -> bool {
        self.events.capacity() > EVENT_RESERVE
    }

    fn queued(&self) -> usize {
        self.events.max_capacity().saturating_sub(self.events.capacity())
    }
}

impl Actor {
    /// Opens the listen addresses and takes the configured external ones.
    pub(crate) fn new(parts: Parts) -> Result<Self, NetworkError> {
        let Parts {
            config,
            runtime,
            mut swarm,
            commands,
            events,
            watchers,
            stop,
            metrics,
            libp2p_metrics,
            server,
            taps,
            endpoints,
            neighbours,
            announced_to_link,
        } = parts;
        let id = *swarm.local_peer_id();
        for addr in &config.listen {
            swarm
                .listen_on(addr.clone())
                .map_err(|error| NetworkError::Listen {
                    addr: addr.clone(),
                    reason: error.to_string(),
                })?;
        }
        for addr in &config.announce {
            swarm.add_external_address(addr.clone());
        }
        let now = Instant::now();
        Ok(Self {
            id,
            membership: Membership::new(&config, now),
            reach: Reach::new(&config),
            upkeep: Upkeep::new(&config, now),
            config,
            runtime,
            swarm,
            commands,
            out: Outlet {
                events,
                watchers,
                metrics: Arc::clone(&metrics),
            },
            stop,
            metrics,
            libp2p_metrics,
            server,
            taps,
            endpoints,
            neighbours,
            announced_to_link,
            peers: Peers::default(),
            dials: Pending::new("dials", MAX_DIALS),
            queries: Queries::new(MAX_QUERIES),
            awaiting: Awaiting::default(),
            scores: Scores::default(),
            authors: labels::Authors::default(),
            last_upkeep: now,
        })
    }

    /// Runs until told to stop or until every handle is gone.
    pub(crate) async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut run = 0u32;
        loop {
            if run >= COMMAND_RUN {
                run = 0;
                let event = std::future::poll_fn(|cx| {
                    Poll::Ready(match self.swarm.poll_next_unpin(cx) {
                        Poll::Ready(event) => event,
                        Poll::Pending => None,
                    })
                })
                .await;
                if let Some(event) = event {
                    self.on_swarm_event(event);
                }
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                now = tick.tick() => self.on_tick(now),
                command = self.commands.recv() => match command {
                    Some(command) => {
                        run = run.saturating_add(1);
                        self.on_command(command);
                    }
                    None => break,
                },
                Some(seen) = self.taps.recv() => self.on_endpoint(&seen),
                Some(found) = next_of(&mut self.neighbours) => self.on_neighbour(found),
                event = self.swarm.select_next_some() => {
                    run = 0;
                    self.on_swarm_event(event);
                }
            }
        }
        self.close();
    }

    /// Nobody is left waiting: not those at work, not those in line, not those whose question was never read.
    fn close(&mut self) {
        self.stop.cancel();
        let closed = NetworkError::Closed;
        self.dials.fail_all(&closed);
        self.queries.fail_all(&closed);
        self.swarm.behaviour_mut().streams.fail_all(&closed);
        self.commands.close();
        // Dropping a command drops its reply, which its caller reads as closed.
        while self.commands.try_recv().is_ok() {}
        // Writes what is left of the provider records; the loop has ended, so nobody waits for this thread.
        self.swarm.behaviour_mut().kad.store_mut().close();
        tracing::info!("network stopped");
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Status { reply } => {
                let _ = reply.send(Ok(self.status()));
            }
            Command::Peers { reply } => {
                let _ = reply.send(Ok(self.peer_views()));
            }
            Command::Connect { addr, reply } => self.connect(addr, reply),
            Command::Disconnect { peer, reply } => {
                let _ = reply.send(Ok(self.swarm.disconnect_peer_id(peer).is_ok()));
            }
            Command::OpenStream {
                peer,
                protocol,
                reply,
            } => {
                self.swarm.behaviour_mut().streams.open(peer, protocol, reply);
            }
            Command::Query { query } => self.ask_dht(query),
            Command::StopProviding { key, reply } => {
                self.swarm.behaviour_mut().kad.stop_providing(&key.into());
                let _ = reply.send(Ok(()));
            }
            Command::Announce { data, reply } => {
                let outcome = self.announce(data);
                let _ = reply.send(outcome);
            }
            Command::Report { token, verdict } => self.report(token, verdict),
            Command::Score { peer, delta } => self.score(peer, delta),
            Command::Remember { peer, addrs } => self.swarm.behaviour_mut().book.remember(peer, addrs),
            Command::AddExternal { addr, reply } => {
                self.add_external(addr);
                let _ = reply.send(Ok(()));
            }
            Command::RemoveExternal { addr, reply } => {
                self.swarm.remove_external_address(&addr);
                self.out.emit(NetworkEvent::ExternalAddressExpired { addr });
                let _ = reply.send(Ok(()));
            }
            Command::External { reply } => {
                let _ = reply.send(Ok(self.swarm.external_addresses().cloned().collect()));
            }
            Command::Block { peer, blocked, reply } => {
                let list = &mut self.swarm.behaviour_mut().blocked;
                let changed = if blocked {
                    list.block_peer(peer)
                } else {
                    list.unblock_peer(peer)
                };
                let _ = reply.send(Ok(changed));
            }
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        self.libp2p_metrics.record(&event);
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.on_connected(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                cause,
                ..
            } => {
                if let Some(cause) = cause {
                    tracing::debug!(peer = %peer_id, %cause, "connection ended");
                }
                self.on_disconnected(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => self.on_dial_failed(connection_id, peer_id, &error),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.metrics.inbound_failed(connections::listen_failure(&error));
            }
            SwarmEvent::NewListenAddr { address, .. } => self.on_listening(address),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_listener_gone(&[address]),
            SwarmEvent::ListenerClosed {
                listener_id,
                addresses,
                reason,
            } => {
                if let Err(error) = &reason {
                    tracing::warn!(%error, "listener closed");
                }
                self.on_listener_gone(&addresses);
                self.on_listener_closed(listener_id);
            }
            SwarmEvent::ListenerError { error, .. } => tracing::debug!(%error, "listener error"),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                tracing::info!(addr = %address, "external address confirmed");
                self.out
                    .emit(NetworkEvent::ExternalAddressConfirmed { addr: address });
            }
            SwarmEvent::ExternalAddrExpired { address } => {
                tracing::info!(addr = %address, "external address expired");
                self.out
                    .emit(NetworkEvent::ExternalAddressExpired { addr: address });
            }
            other => tracing::trace!(event = ?other, "swarm event"),
        }
    }

    fn on_behaviour_event(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Kad(event) => {
                self.libp2p_metrics.record(&event);
                self.on_kad(event);
            }
            BehaviourEvent::Gossip(event) => {
                self.libp2p_metrics.record(&event);
                self.on_gossip(event);
            }
            BehaviourEvent::Identify(event) => self.on_identify(event),
            BehaviourEvent::Ping(event) => {
                self.libp2p_metrics.record(&event);
                self.on_ping(&event);
            }
            BehaviourEvent::Autonat(event) => self.on_autonat(&event),
            BehaviourEvent::Streams(opened) => {
                if let Some(server) = &self.server {
                    server.accept(opened);
                }
            }
            BehaviourEvent::RelayClient(event) => self.on_relay_client(&event),
            BehaviourEvent::RelayServer(event) => {
                self.libp2p_metrics.record(&event);
                tracing::debug!(?event, "relay service");
            }
            BehaviourEvent::Dcutr(event) => {
                self.libp2p_metrics.record(&event);
                tracing::debug!(?event, "hole punch");
            }
            BehaviourEvent::Upnp(event) => tracing::debug!(?event, "gateway"),
        }
    }

    fn on_tick(&mut self, now: Instant) {
        self.expire_verdicts(now);
        for (_, waiter, _) in self.dials.overdue(now) {
            waiter.fail(now);
        }
        self.expire_queries(now);
        if now.saturating_duration_since(self.last_upkeep) < UPKEEP {
            return;
        }
        let passed = now.saturating_duration_since(self.last_upkeep);
        self.last_upkeep = now;
        self.swarm.behaviour_mut().streams.forget_the_gone();
        self.fade_scores(passed);
        self.keep_members(now);
        self.keep_reachable(now);
        self.prune(now);
        self.swarm.behaviour_mut().kad.store_mut().sweep(SWEEP_BUDGET);
        self.watch_table();
        self.show_gauges();
    }

    fn status(&mut self) -> Status {
        let (topic_peers, mesh_peers) = self.topic_counts();
        Status {
            peer: self.id,
            role: self.config.role(),
            listening: self.listening(),
            external: self.swarm.external_addresses().cloned().collect(),
            bootstrapped: self.membership.bootstrapped(),
            peers: self.peers.len(),
            connections: self.peers.connections(),
            table: self.table_size(),
            topic_peers,
            mesh_peers,
            reachability: self.reach.verdict(),
            queries: self.queries.counts(),
            provider_records: self.provider_records(),
            awaiting_verdict: self.awaiting.len(),
            serving: self.server.as_ref().map_or(0, Server::serving),
        }
    }

    fn show_gauges(&mut self) {
        let (topic_peers, mesh_peers) = self.topic_counts();
        let (running, waiting) = self.queries.counts();
        let metrics = &self.metrics;
        metrics.peers.set(gauge(self.peers.len()));
        metrics.topic_peers.set(gauge(topic_peers));
        metrics.mesh_peers.set(gauge(mesh_peers));
        metrics.queries_running.set(gauge(running));
        metrics.queries_waiting.set(gauge(waiting));
        metrics.awaiting_verdict.set(gauge(self.awaiting.len()));
        metrics.events_queued.set(gauge(self.out.queued()));
        metrics.commands_queued.set(gauge(self.commands.len()));
        metrics.endpoint_peers.set(gauge(self.endpoints.len()));
        metrics.table.set(gauge(self.membership.table()));
        let records = self.provider_records();
        self.metrics.provider_records.set(gauge(records));
    }

    /// Open listen addresses with our peer id at their end.
    fn listening(&self) -> Vec<Multiaddr> {
        let mut all: Vec<Multiaddr> = self
            .swarm
            .listeners()
            .map(|addr| reach::with_peer(addr.clone(), self.id))
            .collect();
        all.sort_by_key(ToString::to_string);
        all
    }
}

/// The next item of a queue that may not be there.
async fn next_of<T>(queue: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match queue {
        Some(queue) => queue.recv().await,
        None => std::future::pending().await,
    }
}

/// Why a dial failed, in one line.
pub(crate) fn dial_reason(error: &DialError) -> String {
    /// Texts of dial errors hold whole address lists; this much is enough to tell them apart.
    const MAX_REASON: usize = 300;
    let mut text = match error {
        DialError::Transport(tried) => tried
            .iter()
            .map(|(addr, error)| format!("{addr}: {}", root_cause(error)))
            .collect::<Vec<_>>()
            .join(", "),
        DialError::NoAddresses => NO_ADDRESS.to_owned(),
        DialError::Aborted => "dial aborted".to_owned(),
        DialError::LocalPeerId { .. } => "that is this node itself".to_owned(),
        DialError::WrongPeerId { obtained, .. } => format!("peer {obtained} answered instead"),
        DialError::DialPeerConditionFalse(_) => "already connected or dialling".to_owned(),
        DialError::Denied { cause } => format!("refused by our own limits: {}", root_cause(cause)),
    };
    if text.len() > MAX_REASON {
        let cut = (0..=MAX_REASON)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

/// The innermost error, which says what happened; the outer ones only say that something did.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
