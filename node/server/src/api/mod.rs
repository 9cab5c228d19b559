//! The gRPC API: decode, ask policy, call a room, encode. The only room with `Status`.

pub mod call;
mod deadline;
mod events;
mod frames;
pub mod health;
pub mod limit;
mod naming;
mod news;
mod node;
mod pending;
mod reflection;
mod remote;
mod routing;
mod search;
pub mod status;
mod store;

use std::sync::Arc;

use dirnode_store::Store;
use tonic::service::Routes;

use crate::config::Connection;
use crate::events::EventBus;
use crate::ingest::Ingest;
use crate::membership::Membership;
use crate::policy::Policy;
use crate::publications::Publications;
use crate::routing::Routing;

/// What the services need.
#[derive(Clone)]
pub struct Api {
    /// The rules.
    pub policy: Policy,
    /// The door for writes.
    pub ingest: Ingest,
    /// Where reads go.
    pub store: Store,
    /// Where events come from and go.
    pub events: EventBus,
    /// The jobs that publish.
    pub publications: Publications,
    /// The node's place in the network; `None` when the network is off.
    pub membership: Option<Membership>,
    /// What is announced and heard; `None` when the network is off.
    pub routing: Option<Routing>,
}

/// Every service of the node, with its message limits.
///
/// # Errors
/// When the embedded descriptors do not serve reflection.
pub fn routes(api: &Api, health: health::Health, limits: &Connection) -> anyhow::Result<Routes> {
    use dirnode_proto::events::v1::event_service_server::EventServiceServer;
    use dirnode_proto::naming::v1::naming_service_server::NamingServiceServer;
    use dirnode_proto::node::v1::node_service_server::NodeServiceServer;
    use dirnode_proto::routing::v1::publication_service_server::PublicationServiceServer;
    use dirnode_proto::routing::v1::routing_service_server::RoutingServiceServer;
    use dirnode_proto::runtime::v1::discovery_service_server::DiscoveryServiceServer;
    use dirnode_proto::search::v1::search_service_server::SearchServiceServer;
    use dirnode_proto::sign::v1::sign_service_server::SignServiceServer;
    use dirnode_proto::store::v1::store_service_server::StoreServiceServer;
    use dirnode_proto::store::v1::sync_service_server::SyncServiceServer;
    use tonic_health::pb::health_server::HealthServer;
    use tonic_reflection::pb::v1::server_reflection_server::ServerReflectionServer as ReflectionV1;
    use tonic_reflection::pb::v1alpha::server_reflection_server::ServerReflectionServer as ReflectionV1Alpha;

    let api = Arc::new(api.clone());
    let (receive, send) = (limits.max_recv_msg_size_bytes, limits.max_send_msg_size_bytes);
    macro_rules! limited {
        ($server:expr) => {
            $server
                .max_decoding_message_size(receive)
                .max_encoding_message_size(send)
        };
    }
    let reflection = reflection::Reflection::new(&[
        dirnode_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ])?;
    let routing = routing::RoutingApi::new(Arc::clone(&api));
    let mut routes = Routes::builder();
    routes
        .add_service(limited!(StoreServiceServer::new(store::StoreApi::new(
            Arc::clone(&api)
        ))))
        .add_service(limited!(EventServiceServer::new(events::EventsApi::new(
            Arc::clone(&api)
        ))))
        .add_service(limited!(NamingServiceServer::new(naming::NamingApi::new(
            Arc::clone(&api)
        ))))
        .add_service(limited!(SyncServiceServer::new(pending::Pending)))
        .add_service(limited!(RoutingServiceServer::new(routing.clone())))
        .add_service(limited!(PublicationServiceServer::new(routing)))
        .add_service(limited!(SearchServiceServer::new(search::SearchApi::new(
            Arc::clone(&api)
        ))))
        .add_service(limited!(NodeServiceServer::new(node::NodeApi::new(api))))
        .add_service(limited!(SignServiceServer::new(pending::Pending)))
        .add_service(limited!(DiscoveryServiceServer::new(pending::Pending)))
        .add_service(HealthServer::new(health))
        .add_service(ReflectionV1::new(reflection.clone()))
        .add_service(ReflectionV1Alpha::new(reflection));
    Ok(routes.routes())
}
