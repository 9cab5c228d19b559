//! `RoutingService` and `PublicationService` (grpc-api §4.10): the published set, its labels, the jobs that fill it, and
//! what other nodes are said to hold.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dirnode_proto::core::v1::RecordRef;
use dirnode_proto::events::v1::EventType;
use dirnode_proto::routing::v1 as wire;
use dirnode_proto::routing::v1::publication_service_server::PublicationService;
use dirnode_proto::routing::v1::publish_request::Request as What;
use dirnode_proto::routing::v1::routing_service_server::RoutingService;
use dirnode_record::{Namespace, RecordCid};
use dirnode_store::{LabelQuery, Listed};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::{Code, Request, Response, Status};

use super::Api;
use super::status::{search_status, store_status};
use super::store::emit_pulled;
use crate::policy::{Action, Caller};
use crate::publications::{FileError, Head};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Published records taken from the index at once.
const PAGE: usize = 256;
/// How long Publish waits for its job, so that the records of a short one are listed when it answers.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(2);

/// Both services.
#[derive(Clone)]
pub struct RoutingApi(Arc<Api>);

impl RoutingApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    async fn file(&self, request: &wire::PublishRequest) -> Result<String, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Publish)?;
        self.0
            .publications
            .file(request)
            .await
            .map_err(|error| match &error {
                FileError::Full | FileError::Untold => Status::resource_exhausted(error.to_string()),
                FileError::Store(inner) => store_status("failed to create publication", inner),
            })
    }

    async fn unpublish_one(&self, reference: RecordRef) -> Result<(), Status> {
        let text = reference.cid;
        if text.is_empty() {
            return Err(Status::invalid_argument("record cid is required"));
        }
        let unknown = || {
            Status::not_found(format!(
                "failed to get record: failed to lookup object: record not found: {text}"
            ))
        };
        let cid = RecordCid::parse(&text).ok_or_else(unknown)?;
        if !self.0.store.contains(cid) {
            return Err(unknown());
        }
        emit_pulled(&self.0, cid).await?;
        match &self.0.routing {
            Some(routing) => match routing.unpublish(cid).await {
                Ok(Ok(())) => {}
                Ok(Err(refused)) => {
                    return Err(Status::unavailable(format!(
                        "failed to unpublish record: {refused}"
                    )));
                }
                Err(stopped) => return Err(Status::unavailable(stopped.to_string())),
            },
            None => {
                let unmarked = self.0.store.unmark_published(cid).await;
                unmarked.map_err(|error| store_status("failed to unpublish record", &error))?;
            }
        }
        self.0.events.emit(EventType::RecordUnpublished, text, Vec::new);
        Ok(())
    }
}

fn label_query(query: &wire::RecordQuery) -> LabelQuery {
    use wire::RecordQueryType as Type;
    let namespace = match Type::try_from(query.r#type) {
        Ok(Type::Unspecified) => return LabelQuery::Any,
        Ok(Type::Skill) => Namespace::Skills,
        Ok(Type::Domain) => Namespace::Domains,
        Ok(Type::Module) => Namespace::Modules,
        Ok(Type::Locator) => Namespace::Locators,
        Err(_) => return LabelQuery::Never,
    };
    LabelQuery::In(namespace, query.value.clone())
}

/// A listing that is being sent.
struct Listing {
    api: Arc<Api>,
    queries: Arc<Vec<LabelQuery>>,
    left: usize,
    page: std::vec::IntoIter<Listed>,
    last: Option<RecordCid>,
    ended: bool,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Listed>, Status> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(listed) = self.page.next() {
                self.left -= 1;
                self.last = Some(listed.cid);
                return Ok(Some(listed));
            }
            if self.ended {
                return Ok(None);
            }
            let (store, queries, last, count) = (
                self.api.store.clone(),
                Arc::clone(&self.queries),
                self.last,
                self.left.min(PAGE),
            );
            let page =
                tokio::task::spawn_blocking(move || store.list_published(&queries, count, last.as_ref()))
                    .await
                    .map_err(|_| Status::internal("internal server error"))?
                    .map_err(|error| search_status(&error.into()))?;
            self.ended = page.len() < count;
            self.page = page.into_iter();
        }
    }
}

#[tonic::async_trait]
impl RoutingService for RoutingApi {
    type SearchStream = Answers<wire::SearchResponse>;
    type ListStream = Answers<wire::ListResponse>;

    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<()>, Status> {
        let id = self.file(request.get_ref()).await?;
        self.0.publications.wait_published(&id, PUBLISH_PATIENCE).await;
        Ok(Response::new(()))
    }

    async fn unpublish(&self, request: Request<wire::UnpublishRequest>) -> Result<Response<()>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Unpublish)?;
        let Some(wire::unpublish_request::Request::RecordRefs(refs)) = request.into_inner().request else {
            return Err(Status::invalid_argument(
                "unpublish request must specify record_refs",
            ));
        };
        for reference in refs.refs {
            self.unpublish_one(reference).await?;
        }
        Ok(Response::new(()))
    }

    async fn search(
        &self,
        request: Request<wire::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        match (&self.0.routing, &self.0.membership) {
            (Some(routing), Some(membership)) => {
                let me = membership.handle().id();
                let found = super::remote::search(routing.clone(), &me, request.into_inner())?;
                Ok(Response::new(Box::pin(found)))
            }
            // Nobody is heard.
            _ => Ok(Response::new(Box::pin(futures_util::stream::empty()))),
        }
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let wire::ListRequest { queries, limit } = request.into_inner();
        let left = match limit.unwrap_or(0) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        let listing = Listing {
            api: Arc::clone(&self.0),
            queries: Arc::new(queries.iter().map(label_query).collect()),
            left,
            page: Vec::new().into_iter(),
            last: None,
            ended: false,
        };
        Ok(Response::new(Box::pin(try_unfold(
            listing,
            |mut listing| async move {
                let next = listing.next().await?;
                Ok(next.map(|listed| {
                    let answer = wire::ListResponse {
                        record_ref: Some(RecordRef {
                            cid: listed.cid.to_string(),
                        }),
                        labels: listed
                            .labels
                            .iter()
                            .map(|label| label.as_str().to_owned())
                            .collect(),
                    };
                    (answer, listing)
                }))
            },
        ))))
    }

    async fn get_provider_count(
        &self,
        request: Request<wire::GetProviderCountRequest>,
    ) -> Result<Response<wire::GetProviderCountResponse>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let cid = request.into_inner().cid;
        if cid.is_empty() {
            return Err(Status::invalid_argument("cid is required"));
        }
        let Some(cid) = RecordCid::parse(&cid) else {
            return Ok(Response::new(wire::GetProviderCountResponse { count: 0 }));
        };
        // Providers are counted by labels: a record without any is announced under nobody's key.
        let listed = self
            .0
            .store
            .listed(&cid)
            .map_err(|error| search_status(&error.into()))?;
        let own = u32::from(listed.is_some_and(|listed| !listed.labels.is_empty()));
        let others = self
            .0
            .routing
            .as_ref()
            .map(|routing| routing.index().provider_count(&cid));
        let count = own.saturating_add(u32::try_from(others.unwrap_or(0)).unwrap_or(u32::MAX));
        Ok(Response::new(wire::GetProviderCountResponse { count }))
    }
}

fn check_publication(request: &wire::PublishRequest) -> Result<(), Status> {
    let problem = match &request.request {
        None => "invalid publish request: must specify record_refs, queries, or all_records",
        Some(What::RecordRefs(refs)) if refs.refs.is_empty() => "record refs cannot be empty",
        Some(What::Queries(queries)) if queries.queries.is_empty() => "queries cannot be empty",
        Some(What::AllRecords(false)) => "all_records must be true",
        Some(_) => return Ok(()),
    };
    Err(Status::invalid_argument(problem))
}

fn time_text(at_ns: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ns))
        .ok()
        .and_then(|at| at.replace_nanosecond(0).ok())
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

fn item(head: Head) -> wire::ListPublicationsItem {
    wire::ListPublicationsItem {
        publication_id: head.id,
        status: head.status,
        created_time: time_text(head.created_ns),
        last_update_time: time_text(head.updated_ns),
    }
}

#[tonic::async_trait]
impl PublicationService for RoutingApi {
    type ListPublicationsStream = Answers<wire::ListPublicationsItem>;

    async fn create_publication(
        &self,
        request: Request<wire::PublishRequest>,
    ) -> Result<Response<wire::CreatePublicationResponse>, Status> {
        check_publication(request.get_ref())?;
        let publication_id = self.file(request.get_ref()).await?;
        Ok(Response::new(wire::CreatePublicationResponse { publication_id }))
    }

    async fn list_publications(
        &self,
        request: Request<wire::ListPublicationsRequest>,
    ) -> Result<Response<Self::ListPublicationsStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let wire::ListPublicationsRequest { limit, offset } = request.into_inner();
        let bound = |count: Option<u32>, unset: usize| match count.unwrap_or(0) {
            0 => unset,
            count => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let heads = self
            .0
            .publications
            .list(bound(limit, usize::MAX), bound(offset, 0));
        let items = heads.into_iter().map(|head| Ok(item(head)));
        Ok(Response::new(Box::pin(futures_util::stream::iter(items))))
    }

    async fn get_publication(
        &self,
        request: Request<wire::GetPublicationRequest>,
    ) -> Result<Response<wire::GetPublicationResponse>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let id = request.into_inner().publication_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("publication_id cannot be empty"));
        }
        let head = self.0.publications.get(&id).ok_or_else(|| {
            Status::new(
                Code::NotFound,
                "failed to get publication by ID: record not found",
            )
        })?;
        let wire::ListPublicationsItem {
            publication_id,
            status,
            created_time,
            last_update_time,
        } = item(head);
        Ok(Response::new(wire::GetPublicationResponse {
            publication_id,
            status,
            created_time,
            last_update_time,
        }))
    }
}
