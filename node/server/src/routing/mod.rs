//! The driver of the routing room: between the brain on one side and network, store and API on the other.
//!
//! Decides nothing about announcements: [`dirnode_routing::Brain`] does. Here its actions are carried out and what
//! happens is told to it. What others are said to hold is soft state in the store's remote label index; the outbox and
//! the due times are ground state in its job rows.

mod book;
mod driver;
mod follow;
mod persist;
mod remote;
mod rows;
mod sync;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dirnode_network::{NetworkEvent, NetworkHandle, PeerId};
use dirnode_record::RecordCid;
use dirnode_routing::{Brain, Config, Counters, News, PeerId as RoomPeer, Refused, Status, Timestamp};
use dirnode_store::{RemoteIndex, Store, StoreError};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::{StdRng, SysRng};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use book::Book;
pub use book::Known;
use driver::Driver;
pub use follow::{End, Ended, Following};
use sync::{Copied, Syncer};

use crate::ingest::Ingest;
use crate::policy::Policy;
use crate::runtime::{Clock, Supervisor};

/// Questions that may wait for the driver; those who ask wait for room.
const MESSAGES: usize = 1024;

/// What became of a publication or withdrawal that was filed.
pub(crate) type Outcome = Result<(), Refused>;

enum Message {
    File {
        publish: bool,
        cid: RecordCid,
        reply: oneshot::Sender<Outcome>,
    },
    News {
        cids: Vec<RecordCid>,
        reply: oneshot::Sender<Vec<Option<News>>>,
    },
    Follow {
        cids: Vec<RecordCid>,
        following: Arc<Following>,
    },
    Status {
        reply: oneshot::Sender<Status>,
    },
    Shown {
        rows: Vec<(RecordCid, RoomPeer)>,
    },
    CatchUp {
        peer: PeerId,
        request: Bytes,
        /// Dropped when there is no page; `None` when it could not be made.
        reply: oneshot::Sender<Option<Bytes>>,
    },
}

/// What readers see without asking the driver.
struct Shared {
    index: RemoteIndex,
    book: Mutex<Book>,
    figures: Mutex<Figures>,
    malformed: AtomicU64,
    copied: Arc<Copied>,
}

/// Figures of the brain, as of its last step.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What was counted since the start.
    pub counters: Counters,
    /// How things stand.
    pub status: Status,
    /// Announcements whose payload did not read.
    pub malformed: u64,
    /// What was copied from peers.
    pub copies: Copies,
}

/// What was copied from peers since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// Records that were not here before.
    pub records: u64,
    /// Referrers that were not here before.
    pub referrers: u64,
    /// Referrers that a peer could not give, or gave wrongly.
    pub referrers_refused: u64,
    /// Bytes of records and referrers.
    pub bytes: u64,
}

/// The driver is gone: the node is stopping, or the network has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("routing has stopped")]
pub struct Stopped;

/// Asks the driver. Cheap to clone.
#[derive(Clone)]
pub struct Routing {
    messages: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// What the driver is made of.
pub struct Parts {
    /// The network.
    pub network: NetworkHandle,
    /// Its events.
    pub events: mpsc::Receiver<NetworkEvent>,
    /// The store.
    pub store: Store,
    /// What others are said to hold.
    pub index: RemoteIndex,
    /// The door for records copied from peers.
    pub ingest: Ingest,
    /// The rules for them.
    pub policy: Policy,
    /// The brain's settings.
    pub config: Config,
    /// Whether labels are announced by gossip at all.
    pub gossip: bool,
    /// The time.
    pub clock: Clock,
}

impl Routing {
    /// Takes up what the last run left, and starts the driver. It ends at `stop`, or when the network is gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(
        parts: Parts,
        supervisor: &Supervisor,
        stop: CancellationToken,
    ) -> Result<Self, StoreError> {
        let Parts {
            network,
            events,
            store,
            index,
            ingest,
            policy,
            config,
            gossip,
            clock,
        } = parts;
        let mut restored = rows::restore(&store).await?;
        remote::restore(&index, &mut restored);
        let now = Timestamp::from_nanos(clock());
        // A node that cannot draw random numbers has no key for its connections either.
        let mut rng = StdRng::try_from_rng(&mut SysRng)
            .unwrap_or_else(|_| StdRng::seed_from_u64(clock().unsigned_abs()));
        let Some(me) = room_peer(&network.id()) else {
            return Err(StoreError::Closed);
        };
        let brain = Brain::restore(config, me, restored, now, &mut rng);
        let copied = Arc::new(Copied::default());
        let shared = Arc::new(Shared {
            index,
            book: Mutex::default(),
            figures: Mutex::new(Figures {
                counters: brain.counters().clone(),
                status: brain.status(),
                malformed: 0,
                copies: Copies::default(),
            }),
            malformed: AtomicU64::new(0),
            copied: Arc::clone(&copied),
        });
        let (messages, waiting) = mpsc::channel(MESSAGES);
        let syncer = Syncer {
            network: network.clone(),
            store: store.clone(),
            ingest,
            policy,
            copied,
        };
        let driver = Driver::new(
            brain,
            rng,
            clock,
            network,
            gossip,
            store,
            Arc::clone(&shared),
            syncer,
        );
        supervisor.spawn("routing", driver.run(waiting, events, stop));
        Ok(Self { messages, shared })
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(message(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Puts a held record into the published set and its news into the outbox; on disk when this returns.
    ///
    /// # Errors
    /// [`Stopped`]; inside, why it was refused.
    pub async fn publish(&self, cid: RecordCid) -> Result<Outcome, Stopped> {
        self.ask(|reply| Message::File {
            publish: true,
            cid,
            reply,
        })
        .await
    }

    /// Takes a record out of the published set and its withdrawal into the outbox; on disk when this returns.
    ///
    /// # Errors
    /// As [`Routing::publish`].
    pub async fn unpublish(&self, cid: RecordCid) -> Result<Outcome, Stopped> {
        self.ask(|reply| Message::File {
            publish: false,
            cid,
            reply,
        })
        .await
    }

    /// What is known about the news of own records, in the order asked; `None` where a record is neither published nor
    /// taken back of late.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn news(&self, cids: Vec<RecordCid>) -> Result<Vec<Option<News>>, Stopped> {
        self.ask(|reply| Message::News { cids, reply }).await
    }

    /// From now on `following` hears how the news of these records ends; of what has ended at once.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn follow(&self, cids: Vec<RecordCid>, following: Arc<Following>) -> Result<(), Stopped> {
        let message = Message::Follow { cids, following };
        self.messages.send(message).await.map_err(|_| Stopped)
    }

    /// How things stand.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(|reply| Message::Status { reply }).await
    }

    /// Answers one request of the catch-up exchange; `None` when there is no page for it.
    pub async fn catch_up(&self, peer: PeerId, request: Bytes) -> Option<Bytes> {
        self.ask(|reply| Message::CatchUp { peer, request, reply })
            .await
            .ok()
            .flatten()
    }

    /// Says which rows a search has shown, so that they are verified before others. Lost when the driver is busy.
    pub fn shown(&self, rows: Vec<(RecordCid, RoomPeer)>) {
        // The next search shows them again.
        let _ = self.messages.try_send(Message::Shown { rows });
    }

    /// What others are said to hold.
    #[must_use]
    pub fn index(&self) -> &RemoteIndex {
        &self.shared.index
    }

    /// What is known of a peer.
    #[must_use]
    pub fn known(&self, peer: &PeerId) -> Option<Known> {
        self.shared.book.lock().get(peer).cloned()
    }

    /// Figures as of a moment ago.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().clone()
    }
}

impl Shared {
    fn show(&self, brain: &Brain) {
        *self.figures.lock() = Figures {
            counters: brain.counters().clone(),
            status: brain.status(),
            malformed: self.malformed.load(Ordering::Relaxed),
            copies: Copies {
                records: self.copied.records.load(Ordering::Relaxed),
                referrers: self.copied.referrers.load(Ordering::Relaxed),
                referrers_refused: self.copied.referrers_refused.load(Ordering::Relaxed),
                bytes: self.copied.bytes.load(Ordering::Relaxed),
            },
        };
    }

    fn malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }
}

/// A peer as the routing room names it; `None` for an id that no ed25519 key has.
fn room_peer(peer: &PeerId) -> Option<RoomPeer> {
    RoomPeer::from_bytes(&peer.to_bytes())
}

/// A peer as the network names it.
fn peer_of(peer: &RoomPeer) -> Option<PeerId> {
    peer.to_peer_id()
}
