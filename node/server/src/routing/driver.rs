//! The task that feeds the routing brain and carries out what it asks for.
//!
//! One task owns the brain, so that its decisions have one order. It waits for nobody: everything that takes time runs
//! beside it, bounded by what the brain has in flight, and comes back as an input.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::wire::announcement::{self, AdmitError, Announcement as Wire};
use dirnode_network::wire::kad::{RENDEZVOUS_KEY, provider_key, record_of_key};
use dirnode_network::wire::timestamp::Timestamp as WireTimestamp;
use dirnode_network::{
    AnnounceOutcome, Announced, AnnouncementToken, NetworkError, NetworkEvent, NetworkHandle, PeerId,
    Verdict as NetworkVerdict, config::CATCH_UP_PROTOCOL,
};
use dirnode_record::{Facts, Label, RecordCid, Summary, read_struct};
use dirnode_routing::catchup::codec::{decode_reply, decode_request, encode_reply, encode_request};
use dirnode_routing::config::SYNC_DEADLINE;
use dirnode_routing::{
    Action, Announcement, Brain, Failure, Fault, Input, RequestId, SyncOutcome, Timestamp, Token, Verdict,
};
use dirnode_store::Store;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::follow::Followers;
use super::persist::Persister;
use super::sync::Syncer;
use super::{Message, Outcome, Shared, peer_of, room_peer};
use crate::runtime::{self, Clock};

/// Reports that may wait; those who report wait for room.
const REPORTS: usize = 4096;
/// The sizes of table and mesh are looked at this often, and soon after something happened to a peer.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_SOON: Duration = Duration::from_millis(100);
/// Peers that are there for so long and none of them on the topic do without gossip: they learn by provider records and
/// by catching up, and an announcement would wait for nobody.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// The brain is woken at the latest after this, whatever it says.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Catch-up pages that wait for their labels; more are answered as busy by the network room's own bound.
const MAX_PAGES: usize = 256;

/// The task's state.
pub(super) struct Driver {
    brain: Brain,
    rng: StdRng,
    clock: Clock,
    network: NetworkHandle,
    gossip: bool,
    store: Store,
    shared: Arc<Shared>,
    persister: Persister,
    syncer: Syncer,
    reports: mpsc::Sender<Input>,
    reported: mpsc::Receiver<Input>,
    verdicts: BTreeMap<Token, Waiting>,
    callers: BTreeMap<RequestId, (RecordCid, oneshot::Sender<Outcome>)>,
    followers: Followers,
    pages: BTreeMap<Token, oneshot::Sender<Option<Bytes>>>,
    next: u64,
    look_at: tokio::time::Instant,
    topic: Arc<Topic>,
}

/// Whether anybody listens on the labels topic.
#[derive(Debug, Default)]
struct Topic {
    /// Since when there are peers and none of them listens.
    empty_since: Mutex<Option<tokio::time::Instant>>,
}

impl Topic {
    /// Takes note of how many peers there are, and on the topic; whether nobody does gossip.
    fn look(&self, table: usize, on_topic: usize) -> bool {
        let mut empty_since = self.empty_since.lock();
        if table == 0 || on_topic > 0 {
            *empty_since = None;
        } else {
            empty_since.get_or_insert_with(tokio::time::Instant::now);
        }
        drop(empty_since);
        self.is_silent()
    }

    fn is_silent(&self) -> bool {
        self.empty_since
            .lock()
            .is_some_and(|since| since.elapsed() >= SILENT_AFTER)
    }
}

/// A message that waits for its verdict.
struct Waiting {
    token: AnnouncementToken,
    own: bool,
}

impl Driver {
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, which hands over what it was given"
    )]
    pub(super) fn new(
        brain: Brain,
        rng: StdRng,
        clock: Clock,
        network: NetworkHandle,
        gossip: bool,
        store: Store,
        shared: Arc<Shared>,
        syncer: Syncer,
    ) -> Self {
        let (reports, reported) = mpsc::channel(REPORTS);
        Self {
            persister: Persister::start(&store, &reports),
            brain,
            rng,
            clock,
            network,
            gossip,
            store,
            shared,
            syncer,
            reports,
            reported,
            verdicts: BTreeMap::new(),
            callers: BTreeMap::new(),
            followers: Followers::default(),
            pages: BTreeMap::new(),
            next: 0,
            look_at: tokio::time::Instant::now(),
            topic: Arc::default(),
        }
    }

    /// Works until `stop`, or until the network is gone.
    pub(super) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut events: mpsc::Receiver<NetworkEvent>,
        stop: CancellationToken,
    ) {
        self.step(Input::Wake);
        loop {
            let asleep = self.sleep();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(input) = self.reported.recv() => self.step(input),
                Some(message) = messages.recv() => self.message(message),
                event = events.recv() => match event {
                    Some(event) => self.event(event),
                    None => return,
                },
                () = tokio::time::sleep_until(self.look_at) => self.look(),
                () = tokio::time::sleep(asleep) => self.step(Input::Wake),
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos((self.clock)())
    }

    fn sleep(&self) -> Duration {
        let until = self.brain.next_wake().map(|at| at.since(self.now()));
        until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)
    }

    fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for action in self.brain.on(input, self.now(), &mut self.rng) {
                // What cannot be begun is reported at once.
                inputs.extend(self.carry(action));
            }
        }
        self.shared.show(&self.brain);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::File { publish, cid, reply } => {
                let request = RequestId(self.number());
                self.callers.insert(request, (cid, reply));
                self.step(if publish {
                    Input::Publish { request, cid }
                } else {
                    Input::Unpublish { request, cid }
                });
            }
            Message::News { cids, reply } => {
                let news = cids.iter().map(|cid| self.brain.news(cid)).collect();
                let _ = reply.send(news);
            }
            Message::Follow { cids, following } => self.followers.follow(&self.brain, cids, &following),
            Message::Status { reply } => drop(reply.send(self.brain.status())),
            Message::Shown { rows } => self.step(Input::Shown { rows }),
            Message::CatchUp { peer, request, reply } => {
                let Ok(request) = decode_request(&request) else {
                    // No page for what is no question.
                    return;
                };
                if self.pages.len() >= MAX_PAGES {
                    return;
                }
                let token = Token(self.number());
                if let Some(peer) = room_peer(&peer) {
                    self.pages.insert(token, reply);
                    self.step(Input::CatchupAsked { token, peer, request });
                }
            }
        }
    }

    fn event(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Announced(announced) => self.announced(announced),
            NetworkEvent::Provided { peer, key, addrs, .. } => {
                self.shared.book.lock().addrs(peer, addrs);
                if key[..] != RENDEZVOUS_KEY[..]
                    && peer != self.network.id()
                    && let Some(cid) = record_of_key(&key)
                    && let Some(peer) = room_peer(&peer)
                {
                    self.step(Input::ProviderSeen { cid, peer });
                }
            }
            NetworkEvent::PeerIdentified {
                peer,
                protocols,
                addrs,
                ..
            } => {
                self.shared.book.lock().addrs(peer, addrs);
                let catchup = protocols.iter().any(|name| name == CATCH_UP_PROTOCOL.as_ref());
                if let Some(peer) = room_peer(&peer) {
                    self.step(Input::PeerConnected { peer, catchup });
                }
                self.look_soon();
            }
            NetworkEvent::PeerDisconnected { peer } => {
                if let Some(peer) = room_peer(&peer) {
                    self.step(Input::PeerDisconnected { peer });
                }
                self.look_soon();
            }
            NetworkEvent::EndpointSeen(seen) => self.shared.book.lock().endpoint(seen),
            NetworkEvent::TableChanged { .. }
            | NetworkEvent::PeerSubscribed { .. }
            | NetworkEvent::Bootstrapped
            | NetworkEvent::ExternalAddressConfirmed { .. } => self.look_soon(),
            other => tracing::debug!(component = "routing", event = ?other, "network event"),
        }
    }

    /// Malformed payloads are not held against their forwarder: nodes of the reference pass on what they do not read.
    fn announced(&mut self, announced: Announced) {
        let Announced {
            token,
            publisher,
            forwarder,
            data,
            ..
        } = announced;
        let waiting = Waiting {
            token,
            own: publisher == forwarder,
        };
        let admitted = match Wire::admit(&data) {
            Ok(admitted) => admitted.announcement,
            Err(error) => {
                tracing::debug!(component = "routing", %publisher, %forwarder, %error, "announcement not taken");
                self.shared.malformed();
                // What the reference itself would take is nobody's fault.
                let verdict = match error {
                    AdmitError::Payload(_) => Verdict::Reject,
                    _ => Verdict::Ignore,
                };
                self.verdict(&waiting, verdict);
                return;
            }
        };
        let (cid, labels, timestamp, withdrawn) = match admitted {
            Wire::Claim {
                cid,
                labels,
                timestamp,
                ..
            } => (cid, labels, timestamp, false),
            Wire::Withdrawal { cid, timestamp, .. } => (cid, Vec::new(), timestamp, true),
        };
        let Some(publisher) = room_peer(&publisher) else {
            self.verdict(&waiting, Verdict::Reject);
            return;
        };
        let token = Token(self.number());
        self.verdicts.insert(token, waiting);
        self.step(Input::Announced {
            token,
            publisher,
            permitted: true,
            announcement: Announcement {
                cid,
                labels,
                timestamp: Timestamp::from_nanos(timestamp.unix_nanos()),
                withdrawn,
            },
        });
    }

    fn verdict(&self, waiting: &Waiting, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Accept => NetworkVerdict::Accept,
            Verdict::Reject if waiting.own => NetworkVerdict::Reject,
            Verdict::Ignore | Verdict::Reject => NetworkVerdict::Ignore,
        };
        let (network, token) = (self.network.clone(), waiting.token);
        runtime::spawn("routing.verdict", async move {
            // A network that is gone needs no verdict.
            let _ = network.report(token, verdict).await;
        });
    }

    fn look_soon(&mut self) {
        self.look_at = self.look_at.min(tokio::time::Instant::now() + LOOK_SOON);
    }

    fn look(&mut self) {
        self.look_at = tokio::time::Instant::now() + LOOK;
        self.shared.expire((self.clock)());
        let (network, reports, gossip) = (self.network.clone(), self.reports.clone(), self.gossip);
        let topic = Arc::clone(&self.topic);
        runtime::spawn("routing.look", async move {
            if let Ok(status) = network.status().await {
                // Without an address that others can dial nothing can be provided.
                let table = if status.external.is_empty() {
                    0
                } else {
                    status.table
                };
                // Without gossip, ours or theirs, whoever is in the table is all there is to tell.
                let silent = topic.look(table, status.topic_peers);
                let mesh = if gossip && !silent {
                    status.topic_peers
                } else {
                    table
                };
                let _ = reports.send(Input::Table { table, mesh }).await;
            }
        });
    }

    /// Carries out one action; an input that comes back at once is returned.
    fn carry(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Persist { ticket, change } => return self.persister.change(ticket, change),
            Action::PersistDue { rows } => self.persister.due(rows),
            Action::Acknowledge { request, outcome } => {
                if let Some((cid, caller)) = self.callers.remove(&request) {
                    let _ = caller.send(outcome);
                    // What was taken back has nothing to tell any more.
                    self.followers.look(&self.brain, &cid);
                }
            }
            Action::Settled { cid } => self.followers.look(&self.brain, &cid),
            Action::Serve { .. } => {}
            Action::StopServing { cid } => {
                let network = self.network.clone();
                runtime::spawn("routing.stop-providing", async move {
                    let _ = network.stop_providing(provider_key(&cid).to_vec()).await;
                });
            }
            Action::LoadLabels { ticket, cid } => {
                let store = self.store.clone();
                self.report("routing.labels", async move {
                    let listed = tokio::task::spawn_blocking(move || {
                        // A deleted record is listed until it is taken back.
                        if store.contains(cid) {
                            store.listed(&cid)
                        } else {
                            Ok(None)
                        }
                    });
                    // The index of a large store is not there at once: that says nothing about the record.
                    let labels = match listed.await {
                        Ok(Ok(listed)) => Ok(listed.map(|listed| listed.labels)),
                        Ok(Err(_)) => Err(Failure::Busy),
                        Err(_) => Err(Failure::Storage),
                    };
                    Input::Labels { ticket, labels }
                });
            }
            Action::Provide { ticket, cid } => {
                let network = self.network.clone();
                self.report("routing.provide", async move {
                    let result = network.provide(provider_key(&cid).to_vec()).await;
                    let result = result.map_err(|error| failure(&error));
                    Input::Provided { ticket, result }
                });
            }
            Action::FindClosest { ticket, key } => {
                let network = self.network.clone();
                self.report("routing.closest", async move {
                    let result = network.closest(key).await;
                    let result = result
                        .map(|near| near.iter().filter_map(|near| room_peer(&near.peer)).collect())
                        .map_err(|error| failure(&error));
                    Input::Closest { ticket, result }
                });
            }
            Action::ProvideMany { ticket, peer, cids } => {
                let network = self.network.clone();
                self.report("routing.provide-many", async move {
                    let keys: Vec<_> = cids.iter().map(|cid| provider_key(cid).to_vec()).collect();
                    let result = match peer_of(&peer) {
                        None => Err(Failure::Invalid),
                        Some(peer) => match network.provide_to(peer, &keys).await {
                            Ok(written) if written == keys.len() => Ok(()),
                            Ok(_) => Err(Failure::Unreachable),
                            Err(error) => Err(failure(&error)),
                        },
                    };
                    Input::ProvidedMany { ticket, result }
                });
            }
            Action::Announce { ticket, announcement } => {
                let (network, topic) = (self.network.clone(), Arc::clone(&self.topic));
                self.report("routing.announce", async move {
                    let result = match announce(&network, &announcement).await {
                        Err(Failure::NoPeers) if topic.is_silent() => Ok(()),
                        result => result,
                    };
                    Input::AnnounceSent { ticket, result }
                });
            }
            Action::Verdict { token, verdict } => {
                if let Some(waiting) = self.verdicts.remove(&token) {
                    self.verdict(&waiting, verdict);
                }
            }
            Action::Index(change) => self.shared.index(change),
            Action::Fetch {
                ticket,
                cid,
                peer,
                deadline,
            } => {
                let network = self.network.clone();
                let limit = deadline.since(self.now());
                self.report("routing.fetch", async move {
                    match tokio::time::timeout(limit, fetch(&network, cid, peer_of(&peer))).await {
                        Ok(Ok(labels)) => Input::Fetched { ticket, labels },
                        Ok(Err(reason)) => Input::FetchFailed { ticket, reason },
                        Err(_) => Input::FetchFailed {
                            ticket,
                            reason: Failure::TimedOut,
                        },
                    }
                });
            }
            Action::Score { peer, fault } => {
                if let Some(peer) = peer_of(&peer) {
                    let network = self.network.clone();
                    tracing::info!(component = "routing", %peer, ?fault, "peer is thought less of");
                    runtime::spawn("routing.score", async move {
                        let _ = network.score(peer, penalty(fault)).await;
                    });
                }
            }
            Action::CatchupAsk {
                exchange,
                peer,
                request,
            } => {
                let network = self.network.clone();
                self.report("routing.catch-up", async move {
                    let result = match peer_of(&peer) {
                        None => Err(Failure::Invalid),
                        Some(peer) => {
                            let asked = network.catch_up(peer, encode_request(&request).into()).await;
                            match asked {
                                Ok(bytes) => decode_reply(&bytes).map_err(|_| Failure::Invalid),
                                Err(error) => Err(failure(&error)),
                            }
                        }
                    };
                    Input::CatchupReplied { exchange, result }
                });
            }
            Action::CatchupAnswer { token, mut reply } => {
                if let Some(page) = self.pages.remove(&token) {
                    let (shared, store, me) =
                        (Arc::clone(&self.shared), self.store.clone(), self.network.id());
                    runtime::spawn("routing.page", async move {
                        // Labels of our own come from the published set, those of others from what is known of them.
                        let filled = tokio::task::spawn_blocking(move || {
                            reply.fill(|cid, author| {
                                if author.as_bytes() == me.to_bytes() {
                                    let listed = store.listed(cid).ok().flatten();
                                    listed.map(|listed| listed.labels).unwrap_or_default()
                                } else {
                                    shared.labels(cid, author)
                                }
                            });
                            encode_reply(&reply)
                        });
                        let _ = page.send(filled.await.ok().map(Bytes::from));
                    });
                }
            }
            Action::Sync { ticket, cid, peer } => {
                let syncer = self.syncer.clone();
                self.report("routing.sync", async move {
                    let outcome = match peer_of(&peer) {
                        Some(peer) => tokio::time::timeout(SYNC_DEADLINE, syncer.sync(cid, peer))
                            .await
                            .unwrap_or(SyncOutcome::Failed(Failure::TimedOut)),
                        None => SyncOutcome::Failed(Failure::Invalid),
                    };
                    Input::Synced { ticket, outcome }
                });
            }
            other => tracing::error!(component = "routing", action = ?other, "action is not known here"),
        }
        None
    }

    /// Runs `task` beside the driver; what it gives is the brain's next input.
    fn report(&self, name: &'static str, task: impl Future<Output = Input> + Send + 'static) {
        let reports = self.reports.clone();
        runtime::spawn(name, async move {
            let _ = reports.send(task.await).await;
        });
    }
}

async fn announce(network: &NetworkHandle, announcement: &Announcement) -> Result<(), Failure> {
    let timestamp =
        WireTimestamp::from_unix_nanos(u64::try_from(announcement.timestamp.as_nanos()).unwrap_or_default());
    let bytes = if announcement.withdrawn {
        // Microseconds fit into what JSON readers take for exact.
        let sequence = u64::try_from(announcement.timestamp.as_nanos() / 1000).unwrap_or_default();
        announcement::encode_withdrawal(&announcement.cid, timestamp, sequence)
    } else {
        let labels: Vec<&[u8]> = announcement
            .labels
            .iter()
            .map(|label| label.as_str().as_bytes())
            .collect();
        announcement::encode_reference(&announcement.cid.to_string(), &labels, timestamp)
            .map_err(|_| Failure::Invalid)?
    };
    match network.announce(Bytes::from(bytes)).await {
        Ok(AnnounceOutcome::Sent) => Ok(()),
        // Who has gossip off hears of us by provider records alone.
        Err(NetworkError::GossipDisabled) => Ok(()),
        Ok(AnnounceOutcome::NoPeersYet) => Err(Failure::NoPeers),
        Ok(_) => Err(Failure::Busy),
        Err(error) => Err(failure(&error)),
    }
}

/// The labels of a record at a peer. The network has checked that the bytes are those of the CID.
async fn fetch(network: &NetworkHandle, cid: RecordCid, peer: Option<PeerId>) -> Result<Vec<Label>, Failure> {
    let peer = peer.ok_or(Failure::Invalid)?;
    // News of a record may name a publisher that we have never met.
    let pulled = network.seeking(peer, || network.pull(peer, cid)).await;
    let pulled = pulled.map_err(|error| failure(&error))?;
    tokio::task::spawn_blocking(move || labels_in(&pulled.data))
        .await
        .map_err(|_| Failure::Invalid)?
        .ok_or(Failure::Invalid)
}

fn labels_in(body: &[u8]) -> Option<Vec<Label>> {
    let data = read_struct(body).ok().flatten()?;
    let facts = Facts::read(&data).ok()?;
    // As announced: without the repetitions, and cleaned as everybody's keys are.
    Some(dirnode_record::labels::list_labels(
        &Summary::from(&facts).labels(),
    ))
}

/// A network error as the brain sorts it.
pub(super) fn failure(error: &NetworkError) -> Failure {
    use dirnode_network::{ErrorKind, RpcCode};
    match error {
        NetworkError::Timeout { .. } => Failure::TimedOut,
        NetworkError::NoPeers | NetworkError::NoExternalAddress => Failure::NoPeers,
        NetworkError::Remote {
            code: RpcCode::NotFound,
            ..
        } => Failure::NotFound,
        NetworkError::BadReply { .. } => Failure::Mismatch,
        other => match other.kind() {
            ErrorKind::NotFound => Failure::NotFound,
            ErrorKind::Denied => Failure::Denied,
            ErrorKind::Busy => Failure::Busy,
            ErrorKind::Invalid | ErrorKind::Corrupt => Failure::Invalid,
            _ => Failure::Unreachable,
        },
    }
}

/// What a fault costs; the sum fades by half every ten minutes. The router counts it tenfold: below -10 a peer is not
/// gossiped with, below -50 nothing is published to it, below -80 nothing that it carries is heard, whoever the author
/// is. So the third lie shuts the door, as it does in the brain, and one does not yet cut off who is behind that peer.
fn penalty(fault: Fault) -> f64 {
    match fault {
        Fault::Lied | Fault::WrongBytes => -3.0,
        Fault::NoRecord | Fault::BadPage => -1.0,
        _ => -0.5,
    }
}
