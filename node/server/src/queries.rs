//! Search conditions of the API as the index takes them, and searches, each in its turn and within a budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dirnode_proto::search::v1::{RecordQuery, RecordQueryType, SortMode};
use dirnode_proto::security::v1::{ScannerType, Severity as ReportSeverity};
use dirnode_proto::{Struct, Value};
use dirnode_record::{RecordCid, Referrer};
use dirnode_store::{
    Budget, Hits, NamePattern, Named, Plan, Query, QueryError, QueryErrorKind, QueryKind, ReferrerFact, Scan,
    Severity, Sort, Store, VersionRule,
};

use crate::runtime;
use crate::turns::TURNS;

/// Longest that one search may take, waiting for a thread included.
pub const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Why a search was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The conditions, or what they cost.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The thread ended early.
    #[error("search did not end")]
    Ended,
}

impl SearchError {
    /// Whether the index is still being made, so that the same search will be answered later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Query(error) if error.kind() == QueryErrorKind::Unavailable)
    }
}

/// Reads conditions.
///
/// # Errors
/// The first one at fault.
pub fn plan(asked: &[RecordQuery]) -> Result<Plan, QueryError> {
    let queries: Vec<Query> = asked
        .iter()
        .map(|query| Query {
            kind: kind_of(query.r#type),
            value: query.value.clone(),
            negate: query.negate,
        })
        .collect();
    Plan::parse(&queries)
}

fn kind_of(number: i32) -> QueryKind {
    match RecordQueryType::try_from(number) {
        Ok(RecordQueryType::Name) => QueryKind::Name,
        Ok(RecordQueryType::Version) => QueryKind::Version,
        Ok(RecordQueryType::SkillId) => QueryKind::SkillId,
        Ok(RecordQueryType::SkillName) => QueryKind::SkillName,
        Ok(RecordQueryType::Locator) => QueryKind::Locator,
        Ok(RecordQueryType::ModuleName) => QueryKind::ModuleName,
        Ok(RecordQueryType::ModuleId) => QueryKind::ModuleId,
        Ok(RecordQueryType::DomainId) => QueryKind::DomainId,
        Ok(RecordQueryType::DomainName) => QueryKind::DomainName,
        Ok(RecordQueryType::CreatedAt) => QueryKind::CreatedAt,
        Ok(RecordQueryType::Author) => QueryKind::Author,
        Ok(RecordQueryType::SchemaVersion) => QueryKind::SchemaVersion,
        Ok(RecordQueryType::Annotation) => QueryKind::Annotation,
        Ok(RecordQueryType::Description) => QueryKind::Description,
        Ok(RecordQueryType::Verified) => QueryKind::Verified,
        Ok(RecordQueryType::Trusted) => QueryKind::Trusted,
        Ok(RecordQueryType::ScanSeverity) => QueryKind::ScanSeverity,
        Ok(RecordQueryType::ScanSafe) => QueryKind::ScanSafe,
        Ok(RecordQueryType::Unspecified) | Err(_) => QueryKind::Ignored,
    }
}

/// Order by the API's number; what is not known is recency.
#[must_use]
pub fn sort_of(mode: i32) -> Sort {
    match SortMode::try_from(mode) {
        Ok(SortMode::Popularity) => Sort::Popularity,
        Ok(SortMode::ProviderCount) => Sort::ProviderCount,
        _ => Sort::Recency,
    }
}

/// Ends a search when its caller goes away.
struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Steps that a search may take where it stands: a tenth of a millisecond, less than a change of threads costs when the
/// machine is busy. Most searches end within.
const STEPS_AT_ONCE: u64 = 30_000;
/// Does index work when its turn comes: at once when it is little, otherwise on a thread that may block, with a budget that
/// ends when time is over or the caller leaves.
async fn in_turn<T: Send + 'static>(
    store: &Store,
    work: impl Fn(&Store, &Budget) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, SearchError> {
    let until: Instant = runtime::moment() + TIME_LIMIT;
    let turn = tokio::time::timeout(TIME_LIMIT, TURNS.take(runtime::moment));
    let Ok(Ok(_turn)) = turn.await else {
        return Err(QueryError::TooExpensive { what: "time" }.into());
    };
    let little = Budget {
        max_steps: STEPS_AT_ONCE,
        max_rows: 0,
        expired: Arc::new(|| false),
    };
    match work(store, &little) {
        Err(QueryError::TooExpensive { .. }) => {}
        done => return Ok(done?),
    }
    let gone = Arc::new(AtomicBool::new(false));
    let _asked = Asked(Arc::clone(&gone));
    let expired = Arc::new(move || gone.load(Ordering::Relaxed) || runtime::moment() > until);
    let budget = Budget {
        expired,
        ..Budget::default()
    };
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store, &budget)).await;
    Ok(done.map_err(|_| SearchError::Ended)??)
}

/// Finds records.
///
/// # Errors
/// [`SearchError`].
pub async fn search(
    store: &Store,
    asked: &[RecordQuery],
    sort: Sort,
    limit: u32,
    offset: u32,
) -> Result<Hits, SearchError> {
    let plan = plan(asked)?;
    in_turn(store, move |store, budget| {
        store.search(&plan, sort, limit, offset, budget)
    })
    .await
}

/// Counts records.
///
/// # Errors
/// [`SearchError`].
pub async fn count(store: &Store, asked: &[RecordQuery]) -> Result<u64, SearchError> {
    let plan = plan(asked)?;
    in_turn(store, move |store, budget| store.count(&plan, budget)).await
}

/// Records by name, latest first.
///
/// # Errors
/// [`SearchError`].
pub async fn resolve(
    store: &Store,
    names: Vec<NamePattern>,
    version: Option<VersionRule>,
) -> Result<Vec<Named>, SearchError> {
    in_turn(store, move |store, budget| {
        store.try_resolve(&names, version.as_ref(), budget)
    })
    .await
}

/// Every record that matches, latest first.
///
/// # Errors
/// [`SearchError`].
pub async fn select(store: &Store, asked: &[RecordQuery]) -> Result<Vec<RecordCid>, SearchError> {
    Ok(search(store, asked, Sort::Recency, 0, 0).await?.into_cids()?)
}

/// What a scan report among the referrers tells the index; `None` for one that does not read, as the network has it: an
/// unknown field refuses the whole report (grpc-api §4.5, §4.8).
#[must_use]
pub fn scan_of(referrer: &[u8]) -> Option<ReferrerFact> {
    let data = Referrer::parse(referrer).ok()?.data?;
    let number = |key: [&str; 2], by_name: &dyn Fn(&str) -> Option<i32>| match field(&data, key) {
        None | Some(Value::Null) => Some(0),
        Some(Value::String(name)) => by_name(name),
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked to be a small whole number"
        )]
        Some(Value::Number(number)) if number.fract() == 0.0 && number.abs() < 1e6 => Some(*number as i32),
        Some(_) => None,
    };
    if data
        .fields
        .keys()
        .any(|key| !KNOWN_FIELDS.contains(&key.as_str()))
    {
        return None;
    }
    let scanner = number(["scannerType", "scanner_type"], &|name| {
        ScannerType::from_str_name(name).map(Into::into)
    })?;
    let severity = number(["maxSeverity", "max_severity"], &|name| {
        ReportSeverity::from_str_name(name).map(Into::into)
    })?;
    let safe = match field(&data, ["isSafe", "is_safe"]) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(safe)) => *safe,
        Some(_) => return None,
    };
    let short = |name: &str, prefix: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
    let scanner = ScannerType::try_from(scanner).map_or_else(
        |_| scanner.to_string(),
        |kind| short(kind.as_str_name(), "SCANNER_TYPE_"),
    );
    let severity = ReportSeverity::try_from(severity)
        .ok()
        .and_then(|severity| Severity::from_name(&short(severity.as_str_name(), "SEVERITY_")));
    Some(ReferrerFact::Scan(Scan {
        scanner,
        severity,
        safe,
    }))
}

/// Fields of a scan report in both spellings of protobuf JSON.
const KNOWN_FIELDS: [&str; 13] = [
    "scannerType",
    "scanner_type",
    "scannerVersion",
    "scanner_version",
    "scannedAt",
    "scanned_at",
    "isSafe",
    "is_safe",
    "maxSeverity",
    "max_severity",
    "findings",
    "analyzers",
    "annotations",
];

fn field<'a>(data: &'a Struct, [camel, snake]: [&str; 2]) -> Option<&'a Value> {
    data.fields.get(camel).or_else(|| data.fields.get(snake))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(data: &str) -> Option<Scan> {
        let cid = "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri";
        let text = format!(
            r#"{{"data":{data},"record_ref":{{"cid":"{cid}"}},"type":"agntcy.dir.security.v1.ScanReport"}}"#
        );
        match scan_of(text.as_bytes()) {
            Some(ReferrerFact::Scan(scan)) => Some(scan),
            _ => None,
        }
    }

    #[test]
    fn scan_reports_are_read_in_both_spellings_and_refused_with_unknown_fields() {
        let expected = Scan {
            scanner: "MCP".into(),
            severity: Some(Severity::High),
            safe: false,
        };
        assert_eq!(
            scan(r#"{"maxSeverity":"SEVERITY_HIGH","scannerType":"SCANNER_TYPE_MCP"}"#),
            Some(expected.clone())
        );
        assert_eq!(
            scan(r#"{"is_safe":false,"max_severity":5,"scanner_type":1}"#),
            Some(expected)
        );
        let bare = Scan {
            scanner: "UNSPECIFIED".into(),
            severity: None,
            safe: true,
        };
        assert_eq!(scan(r#"{"isSafe":true}"#), Some(bare));
        for bad in [
            r#"{"bogus":1}"#,
            r#"{"isSafe":"yes"}"#,
            r#"{"maxSeverity":"BAD"}"#,
        ] {
            assert_eq!(scan(bad), None, "{bad}");
        }
    }
}
