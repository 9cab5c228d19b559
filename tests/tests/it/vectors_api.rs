//! Replay of `vectors/api`: single calls in file order, then the event scenarios, each file on a fresh node with
//! schema validation off.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dirnode_server::runtime;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::judge::{Captured, leftovers, same, short};
use dirnode_tests::node::Setup;
use dirnode_tests::scrape;
use dirnode_tests::vectors::{self, Tally};
use dirnode_tests::wait::{eventually, throughout, within};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value as Json, json};

use crate::replay::{millis, perform, replay, with_better_code};

/// Services that this release serves; a case of another one is counted as not served. Extend it with each new service.
const SERVED: &[&str] = &[
    "agntcy.dir.store.v1.StoreService",
    "agntcy.dir.events.v1.EventService",
    "agntcy.dir.naming.v1.NamingService",
    "agntcy.dir.search.v1.SearchService",
    "agntcy.dir.routing.v1.RoutingService",
    "agntcy.dir.routing.v1.PublicationService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];
/// Services that no node has: a call to them must say so.
const NOBODYS: &[&str] = &["no.such.Service", "agntcy.dir.core.v1.StoreService"];

const LISTEN: &str = "/agntcy.dir.events.v1.EventService/Listen";

/// The service that a case needs and this release lacks.
fn unserved(case: &Json) -> Option<String> {
    let Some(method) = case["method"].as_str() else {
        return Some("HTTP gateway".to_owned());
    };
    let service = method
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    let known = SERVED.contains(&service) || NOBODYS.contains(&service);
    (!known).then(|| service.rsplit('.').next().unwrap_or(service).to_owned())
}

#[tokio::test]
async fn every_call_of_the_vectors_is_answered_as_recorded() {
    let Some(cases) = vectors::cases("api/calls.jsonl") else {
        return;
    };
    let exceptions = vectors::exceptions();
    let node = Setup::unchecked().with_metrics().start().await;
    let (mut tally, mut captured) = (Tally::default(), Captured::new());
    let mut rejected = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().unwrap();
        if let Some(service) = unserved(case) {
            tally.not_served(&service);
            continue;
        }
        let exception = exceptions.get(id);
        let before = node.node.store().stats().records;
        let fault = match exception {
            None => replay(&node.client, case, &mut captured).await,
            Some(better) => {
                let fault = replay(&node.client, &with_better_code(case, &better.code), &mut captured).await;
                if node.node.store().stats().records != before {
                    rejected.push(id.to_owned());
                }
                fault
            }
        };
        tally.ran(id, exception.is_some(), fault);
    }
    assert!(rejected.is_empty(), "a refused record was kept: {rejected:?}");
    let page = scrape::get(
        &node.node.metrics_address().unwrap().to_string(),
        "/metrics",
        "text/plain",
    )
    .await;
    assert!(scrape::total(&page.body, "grpc_server_handled_total") > 100.0);
    tally.finish("api/calls");
    node.stop().await;
}

/// One listener of a scenario and what it heard.
struct Listener {
    name: String,
    heard: Arc<Mutex<Vec<Json>>>,
    task: tokio::task::JoinHandle<()>,
}

async fn listen(client: &Client, name: &str, request: &Json) -> Listener {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let request = client.encode(LISTEN, request);
    let mut answers = client
        .open(LISTEN, stream::iter([request]).boxed(), End::HalfClose)
        .await
        .unwrap();
    let (own, sink) = (client.clone(), Arc::clone(&heard));
    let task = runtime::spawn("listener", async move {
        while let Ok(Some(answer)) = answers.message().await {
            let mut event = own.decode(LISTEN, &answer)["event"].take();
            for key in ["id", "timestamp"] {
                assert!(event[key].is_string(), "an event without {key}: {event}");
                event[key] = "<volatile>".into();
            }
            sink.lock().unwrap().push(event);
        }
    });
    Listener {
        name: name.to_owned(),
        heard,
        task,
    }
}

/// What is wrong with what a listener heard so far.
fn objection(listener: &Listener, scenario: &Json) -> Option<String> {
    let want = scenario["expect"][&listener.name].as_array().unwrap();
    let heard = listener.heard.lock().unwrap().clone();
    let tell = |what: &str| {
        Some(format!(
            "listener {} {what}: heard {}, expected {}",
            listener.name,
            short(&heard),
            short(want)
        ))
    };
    match leftovers(want, &heard, same) {
        None => tell("lacks events"),
        Some(rest) => {
            let extra_ok = scenario["extra_ok"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            if rest.iter().all(|event| extra_ok.contains(&event["type"])) {
                None
            } else {
                tell("hears too much")
            }
        }
    }
}

/// Plays one scenario; where it is excepted, what the reference refuses with INTERNAL is refused with `better`.
async fn play(client: &Client, scenario: &Json, better: Option<&str>) -> Option<String> {
    for call in scenario["setup"].as_array().unwrap() {
        perform(client, call, &Captured::new()).await;
    }
    let mut listeners = Vec::new();
    for wanted in scenario["listeners"].as_array().unwrap() {
        listeners.push(listen(client, wanted["name"].as_str().unwrap(), &wanted["request"]).await);
    }
    let mut faults = Vec::new();
    for call in scenario["actions"].as_array().unwrap() {
        let fault = match better {
            Some(code) if call["expect"]["code"] == "INTERNAL" => {
                replay(client, &with_better_code(call, code), &mut Captured::new()).await
            }
            _ => replay(client, call, &mut Captured::new()).await,
        };
        faults.extend(fault.map(|fault| format!("{}: {fault}", call["method"])));
    }
    let patience = millis(scenario, "wait_ms").unwrap_or(DEADLINE);
    let complete = within(patience, || {
        let missing = listeners
            .iter()
            .find_map(|listener| objection(listener, scenario));
        async { missing.map_or(Ok(()), Err) }
    })
    .await;
    faults.extend(complete.err());
    if faults.is_empty() {
        let settle = millis(scenario, "settle_ms").unwrap_or(Duration::from_millis(800));
        let mut late = None;
        throughout(settle, || {
            late = listeners
                .iter()
                .find_map(|listener| objection(listener, scenario));
            None
        })
        .await;
        faults.extend(late);
    }
    for listener in listeners {
        listener.task.abort();
    }
    (!faults.is_empty()).then(|| faults.join("; "))
}

#[tokio::test]
async fn every_event_scenario_of_the_vectors_is_heard_as_recorded() {
    let Some(cases) = vectors::cases("api/events.jsonl") else {
        return;
    };
    let exceptions = vectors::exceptions();
    let node = Setup::unchecked().with_metrics().start().await;
    let metrics = node.node.metrics_address().unwrap().to_string();
    let mut tally = Tally::default();
    for case in &cases {
        let calls = case["setup"]
            .as_array()
            .into_iter()
            .chain(case["actions"].as_array())
            .flatten();
        if let Some(service) = calls.clone().find_map(unserved) {
            tally.not_served(&format!(
                "scenario {} ({}), {service}",
                case["id"].as_str().unwrap(),
                case["scenario"]
            ));
            continue;
        }
        let id = case["id"].as_str().unwrap();
        let better = exceptions.get(id).map(|better| better.code.as_str());
        let fault = play(&node.client, case, better).await;
        tally.ran(id, better.is_some(), fault);
        // A listener that went away is forgotten before the next scenario.
        eventually(Duration::from_secs(5), || async {
            let page = scrape::get(&metrics, "/metrics", "text/plain").await;
            match scrape::total(&page.body, "dirnode_event_subscribers") {
                0.0 => Ok(()),
                left => Err(format!("{left} subscribers are left")),
            }
        })
        .await;
    }
    tally.finish("api/events");
    node.stop().await;
}

#[tokio::test]
async fn a_service_that_is_not_served_yet_says_so_by_name() {
    let node = Setup::unchecked().start().await;
    let refused = node
        .client
        .ask("/agntcy.dir.store.v1.SyncService/ListSyncs", &[json!({})])
        .await
        .unwrap_err();
    assert_eq!(code_name(refused.0), "UNIMPLEMENTED");
    assert!(refused.1.contains("SyncService/ListSyncs"), "{}", refused.1);
    node.stop().await;
}
