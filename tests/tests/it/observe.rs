//! What a node says about itself: health, reflection, metrics.

use dirnode_tests::grpc::End;
use dirnode_tests::node::Setup;
use dirnode_tests::scrape;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;

use crate::common::{PULL, PUSH, cid_of, sample};

#[tokio::test]
async fn health_knows_the_node_and_nothing_else() {
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    let node = Setup::default().start().await;
    assert_eq!(
        node.client.ask(CHECK, &[json!({})]).await,
        Ok(vec![json!({"status": "SERVING"})])
    );
    assert_eq!(
        node.client
            .ask(CHECK, &[json!({"service": "nope"})])
            .await
            .unwrap_err()
            .0,
        tonic::Code::NotFound
    );
    let watched = node.client.encode("/grpc.health.v1.Health/Watch", &json!({}));
    let mut watch = node
        .client
        .open(
            "/grpc.health.v1.Health/Watch",
            stream::iter([watched]).boxed(),
            End::HalfClose,
        )
        .await
        .unwrap();
    let serving = watch.message().await.unwrap().unwrap();
    assert_eq!(
        node.client.decode("/grpc.health.v1.Health/Watch", &serving),
        json!({"status": "SERVING"})
    );
    let last = async {
        let answer = watch.message().await.unwrap().unwrap();
        let said = node.client.decode("/grpc.health.v1.Health/Watch", &answer);
        // A watcher goes when it has heard it; the node waits for its calls.
        drop(watch);
        said
    };
    let (said, stopped) = tokio::join!(last, node.node.stop());
    stopped.unwrap();
    assert_eq!(
        said,
        json!({"status": "NOT_SERVING"}),
        "a watcher hears it before the node goes"
    );
}

#[tokio::test]
async fn both_reflections_list_and_describe_every_service() {
    let node = Setup::default().start().await;
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answers = node
            .client
            .ask(&path, &[json!({"list_services": "*"})])
            .await
            .unwrap();
        let listed: Vec<&str> = answers[0]["list_services_response"]["service"]
            .as_array()
            .unwrap()
            .iter()
            .map(|service| service["name"].as_str().unwrap())
            .collect();
        for service in [
            "agntcy.dir.store.v1.StoreService",
            "agntcy.dir.store.v1.SyncService",
            "agntcy.dir.routing.v1.RoutingService",
            "agntcy.dir.routing.v1.PublicationService",
            "agntcy.dir.search.v1.SearchService",
            "agntcy.dir.events.v1.EventService",
            "agntcy.dir.naming.v1.NamingService",
            "agntcy.dir.sign.v1.SignService",
            "grpc.health.v1.Health",
        ] {
            assert!(
                listed.contains(&service),
                "{version} does not list {service}: {listed:?}"
            );
            let answers = node
                .client
                .ask(&path, &[json!({"file_containing_symbol": service})])
                .await
                .unwrap();
            assert!(
                answers[0]["file_descriptor_response"]["file_descriptor_proto"].is_array(),
                "{version} {service}"
            );
        }
        let odd = [
            json!({"file_containing_symbol": "no.such.Symbol"}),
            json!({"list_services": ""}),
        ];
        let answers = node.client.ask(&path, &odd).await.unwrap();
        assert_eq!(
            answers[0]["error_response"]["error_code"], 5,
            "{version}: an unknown name is no end of the stream"
        );
        assert!(answers[1]["list_services_response"].is_object());
    }
    node.stop().await;
}

#[tokio::test]
async fn metrics_are_as_scrapers_of_the_network_expect() {
    let node = Setup::default().with_metrics().start().await;
    let metrics = node.node.metrics_address().unwrap().to_string();
    let cid = cid_of(&node.client.ask(PUSH, &[sample("v1")]).await.unwrap()[0]);
    node.client
        .ask(PULL, &[json!({"cid": cid}), json!({"cid": cid})])
        .await
        .unwrap();
    node.client.ask(PULL, &[json!({})]).await.unwrap_err();
    let page = scrape::get(&metrics, "/metrics", "text/plain").await;
    assert_eq!(page.status, 200);
    assert!(
        page.content_type.starts_with("text/plain"),
        "{}",
        page.content_type
    );
    let samples = scrape::samples(&page.body);
    assert!(samples.len() > 50);
    assert!(samples.values().all(|value| *value >= 0.0));
    assert!(
        samples.keys().all(|series| series.contains('{')),
        "a series without labels"
    );
    for family in ["started", "handled", "msg_received", "msg_sent"] {
        let name = format!("grpc_server_{family}_total");
        assert!(
            page.body.contains(&format!("# TYPE {name} counter")),
            "{name} has no TYPE line"
        );
        assert!(
            page.body.contains(&format!("# HELP {name} ")),
            "{name} has no HELP line"
        );
        assert!(scrape::total(&page.body, &name) > 0.0, "{name} counts nothing");
    }
    for service in [
        "StoreService",
        "RoutingService",
        "EventService",
        "SearchService",
        "SyncService",
        "PublicationService",
        "SignService",
        "Health",
    ] {
        assert!(
            page.body.contains(&format!("{service}\"")),
            "{service} is not counted"
        );
    }
    for label in [
        "unary",
        "bidi_stream",
        "server_stream",
        "client_stream",
        "OK",
        "InvalidArgument",
        "NotFound",
    ] {
        assert!(
            page.body.contains(&format!("\"{label}\"")),
            "{label} does not appear"
        );
    }
    let value = |metric: &str, labels: &[&str]| {
        let found = samples.iter().filter(|(series, _)| {
            series.starts_with(metric) && labels.iter().all(|label| series.contains(label))
        });
        found.map(|(_, value)| value).sum::<f64>()
    };
    let pull = ["StoreService\"", "grpc_method=\"Pull\""];
    assert_eq!(value("grpc_server_started_total", &pull), 2.0);
    assert_eq!(value("grpc_server_msg_received_total", &pull), 3.0);
    assert_eq!(value("grpc_server_msg_sent_total", &pull), 2.0);
    assert_eq!(
        value(
            "grpc_server_handled_total",
            &[pull[0], pull[1], "\"InvalidArgument\""]
        ),
        1.0
    );
    assert_eq!(value("dirnode_store_records", &[]), 1.0);
    let open = scrape::get(&metrics, "/metrics", "application/openmetrics-text").await;
    assert!(open.content_type.starts_with("application/openmetrics-text") && open.body.ends_with("# EOF\n"));
    assert_eq!(scrape::get(&metrics, "/", "text/plain").await.status, 404);
    node.stop().await;
}
