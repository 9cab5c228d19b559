//! `RoutingService.Search`: what other nodes are said to hold, from the remote label index (grpc-api §4.10).
//!
//! One answer a record, best provider first; the others of the same record, and where the peer can be dialled, are named
//! in the peer's annotations, which the network's clients pass over. Pages are read from the index as the caller takes them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dirnode_network::PeerId;
use dirnode_proto::core::v1::RecordRef;
use dirnode_proto::routing::v1 as wire;
use dirnode_proto::routing::v1::PeerConnectionType;
use dirnode_record::Namespace;
use dirnode_store::remote::{self, Hit, Place, Provider, RemoteQuery, RemoteQueryKind, RemoteSearch};
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tonic::Status;

use crate::routing::Routing;

/// Records taken from the index at once.
const PAGE: usize = 256;
/// Providers named for one record.
const MAX_PROVIDERS: usize = 32;
/// Annotation that counts the providers of a record, and the one that names the others.
const COUNT: &str = "dirnode.providers";
const OTHERS: &str = "dirnode.other_providers";
/// Annotation that names the addresses at which the peer can be dialled, as it told them.
const ADDRESSES: &str = "dirnode.addresses";

fn remote_query(query: &wire::RecordQuery) -> RemoteQuery {
    use wire::RecordQueryType as Type;
    let kind = match Type::try_from(query.r#type) {
        Ok(Type::Unspecified) => RemoteQueryKind::Any,
        Ok(Type::Skill) => RemoteQueryKind::In(Namespace::Skills),
        Ok(Type::Domain) => RemoteQueryKind::In(Namespace::Domains),
        Ok(Type::Module) => RemoteQueryKind::In(Namespace::Modules),
        Ok(Type::Locator) => RemoteQueryKind::In(Namespace::Locators),
        Err(_) => RemoteQueryKind::Never,
    };
    RemoteQuery {
        kind,
        value: query.value.clone(),
    }
}

/// A search that is being answered.
struct Searching {
    routing: Routing,
    queries: Arc<Vec<wire::RecordQuery>>,
    search: RemoteSearch,
    left: usize,
    page: VecDeque<Hit>,
    last: Option<Place>,
    ended: bool,
}

/// The answers to `request`, as the caller takes them.
///
/// # Errors
/// `INVALID_ARGUMENT` for more queries than a search may have.
pub(super) fn search(
    routing: Routing,
    me: &PeerId,
    request: wire::SearchRequest,
) -> Result<impl Stream<Item = Result<wire::SearchResponse, Status>> + Send + use<>, Status> {
    let wire::SearchRequest {
        queries,
        min_match_score,
        limit,
    } = request;
    if queries.len() > remote::MAX_QUERIES {
        return Err(Status::invalid_argument(format!(
            "search has {} queries, limit is {}",
            queries.len(),
            remote::MAX_QUERIES
        )));
    }
    let mut search = RemoteSearch::new(queries.iter().map(remote_query).collect());
    search.min_score = min_match_score.unwrap_or(0);
    search.max_providers = MAX_PROVIDERS;
    search.exclude = remote::PeerId::from_bytes(&me.to_bytes());
    let searching = Searching {
        routing,
        queries: Arc::new(queries),
        search,
        left: match limit.unwrap_or(0) {
            0 => usize::MAX,
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        },
        page: VecDeque::new(),
        last: None,
        ended: false,
    };
    Ok(try_unfold(searching, |mut searching| async move {
        let next = searching.next().await?;
        Ok(next.map(|answer| (answer, searching)))
    }))
}

impl Searching {
    async fn next(&mut self) -> Result<Option<wire::SearchResponse>, Status> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            if let Some(hit) = self.page.pop_front() {
                self.left -= 1;
                self.last = Some(hit.place);
                return Ok(Some(self.answer(&hit)));
            }
            if self.ended {
                return Ok(None);
            }
            let count = self.left.min(PAGE);
            let (index, mut search) = (self.routing.index().clone(), self.search.clone());
            (search.limit, search.after) = (count, self.last);
            let found = tokio::task::spawn_blocking(move || index.search(&search))
                .await
                .map_err(|_| Status::internal("internal server error"))?
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            if found.cut {
                tracing::warn!(component = "routing", "a search was cut by its budget");
            }
            self.ended = found.hits.len() < count;
            let shown = found.hits.iter().filter_map(|hit| {
                let best = hit.providers.first()?;
                Some((hit.place.cid, best.peer.clone()))
            });
            self.routing.shown(shown.take(64).collect());
            self.page = found.hits.into();
        }
    }

    fn answer(&self, hit: &Hit) -> wire::SearchResponse {
        let best = hit.providers.first();
        let matched = best.map(|best| best.matched.as_slice()).unwrap_or_default();
        wire::SearchResponse {
            record_ref: Some(RecordRef {
                cid: hit.place.cid.to_string(),
            }),
            peer: best.map(|best| self.peer(best, hit)),
            match_queries: matched
                .iter()
                .filter_map(|place| self.queries.get(usize::from(*place)).cloned())
                .collect(),
            match_score: hit.place.score,
        }
    }

    fn peer(&self, best: &Provider, hit: &Hit) -> wire::Peer {
        let id = text(best);
        let known = best
            .peer
            .to_peer_id()
            .and_then(|peer| self.routing.known(&peer))
            .unwrap_or_default();
        let addrs = [
            known.directory_api.map(|value| format!("/dir/{value}")),
            known.oci.map(|value| format!("/oci/{value}")),
        ];
        let mut annotations = HashMap::new();
        if !known.addrs.is_empty() {
            let dial: Vec<String> = known.addrs.iter().map(ToString::to_string).collect();
            annotations.insert(ADDRESSES.to_owned(), dial.join(","));
        }
        if hit.matching > 1 {
            let others: Vec<String> = hit.providers.iter().skip(1).map(text).collect();
            annotations.insert(COUNT.to_owned(), hit.matching.to_string());
            annotations.insert(OTHERS.to_owned(), others.join(","));
        }
        wire::Peer {
            id,
            addrs: addrs.into_iter().flatten().collect(),
            annotations,
            connection: PeerConnectionType::NotConnected.into(),
        }
    }
}

/// A publisher's peer id as text; empty for bytes that are none, which no verified signature has.
fn text(provider: &Provider) -> String {
    provider
        .peer
        .to_peer_id()
        .map(|peer| peer.to_string())
        .unwrap_or_default()
}
