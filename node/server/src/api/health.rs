//! `grpc.health.v1.Health`: the whole node under the empty name, and each component under its own (operations §5.3).

use std::collections::BTreeMap;
use std::pin::Pin;

use futures_util::Stream;
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// State of every component; cheap to clone.
#[derive(Clone)]
pub struct Health(watch::Sender<State>);

#[derive(Debug, Clone, Default)]
struct State {
    components: BTreeMap<&'static str, bool>,
    draining: bool,
}

impl State {
    fn of(&self, name: &str) -> Option<ServingStatus> {
        let serving = if name.is_empty() {
            !self.components.is_empty() && self.components.values().all(|ready| *ready)
        } else {
            *self.components.get(name)?
        };
        Some(if serving && !self.draining {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        })
    }
}

impl Health {
    /// Nothing is ready yet.
    #[must_use]
    pub fn new(components: &[&'static str]) -> Self {
        let components = components.iter().map(|name| (*name, false)).collect();
        Self(watch::Sender::new(State {
            components,
            draining: false,
        }))
    }

    /// A component became ready or stopped being so.
    pub fn set(&self, component: &'static str, ready: bool) {
        self.0
            .send_if_modified(|state| state.components.insert(component, ready) != Some(ready));
    }

    /// The node is stopping: nothing serves any more.
    pub fn drain(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// Components that are not ready; `draining` while the node stops.
    #[must_use]
    pub fn failing(&self) -> Vec<&'static str> {
        let state = self.0.borrow();
        let failing = state
            .components
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(name, _)| *name);
        failing.chain(state.draining.then_some("draining")).collect()
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.borrow().of(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("unknown service"))?;
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let mut last = None;
        let changes = WatchStream::new(self.0.subscribe()).filter_map(move |state| {
            let status = state.of(&name).unwrap_or(ServingStatus::ServiceUnknown);
            (last.replace(status) != Some(status)).then(|| {
                Ok(HealthCheckResponse {
                    status: status.into(),
                })
            })
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_serves_when_every_component_does() {
        let health = Health::new(&["store", "routing"]);
        assert_eq!(health.0.borrow().of(""), Some(ServingStatus::NotServing));
        health.set("store", true);
        assert_eq!(
            (health.0.borrow().of(""), health.0.borrow().of("store")),
            (Some(ServingStatus::NotServing), Some(ServingStatus::Serving))
        );
        health.set("routing", true);
        assert_eq!(health.0.borrow().of(""), Some(ServingStatus::Serving));
        assert_eq!(health.0.borrow().of("nope"), None);
        health.drain();
        assert_eq!(
            (health.0.borrow().of(""), health.failing()),
            (Some(ServingStatus::NotServing), vec!["draining"])
        );
    }
}
