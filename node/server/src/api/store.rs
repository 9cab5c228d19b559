//! `StoreService`: records and referrers, streamed strictly in order (grpc-api §4.0 to §4.7).
//!
//! A request is fully served, and its answer taken by the client, before the next one is read. The first failing item
//! ends the stream; what was answered before stays.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use dirnode_proto::core::v1::{Record, RecordMeta, RecordRef, RecordReferrer, ReferrerRef};
use dirnode_proto::events::v1::EventType;
use dirnode_proto::store::v1::store_service_server::StoreService;
use dirnode_proto::store::v1::{
    DeleteReferrerRequest, DeleteReferrerResponse, PullReferrerRequest, PullReferrerResponse,
    PushReferrerRequest, PushReferrerResponse,
};
use dirnode_record::referrer::{check_delete, check_pull, check_push};
use dirnode_record::{RecordCid, Referrer, TextError, Violations, read_struct, record_message};
use dirnode_store::{ReferrerFilter, StoreError, StoreErrorKind, Usage};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::status::store_status;
use crate::ingest::{annotations_of, labels_of};
use crate::policy::{Action, Caller};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct StoreApi(Arc<Api>);

impl StoreApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    /// One answer a request, in order.
    fn in_order<Q, A, F, R>(&self, requests: Request<Streaming<Q>>, serve: F) -> Response<Answers<A>>
    where
        Q: Send + 'static,
        A: Send + 'static,
        F: Fn(Arc<Api>, Q) -> R + Copy + Send + 'static,
        R: Future<Output = Result<A, Status>> + Send,
    {
        let state = (requests.into_inner(), Arc::clone(&self.0));
        Response::new(Box::pin(try_unfold(
            state,
            move |(mut requests, api)| async move {
                match requests.message().await? {
                    None => Ok(None),
                    Some(request) => {
                        let answer = serve(Arc::clone(&api), request).await?;
                        Ok(Some((answer, (requests, api))))
                    }
                }
            },
        )))
    }
}

fn invalid(violations: Violations) -> Status {
    Status::invalid_argument(violations.to_string())
}

/// The CID of a request; the text must be there, and only the exact spelling of a stored CID can name a record.
fn required(reference: &RecordRef) -> Result<(), Status> {
    if reference.cid.is_empty() {
        Err(Status::invalid_argument("record cid is required"))
    } else {
        Ok(())
    }
}

fn unknown(doing: &str, cid: &str) -> Status {
    Status::not_found(format!("{doing}: record not found: {cid}"))
}

async fn push(api: Arc<Api>, record: Record) -> Result<RecordRef, Status> {
    let permit = api.policy.permit(Caller::Anonymous, Action::Push)?;
    let admitted = api.ingest.admit(record.data, &permit).await?;
    Ok(RecordRef {
        cid: admitted.cid.to_string(),
    })
}

async fn pull(api: Arc<Api>, reference: RecordRef) -> Result<Record, Status> {
    const DOING: &str = "failed to pull record";
    api.policy.permit(Caller::Anonymous, Action::Pull)?;
    required(&reference)?;
    let cid = RecordCid::parse(&reference.cid).ok_or_else(|| unknown(DOING, &reference.cid))?;
    let Some(body) = api
        .store
        .body(cid)
        .await
        .map_err(|error| store_status(DOING, &error))?
    else {
        return Err(not_a_record(&api, DOING, cid).await);
    };
    let record = record_of(&body).map_err(|error| {
        Status::internal(format!(
            "{DOING}: failed to unmarshal record for CID {cid}: {error}"
        ))
    })?;
    emit_pulled(&api, cid).await?;
    api.store.touch(cid, Usage::Pull);
    Ok(record)
}

/// A stored body as the message that is sent.
pub(super) fn record_of(body: &[u8]) -> Result<Record, TextError> {
    match record_message(body) {
        Some(message) => Ok(Record::from_message(message.into())),
        // Deep or odd, but it may be a record all the same.
        None => Ok(Record::from(read_struct(body)?)),
    }
}

/// Tells listeners that a record was read; without listeners nothing is looked up.
pub(super) async fn emit_pulled(api: &Api, cid: RecordCid) -> Result<(), Status> {
    if api.events.figures().0 == 0 {
        return Ok(());
    }
    let row = api
        .store
        .record(cid)
        .await
        .map_err(|error| store_status("failed to read record", &error))?;
    api.events.emit(EventType::RecordPulled, cid.to_string(), || {
        row.map(|row| labels_of(&row.summary)).unwrap_or_default()
    });
    Ok(())
}

/// A CID that is no record's: unknown, or that of a referrer, which the network answers with `INTERNAL`.
async fn not_a_record(api: &Api, doing: &str, cid: RecordCid) -> Status {
    match api.store.referrer_body(cid).await {
        Ok(Some(_)) => Status::internal(format!(
            "{doing}: {cid} is a referrer, not a record; ask for it with PullReferrer"
        )),
        _ => unknown(doing, &cid.to_string()),
    }
}

async fn lookup(api: Arc<Api>, reference: RecordRef) -> Result<RecordMeta, Status> {
    const DOING: &str = "failed to lookup record";
    api.policy.permit(Caller::Anonymous, Action::Lookup)?;
    required(&reference)?;
    let cid = RecordCid::parse(&reference.cid).ok_or_else(|| unknown(DOING, &reference.cid))?;
    let Some(row) = api
        .store
        .record(cid)
        .await
        .map_err(|error| store_status(DOING, &error))?
    else {
        return Err(not_a_record(&api, DOING, cid).await);
    };
    api.store.touch(cid, Usage::Lookup);
    let summary = row.summary;
    let annotations: HashMap<String, String> = annotations_of(&summary).into_iter().collect();
    let schema_version = if summary.schema_version.is_empty() {
        "0.7.0".to_owned()
    } else {
        summary.schema_version
    };
    Ok(RecordMeta {
        cid: reference.cid,
        annotations,
        schema_version,
        created_at: summary.created_at,
    })
}

async fn delete(api: &Api, reference: RecordRef) -> Result<(), Status> {
    api.policy.permit(Caller::Anonymous, Action::Delete)?;
    required(&reference)?;
    // A text that is no CID names nothing that could be here: deleted it is.
    if let Some(cid) = RecordCid::parse(&reference.cid) {
        api.store
            .delete_record(cid)
            .await
            .map_err(|error| store_status("failed to delete record", &error))?;
    }
    api.events.emit(EventType::RecordDeleted, reference.cid, Vec::new);
    Ok(())
}

async fn push_referrer(api: Arc<Api>, request: PushReferrerRequest) -> Result<PushReferrerResponse, Status> {
    let record_cid = request.record_ref.map(|reference| reference.cid);
    check_push(record_cid.as_deref(), &request.r#type).map_err(invalid)?;
    let permit = api.policy.permit(Caller::Anonymous, Action::PushReferrer)?;
    let text = record_cid.clone().unwrap_or_default();
    let refused = |message: String| PushReferrerResponse {
        success: false,
        error_message: Some(format!("failed to push referrer for record {text}: {message}")),
        referrer_ref: None,
    };
    let not_found = || format!("record not found for CID {text}");
    let Some(record) = RecordCid::parse(&text) else {
        return Ok(refused(not_found()));
    };
    let referrer = Referrer {
        kind: request.r#type,
        record_cid,
        annotations: request.annotations.into_iter().collect(),
        created_at: request.created_at,
        data: request.data,
        referrer_ref: None,
    };
    match api.ingest.admit_referrer(record, &referrer, &permit).await {
        Ok(cid) => Ok(PushReferrerResponse {
            success: true,
            error_message: None,
            referrer_ref: Some(ReferrerRef { cid: cid.to_string() }),
        }),
        Err(crate::ingest::ReferrerError::Store(error)) if error.kind() == StoreErrorKind::NotFound => {
            Ok(refused(not_found()))
        }
        Err(error) => Ok(refused(error.to_string())),
    }
}

/// Referrers of one request that are still to be sent.
struct Walk {
    record: String,
    rest: VecDeque<RecordCid>,
}

async fn start_walk(api: &Api, request: PullReferrerRequest) -> Result<Option<Walk>, Status> {
    let record = request.record_ref.map(|reference| reference.cid);
    let referrer = request.referrer_ref.map(|reference| reference.cid);
    check_pull(
        record.as_deref(),
        request.referrer_type.as_deref(),
        referrer.as_deref(),
    )
    .map_err(invalid)?;
    api.policy.permit(Caller::Anonymous, Action::PullReferrer)?;
    let record = record.unwrap_or_default();
    let Some(cid) = RecordCid::parse(&record) else {
        return Ok(None);
    };
    let rows = match api.store.referrers(cid).await {
        Ok(Some(rows)) => rows,
        Ok(None) => return Ok(None),
        Err(error) => return Err(store_status("failed to walk referrers", &error)),
    };
    let Some(filter) = filter_of(request.referrer_type, referrer) else {
        return Ok(Some(Walk {
            record,
            rest: VecDeque::new(),
        }));
    };
    let rest = rows
        .iter()
        .filter(|row| filter.takes(row))
        .map(|row| row.cid)
        .collect();
    Ok(Some(Walk { record, rest }))
}

/// `None` when the referrer's CID is a text that no referrer can have.
fn filter_of(kind: Option<String>, cid: Option<String>) -> Option<ReferrerFilter> {
    let cid = match cid {
        Some(text) => Some(RecordCid::parse(&text)?),
        None => None,
    };
    Some(ReferrerFilter { kind, cid })
}

/// One referrer as it is sent; `None` when it went away or cannot be read.
async fn read_referrer(api: &Api, record: &str, cid: RecordCid) -> Option<RecordReferrer> {
    let body = match api.store.referrer_body(cid).await {
        Ok(body) => body?,
        Err(error) => {
            tracing::warn!(component = "api", %cid, %error, "referrer skipped");
            return None;
        }
    };
    let referrer = Referrer::parse(&body)
        .inspect_err(|error| tracing::warn!(component = "api", %cid, %error, "referrer skipped"))
        .ok()?;
    Some(RecordReferrer {
        r#type: referrer.kind,
        record_ref: Some(RecordRef {
            cid: referrer.record_cid.unwrap_or_else(|| record.to_owned()),
        }),
        annotations: referrer.annotations.into_iter().collect(),
        created_at: referrer.created_at,
        data: referrer.data,
        referrer_ref: Some(ReferrerRef { cid: cid.to_string() }),
    })
}

/// Where a PullReferrer stream stands.
struct Pulling {
    api: Arc<Api>,
    requests: Streaming<PullReferrerRequest>,
    walk: Option<Walk>,
    ended: bool,
}

async fn next_referrer(mut state: Pulling) -> Result<Option<(PullReferrerResponse, Pulling)>, Status> {
    loop {
        if state.ended {
            return Ok(None);
        }
        if let Some(walk) = &mut state.walk {
            if let Some(cid) = walk.rest.pop_front() {
                if let Some(referrer) = read_referrer(&state.api, &walk.record, cid).await {
                    return Ok(Some((
                        PullReferrerResponse {
                            referrer: Some(referrer),
                        },
                        state,
                    )));
                }
                continue;
            }
            state.walk = None;
        }
        let Some(request) = state.requests.message().await? else {
            return Ok(None);
        };
        state.walk = start_walk(&state.api, request).await?;
        if state.walk.is_none() {
            // An unknown record: one answer without a referrer, and the stream is over (grpc-api §4.6).
            state.ended = true;
            return Ok(Some((PullReferrerResponse { referrer: None }, state)));
        }
    }
}

async fn delete_referrer(
    api: Arc<Api>,
    request: DeleteReferrerRequest,
) -> Result<DeleteReferrerResponse, Status> {
    let record = request.record.map(|reference| reference.cid);
    let referrer = request.referrer_ref.map(|reference| reference.cid);
    check_delete(
        record.as_deref(),
        referrer.as_deref(),
        request.referrer_type.as_deref(),
    )
    .map_err(invalid)?;
    api.policy.permit(Caller::Anonymous, Action::DeleteReferrer)?;
    let text = record.unwrap_or_default();
    let not_found = || Status::not_found(format!("failed to delete referrers: record not found: {text}"));
    let cid = RecordCid::parse(&text).ok_or_else(not_found)?;
    let deleted = match filter_of(request.referrer_type, referrer) {
        Some(filter) => api.store.delete_referrers(cid, filter).await,
        None => match api.store.record(cid).await {
            Ok(Some(_)) => Ok(Vec::new()),
            Ok(None) => Err(StoreError::NotFound(cid)),
            Err(error) => Err(error),
        },
    };
    match deleted {
        Ok(cids) => {
            let referrer_refs = cids
                .into_iter()
                .map(|cid| ReferrerRef { cid: cid.to_string() })
                .collect();
            Ok(DeleteReferrerResponse { referrer_refs })
        }
        Err(error) if error.kind() == StoreErrorKind::NotFound => Err(not_found()),
        Err(error) => Err(store_status("failed to delete referrers", &error)),
    }
}

#[tonic::async_trait]
impl StoreService for StoreApi {
    type PushStream = Answers<RecordRef>;
    type PullStream = Answers<Record>;
    type LookupStream = Answers<RecordMeta>;
    type PushReferrerStream = Answers<PushReferrerResponse>;
    type PullReferrerStream = Answers<PullReferrerResponse>;
    type DeleteReferrerStream = Answers<DeleteReferrerResponse>;

    async fn push(&self, requests: Request<Streaming<Record>>) -> Result<Response<Self::PushStream>, Status> {
        Ok(self.in_order(requests, push))
    }

    async fn pull(
        &self,
        requests: Request<Streaming<RecordRef>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        Ok(self.in_order(requests, pull))
    }

    async fn lookup(
        &self,
        requests: Request<Streaming<RecordRef>>,
    ) -> Result<Response<Self::LookupStream>, Status> {
        Ok(self.in_order(requests, lookup))
    }

    async fn delete(&self, requests: Request<Streaming<RecordRef>>) -> Result<Response<()>, Status> {
        let mut requests = requests.into_inner();
        while let Some(reference) = requests.message().await? {
            delete(&self.0, reference).await?;
        }
        Ok(Response::new(()))
    }

    async fn push_referrer(
        &self,
        requests: Request<Streaming<PushReferrerRequest>>,
    ) -> Result<Response<Self::PushReferrerStream>, Status> {
        Ok(self.in_order(requests, push_referrer))
    }

    async fn pull_referrer(
        &self,
        requests: Request<Streaming<PullReferrerRequest>>,
    ) -> Result<Response<Self::PullReferrerStream>, Status> {
        let requests = requests.into_inner();
        let state = Pulling {
            api: Arc::clone(&self.0),
            requests,
            walk: None,
            ended: false,
        };
        Ok(Response::new(Box::pin(try_unfold(state, next_referrer))))
    }

    async fn delete_referrer(
        &self,
        requests: Request<Streaming<DeleteReferrerRequest>>,
    ) -> Result<Response<Self::DeleteReferrerStream>, Status> {
        Ok(self.in_order(requests, delete_referrer))
    }
}
