//! What is asked of the remote label index, and what it answers (grpc-api §4.10, p2p-wire §6.8).

use dirnode_record::Namespace;

use super::types::{PeerId, Standing};
use crate::RecordCid;

/// Distinct queries of one search; more are refused.
pub const MAX_QUERIES: usize = 1_000;
/// Work of one search by default, in posting entries looked at: about 100 ms at the worst.
pub const DEFAULT_BUDGET: u64 = 2_000_000;

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemoteQueryKind {
    /// A label of this namespace: for locators one that equals the value, else one that equals it or is below it.
    In(Namespace),
    /// Every row that has a label: the unspecified type.
    Any,
    /// No row: a type that is not known.
    Never,
}

/// One query. Case-sensitive; the value is not cleaned, the labels are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteQuery {
    /// What it asks for.
    pub kind: RemoteQueryKind,
    /// The value, without namespace. Of no meaning but for telling queries apart where the kind takes none.
    pub value: String,
}

/// A search.
#[derive(Debug, Clone)]
pub struct RemoteSearch {
    /// Queries; one that repeats another counts once. None: no results.
    pub queries: Vec<RemoteQuery>,
    /// Queries that the labels of one (record, publisher) have to match; 0 means 1.
    pub min_score: u32,
    /// Most records; 0 means all.
    pub limit: usize,
    /// Most providers that are listed of each record; 0 means all.
    pub max_providers: usize,
    /// The publisher whose rows do not count: ourselves.
    pub exclude: Option<PeerId>,
    /// Only what ranks behind this: [`Hit::place`] of the last hit of the page before.
    pub after: Option<Place>,
    /// Most posting entries to look at; then the search ends with what it has.
    pub budget: u64,
}

impl RemoteSearch {
    /// A search for records that match any of `queries`.
    #[must_use]
    pub fn new(queries: Vec<RemoteQuery>) -> Self {
        Self {
            queries,
            min_score: 1,
            limit: 0,
            max_providers: 0,
            exclude: None,
            after: None,
            budget: DEFAULT_BUDGET,
        }
    }
}

/// Where a hit stands in the order of an answer: by the standing of its best provider, verified first; then by that
/// provider's score, high first; then by the bytes of the CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Standing of the best provider.
    pub standing: Standing,
    /// Score of the best provider.
    pub score: u32,
    /// The record.
    pub cid: RecordCid,
}

/// A record that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which, and how it ranks.
    pub place: Place,
    /// Publishers whose labels reach the score, best first: by standing, score, when last seen, and the bytes of the peer
    /// id. Never empty.
    pub providers: Vec<Provider>,
    /// How many such publishers there are; more than are listed if the search bounds them.
    pub matching: usize,
}

/// A publisher of a record that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// The publisher.
    pub peer: PeerId,
    /// What its row is worth.
    pub standing: Standing,
    /// Queries matched; their places in the request in order, each by the first that asks for it.
    pub matched: Vec<u16>,
    /// When it was last heard of, unix nanoseconds.
    pub last_seen_ns: i64,
}

impl Provider {
    /// Number of queries matched.
    #[must_use]
    pub fn score(&self) -> u32 {
        u32::try_from(self.matched.len()).unwrap_or(u32::MAX)
    }
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteHits {
    /// Hits in the order of [`Place`].
    pub hits: Vec<Hit>,
    /// Whether the budget ended the search: what is here is right, but hits may be missing among and behind them.
    pub cut: bool,
}

/// A search that is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteSearchError {
    /// Too many queries.
    #[error("search has {count} queries, limit is {MAX_QUERIES}")]
    TooManyQueries {
        /// How many.
        count: usize,
    },
}
