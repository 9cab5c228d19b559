//! `grpc.health.v1.Health`: the whole node under the empty name, and each component under its own (operations §5.3).
//! What a component waits for is told in words where there is room for them, which gRPC health has not.

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
    /// What each component waits for; nothing once it is ready.
    components: BTreeMap<&'static str, Option<String>>,
    draining: bool,
}

impl State {
    fn of(&self, name: &str) -> Option<ServingStatus> {
        let serving = if name.is_empty() {
            !self.components.is_empty() && self.components.values().all(Option::is_none)
        } else {
            self.components.get(name)?.is_none()
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
        let components = components
            .iter()
            .map(|name| (*name, Some("starting".to_owned())))
            .collect();
        Self(watch::Sender::new(State {
            components,
            draining: false,
        }))
    }

    /// What a component waits for or suffers from, in a few words; `None` when it is ready. True if that is news.
    pub fn set(&self, component: &'static str, fault: Option<String>) -> bool {
        self.0.send_if_modified(|state| {
            let news = state.components.get(component) != Some(&fault);
            state.components.insert(component, fault);
            news
        })
    }

    /// The node is stopping: nothing serves any more.
    pub fn drain(&self) {
        self.0.send_modify(|state| state.draining = true);
    }

    /// Components that are not ready, each with what is missing; `draining` while the node stops.
    #[must_use]
    pub fn failing(&self) -> Vec<String> {
        let state = self.0.borrow();
        let failing = state
            .components
            .iter()
            .filter_map(|(name, fault)| Some(format!("{name}: {}", fault.as_ref()?)));
        failing
            .chain(state.draining.then(|| "draining".to_owned()))
            .collect()
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
        let health = Health::new(&["store", "network"]);
        assert_eq!(health.0.borrow().of(""), Some(ServingStatus::NotServing));
        assert!(health.set("store", None));
        assert_eq!(
            (health.0.borrow().of(""), health.0.borrow().of("store")),
            (Some(ServingStatus::NotServing), Some(ServingStatus::Serving))
        );
        assert_eq!(health.failing(), ["network: starting"]);
        assert!(
            health.set("network", Some("no peers".into())) && !health.set("network", Some("no peers".into()))
        );
        assert_eq!(health.failing(), ["network: no peers"]);
        assert!(health.set("network", None));
        assert_eq!(health.0.borrow().of(""), Some(ServingStatus::Serving));
        assert_eq!(health.0.borrow().of("nope"), None);
        health.drain();
        assert_eq!(
            (health.0.borrow().of(""), health.failing()),
            (Some(ServingStatus::NotServing), vec!["draining".to_owned()])
        );
    }
}
