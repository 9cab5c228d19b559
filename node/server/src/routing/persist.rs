//! Changes of the routing brain's ground state, carried out in order for each record and beside one another for
//! different ones.

use std::collections::BTreeMap;

use dirnode_record::RecordCid;
use dirnode_routing::{Change, DueRow, Failure, Input, Ticket, Timestamp};
use dirnode_store::{Store, StoreError, StoreErrorKind};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::rows::{due_key, due_value, outbox_key, outbox_row, outbox_value};
use crate::runtime;

/// Changes of so many records go on at once; the store writes them in one group.
const LANES: usize = 64;
/// Changes that wait in a lane; more are refused, and the brain tries again.
const LANE_LEN: usize = 1024;
/// Due times on their way to the store at once.
const DUE_IN_FLIGHT: usize = 64;

/// The lanes; they end when this is dropped and what they were given is done.
#[derive(Debug)]
pub(super) struct Persister {
    store: Store,
    lanes: Vec<mpsc::Sender<(Ticket, Change)>>,
}

fn cid_of(change: &Change) -> RecordCid {
    match change {
        Change::Publish(row) | Change::Withdraw(row) | Change::Update { row, .. } => row.cid,
        Change::Forget { cid, .. } => *cid,
    }
}

impl Persister {
    pub(super) fn start(store: &Store, reports: &mpsc::Sender<Input>) -> Self {
        let lanes = (0..LANES).map(|_| {
            let (lane, waiting) = mpsc::channel(LANE_LEN);
            runtime::spawn("routing.persist", work(store.clone(), waiting, reports.clone()));
            lane
        });
        Self {
            store: store.clone(),
            lanes: lanes.collect(),
        }
    }

    /// Queues a change; what is given back could not be queued.
    pub(super) fn change(&self, ticket: Ticket, change: Change) -> Option<Input> {
        let first = cid_of(&change).digest().first().copied().unwrap_or_default();
        let lane = self.lanes.get(usize::from(first) % LANES)?;
        lane.try_send((ticket, change)).err().map(|_| Input::Persisted {
            ticket,
            result: Err(Failure::Busy),
        })
    }

    /// Writes due times some time soon; newer ones of the same record may overtake, which costs a provide at most.
    pub(super) fn due(&self, rows: Vec<DueRow>) {
        let store = self.store.clone();
        runtime::spawn("routing.due", async move {
            let newest: BTreeMap<RecordCid, DueRow> = rows.into_iter().map(|row| (row.cid, row)).collect();
            let failed = futures_util::stream::iter(newest.into_values())
                .map(|row| {
                    let store = &store;
                    async move { store.put_job(&due_key(&row.cid), due_value(&row)).await }
                })
                .buffer_unordered(DUE_IN_FLIGHT)
                .filter_map(|written| std::future::ready(written.err()))
                .collect::<Vec<_>>()
                .await;
            if let Some(error) = failed.first() {
                tracing::warn!(component = "routing", count = failed.len(), %error, "due times not written");
            }
        });
    }
}

async fn work(store: Store, mut waiting: mpsc::Receiver<(Ticket, Change)>, reports: mpsc::Sender<Input>) {
    while let Some((ticket, change)) = waiting.recv().await {
        let cid = cid_of(&change);
        let done = perform(&store, change).await;
        if let Err(error) = &done {
            tracing::warn!(component = "routing", %cid, %error, "outbox not written");
        }
        let result = done.map_err(|error| failure(&error));
        if reports.send(Input::Persisted { ticket, result }).await.is_err() {
            return;
        }
    }
}

fn failure(error: &StoreError) -> Failure {
    match error.kind() {
        StoreErrorKind::NotFound => Failure::NotFound,
        StoreErrorKind::Busy => Failure::Busy,
        _ => Failure::Storage,
    }
}

/// The row goes first: a stop in between is mended at the next start, see [`super::rows::restore`].
async fn perform(store: &Store, change: Change) -> Result<(), StoreError> {
    match change {
        Change::Publish(row) => {
            if !store.contains(row.cid) {
                return Err(StoreError::NotFound(row.cid));
            }
            store.put_job(&outbox_key(&row.cid), outbox_value(&row)).await?;
            match store.mark_published(row.cid).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    // Deleted in the meantime, or no room: nothing is announced that is not in the published set.
                    store.delete_job(&outbox_key(&row.cid)).await?;
                    Err(error)
                }
            }
        }
        Change::Withdraw(row) => {
            store.put_job(&outbox_key(&row.cid), outbox_value(&row)).await?;
            store.unmark_published(row.cid).await?;
            store.delete_job(&due_key(&row.cid)).await.map(drop)
        }
        // A lane works in order, so nothing comes between the look and the change.
        Change::Update { row, was } => {
            let key = outbox_key(&row.cid);
            if holds(store, &key, was).await? {
                store.put_job(&key, outbox_value(&row)).await?;
            }
            Ok(())
        }
        Change::Forget { cid, was } => {
            let key = outbox_key(&cid);
            if holds(store, &key, was).await? {
                store.delete_job(&key).await?;
            }
            Ok(())
        }
    }
}

/// Whether the outbox row is the one meant, and not that of a newer request.
async fn holds(store: &Store, key: &str, was: Timestamp) -> Result<bool, StoreError> {
    let there = store.job(key).await?;
    Ok(there
        .and_then(|value| outbox_row(key, &value))
        .is_some_and(|row| row.stamp == was))
}
