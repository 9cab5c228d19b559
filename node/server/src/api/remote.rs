//! `RoutingService.Search`: what other nodes are said to hold, from the remote label index (grpc-api §4.10).
//!
//! One answer a record, best provider first; the others of the same record, and where the peer can be dialled, are named
//! in the peer's annotations, which the network's clients pass over. Pages are read from the index as the caller takes them.
//! A page that the index did not look through to its end is the last one, and the stream ends with an error behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use dirnode_network::PeerId;
use dirnode_proto::core::v1::RecordRef;
use dirnode_proto::routing::v1 as wire;
use dirnode_proto::routing::v1::PeerConnectionType;
use dirnode_record::Namespace;
use dirnode_store::remote::{self, Hit, Provider, RemoteHits, RemoteQuery, RemoteQueryKind, RemoteSearch};
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
    pages: Pages,
}

/// The pages of a search, one after the other.
struct Pages {
    /// As it is asked next.
    search: RemoteSearch,
    /// Whether the caller has set a limit.
    limited: bool,
    /// Hits that the caller still wants.
    left: usize,
    page: VecDeque<Hit>,
    /// Whether nothing is behind this page.
    ended: bool,
    /// Whether hits are missing in this page and behind it.
    cut: bool,
}

/// What comes next of a search.
#[derive(Debug)]
enum Turn {
    /// A hit to be sent.
    Hit(Hit),
    /// A page to be had from the index.
    Ask(RemoteSearch),
    /// Nothing more.
    Ended,
    /// Nothing more, and hits are missing.
    Cut,
}

impl Pages {
    fn new(search: RemoteSearch, limit: Option<u32>) -> Self {
        Self {
            search,
            limited: limit.is_some_and(|limit| limit > 0),
            left: match limit.unwrap_or(0) {
                0 => usize::MAX,
                limit => usize::try_from(limit).unwrap_or(usize::MAX),
            },
            page: VecDeque::new(),
            ended: false,
            cut: false,
        }
    }

    fn turn(&mut self) -> Turn {
        if let Some(hit) = self.page.pop_front() {
            self.left = self.left.saturating_sub(1);
            self.search.after = Some(hit.place);
            return Turn::Hit(hit);
        }
        if self.cut {
            return Turn::Cut;
        }
        if self.ended || self.left == 0 {
            return Turn::Ended;
        }
        self.search.limit = self.left.min(PAGE);
        Turn::Ask(self.search.clone())
    }

    /// Takes the page that was asked for.
    fn take(&mut self, found: RemoteHits) {
        self.cut = found.cut;
        self.ended = found.hits.len() < self.search.limit;
        self.page = found.hits.into();
    }

    /// The end of a search that was cut, behind the hits that were found. With a limit that is reached there may be better
    /// ones.
    fn cut(&self) -> Status {
        let remedy = if self.limited {
            "narrow the queries"
        } else {
            "set a limit or narrow the queries"
        };
        Status::resource_exhausted(format!(
            "search passed its budget of {} index entries a page and hits may be missing: {remedy}",
            self.search.budget
        ))
    }
}

/// The answers to `request`, as the caller takes them.
///
/// # Errors
/// `INVALID_ARGUMENT` for more queries than a search may have. The stream ends with `RESOURCE_EXHAUSTED`, behind the hits
/// that were found, when the budget of the index was spent before all were.
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
        pages: Pages::new(search, limit),
    };
    Ok(try_unfold(searching, |mut searching| async move {
        let next = searching.next().await?;
        Ok(next.map(|answer| (answer, searching)))
    }))
}

impl Searching {
    async fn next(&mut self) -> Result<Option<wire::SearchResponse>, Status> {
        loop {
            let search = match self.pages.turn() {
                Turn::Hit(hit) => return Ok(Some(self.answer(&hit))),
                Turn::Ended => return Ok(None),
                Turn::Cut => return Err(self.pages.cut()),
                Turn::Ask(search) => search,
            };
            let index = self.routing.index().clone();
            let found = tokio::task::spawn_blocking(move || index.search(&search))
                .await
                .map_err(|_| Status::internal("internal server error"))?
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            let shown = found.hits.iter().filter_map(|hit| {
                let best = hit.providers.first()?;
                Some((hit.place.cid, best.peer.clone()))
            });
            self.routing.shown(shown.take(64).collect());
            self.pages.take(found);
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

#[cfg(test)]
mod tests {
    use dirnode_record::{Label, RecordCid};
    use dirnode_store::RemoteIndex;
    use dirnode_store::remote::{Change, Limits, PeerId, Row, Standing};

    use super::*;

    const RECORDS: u16 = 2_000;

    /// Records in the order of their numbers; every second one is on one side.
    fn index() -> RemoteIndex {
        let index = RemoteIndex::in_memory(Limits::default());
        let rows = (0..RECORDS).map(|number| {
            let mut digest = [0; 32];
            digest[..2].copy_from_slice(&number.to_be_bytes());
            Change::Put(Row {
                cid: RecordCid::from_digest(digest),
                peer: PeerId::from_bytes(&[1]).unwrap(),
                labels: vec![Label::new(
                    Namespace::Skills,
                    ["left", "right"][usize::from(number % 2)],
                )],
                timestamp_ns: 1,
                last_seen_ns: 1,
                expires_at_ns: i64::MAX,
                standing: Standing::Claimed,
            })
        });
        let applied = index.apply(&rows.collect::<Vec<_>>());
        assert_eq!(applied.lost(), 0);
        index
    }

    fn pages(limit: Option<u32>, score: u32, budget: u64) -> Pages {
        let queries = ["left", "right"].map(|value| RemoteQuery {
            kind: RemoteQueryKind::In(Namespace::Skills),
            value: value.to_owned(),
        });
        let mut search = RemoteSearch::new(queries.into());
        (search.min_score, search.budget) = (score, budget);
        Pages::new(search, limit)
    }

    /// Numbers of the hits, and how the stream ended.
    fn drain(mut pages: Pages) -> (Vec<u16>, Option<Status>) {
        let (index, mut hits) = (index(), Vec::new());
        loop {
            match pages.turn() {
                Turn::Hit(hit) => {
                    let [high, low, ..] = *hit.place.cid.digest();
                    hits.push(u16::from_be_bytes([high, low]));
                }
                Turn::Ask(search) => pages.take(index.search(&search).unwrap()),
                Turn::Ended => return (hits, None),
                Turn::Cut => return (hits, Some(pages.cut())),
            }
        }
    }

    #[test]
    fn a_search_without_a_limit_pages_through_to_the_end() {
        let (hits, end) = drain(pages(None, 1, remote::DEFAULT_BUDGET));
        assert_eq!(hits, (0..RECORDS).collect::<Vec<_>>());
        assert!(end.is_none(), "{end:?}");
    }

    #[test]
    fn a_limit_ends_a_search_within_a_page_or_behind_it() {
        for limit in [1, 256, 300, 512, 5_000] {
            let (hits, end) = drain(pages(Some(limit), 1, remote::DEFAULT_BUDGET));
            let expected = u16::try_from(limit).unwrap().min(RECORDS);
            assert_eq!(hits, (0..expected).collect::<Vec<_>>());
            assert!(end.is_none(), "{end:?}");
        }
    }

    /// A stream that was cut once ended as one that was not: the hits behind were missing and nobody was told.
    #[test]
    fn a_search_that_was_cut_ends_with_an_error_behind_its_hits() {
        let (hits, end) = drain(pages(None, 1, 400));
        assert!(
            !hits.is_empty() && hits.len() < usize::from(RECORDS),
            "{} hits",
            hits.len()
        );
        assert!(hits.is_sorted());
        let end = end.unwrap();
        assert_eq!(end.code(), tonic::Code::ResourceExhausted);
        assert!(end.message().contains("budget of 400 index entries"), "{end}");
        assert!(
            end.message().contains("set a limit or narrow the queries"),
            "{end}"
        );
        // Nothing is on both sides, which takes a look at all of them to know.
        let (hits, end) = drain(pages(Some(1), 2, 400));
        assert_eq!((hits.len(), end.is_some()), (0, true));
        let (hits, end) = drain(pages(Some(1), 2, remote::DEFAULT_BUDGET));
        assert_eq!((hits.len(), end.is_some()), (0, false));
        // Twenty are found soon, but not whether there are better ones.
        let (hits, end) = drain(pages(Some(20), 1, 400));
        assert_eq!(hits, (0..20).collect::<Vec<_>>());
        assert!(end.unwrap().message().ends_with("missing: narrow the queries"));
        // Of a single query there are none, and the same budget is enough.
        let mut single = pages(Some(20), 1, 400);
        single.search.queries.truncate(1);
        let (hits, end) = drain(single);
        assert_eq!((hits.len(), end.is_some()), (20, false));
    }
}
