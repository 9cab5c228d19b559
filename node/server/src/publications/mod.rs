//! Announcement jobs: filed durably, begun at once, followed until the news of their records is out (grpc-api §4.10).
//!
//! A job is ground state: it is on disk before it is acknowledged, and one that a stop interrupted is taken up again at
//! the next start. `work` puts records into the published set, and their news into the outbox; `tell` waits with the
//! routing room until that news is out. A row says where its job stands:
//!
//! | status | means |
//! |---|---|
//! | pending | filed, waits for its turn |
//! | in progress | its records are being put into the published set, or their news is not out yet: with nobody to tell it stays here, and says "no peers yet" |
//! | completed | every record was provided and announced, or the request matched none |
//! | failed | a record is not here, was taken back before its news was out, or the news did not get out for a day; the other records are told all the same |
//!
//! Talks to no peer. With the network off a job is done when its records are published.
//!
//! | job row | holds |
//! |---|---|
//! | `publication/<number, 20 digits>` | JSON of [`Head`] |
//! | `publication-request/<number>/<part>` | the request's bytes, in parts; gone when the job has ended |

mod figures;
mod jobs;
mod tell;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_proto::routing::v1::{PublicationStatus, PublishRequest};
use dirnode_store::{Store, StoreError};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use jobs::{Head, Stage};

use self::jobs::Jobs;
use crate::events::EventBus;
use crate::routing::{Ended, Routing};
use crate::runtime::Clock;

/// Ended jobs that are kept to be asked about; beyond it the oldest are forgotten.
pub const MAX_ENDED: usize = 10_000;
/// Jobs that may wait for their turn; beyond it new ones are refused.
pub const MAX_WAITING: usize = 10_000;
/// Jobs whose news may wait for peers; beyond it new ones are refused. As many as the outbox holds records.
pub const MAX_TELLING: usize = 200_000;
/// Bytes of a request in one row; a row holds 64 KiB.
const PART_BYTES: usize = 48 * 1024;

/// A job was not filed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Too many wait.
    #[error("{MAX_WAITING} publications wait already; try again later")]
    Full,
    /// Too many wait for peers.
    #[error("the news of {MAX_TELLING} publications is not out yet; try again later")]
    Untold,
    /// The store did not take it.
    #[error("failed to create publication: {0}")]
    Store(#[from] StoreError),
}

/// A job, as it stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Its row.
    pub head: Head,
    /// Records whose news is not out, of [`Head::records`].
    pub left: u64,
    /// Whether it waits because there is nobody to tell.
    pub waiting_for_peers: bool,
}

/// Files jobs and does them. Cheap to clone.
#[derive(Clone)]
pub struct Publications(Arc<Inner>);

struct Inner {
    store: Store,
    events: EventBus,
    routing: Option<Routing>,
    clock: Clock,
    jobs: Mutex<Jobs>,
    filed: Notify,
    ended: Arc<Ended>,
    /// Moves whenever a job does; whoever waits for one looks again.
    moved: watch::Sender<u64>,
}

fn head_key(number: u64) -> String {
    format!("publication/{number:020}")
}

fn part_key(number: u64, part: u32) -> String {
    format!("publication-request/{number:020}/{part:06}")
}

impl Publications {
    /// Reads the jobs that the store holds. Those that were interrupted go on where they were.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(
        store: Store,
        events: EventBus,
        routing: Option<Routing>,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let mut jobs = Jobs::default();
        for (key, value) in store.jobs("publication/").await? {
            let number = key.rsplit('/').next().and_then(|text| text.parse::<u64>().ok());
            let (Some(number), Ok(mut head)) = (number, serde_json::from_slice::<Head>(&value)) else {
                tracing::warn!(
                    component = "publications",
                    key,
                    "job row does not read, it is passed over"
                );
                continue;
            };
            if head.stage() == Stage::Waiting {
                head.status = PublicationStatus::Pending.into();
            }
            jobs.put(number, head);
        }
        let inner = Inner {
            store,
            events,
            routing,
            clock,
            jobs: Mutex::new(jobs),
            filed: Notify::new(),
            ended: Arc::default(),
            moved: watch::Sender::new(0),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Files a job; it is on disk when this returns.
    ///
    /// # Errors
    /// [`FileError`].
    pub async fn file(&self, request: &PublishRequest) -> Result<String, FileError> {
        let inner = &*self.0;
        let bytes = Bytes::from(request.encode_to_vec());
        let parts: Vec<Bytes> = (0..bytes.len())
            .step_by(PART_BYTES)
            .map(|at| bytes.slice(at..bytes.len().min(at + PART_BYTES)))
            .collect();
        let now = (inner.clock)();
        let head = Head {
            id: uuid::Uuid::new_v4().to_string(),
            status: PublicationStatus::Pending.into(),
            created_ns: now,
            updated_ns: now,
            reason: String::new(),
            records: 0,
            recorded: false,
            parts: u32::try_from(parts.len()).map_err(|_| FileError::Full)?,
        };
        let number = {
            let mut jobs = inner.jobs.lock();
            let (waiting, telling, _) = jobs.counts();
            if waiting >= MAX_WAITING {
                return Err(FileError::Full);
            }
            if telling >= MAX_TELLING {
                return Err(FileError::Untold);
            }
            jobs.number()
        };
        // The head comes last: parts without a head were never acknowledged.
        for (part, bytes) in (0..).zip(parts) {
            inner.store.put_job(&part_key(number, part), bytes).await?;
        }
        self.keep(number, &head).await?;
        let id = head.id.clone();
        inner.jobs.lock().put(number, head);
        inner.filed.notify_one();
        Ok(id)
    }

    /// Waits until the records of a job are in the published set, or it has ended, but no longer than `limit`.
    pub async fn wait_published(&self, id: &str, limit: Duration) {
        let mut moved = self.0.moved.subscribe();
        let waits = || {
            let jobs = self.0.jobs.lock();
            jobs.get(id).is_some_and(|head| head.stage() == Stage::Waiting)
        };
        let published = async {
            while waits() {
                if moved.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limit, published).await;
    }

    /// One job's row.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Head> {
        self.0.jobs.lock().get(id).cloned()
    }

    /// One job, and how far its news has come.
    #[must_use]
    pub fn standing(&self, id: &str) -> Option<Standing> {
        let (head, left) = self.0.jobs.lock().with_left(id)?;
        let waiting_for_peers = head.stage() == Stage::Telling && self.waits_for_peers();
        Some(Standing {
            head,
            left,
            waiting_for_peers,
        })
    }

    /// Jobs in the order they were filed.
    #[must_use]
    pub fn list(&self, limit: usize, offset: usize) -> Vec<Head> {
        self.0.jobs.lock().list(limit, offset)
    }

    /// Does jobs until `stop`.
    pub async fn work(self, stop: CancellationToken) {
        tokio::join!(self.publish_all(&stop), self.tell_all(&stop));
    }

    fn waits_for_peers(&self) -> bool {
        let routing = self.0.routing.as_ref();
        routing.is_some_and(|routing| routing.figures().status.waiting_for_peers)
    }

    async fn keep(&self, number: u64, head: &Head) -> Result<(), StoreError> {
        let value = serde_json::to_vec(head).unwrap_or_default();
        self.0.store.put_job(&head_key(number), Bytes::from(value)).await
    }

    /// What is known of a job changes.
    fn put(&self, number: u64, head: Head) {
        self.0.jobs.lock().put(number, head);
        self.0.moved.send_modify(|count| *count += 1);
    }

    /// Writes down how a job ended.
    async fn end(&self, number: u64, mut head: Head, outcome: Result<(), String>) -> Result<(), StoreError> {
        head.status = match &outcome {
            Ok(()) => PublicationStatus::Completed,
            Err(_) => PublicationStatus::Failed,
        }
        .into();
        head.reason = outcome.err().unwrap_or_default();
        head.updated_ns = (self.0.clock)();
        if !head.reason.is_empty() {
            tracing::warn!(component = "publications", id = %head.id, reason = %head.reason, "publication failed");
        }
        self.keep(number, &head).await?;
        for part in 0..head.parts {
            self.0.store.delete_job(&part_key(number, part)).await?;
        }
        self.put(number, head);
        loop {
            let oldest = self.0.jobs.lock().take_oldest(MAX_ENDED);
            let Some(oldest) = oldest else { return Ok(()) };
            self.0.store.delete_job(&head_key(oldest)).await?;
        }
    }
}
