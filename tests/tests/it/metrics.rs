//! The page that names the metrics of publishing and finding, against a running node: nothing missing, nothing made up.

use std::collections::BTreeSet;

use dirnode_tests::node::Setup;
use dirnode_tests::repository;
use dirnode_tests::scrape;

const FAMILIES: [&str; 2] = ["dirnode_publications_", "dirnode_routing_"];

/// Names as the page says them: by the family that a heading names, in the first column of its tables.
fn documented(page: &str) -> BTreeSet<String> {
    let mut family = None;
    let mut names = BTreeSet::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            family = FAMILIES
                .into_iter()
                .find(|family| heading == format!("`{family}`"));
        }
        let name = line.strip_prefix("| `").and_then(|rest| rest.split('`').next());
        if let (Some(family), Some(name)) = (family, name) {
            names.insert(format!("{family}{name}"));
        }
    }
    names
}

#[tokio::test]
async fn the_page_of_metrics_names_what_a_node_serves() {
    let node = Setup::default().with_metrics().start().await;
    let address = node.node.metrics_address().unwrap().to_string();
    let page = scrape::get(&address, "/metrics", "text/plain").await;
    let freshness = "dirnode_routing_freshness_seconds";
    let served: BTreeSet<String> = scrape::samples(&page.body)
        .into_keys()
        .map(|series| series.split('{').next().unwrap().to_owned())
        .filter(|name| FAMILIES.iter().any(|family| name.starts_with(family)))
        .filter(|name| !name.starts_with(freshness))
        .collect();
    let text = std::fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let documented = documented(&text);
    let missing: Vec<_> = served.difference(&documented).collect();
    let invented: Vec<_> = documented.difference(&served).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "not on the page: {missing:?}; not served: {invented:?}"
    );
    assert!(text.contains(freshness));
    for part in ["_bucket", "_sum", "_count"] {
        let head = format!("{freshness}{part}{{");
        let is_it = |line: &str| line.starts_with(&head) && line.contains("room=\"routing\"");
        assert!(page.body.lines().any(is_it), "{head}");
    }
    node.stop().await;
}
