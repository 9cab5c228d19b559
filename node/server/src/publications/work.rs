//! The records of a job into the published set, and their news into the outbox, job after job.

use std::collections::BTreeSet;
use std::time::Duration;

use dirnode_proto::events::v1::EventType;
use dirnode_proto::routing::v1::publish_request::Request;
use dirnode_proto::routing::v1::{PublicationStatus, PublishRequest};
use dirnode_record::RecordCid;
use dirnode_routing::config::GIVE_UP_AFTER;
use dirnode_routing::{Failure, Refused};
use dirnode_store::{StoreError, StoreErrorKind};
use futures_util::StreamExt as _;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::{Head, Publications, part_key};
use crate::ingest::labels_of;
use crate::queries;

/// Records of one job on their way to the store at once.
const IN_FLIGHT: usize = 64;
/// Pause before the store, or an outbox that was full, is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The records of a job.
pub(super) struct Chosen {
    pub(super) cids: BTreeSet<RecordCid>,
    /// They were asked for by what they say: one that is not published any more is not missed.
    pub(super) by_query: bool,
    /// What was asked for and is no record.
    odd: Vec<String>,
}

impl Publications {
    /// Takes up jobs, one after the other.
    pub(super) async fn publish_all(&self, stop: &CancellationToken) {
        loop {
            let next = self.0.jobs.lock().first_waiting();
            let Some((number, head)) = next else {
                tokio::select! {
                    () = self.0.filed.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            tokio::select! {
                ended = self.publish(number, head) => {
                    if let Err(error) = ended {
                        tracing::warn!(component = "publications", number, %error, "publication not recorded, it is tried again");
                        tokio::select! {
                            () = tokio::time::sleep(PAUSE) => {}
                            () = stop.cancelled() => return,
                        }
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Publishes the records of one job, and leaves it to [`super::tell`].
    async fn publish(&self, number: u64, mut head: Head) -> Result<(), StoreError> {
        head.status = PublicationStatus::InProgress.into();
        head.updated_ns = (self.0.clock)();
        self.put(number, head.clone());
        let chosen = match self.chosen(number, &head).await? {
            Ok(chosen) => chosen,
            Err(reason) => return self.end(number, head, Err(reason)).await,
        };
        head.records = u64::try_from(chosen.cids.len()).unwrap_or(u64::MAX);
        if let Err(reason) = self.mark_all(&chosen, head.created_ns).await {
            return self.end(number, head, Err(reason)).await;
        }
        if self.0.routing.is_none() || chosen.cids.is_empty() {
            return self.end(number, head, Ok(())).await;
        }
        head.recorded = true;
        head.updated_ns = (self.0.clock)();
        self.keep(number, &head).await?;
        self.put(number, head);
        self.follow(number, chosen).await;
        Ok(())
    }

    /// The records that a job asks for; the inner error is a reason to fail it.
    pub(super) async fn chosen(
        &self,
        number: u64,
        head: &Head,
    ) -> Result<Result<Chosen, String>, StoreError> {
        let request = match self.request_of(number, head).await? {
            Ok(request) => request,
            Err(reason) => return Ok(Err(reason)),
        };
        let select = async |asked: &[dirnode_proto::search::v1::RecordQuery]| {
            let found = loop {
                match queries::select(&self.0.store, asked).await {
                    Ok(found) => break found,
                    // The index of a large store is not there at once.
                    Err(error) if error.is_unavailable() && !self.is_too_old(head.created_ns) => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            };
            Ok(Chosen {
                cids: found.into_iter().collect(),
                by_query: true,
                odd: Vec::new(),
            })
        };
        Ok(match request.request {
            None => Err("the request names no records".to_owned()),
            Some(Request::AllRecords(false)) => Err("all_records is false".to_owned()),
            Some(Request::AllRecords(true)) => select(&[]).await,
            Some(Request::Queries(asked)) => select(&asked.queries).await,
            Some(Request::RecordRefs(refs)) => {
                let mut chosen = Chosen {
                    cids: BTreeSet::new(),
                    by_query: false,
                    odd: Vec::new(),
                };
                for reference in refs.refs {
                    match RecordCid::parse(&reference.cid) {
                        Some(cid) => drop(chosen.cids.insert(cid)),
                        None => chosen.odd.push(reference.cid),
                    }
                }
                Ok(chosen)
            }
        })
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

    /// Publishes every record; tells the first trouble and how many there were.
    async fn mark_all(&self, chosen: &Chosen, since_ns: i64) -> Result<(), String> {
        let total = chosen.cids.len() + chosen.odd.len();
        let mut failed = chosen.odd.len();
        let mut first = chosen.odd.first().map(|odd| format!("record not found: {odd}"));
        let mut results = futures_util::stream::iter(chosen.cids.iter().copied())
            .map(|cid| self.publish_one(cid, since_ns))
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

    async fn publish_one(&self, cid: RecordCid, since_ns: i64) -> Result<(), String> {
        self.mark(cid, since_ns).await?;
        if self.0.events.figures().0 > 0 {
            let row = self.0.store.record(cid).await;
            let row = row.map_err(|error| error.to_string())?;
            let labels = row.map(|row| labels_of(&row.summary)).unwrap_or_default();
            let (events, text) = (&self.0.events, cid.to_string());
            events.emit(EventType::RecordPulled, text.clone(), || labels.clone());
            events.emit(EventType::RecordPublished, text, || labels);
        }
        Ok(())
    }

    /// Puts a record into the published set and, with a network, its news into the outbox: on disk when this returns. An
    /// outbox that is full is waited for, but no longer than news is tried.
    async fn mark(&self, cid: RecordCid, since_ns: i64) -> Result<(), String> {
        let unknown = || format!("record not found: {cid}");
        if !self.0.store.contains(cid) {
            return Err(unknown());
        }
        let Some(routing) = &self.0.routing else {
            return match self.0.store.mark_published(cid).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind() == StoreErrorKind::NotFound => Err(unknown()),
                Err(error) => Err(error.to_string()),
            };
        };
        loop {
            match routing.publish(cid).await {
                Ok(Ok(())) => return Ok(()),
                // A disk that is behind is waited for as well.
                Ok(Err(Refused::Full { .. } | Refused::NotRecorded(Failure::Busy | Failure::TimedOut)))
                    if !self.is_too_old(since_ns) =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(refused)) => return Err(refused.to_string()),
                Err(stopped) => return Err(stopped.to_string()),
            }
        }
    }

    /// Whether what was filed then is given up by now.
    fn is_too_old(&self, since_ns: i64) -> bool {
        let age = (self.0.clock)().saturating_sub(since_ns);
        u128::try_from(age).unwrap_or(0) > GIVE_UP_AFTER.as_nanos()
    }
}
