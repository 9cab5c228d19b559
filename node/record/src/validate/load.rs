//! The embedded files as they are written. Follows validation §2.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The embedded tables, one per schema version, oldest first.
pub(super) const TABLES: [&str; 4] = [
    include_str!("../../data/oasf-0.7.0.json"),
    include_str!("../../data/oasf-0.8.0.json"),
    include_str!("../../data/oasf-1.0.0.json"),
    include_str!("../../data/oasf-1.1.0.json"),
];

#[derive(Deserialize)]
pub(super) struct Schema {
    pub(super) schema_version: String,
    pub(super) types: BTreeMap<String, Type>,
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) families: BTreeMap<String, Family>,
}

#[derive(Deserialize)]
pub(super) struct Type {
    pub(super) kind: String,
    #[serde(rename = "super")]
    pub(super) super_type: Option<String>,
    pub(super) max_len: Option<usize>,
    pub(super) regex: Option<String>,
    pub(super) range: Option<(f64, f64)>,
}

#[derive(Deserialize)]
pub(super) struct Object {
    pub(super) attributes: BTreeMap<String, Attr>,
    pub(super) constraints: Option<Constraints>,
    pub(super) deprecated: Option<Deprecated>,
    #[serde(default)]
    pub(super) enum_of: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Constraints {
    #[serde(default)]
    pub(super) at_least_one: Vec<String>,
    #[serde(default)]
    pub(super) just_one: Vec<String>,
}

#[derive(Deserialize, Clone)]
pub(super) struct Deprecated {
    pub(super) message: String,
}

#[derive(Deserialize, Clone)]
pub(super) struct Attr {
    pub(super) requirement: String,
    #[serde(rename = "type")]
    pub(super) ty: String,
    pub(super) object: Option<String>,
    pub(super) family: Option<String>,
    #[serde(default)]
    pub(super) is_array: bool,
    #[serde(default)]
    pub(super) is_enum: bool,
    #[serde(rename = "enum")]
    pub(super) closed: Option<Vec<String>>,
    pub(super) value_type: Option<String>,
    pub(super) deprecated: Option<Deprecated>,
}

#[derive(Deserialize)]
pub(super) struct Family {
    pub(super) base: String,
    pub(super) attributes: BTreeMap<String, Attr>,
    pub(super) constraints: Option<Constraints>,
    pub(super) classes: Vec<Class>,
}

#[derive(Deserialize)]
pub(super) struct Class {
    pub(super) id: i64,
    pub(super) key: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) category: bool,
    #[serde(default)]
    pub(super) attributes: BTreeMap<String, Attr>,
    pub(super) deprecated: Option<Deprecated>,
}
