//! What the reference answered to searches and lists, replayed against the index itself: queries, orders, paging, counts and
//! errors, without the RPC layer above. Cases that are answered differently on purpose stand in
//! `tests/vectors/exceptions.txt`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use dirnode_record::labels::list_labels;
use dirnode_record::{Label, Namespace};
use dirnode_store::index::{RecordIndex, Source, count, search};
use dirnode_store::{
    Budget, LabelQuery, Plan, Query, QueryKind, RecordCid, Scan, Severity, Sort, StoreConfig, StoreError,
    Summary,
};
use serde_json::Value;

fn lines(path: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors")
        .join(path);
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Ids of cases answered otherwise on purpose, with the code that is right for them.
fn exceptions() -> BTreeMap<String, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/exceptions.txt");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.nth(1).unwrap_or_default())
        })
        .collect()
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn cid(text: &str) -> RecordCid {
    RecordCid::parse(text).unwrap()
}

fn summary(data: &Value) -> Summary {
    (StoreConfig::new("unused").summarise)(data.to_string().as_bytes()).unwrap()
}

struct Held {
    index: RecordIndex,
    summaries: HashMap<RecordCid, Summary>,
}

impl Source for Held {
    fn with_index<T>(&self, with: impl FnOnce(&RecordIndex) -> T) -> T {
        with(&self.index)
    }

    fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError> {
        Ok(self.summaries.get(cid).map(|summary| summary.description.clone()))
    }
}

fn severity(name: &str) -> Option<Severity> {
    Severity::from_name(name.strip_prefix("SEVERITY_")?)
}

/// The state the queries were asked in.
fn held() -> Held {
    let mut held = Held {
        index: RecordIndex::default(),
        summaries: HashMap::new(),
    };
    for (at, record) in (1..).zip(lines("search/records.jsonl")) {
        let cid = cid(&text(&record, "cid"));
        if !held.summaries.contains_key(&cid) {
            let summary = summary(&record["data"]);
            held.index.insert(cid, at, 1, &summary);
            held.summaries.insert(cid, summary);
        }
    }
    let mut usage: BTreeMap<RecordCid, u64> = BTreeMap::new();
    for step in lines("search/setup.jsonl") {
        let method = text(&step, "method");
        let found = |key: &str| {
            let responses = step["expect"]["responses"].as_array().unwrap();
            responses
                .iter()
                .map(|response| cid(&text(response, key)))
                .collect::<Vec<_>>()
        };
        let asked = step["send"][0]["json"]["queries"][0]["type"].as_str();
        match (method.rsplit('/').next().unwrap_or_default(), asked) {
            ("Pull" | "Lookup", _) => {
                for sent in step["send"].as_array().unwrap() {
                    *usage.entry(cid(&text(&sent["json"], "cid"))).or_default() += 1;
                }
            }
            ("PushReferrer", _) => {
                let sent = &step["send"][0]["json"];
                if text(sent, "type") == "agntcy.dir.security.v1.ScanReport" {
                    let scan = Scan {
                        scanner: text(&sent["data"], "scannerType"),
                        severity: severity(&text(&sent["data"], "maxSeverity")),
                        safe: sent["data"]["isSafe"] == true,
                    };
                    held.index.set_scan(&cid(&text(&sent["record_ref"], "cid")), scan);
                }
            }
            ("SearchCIDs", Some("RECORD_QUERY_TYPE_TRUSTED")) => {
                for cid in found("record_cid") {
                    held.index.set_trusted(&cid, true);
                }
            }
            ("SearchCIDs", Some("RECORD_QUERY_TYPE_VERIFIED")) => {
                for cid in found("record_cid") {
                    held.index.set_verified(&cid, true);
                }
            }
            ("SearchCIDs", None) => {
                for cid in found("record_cid") {
                    held.index.set_provider_count(&cid, 1);
                }
            }
            _ => {}
        }
    }
    for (cid, count) in usage {
        held.index.set_usage(&cid, count);
    }
    held
}

fn kind(name: &str) -> QueryKind {
    match name.strip_prefix("RECORD_QUERY_TYPE_").unwrap_or_default() {
        "NAME" => QueryKind::Name,
        "VERSION" => QueryKind::Version,
        "SKILL_ID" => QueryKind::SkillId,
        "SKILL_NAME" => QueryKind::SkillName,
        "LOCATOR" => QueryKind::Locator,
        "MODULE_NAME" => QueryKind::ModuleName,
        "MODULE_ID" => QueryKind::ModuleId,
        "DOMAIN_ID" => QueryKind::DomainId,
        "DOMAIN_NAME" => QueryKind::DomainName,
        "CREATED_AT" => QueryKind::CreatedAt,
        "AUTHOR" => QueryKind::Author,
        "SCHEMA_VERSION" => QueryKind::SchemaVersion,
        "ANNOTATION" => QueryKind::Annotation,
        "DESCRIPTION" => QueryKind::Description,
        "VERIFIED" => QueryKind::Verified,
        "TRUSTED" => QueryKind::Trusted,
        "SCAN_SEVERITY" => QueryKind::ScanSeverity,
        "SCAN_SAFE" => QueryKind::ScanSafe,
        _ => QueryKind::Ignored,
    }
}

/// What the index answers: an error text, a number, or CIDs.
#[derive(Debug, PartialEq)]
enum Answer {
    Fault(String),
    Count(u64),
    Cids(Vec<String>),
}

fn ask(held: &Held, case: &Value) -> Answer {
    let request = &case["request"];
    let queries: Vec<Query> = request["queries"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|query| Query {
            kind: kind(query["type"].as_str().unwrap_or_default()),
            value: text(query, "value"),
            negate: query["negate"] == true,
        })
        .collect();
    let plan = match Plan::parse(&queries) {
        Ok(plan) => plan,
        Err(error) => return Answer::Fault(format!("failed to create filter options: {error}")),
    };
    if case["method"] == "CountRecords" {
        return Answer::Count(count(held, &plan, &Budget::default()).unwrap());
    }
    let sort = match request["sort_mode"].as_str() {
        Some("SORT_MODE_POPULARITY") => Sort::Popularity,
        Some("SORT_MODE_PROVIDER_COUNT") => Sort::ProviderCount,
        _ => Sort::Recency,
    };
    let number = |key| u32::try_from(request[key].as_u64().unwrap_or(0)).unwrap();
    let mut found = search(
        held,
        &plan,
        sort,
        number("limit"),
        number("offset"),
        &Budget::default(),
    )
    .unwrap();
    let mut cids = Vec::new();
    while let Some(page) = found.next_page(held, 7).unwrap() {
        cids.extend(page.iter().map(ToString::to_string));
    }
    Answer::Cids(cids)
}

#[test]
fn searches_are_answered_as_the_reference_does() {
    let held = held();
    let excepted = exceptions();
    let (mut right, mut skipped, mut wrong) = (0, 0, Vec::new());
    for case in lines("search/queries.jsonl") {
        let id = text(&case, "id");
        let answer = ask(&held, &case);
        let expect = &case["expect"];
        let fits = match &answer {
            Answer::Fault(message) => {
                expect["code"] != "OK" && message.starts_with(expect["message"].as_str().unwrap())
            }
            Answer::Count(number) => {
                expect["code"] == "OK" && *number == expect["count"].as_u64().unwrap_or(0)
            }
            Answer::Cids(cids) => {
                let results = expect["results"].as_array().cloned().unwrap_or_default();
                expect["code"] == "OK" && results.iter().filter_map(Value::as_str).eq(cids)
            }
        };
        match (fits, excepted.get(&id).map(String::as_str)) {
            (true, None) => right += 1,
            // The code differs, which is for the layer above; the text does not.
            (true, Some("INVALID_ARGUMENT")) if matches!(answer, Answer::Fault(_)) => skipped += 1,
            (false, Some("OK")) if !matches!(answer, Answer::Fault(_)) => skipped += 1,
            (_, Some(code)) => wrong.push(format!("{id}: is no exception of code {code:?}: {answer:?}")),
            (false, None) => wrong.push(format!(
                "{id}: {}\n  wanted {expect}\n  got {answer:?}",
                case["request"]
            )),
        }
    }
    println!("search: {right} right, {skipped} excepted, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn label_query(query: &Value) -> LabelQuery {
    let value = text(query, "value");
    match &query["type"] {
        Value::Null => LabelQuery::Any,
        Value::String(name) => match name.strip_prefix("RECORD_QUERY_TYPE_").unwrap() {
            "SKILL" => LabelQuery::In(Namespace::Skills, value),
            "DOMAIN" => LabelQuery::In(Namespace::Domains, value),
            "MODULE" => LabelQuery::In(Namespace::Modules, value),
            "LOCATOR" => LabelQuery::In(Namespace::Locators, value),
            "UNSPECIFIED" => LabelQuery::Any,
            other => unreachable!("{other}"),
        },
        _ => LabelQuery::Never,
    }
}

/// List by the plain rule over what is published at that point, and by the index of a store, which must agree with
/// each other and with the reference.
#[tokio::test(flavor = "multi_thread")]
async fn lists_are_answered_as_the_reference_does() {
    use dirnode_store::{NewRecord, Store};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    let dir = tempfile::tempdir().unwrap();
    let ticks = AtomicI64::new(1);
    let clock = Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed));
    let (store, _) = Store::open(StoreConfig::new(dir.path()), clock).unwrap();
    // The CIDs of the vectors are those of canonical bytes; here any bytes stand for them.
    let mut stored: HashMap<String, RecordCid> = HashMap::new();
    let mut texts: HashMap<RecordCid, String> = HashMap::new();
    let mut summaries: HashMap<String, Summary> = HashMap::new();
    for record in lines("routing/records.jsonl") {
        let summary = summary(&record["data"]);
        let body = bytes::Bytes::from(text(&record, "cid"));
        let cid = RecordCid::of(&body);
        stored.insert(text(&record, "cid"), cid);
        texts.insert(cid, text(&record, "cid"));
        summaries.insert(text(&record, "cid"), summary.clone());
        store.put_record(NewRecord { cid, body, summary }).await.unwrap();
    }
    let mut checked = 0;
    for case in lines("routing/calls.jsonl") {
        let method = text(&case, "method");
        let sent = &case["send"][0]["json"];
        let refs = sent["record_refs"]["refs"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let known: Vec<RecordCid> = refs
            .iter()
            .filter_map(|one| stored.get(one["cid"].as_str()?).copied())
            .collect();
        match method.rsplit('/').next().unwrap_or_default() {
            "Publish" if !refs.is_empty() => {
                for cid in known {
                    store.mark_published(cid).await.unwrap();
                }
            }
            // What else happens in this file needs the services above; the replay over gRPC has it.
            "Publish" | "Push" => break,
            "Unpublish" => {
                for cid in known {
                    store.unmark_published(cid).await.unwrap();
                }
            }
            "List" => {
                let queries: Vec<LabelQuery> = sent["queries"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(label_query)
                    .collect();
                let limit = match sent["limit"].as_u64().unwrap_or(0) {
                    0 => usize::MAX,
                    limit => usize::try_from(limit).unwrap(),
                };
                let listed = store.list_published(&queries, limit, None).unwrap();
                let got: BTreeMap<String, Vec<Label>> = listed
                    .into_iter()
                    .map(|listed| (texts[&listed.cid].clone(), listed.labels))
                    .collect();
                let wanted = case["expect"]["responses"].as_array().unwrap();
                if case["responses_match"] == "count" {
                    assert_eq!(got.len(), wanted.len(), "{case}");
                } else {
                    let wanted: BTreeMap<String, Vec<Label>> = wanted
                        .iter()
                        .map(|response| {
                            let labels = response["labels"].as_array().cloned().unwrap_or_default();
                            let labels = labels.iter().filter_map(|label| Label::parse(label.as_str()?));
                            (text(&response["record_ref"], "cid"), labels.collect())
                        })
                        .collect();
                    assert_eq!(got, wanted, "{case}");
                }
                for (cid, labels) in &got {
                    assert_eq!(*labels, list_labels(&summaries[cid].labels()), "{case}");
                }
                checked += 1;
            }
            _ => {}
        }
    }
    println!("routing: {checked} lists right");
    assert!(checked >= 60, "{checked}");
    store.close().await.unwrap();
}
