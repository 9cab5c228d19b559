//! Method names and the record that the tests of a node push.

use dirnode_tests::repository;
use serde_json::{Value as Json, json};

pub const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
pub const PULL: &str = "/agntcy.dir.store.v1.StoreService/Pull";
pub const DELETE: &str = "/agntcy.dir.store.v1.StoreService/Delete";
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
