//! Method names, the record that the tests of a node push, and the client commands as they run them.

use dirnode_tests::program::{Answer, run};
use dirnode_tests::repository;
use serde_json::{Value as Json, json};

pub const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
pub const PULL: &str = "/agntcy.dir.store.v1.StoreService/Pull";
pub const DELETE: &str = "/agntcy.dir.store.v1.StoreService/Delete";
pub const SEARCH_CIDS: &str = "/agntcy.dir.search.v1.SearchService/SearchCIDs";
pub const COUNT: &str = "/agntcy.dir.search.v1.SearchService/CountRecords";
pub const PUBLISH: &str = "/agntcy.dir.routing.v1.RoutingService/Publish";
pub const UNPUBLISH: &str = "/agntcy.dir.routing.v1.RoutingService/Unpublish";
pub const LIST: &str = "/agntcy.dir.routing.v1.RoutingService/List";
pub const RESOLVE: &str = "/agntcy.dir.naming.v1.NamingService/Resolve";

/// A Push request with a valid record of this version.
pub fn sample(version: &str) -> Json {
    let text = std::fs::read_to_string(repository().join("tests/records/translator.json")).unwrap();
    let mut record: Json = serde_json::from_str(&text).unwrap();
    record["version"] = json!(version);
    json!({"data": record})
}

/// The CID in an answer.
pub fn cid_of(answer: &Json) -> String {
    answer["cid"].as_str().unwrap().to_owned()
}

/// Runs a client command against a node, while the node's own tasks go on.
pub fn at(address: &str, args: &[&str], stdin: &[u8]) -> Answer {
    tokio::task::block_in_place(|| run(args, stdin, &[("DIRECTORY_CLIENT_SERVER_ADDRESS", address)]))
}

/// The standard output of a command that succeeded and had nothing to remark.
pub fn ok(answer: Answer) -> String {
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{answer:?}");
    answer.out
}

/// The path of a sample record.
pub fn record(name: &str) -> String {
    repository()
        .join("tests/records")
        .join(name)
        .display()
        .to_string()
}

pub fn json_of(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}
