//! The task that feeds the routing brain and carries out what it asks for.
//!
//! One task owns the brain, so that its decisions have one order. It waits for nobody: everything that takes time runs
//! beside it, bounded by what the brain has in flight, and comes back as an input.

mod carry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::wire::announcement::{AdmitError, Announcement as Wire};
use dirnode_network::wire::kad::{RENDEZVOUS_KEY, record_of_key};
use dirnode_network::{
    Announced, AnnouncementToken, NetworkEvent, NetworkHandle, Verdict as NetworkVerdict,
    config::CATCH_UP_PROTOCOL,
};
use dirnode_record::RecordCid;
use dirnode_routing::catchup::codec::decode_request;
use dirnode_routing::{Announcement, Brain, Input, RequestId, Timestamp, Token, Verdict};
use dirnode_store::Store;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub(super) use self::carry::failure;
use super::follow::Followers;
use super::persist::Persister;
use super::sync::Syncer;
use super::{Message, Outcome, Shared, room_peer};
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

    /// Runs `task` beside the driver; what it gives is the brain's next input.
    fn report(&self, name: &'static str, task: impl Future<Output = Input> + Send + 'static) {
        let reports = self.reports.clone();
        runtime::spawn(name, async move {
            let _ = reports.send(task.await).await;
        });
    }
}
