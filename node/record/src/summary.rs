//! What the store keeps beside a record's bytes, so that metadata and index answers need not parse the record again.
//!
//! Derived state: always rebuilt from the canonical bytes. Never holds module data. Follows grpc-api §2.2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Facts;

/// The facts of one record that metadata and index need.
///
/// Order of fields is the order in the stored row; add new ones at the end and raise the row's version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// The record's name.
    pub name: String,
    /// The record's own version.
    pub version: String,
    /// Free text.
    pub description: String,
    /// As written.
    pub schema_version: String,
    /// As written; not parsed.
    pub created_at: String,
    /// `None` when absent or null.
    pub authors: Option<Vec<String>>,
    /// Empty when there is none.
    pub previous_record_cid: String,
    /// Free annotations.
    pub annotations: BTreeMap<String, String>,
    /// Name and class id, in record order.
    pub skills: Vec<(String, u64)>,
    /// Name and class id, in record order.
    pub domains: Vec<(String, u64)>,
    /// In record order.
    pub modules: Vec<ModuleSummary>,
    /// Type and first url, in record order.
    pub locators: Vec<(String, String)>,
}

/// The indexed part of a module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModuleSummary {
    /// Full name.
    pub name: String,
    /// Class id; 0 when absent.
    pub id: u64,
    /// Empty when there is no artifact.
    pub artifact_media_type: String,
}

impl From<&Facts<'_>> for Summary {
    fn from(facts: &Facts<'_>) -> Self {
        let items = |items: &[crate::facts::Item]| {
            items
                .iter()
                .map(|item| (item.name.clone(), u64::from(item.id)))
                .collect()
        };
        Self {
            name: facts.name.clone(),
            version: facts.version.clone(),
            description: facts.description.clone(),
            schema_version: facts.schema_version.clone(),
            created_at: facts.created_at.clone(),
            authors: facts.authors.clone(),
            previous_record_cid: facts.previous_record_cid.clone(),
            annotations: facts.annotations.clone(),
            skills: items(&facts.skills),
            domains: items(&facts.domains),
            modules: facts
                .modules
                .iter()
                .map(|module| ModuleSummary {
                    name: module.name.clone(),
                    id: u64::from(module.id),
                    artifact_media_type: module.artifact_media_type.clone(),
                })
                .collect(),
            locators: facts
                .locators
                .iter()
                .map(|l| (l.kind.clone(), l.url.clone()))
                .collect(),
        }
    }
}
