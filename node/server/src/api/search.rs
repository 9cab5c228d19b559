//! `SearchService`: stored records by what they say (grpc-api §4.9). Search never changes counters.
//!
//! Results are streamed page by page as the caller takes them; a caller that leaves ends the search.

use std::pin::Pin;
use std::sync::Arc;

use dirnode_proto::core::v1::Record;
use dirnode_proto::search::v1::search_service_server::SearchService;
use dirnode_proto::search::v1::{
    CountRecordsRequest, CountRecordsResponse, RecordQuery, SearchCiDsRequest, SearchCiDsResponse,
    SearchRecordsRequest, SearchRecordsResponse,
};
use dirnode_record::RecordCid;
use dirnode_store::Hits;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tonic::{Request, Response, Status};

use super::Api;
use super::status::search_status;
use super::store::{emit_pulled, record_of};
use crate::policy::{Action, Caller};
use crate::queries;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// CIDs taken from a result at once.
const PAGE: usize = 256;

/// The service.
pub struct SearchApi(Arc<Api>);

impl SearchApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    /// Asks the rules and the index; what is left is to send.
    async fn start(
        &self,
        asked: &[RecordQuery],
        sort_mode: i32,
        limit: Option<u32>,
        offset: Option<u32>,
    ) -> Result<Sending, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let (limit, offset) = (limit.unwrap_or(0), offset.unwrap_or(0));
        let hits = queries::search(&self.0.store, asked, queries::sort_of(sort_mode), limit, offset).await;
        Ok(Sending::new(
            &self.0,
            hits.map_err(|error| search_status(&error))?,
        ))
    }
}

/// A result that is being sent.
struct Sending {
    api: Arc<Api>,
    hits: Hits,
    page: std::vec::IntoIter<RecordCid>,
}

impl Sending {
    fn new(api: &Arc<Api>, hits: Hits) -> Self {
        Self {
            api: Arc::clone(api),
            hits,
            page: Vec::new().into_iter(),
        }
    }

    fn next(&mut self) -> Result<Option<RecordCid>, Status> {
        loop {
            if let Some(cid) = self.page.next() {
                return Ok(Some(cid));
            }
            match self
                .hits
                .next_page(PAGE)
                .map_err(|error| search_status(&error.into()))?
            {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// The record as it is sent; `None` when it went away or cannot be read, which skips it.
async fn read(api: &Api, cid: RecordCid) -> Option<Record> {
    let body = api.store.body(cid).await.inspect_err(|error| {
        tracing::warn!(component = "api", %cid, %error, "record skipped in a search");
    });
    let record = record_of(&body.ok()??).ok()?;
    emit_pulled(api, cid).await.ok()?;
    Some(record)
}

#[tonic::async_trait]
impl SearchService for SearchApi {
    type SearchCIDsStream = Answers<SearchCiDsResponse>;
    type SearchRecordsStream = Answers<SearchRecordsResponse>;

    async fn search_ci_ds(
        &self,
        request: Request<SearchCiDsRequest>,
    ) -> Result<Response<Self::SearchCIDsStream>, Status> {
        let SearchCiDsRequest {
            queries,
            limit,
            offset,
            sort_mode,
        } = request.into_inner();
        let sending = self.start(&queries, sort_mode, limit, offset).await?;
        Ok(Response::new(Box::pin(try_unfold(
            sending,
            |mut sending| async move {
                let next = sending.next()?;
                Ok(next.map(|cid| {
                    (
                        SearchCiDsResponse {
                            record_cid: cid.to_string(),
                        },
                        sending,
                    )
                }))
            },
        ))))
    }

    async fn search_records(
        &self,
        request: Request<SearchRecordsRequest>,
    ) -> Result<Response<Self::SearchRecordsStream>, Status> {
        let SearchRecordsRequest {
            queries,
            limit,
            offset,
            sort_mode,
        } = request.into_inner();
        let sending = self.start(&queries, sort_mode, limit, offset).await?;
        Ok(Response::new(Box::pin(try_unfold(
            sending,
            |mut sending| async move {
                while let Some(cid) = sending.next()? {
                    if let Some(record) = read(&sending.api, cid).await {
                        return Ok(Some((SearchRecordsResponse { record: Some(record) }, sending)));
                    }
                }
                Ok(None)
            },
        ))))
    }

    async fn count_records(
        &self,
        request: Request<CountRecordsRequest>,
    ) -> Result<Response<CountRecordsResponse>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let count = queries::count(&self.0.store, &request.into_inner().queries).await;
        let count = count.map_err(|error| search_status(&error))?;
        Ok(Response::new(CountRecordsResponse {
            total_count: u32::try_from(count).unwrap_or(u32::MAX),
        }))
    }
}
