//! `dirnode.node.v1.NodeService`: what the commands about the network ask. Our own, no part of the network's API.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use dirnode_identity::{PeerId, parse_peer_id};
use dirnode_network::config::peer_of;
use dirnode_network::{
    Direction, Multiaddr, NetworkHandle, PeerAddrs, PeerView, ReachabilityVerdict, Role, Status as State,
};
use dirnode_proto::node::v1 as wire;
use dirnode_proto::node::v1::node_service_server::NodeService;
use dirnode_record::RecordCid;
use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::status::{network_status, store_status};
use super::{Api, deadline, news};
use crate::membership::Membership;
use crate::policy::{Action, Caller};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Providers that are looked for when the caller does not say how many, and at most.
const PROVIDERS: usize = 20;
const MOST_PROVIDERS: usize = 100;
/// A ping of a caller that does not say how long it waits: finding the peer in the DHT, dialling it, the ping itself.
const PING_WITHIN: Duration = Duration::from_secs(30);
/// Records whose news is told in one call.
const MOST_ASKED: usize = 1000;
/// Longest text of a peer or CID that is looked at.
const MAX_TEXT_BYTES: usize = 1024;

/// The service.
pub struct NodeApi(Arc<Api>);

impl NodeApi {
    pub fn new(api: Arc<Api>) -> Self {
        Self(api)
    }

    fn network(&self) -> Result<&NetworkHandle, Status> {
        let off = || Status::failed_precondition("the network of this node is off (routing.enabled: false)");
        self.0.membership.as_ref().map(Membership::handle).ok_or_else(off)
    }
}

fn texts(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn network(membership: &Membership, state: &State) -> wire::Network {
    let words = |words: Vec<&'static str>| words.into_iter().map(str::to_owned).collect();
    wire::Network {
        peer_id: state.peer.to_base58(),
        role: match state.role {
            Role::Bootstrap => wire::Role::Bootstrap,
            Role::Member => wire::Role::Member,
        }
        .into(),
        listening: texts(&state.listening),
        external: texts(&state.external),
        reachability: match state.reachability {
            ReachabilityVerdict::Unknown => wire::Reachability::Unspecified,
            ReachabilityVerdict::Public => wire::Reachability::Public,
            ReachabilityVerdict::Private => wire::Reachability::Private,
        }
        .into(),
        bootstrapped: state.bootstrapped,
        peers: count(state.peers),
        connections: count(state.connections),
        routing_table: count(state.table),
        topic_peers: count(state.topic_peers),
        mesh_peers: count(state.mesh_peers),
        provider_records: state.provider_records as u64,
        queries_running: count(state.queries.0),
        queries_waiting: count(state.queries.1),
        missing: words(membership.missing(state)),
        degraded: words(membership.degraded(state)),
    }
}

fn peer(view: PeerView) -> wire::Peer {
    let connections = view
        .connections
        .iter()
        .map(|(address, direction, transport)| wire::Connection {
            address: address.to_string(),
            direction: match direction {
                Direction::Inbound => wire::Direction::Inbound,
                Direction::Outbound => wire::Direction::Outbound,
            }
            .into(),
            transport: transport.name().to_owned(),
        });
    wire::Peer {
        peer_id: view.peer.to_base58(),
        connections: connections.collect(),
        addresses: texts(&view.addrs),
        protocols: view.protocols,
        agent: view.agent,
        rtt_microseconds: view.rtt.map(micros),
        directory_api_address: view.directory_api.unwrap_or_default(),
        directory_oci_address: view.oci.unwrap_or_default(),
        in_routing_table: view.in_table,
        on_topic: view.on_topic,
        in_mesh: view.in_mesh,
        score: view.score,
    }
}

fn record_cid(text: &str) -> Result<RecordCid, Status> {
    RecordCid::parse(text).ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Status::invalid_argument(format!("`{shown}` is not the CID of a record"))
    })
}

/// Whom to ping: an id, or an address to dial with an id at its end.
fn target(text: &str) -> Result<(PeerId, Option<Multiaddr>), Status> {
    if text.len() > MAX_TEXT_BYTES {
        let problem = format!("peer is {} bytes, limit is {MAX_TEXT_BYTES}", text.len());
        return Err(Status::invalid_argument(problem));
    }
    if !text.starts_with('/') {
        let peer = parse_peer_id(text).map_err(|error| Status::invalid_argument(error.to_string()))?;
        return Ok((peer, None));
    }
    let address: Multiaddr = text
        .parse()
        .map_err(|error| Status::invalid_argument(format!("`{text}` is not a multiaddr: {error}")))?;
    let peer = peer_of(&address).ok_or_else(|| {
        Status::invalid_argument(format!(
            "`{text}` does not say who is there; end it with /p2p/<peer id>"
        ))
    })?;
    Ok((peer, Some(address)))
}

#[tonic::async_trait]
impl NodeService for NodeApi {
    type ListPeersStream = Answers<wire::Peer>;
    type FindProvidersStream = Answers<wire::Provider>;
    type GetProvideStatusStream = Answers<wire::ProvideStatus>;

    async fn get_status(
        &self,
        _: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusResponse>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Status)?;
        let place = match &self.0.membership {
            None => None,
            Some(membership) => {
                let state = membership.handle().status().await;
                let state = state.map_err(|error| network_status(&error))?;
                Some(network(membership, &state))
            }
        };
        Ok(Response::new(wire::GetStatusResponse {
            agent: concat!("dirnode/", env!("CARGO_PKG_VERSION")).to_owned(),
            records: self.0.store.records_len(),
            published: self.0.store.published_len(),
            network: place,
            announcing: self.0.routing.as_ref().map(news::announcing),
        }))
    }

    async fn list_peers(
        &self,
        _: Request<wire::ListPeersRequest>,
    ) -> Result<Response<Self::ListPeersStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::ListPeers)?;
        let views = self.network()?.peers().await;
        let views = views.map_err(|error| network_status(&error))?;
        let peers = views.into_iter().map(|view| Ok(peer(view)));
        Ok(Response::new(Box::pin(futures_util::stream::iter(peers))))
    }

    async fn ping(
        &self,
        request: Request<wire::PingRequest>,
    ) -> Result<Response<wire::PingResponse>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Ping)?;
        let network = self.network()?;
        let patience = deadline::working_time(&request).unwrap_or(PING_WITHIN);
        let (peer, address) = target(request.get_ref().peer.trim())?;
        if peer == network.id() {
            return Err(Status::invalid_argument("that is this node itself"));
        }
        let ping = async {
            if let Some(address) = address {
                network.connect(address).await?;
            }
            network.seeking(peer, || network.ping(peer)).await
        };
        let rtt = tokio::time::timeout(patience, ping)
            .await
            .map_err(|_| {
                let waited = patience.as_millis();
                Status::deadline_exceeded(format!("ping of {peer} got no answer within {waited} ms"))
            })?
            .map_err(|error| network_status(&error))?;
        Ok(Response::new(wire::PingResponse {
            peer_id: peer.to_base58(),
            rtt_microseconds: micros(rtt),
        }))
    }

    async fn find_providers(
        &self,
        request: Request<wire::FindProvidersRequest>,
    ) -> Result<Response<Self::FindProvidersStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::FindProviders)?;
        let network = self.network()?;
        let patience = deadline::working_time(&request);
        let wire::FindProvidersRequest { cid, limit } = request.into_inner();
        let parsed = record_cid(&cid)?;
        let enough = match usize::try_from(limit).unwrap_or(MOST_PROVIDERS) {
            0 => PROVIDERS,
            limit => limit.min(MOST_PROVIDERS),
        };
        let key = parsed.multihash().to_vec();
        let found = match patience {
            Some(patience) => network.find_providers_within(key, enough, patience).await,
            None => network.find_providers(key, enough).await,
        };
        let mut found = found.map_err(|error| network_status(&error))?;
        found.truncate(enough);
        let providers = found.into_iter().map(|PeerAddrs { peer, addrs }| {
            Ok(wire::Provider {
                peer_id: peer.to_base58(),
                addresses: texts(&addrs),
            })
        });
        Ok(Response::new(Box::pin(futures_util::stream::iter(providers))))
    }

    async fn get_publication_progress(
        &self,
        request: Request<wire::GetPublicationProgressRequest>,
    ) -> Result<Response<wire::PublicationProgress>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let id = request.into_inner().publication_id;
        let standing = self.0.publications.standing(&id);
        let standing = standing.ok_or_else(|| Status::not_found("publication not found"))?;
        Ok(Response::new(news::progress(standing)))
    }

    async fn get_provide_status(
        &self,
        request: Request<wire::GetProvideStatusRequest>,
    ) -> Result<Response<Self::GetProvideStatusStream>, Status> {
        self.0.policy.permit(Caller::Anonymous, Action::Search)?;
        let cids = request.into_inner().cids;
        if cids.len() > MOST_ASKED {
            return Err(Status::invalid_argument(format!(
                "{} CIDs are asked for, limit is {MOST_ASKED}",
                cids.len()
            )));
        }
        let cids = cids
            .iter()
            .map(|text| record_cid(text))
            .collect::<Result<Vec<_>, _>>()?;
        let news = match &self.0.routing {
            None => vec![None; cids.len()],
            Some(routing) => routing
                .news(cids.clone())
                .await
                .map_err(|stopped| Status::unavailable(stopped.to_string()))?,
        };
        let mut answers = Vec::with_capacity(cids.len());
        for (cid, news) in cids.into_iter().zip(news) {
            let row = self.0.store.published_row(cid).await;
            let row = row.map_err(|error| store_status("failed to read the published set", &error))?;
            let stored = self.0.store.contains(cid);
            answers.push(Ok(news::provide_status(cid, stored, row.is_some(), news)));
        }
        Ok(Response::new(Box::pin(futures_util::stream::iter(answers))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_names_a_peer_or_an_address_of_one() {
        let id = PeerId::random();
        assert_eq!(target(&id.to_base58()).unwrap(), (id, None));
        let address = format!("/ip4/127.0.0.1/tcp/1/p2p/{id}");
        let (peer, dial) = target(&address).unwrap();
        assert_eq!((peer, dial.unwrap().to_string()), (id, address));
        for bad in ["", "x", "/ip4/127.0.0.1/tcp/1", "/nope", &"1".repeat(2000)] {
            assert_eq!(
                target(bad).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{bad}"
            );
        }
    }
}
