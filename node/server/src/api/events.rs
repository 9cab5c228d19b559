//! `EventService`: live events to whoever listens (grpc-api §4.14).

use std::pin::Pin;
use std::sync::Arc;

use dirnode_proto::events::v1::event_service_server::EventService;
use dirnode_proto::events::v1::{ListenRequest, ListenResponse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Request, Response, Status};

use super::Api;
use crate::events::SubscribeError;
use crate::policy::{Action, Caller};

/// The service.
pub struct EventsApi(Arc<Api>);

impl EventsApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }
}

#[tonic::async_trait]
impl EventService for EventsApi {
    type ListenStream = Pin<Box<dyn Stream<Item = Result<ListenResponse, Status>> + Send>>;

    async fn listen(&self, request: Request<ListenRequest>) -> Result<Response<Self::ListenStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Listen)?;
        let subscription = self
            .0
            .events
            .subscribe(request.into_inner())
            .map_err(|error| match error {
                SubscribeError::Full => Status::resource_exhausted(error.to_string()),
                SubscribeError::TooManyFilters(_) => Status::invalid_argument(error.to_string()),
            })?;
        let events = unfold(subscription, |mut subscription| async move {
            let event = subscription.next().await?;
            Some((Ok(ListenResponse { event: Some(event) }), subscription))
        });
        Ok(Response::new(Box::pin(events)))
    }
}
