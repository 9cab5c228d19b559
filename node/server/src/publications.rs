//! Announcement jobs: filed durably, done at once, followed by their rows (grpc-api §4.10).
//!
//! A job is ground state: it is on disk before it is acknowledged, and one that a stop interrupted is taken up again at
//! the next start. What it does here is to put records into the published set; carrying the news to the network is the
//! routing room's part, which reads that set.
//!
//! | job row | holds |
//! |---|---|
//! | `publication/<number, 20 digits>` | JSON of [`Head`] |
//! | `publication-request/<number>/<part>` | the request's bytes, in parts; gone when the job has ended |

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dirnode_proto::events::v1::EventType;
use dirnode_proto::routing::v1::publish_request::Request;
use dirnode_proto::routing::v1::{PublicationStatus, PublishRequest};
use dirnode_record::RecordCid;
use dirnode_store::{Store, StoreError, StoreErrorKind};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::events::EventBus;
use crate::ingest::labels_of;
use crate::queries;
use crate::routing::Routing;
use crate::runtime::Clock;

/// Ended jobs that are kept to be asked about; beyond it the oldest are forgotten.
pub const MAX_ENDED: usize = 10_000;
/// Jobs that may wait; beyond it new ones are refused.
pub const MAX_WAITING: usize = 10_000;
/// Records of one job on their way to the store at once.
const IN_FLIGHT: usize = 64;
/// Bytes of a request in one row; a row holds 64 KiB.
const PART_BYTES: usize = 48 * 1024;

/// What is kept of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// UUIDv4, as clients know the job.
    pub id: String,
    /// [`PublicationStatus`] by number.
    pub status: i32,
    /// Unix nanoseconds.
    pub created_ns: i64,
    /// Unix nanoseconds.
    pub updated_ns: i64,
    /// Why it failed; empty otherwise.
    #[serde(default)]
    pub reason: String,
    /// Parts of the request.
    parts: u32,
}

impl Head {
    fn is_over(&self) -> bool {
        [PublicationStatus::Completed, PublicationStatus::Failed]
            .iter()
            .any(|status| i32::from(*status) == self.status)
    }
}

/// A job was not filed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Too many wait.
    #[error("{MAX_WAITING} publications wait already; try again later")]
    Full,
    /// The store did not take it.
    #[error("failed to create publication: {0}")]
    Store(#[from] StoreError),
}

/// Files jobs and does them.
#[derive(Clone)]
pub struct Publications(Arc<Inner>);

struct Inner {
    store: Store,
    events: EventBus,
    routing: Option<Routing>,
    clock: Clock,
    jobs: Mutex<Jobs>,
    filed: Notify,
    /// Number of jobs that ended; whoever waits for one looks again when it moves.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Jobs {
    next: u64,
    heads: BTreeMap<u64, Head>,
}

fn head_key(number: u64) -> String {
    format!("publication/{number:020}")
}

fn part_key(number: u64, part: u32) -> String {
    format!("publication-request/{number:020}/{part:06}")
}

impl Publications {
    /// Reads the jobs that the store holds. Those that were interrupted wait again.
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
            if !head.is_over() {
                head.status = PublicationStatus::Pending.into();
            }
            jobs.next = jobs.next.max(number.saturating_add(1));
            jobs.heads.insert(number, head);
        }
        let inner = Inner {
            store,
            events,
            routing,
            clock,
            jobs: Mutex::new(jobs),
            filed: Notify::new(),
            ended: watch::Sender::new(0),
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
            parts: u32::try_from(parts.len()).map_err(|_| FileError::Full)?,
        };
        let number = {
            let mut jobs = inner.jobs.lock();
            if jobs.heads.values().filter(|head| !head.is_over()).count() >= MAX_WAITING {
                return Err(FileError::Full);
            }
            let number = jobs.next;
            jobs.next += 1;
            number
        };
        // The head comes last: parts without a head were never acknowledged.
        for (part, bytes) in (0..).zip(parts) {
            inner.store.put_job(&part_key(number, part), bytes).await?;
        }
        self.keep(number, &head).await?;
        let id = head.id.clone();
        inner.jobs.lock().heads.insert(number, head);
        inner.filed.notify_one();
        Ok(id)
    }

    /// Waits until a job has ended, but no longer than `limit`.
    pub async fn wait(&self, id: &str, limit: std::time::Duration) {
        let mut ended = self.0.ended.subscribe();
        let over = async {
            while !self.get(id).is_none_or(|head| head.is_over()) {
                if ended.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(limit, over).await;
    }

    /// One job.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Head> {
        self.0
            .jobs
            .lock()
            .heads
            .values()
            .find(|head| head.id == id)
            .cloned()
    }

    /// Jobs in the order they were filed.
    #[must_use]
    pub fn list(&self, limit: usize, offset: usize) -> Vec<Head> {
        self.0
            .jobs
            .lock()
            .heads
            .values()
            .skip(offset)
            .take(limit)
            .cloned()
            .collect()
    }

    async fn keep(&self, number: u64, head: &Head) -> Result<(), StoreError> {
        let value = serde_json::to_vec(head).unwrap_or_default();
        self.0.store.put_job(&head_key(number), Bytes::from(value)).await
    }

    /// Does jobs, one after the other, until `stop`.
    pub async fn work(self, stop: CancellationToken) {
        loop {
            let next = {
                let jobs = self.0.jobs.lock();
                jobs.heads
                    .iter()
                    .find(|(_, head)| !head.is_over())
                    .map(|(number, head)| (*number, head.clone()))
            };
            let Some((number, head)) = next else {
                tokio::select! {
                    () = self.0.filed.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            tokio::select! {
                ended = self.perform(number, head) => {
                    if let Err(error) = ended {
                        tracing::warn!(component = "publications", number, %error, "publication not recorded, it is tried again");
                        tokio::select! {
                            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Does one job and writes down how it ended.
    async fn perform(&self, number: u64, mut head: Head) -> Result<(), StoreError> {
        head.status = PublicationStatus::InProgress.into();
        head.updated_ns = (self.0.clock)();
        self.0.jobs.lock().heads.insert(number, head.clone());
        let outcome = match self.request_of(number, &head).await? {
            Ok(request) => self.publish(request).await,
            Err(reason) => Err(reason),
        };
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
        self.0.jobs.lock().heads.insert(number, head);
        self.0.ended.send_modify(|count| *count += 1);
        self.forget_old().await
    }

    async fn forget_old(&self) -> Result<(), StoreError> {
        loop {
            let oldest = {
                let mut jobs = self.0.jobs.lock();
                let over = jobs.heads.values().filter(|head| head.is_over()).count();
                if over <= MAX_ENDED {
                    return Ok(());
                }
                let oldest = jobs
                    .heads
                    .iter()
                    .find(|(_, head)| head.is_over())
                    .map(|(number, _)| *number);
                oldest.inspect(|number| drop(jobs.heads.remove(number)))
            };
            let Some(oldest) = oldest else { return Ok(()) };
            self.0.store.delete_job(&head_key(oldest)).await?;
        }
    }

    /// The request of a job, put together again; the inner error is a reason to fail the job.
    async fn request_of(
        &self,
        number: u64,
        head: &Head,
    ) -> Result<Result<PublishRequest, String>, StoreError> {
        let mut bytes = Vec::new();
        for part in 0..head.parts {
            match self.0.store.job(&part_key(number, part)).await? {
                Some(part) => bytes.extend_from_slice(&part),
                None => return Ok(Err("the request was not found in the store".to_owned())),
            }
        }
        Ok(PublishRequest::decode(bytes.as_slice())
            .map_err(|error| format!("the request does not read: {error}")))
    }

    /// Publishes every record of a request; tells the first trouble and how many there were.
    async fn publish(&self, request: PublishRequest) -> Result<(), String> {
        let cids: Vec<Result<RecordCid, String>> = match request.request {
            None => return Err("the request names no records".to_owned()),
            Some(Request::AllRecords(false)) => return Err("all_records is false".to_owned()),
            Some(Request::RecordRefs(refs)) => refs
                .refs
                .into_iter()
                .map(|reference| {
                    RecordCid::parse(&reference.cid)
                        .ok_or_else(|| format!("record not found: {}", reference.cid))
                })
                .collect(),
            Some(Request::Queries(asked)) => self.select(&asked.queries).await?.into_iter().map(Ok).collect(),
            Some(Request::AllRecords(true)) => self.select(&[]).await?.into_iter().map(Ok).collect(),
        };
        let total = cids.len();
        let mut failed = 0_usize;
        let mut first = None;
        let mut results = futures_util::stream::iter(cids)
            .map(|cid| async move { self.publish_one(cid?).await })
            .buffer_unordered(IN_FLIGHT);
        while let Some(result) = results.next().await {
            if let Err(reason) = result {
                failed += 1;
                first.get_or_insert(reason);
            }
        }
        match first {
            None => Ok(()),
            Some(reason) => Err(format!(
                "{failed} of {total} records not published; first: {reason}"
            )),
        }
    }

    async fn select(
        &self,
        asked: &[dirnode_proto::search::v1::RecordQuery],
    ) -> Result<Vec<RecordCid>, String> {
        queries::select(&self.0.store, asked)
            .await
            .map_err(|error| error.to_string())
    }

    /// Puts a record into the published set and, with a network, its news into the outbox: on disk when this returns.
    async fn mark(&self, cid: RecordCid) -> Result<(), String> {
        if !self.0.store.contains(cid) {
            return Err(format!("record not found: {cid}"));
        }
        match &self.0.routing {
            Some(routing) => match routing.publish(cid).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(refused)) => Err(refused.to_string()),
                Err(stopped) => Err(stopped.to_string()),
            },
            None => match self.0.store.mark_published(cid).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == StoreErrorKind::NotFound => {
                    Err(format!("record not found: {cid}"))
                }
                Err(error) => Err(error.to_string()),
            },
        }
    }

    async fn publish_one(&self, cid: RecordCid) -> Result<(), String> {
        self.mark(cid).await?;
        if self.0.events.figures().0 > 0 {
            let row = self
                .0
                .store
                .record(cid)
                .await
                .map_err(|error| error.to_string())?;
            let labels = row.map(|row| labels_of(&row.summary)).unwrap_or_default();
            self.0
                .events
                .emit(EventType::RecordPulled, cid.to_string(), || labels.clone());
            self.0
                .events
                .emit(EventType::RecordPublished, cid.to_string(), || labels);
        }
        Ok(())
    }
}
