//! Names of the records held here: derived state in memory, rebuilt from the rows at every start.
//!
//! Serves name resolution (grpc-api §4.12): newest insertion first, then CID. An exact name is a lookup, a
//! wildcard walks the distinct names. Also the store's answer to "is this record here", as every record has an
//! entry, whether it has a name or not.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::pattern::{Pattern, VersionRule, fold_stored};
use crate::RecordCid;
use crate::types::Named;

/// A name query; see [`Pattern`].
pub type NamePattern = Pattern;

#[derive(Debug, Clone)]
struct Entry {
    inserted_at_ns: i64,
    /// Length of the body.
    size_bytes: u64,
    name: Arc<str>,
    version: Box<str>,
}

/// The index.
#[derive(Debug, Default)]
pub struct Names {
    records: HashMap<RecordCid, Entry>,
    /// Folded name to its records. Ordered, so that a walk over all names is stable.
    by_name: BTreeMap<Box<str>, Vec<RecordCid>>,
}

impl Names {
    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True if there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// True if the record is held.
    #[must_use]
    pub fn contains(&self, cid: &RecordCid) -> bool {
        self.records.contains_key(cid)
    }

    /// Insertion time and body size of a record.
    #[must_use]
    pub fn get(&self, cid: &RecordCid) -> Option<(i64, u64)> {
        self.records
            .get(cid)
            .map(|entry| (entry.inserted_at_ns, entry.size_bytes))
    }

    /// The newest insertion time; the smallest number if there is no record.
    #[must_use]
    pub fn newest_ns(&self) -> i64 {
        self.records
            .values()
            .map(|entry| entry.inserted_at_ns)
            .max()
            .unwrap_or(i64::MIN)
    }

    /// All records, in no order.
    pub fn cids(&self) -> impl Iterator<Item = RecordCid> + '_ {
        self.records.keys().copied()
    }

    /// Adds or replaces a record.
    pub fn insert(
        &mut self,
        cid: RecordCid,
        inserted_at_ns: i64,
        size_bytes: u64,
        name: &str,
        version: &str,
    ) {
        self.remove(&cid);
        let name: Arc<str> = name.into();
        self.by_name
            .entry(fold_stored(&name).into())
            .or_default()
            .push(cid);
        self.records.insert(
            cid,
            Entry {
                inserted_at_ns,
                size_bytes,
                name,
                version: version.into(),
            },
        );
    }

    /// Drops a record; true if it was there.
    pub fn remove(&mut self, cid: &RecordCid) -> bool {
        let Some(entry) = self.records.remove(cid) else {
            return false;
        };
        let folded = fold_stored(&entry.name);
        if let Some(cids) = self.by_name.get_mut(folded.as_str()) {
            cids.retain(|held| held != cid);
            if cids.is_empty() {
                self.by_name.remove(folded.as_str());
            }
        }
        true
    }

    /// Records whose name matches any of `names` and whose version fits, newest insertion first, then by CID.
    #[must_use]
    pub fn resolve(&self, names: &[NamePattern], version: Option<&VersionRule>) -> Vec<Named> {
        let mut found: Vec<(i64, RecordCid)> = Vec::new();
        let mut take = |cids: &[RecordCid]| {
            for cid in cids {
                if let Some(entry) = self.records.get(cid)
                    && version.is_none_or(|rule| rule.matches(&entry.version))
                {
                    found.push((entry.inserted_at_ns, *cid));
                }
            }
        };
        if names.iter().all(|name| name.exact().is_some()) {
            for exact in names.iter().filter_map(Pattern::exact) {
                take(self.by_name.get(exact).map_or(&[][..], Vec::as_slice));
            }
        } else {
            for (folded, cids) in &self.by_name {
                if names.iter().any(|name| name.matches(folded)) {
                    take(cids);
                }
            }
        }
        // The text of a CID is ordered as its digest is: base32 lower-case keeps byte order of equal lengths,
        // except that digits come after letters in the alphabet and before them in ASCII.
        found.sort_unstable_by_key(|(at, cid)| (std::cmp::Reverse(*at), cid.to_string()));
        found.dedup();
        found
            .into_iter()
            .filter_map(|(_, cid)| {
                let entry = self.records.get(&cid)?;
                Some(Named {
                    name: entry.name.to_string(),
                    version: entry.version.to_string(),
                    cid,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(text: &str) -> RecordCid {
        RecordCid::of(text.as_bytes())
    }

    fn resolve(names: &Names, wanted: &[&str], version: Option<&str>) -> Vec<RecordCid> {
        let patterns: Vec<_> = wanted.iter().map(|text| Pattern::new(text)).collect();
        let rule = version.map(VersionRule::new);
        names
            .resolve(&patterns, rule.as_ref())
            .into_iter()
            .map(|named| named.cid)
            .collect()
    }

    #[test]
    fn newest_insertion_comes_first_over_all_forms_of_a_name() {
        let mut names = Names::default();
        names.insert(cid("a"), 1, 10, "Web.example/x", "v1");
        names.insert(cid("b"), 2, 10, "https://web.example/x", "v2");
        names.insert(cid("c"), 3, 10, "other", "v1");
        assert_eq!(
            resolve(&names, &["WEB.example/x", "https://web.example/x"], None),
            [cid("b"), cid("a")]
        );
        assert_eq!(resolve(&names, &["*"], Some("v1")), [cid("c"), cid("a")]);
        assert_eq!(resolve(&names, &["*"], Some(">v1")), [cid("b")]);
        assert_eq!(resolve(&names, &["*x", "web*"], None).len(), 2);
        assert!(names.remove(&cid("b")) && !names.remove(&cid("b")));
        assert!(resolve(&names, &["https://web.example/x"], None).is_empty());
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn equal_times_are_ordered_by_cid_text() {
        let mut names = Names::default();
        let mut cids: Vec<_> = (0..40).map(|n| cid(&n.to_string())).collect();
        for held in &cids {
            names.insert(*held, 7, 1, "same", "");
        }
        cids.sort_by_key(ToString::to_string);
        assert_eq!(resolve(&names, &["same"], None), cids);
    }
}
