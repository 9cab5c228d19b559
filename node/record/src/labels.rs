//! Labels: what a record says about itself to the network, as `/<namespace>/<value>`.
//!
//! Labels are copied as they stand into events and gossip, and path-cleaned on the way into datastore keys, so that
//! the list of a record's labels may differ from what it announced. Never judges a label's meaning. Holds no state.
//! Follows grpc-api §2.3 and §4.10, and p2p-wire on the announcement's bounds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Facts, RecordCid, Summary, canonical};

/// Most labels one announcement may carry.
pub const MAX_ANNOUNCED_LABELS: usize = 100;
/// Largest announcement, as JSON, in bytes.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 10 * 1024;

/// The first part of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Namespace {
    /// `/skills/`
    Skills,
    /// `/domains/`
    Domains,
    /// `/modules/`
    Modules,
    /// `/locators/`
    Locators,
}

impl Namespace {
    /// All namespaces, in label order.
    pub const ALL: [Self; 4] = [Self::Skills, Self::Domains, Self::Modules, Self::Locators];

    /// The name without slashes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skills => "skills",
            Self::Domains => "domains",
            Self::Modules => "modules",
            Self::Locators => "locators",
        }
    }

    /// The namespace with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.name() == name)
    }
}

/// One label, as announced: case-sensitive, not cleaned, of any length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(String);

impl Label {
    /// The label of `value` in `namespace`; an empty value gives the bare prefix.
    #[must_use]
    pub fn new(namespace: Namespace, value: &str) -> Self {
        Self(format!("/{}/{value}", namespace.name()))
    }

    /// Takes a label as it came from elsewhere: its namespace must be one of the four.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, _) = text.strip_prefix('/')?.split_once('/')?;
        Namespace::from_name(namespace).map(|_| Self(text.to_owned()))
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<Namespace> {
        let (namespace, _) = self.0.strip_prefix('/')?.split_once('/')?;
        Namespace::from_name(namespace)
    }

    /// What follows the namespace.
    #[must_use]
    pub fn value(&self) -> &str {
        self.0
            .strip_prefix('/')
            .and_then(|rest| rest.split_once('/'))
            .map_or("", |(_, value)| value)
    }

    /// The datastore key of this label for one record and peer: the path `<label>/<cid>/<peer>`, cleaned.
    #[must_use]
    pub fn key(&self, cid: &str, peer: &str) -> String {
        clean_path(&format!("{}/{cid}/{peer}", self.0))
    }

    /// What is read back from this label's key, and so shown by List: the cleaned label, or `None` when cleaning
    /// leaves no value or leads out of the four namespaces.
    #[must_use]
    pub fn cleaned(&self) -> Option<Self> {
        let path = clean_path(&self.0);
        let (namespace, value) = path.strip_prefix('/')?.split_once('/')?;
        Namespace::from_name(namespace)?;
        (!value.is_empty()).then_some(Self(path))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Facts<'_> {
    /// The labels: skills, domains, modules, locators, each in record order, with duplicates.
    #[must_use]
    pub fn labels(&self) -> Vec<Label> {
        labels(
            self.skills.iter().map(|item| item.name.as_str()),
            self.domains.iter().map(|item| item.name.as_str()),
            self.modules.iter().map(|module| module.name.as_str()),
            self.locators.iter().map(|locator| locator.kind.as_str()),
        )
    }
}

impl Summary {
    /// The labels, as [`Facts::labels`] gives them.
    #[must_use]
    pub fn labels(&self) -> Vec<Label> {
        labels(
            self.skills.iter().map(|(name, _)| name.as_str()),
            self.domains.iter().map(|(name, _)| name.as_str()),
            self.modules.iter().map(|module| module.name.as_str()),
            self.locators.iter().map(|(kind, _)| kind.as_str()),
        )
    }
}

fn labels<'a>(
    skills: impl Iterator<Item = &'a str>,
    domains: impl Iterator<Item = &'a str>,
    modules: impl Iterator<Item = &'a str>,
    locators: impl Iterator<Item = &'a str>,
) -> Vec<Label> {
    skills
        .map(|name| Label::new(Namespace::Skills, name))
        .chain(domains.map(|name| Label::new(Namespace::Domains, name)))
        .chain(modules.map(|name| Label::new(Namespace::Modules, name)))
        .chain(locators.map(|kind| Label::new(Namespace::Locators, kind)))
        .collect()
}

/// The datastore keys of `labels`, in the same order.
#[must_use]
pub fn label_keys(labels: &[Label], cid: &str, peer: &str) -> Vec<String> {
    labels.iter().map(|label| label.key(cid, peer)).collect()
}

/// The distinct labels that List shows for a record with `labels`: by namespace, then in byte order.
#[must_use]
pub fn list_labels(labels: &[Label]) -> Vec<Label> {
    let mut listed: Vec<Label> = labels.iter().filter_map(Label::cleaned).collect();
    listed.sort_by(|a, b| (a.namespace(), a).cmp(&(b.namespace(), b)));
    listed.dedup();
    listed
}

/// Makes `path` absolute and resolves empty, `.` and `..` segments by text alone.
#[must_use]
pub fn clean_path(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut clean = String::with_capacity(path.len() + 1);
    for segment in &segments {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() {
        clean.push('/');
    }
    clean
}

/// Why a record's labels are not announced by gossip. None of these is a failure of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnnounced {
    /// Nothing to say.
    #[error("skipped: no labels")]
    NoLabels,
    /// More than [`MAX_ANNOUNCED_LABELS`].
    #[error("record has {count} labels, limit is {MAX_ANNOUNCED_LABELS}")]
    TooManyLabels {
        /// How many there are.
        count: usize,
    },
    /// More than [`MAX_ANNOUNCEMENT_BYTES`].
    #[error("announcement is {size_bytes} bytes, limit is {MAX_ANNOUNCEMENT_BYTES}")]
    TooLarge {
        /// Size of the message, in bytes.
        size_bytes: usize,
    },
}

/// Whether `labels` of the record `cid` may be announced in a message whose time stamp is `timestamp`.
///
/// # Errors
/// [`NotAnnounced`] says why not.
pub fn announceable(labels: &[Label], cid: &RecordCid, timestamp: &str) -> Result<(), NotAnnounced> {
    if labels.is_empty() {
        return Err(NotAnnounced::NoLabels);
    }
    if labels.len() > MAX_ANNOUNCED_LABELS {
        return Err(NotAnnounced::TooManyLabels { count: labels.len() });
    }
    let size_bytes = announcement(labels, cid, timestamp).len();
    if size_bytes > MAX_ANNOUNCEMENT_BYTES {
        return Err(NotAnnounced::TooLarge { size_bytes });
    }
    Ok(())
}

/// The announcement's JSON: `{"cid":..,"labels":[..],"timestamp":..}` with the escapes of canonical strings.
#[must_use]
pub fn announcement(labels: &[Label], cid: &RecordCid, timestamp: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"cid\":");
    canonical::write_string(&mut out, &cid.to_string());
    out.extend_from_slice(b",\"labels\":[");
    for (place, label) in labels.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        canonical::write_string(&mut out, label.as_str());
    }
    out.extend_from_slice(b"],\"timestamp\":");
    canonical::write_string(&mut out, timestamp);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_text() {
        for (path, clean) in [
            ("/skills/a/../b", "/skills/b"),
            ("/skills//a/", "/skills/a"),
            ("/skills/../../../x", "/x"),
            ("skills", "/skills"),
            ("", "/"),
            ("/..", "/"),
        ] {
            assert_eq!(clean_path(path), clean);
        }
    }

    #[test]
    fn a_label_may_be_lost_or_move_when_listed() {
        let label = |value| Label::new(Namespace::Skills, value);
        assert_eq!(label("").cleaned(), None);
        assert_eq!(label("..").cleaned(), None);
        assert_eq!(label("../../x/y").cleaned(), None);
        assert_eq!(
            label("../domains/y").cleaned(),
            Some(Label::new(Namespace::Domains, "y"))
        );
        assert_eq!(label("/a/").cleaned(), Some(label("a")));
        assert_eq!(
            list_labels(&[label("b"), label("a"), label("b/")]),
            vec![label("a"), label("b")]
        );
    }

    #[test]
    fn announcements_are_bounded() {
        let cid = RecordCid::of(b"{}");
        let time = "2026-08-21T14:39:57.123456789Z";
        let labels = vec![Label::new(Namespace::Skills, "a"); 101];
        assert_eq!(announceable(&[], &cid, time), Err(NotAnnounced::NoLabels));
        assert_eq!(
            announceable(&labels, &cid, time),
            Err(NotAnnounced::TooManyLabels { count: 101 })
        );
        assert_eq!(announceable(&labels[1..], &cid, time), Ok(()));
        let long = [Label::new(Namespace::Skills, &"a".repeat(10_240))];
        assert!(matches!(
            announceable(&long, &cid, time),
            Err(NotAnnounced::TooLarge { .. })
        ));
    }
}
