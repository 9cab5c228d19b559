//! The published set by label: answers List (grpc-api §4.10) in the key order of the CIDs.
//!
//! Derived from the published rows, which carry the labels, so that a record that was deleted but not unpublished is still
//! listed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use dirnode_record::{Label, Namespace};
use roaring::RoaringBitmap;

use super::column::Column;
use super::dict::Needs;
use super::posting::{Postings, insert};
use super::query::{MAX_QUERIES, MAX_QUERY_BYTES, QueryError};
use crate::RecordCid;

/// Labels are known by so many of their first segments; deeper queries compare texts.
const MAX_DEPTH: usize = 16;
/// And up to this length.
const MAX_ANCESTOR_BYTES: usize = 1024;
/// Results up to which CIDs are sorted instead of walked in order.
const SORT_RESULTS: u64 = 20_000;

/// What a label query asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LabelQuery {
    /// A label of this namespace with this value or, except for locators, below it.
    In(Namespace, String),
    /// Everything.
    Any,
    /// Nothing: a kind that is not known.
    Never,
}

impl LabelQuery {
    /// True if a label, cleaned, fits.
    #[must_use]
    pub fn matches(&self, label: &Label) -> bool {
        match self {
            Self::Any => true,
            Self::Never => false,
            Self::In(namespace, value) => {
                let wanted = Label::new(*namespace, value);
                match label.as_str().strip_prefix(wanted.as_str()) {
                    Some("") => true,
                    Some(rest) => *namespace != Namespace::Locators && rest.starts_with('/'),
                    None => false,
                }
            }
        }
    }
}

/// A published record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its CID.
    pub cid: RecordCid,
    /// Its labels, cleaned: by namespace, then in byte order.
    pub labels: Vec<Label>,
}

/// The set.
pub(crate) struct Published {
    /// By CID text.
    order: BTreeMap<Box<str>, u32>,
    entries: Vec<Option<(RecordCid, Box<[u32]>)>>,
    free: Vec<u32>,
    labels: Column,
    /// Records by label and by each path above it.
    under: HashMap<Box<str>, RoaringBitmap>,
    held: RoaringBitmap,
    /// Records by label, exactly.
    exact: Postings,
}

/// The label and the paths above it, inside its namespace.
fn paths(label: &str) -> impl Iterator<Item = &str> {
    label
        .match_indices('/')
        .map(|(at, _)| at)
        .chain([label.len()])
        .skip(2)
        .take(MAX_DEPTH)
        .filter_map(|at| label.get(..at))
        .take_while(|path| path.len() <= MAX_ANCESTOR_BYTES)
}

impl Default for Published {
    fn default() -> Self {
        Self {
            order: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            labels: Column::new(Needs {
                grams: false,
                order: false,
            }),
            under: HashMap::new(),
            held: RoaringBitmap::new(),
            exact: Postings::default(),
        }
    }
}

impl Published {
    /// Number of published records.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds or replaces a record with its listed labels.
    pub(crate) fn insert(&mut self, cid: RecordCid, labels: &[Label]) {
        self.remove(&cid);
        let id = self
            .free
            .pop()
            .unwrap_or_else(|| u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let mut values = Vec::with_capacity(labels.len());
        for label in labels {
            let value = self.labels.add(id, label.as_str());
            self.exact.add(value, id);
            values.push(value);
            for path in paths(label.as_str()) {
                match self.under.get_mut(path) {
                    Some(set) => insert(set, id),
                    None => {
                        self.under.insert(path.into(), RoaringBitmap::from_iter([id]));
                    }
                }
            }
        }
        let at = id as usize;
        if self.entries.len() <= at {
            self.entries.resize(at.saturating_add(1), None);
        }
        if let Some(place) = self.entries.get_mut(at) {
            *place = Some((cid, values.into()));
        }
        self.order.insert(cid.to_string().into(), id);
        self.held.insert(id);
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, cid: &RecordCid) {
        let Some(id) = self.order.remove(cid.to_string().as_str()) else {
            return;
        };
        let Some((_, values)) = self.entries.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        for value in values {
            for path in paths(self.labels.dict.get(value)) {
                if let Some(set) = self.under.get_mut(path) {
                    set.remove(id);
                    if set.is_empty() {
                        self.under.remove(path);
                    }
                }
            }
            self.exact.remove(value, id);
            self.labels.remove(id, value);
        }
        self.held.remove(id);
        self.free.push(id);
    }

    /// One record of the set.
    pub(crate) fn get(&self, cid: &RecordCid) -> Option<Listed> {
        self.listed(*self.order.get(cid.to_string().as_str())?)
    }

    fn listed(&self, id: u32) -> Option<Listed> {
        let (cid, values) = self.entries.get(id as usize)?.as_ref()?;
        let labels = values
            .iter()
            .filter_map(|value| Label::parse(self.labels.dict.get(*value)));
        Some(Listed {
            cid: *cid,
            labels: labels.collect(),
        })
    }

    fn matching(&self, query: &LabelQuery) -> Option<RoaringBitmap> {
        let LabelQuery::In(namespace, value) = query else {
            return match query {
                LabelQuery::Never => Some(RoaringBitmap::new()),
                _ => None,
            };
        };
        let wanted = Label::new(*namespace, value);
        if *namespace == Namespace::Locators {
            let value = self.labels.dict.find(wanted.as_str());
            return Some(
                value
                    .map(|value| self.exact.get(value).to_set().into_owned())
                    .unwrap_or_default(),
            );
        }
        if paths(wanted.as_str()).last() == Some(wanted.as_str()) {
            return Some(self.under.get(wanted.as_str()).cloned().unwrap_or_default());
        }
        // Too deep or too long for the table: nothing that cleaning leaves is below an empty path.
        let above = paths(wanted.as_str()).last()?;
        let mut found = self.under.get(above).cloned().unwrap_or_default();
        found.retain(|id| {
            self.listed(id)
                .is_some_and(|listed| listed.labels.iter().any(|label| query.matches(label)))
        });
        Some(found)
    }

    /// At most `limit` records that meet all of `queries`, in key order, after `after`.
    pub(crate) fn list(
        &self,
        queries: &[LabelQuery],
        limit: usize,
        after: Option<&RecordCid>,
    ) -> Result<Vec<Listed>, QueryError> {
        if queries.len() > MAX_QUERIES {
            return Err(QueryError::TooMany { count: queries.len() });
        }
        let size_bytes: usize = queries
            .iter()
            .map(|query| match query {
                LabelQuery::In(_, value) => value.len(),
                _ => 0,
            })
            .sum();
        if size_bytes > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong { size_bytes });
        }
        let mut sets: Vec<RoaringBitmap> = queries.iter().filter_map(|query| self.matching(query)).collect();
        sets.sort_by_key(RoaringBitmap::len);
        let found = sets.into_iter().reduce(|one, other| one & other);
        let start = after.map(ToString::to_string);
        if let Some(found) = &found
            && found.len() <= SORT_RESULTS
        {
            let mut rows: Vec<_> = found
                .iter()
                .filter_map(|id| {
                    let (cid, _) = self.entries.get(id as usize)?.as_ref()?;
                    Some((cid.to_string(), id))
                })
                .filter(|(text, _)| start.as_ref().is_none_or(|start| text > start))
                .collect();
            rows.sort_unstable();
            let page = rows.into_iter().take(limit);
            return Ok(page.filter_map(|(_, id)| self.listed(id)).collect());
        }
        let from = match &start {
            Some(start) => Bound::Excluded(start.as_str()),
            None => Bound::Unbounded,
        };
        Ok(self
            .order
            .range::<str, _>((from, Bound::Unbounded))
            .filter(|(_, id)| found.as_ref().is_none_or(|found| found.contains(**id)))
            .take(limit)
            .filter_map(|(_, id)| self.listed(*id))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirnode_record::labels::list_labels;

    fn labels(texts: &[&str]) -> Vec<Label> {
        let labels: Vec<_> = texts.iter().map(|text| Label::parse(text).unwrap()).collect();
        list_labels(&labels)
    }

    /// The table of paths and the comparison of texts agree, beyond the depth of the table too.
    #[test]
    fn queries_find_labels_and_what_is_below() {
        let deep = "/skills/".to_owned() + &vec!["d"; 40].join("/");
        let sets = [
            labels(&["/skills/a/b", "/locators/x"]),
            labels(&["/skills/a", "/domains/a/b", "/locators/x/y"]),
            labels(&["/skills/ab"]),
            labels(&[&deep]),
            labels(&[]),
        ];
        let mut published = Published::default();
        for (n, labels) in sets.iter().enumerate() {
            published.insert(RecordCid::of(&[u8::try_from(n).unwrap()]), labels);
        }
        let values = [
            "a",
            "a/b",
            "a/",
            "/a",
            "",
            "ab",
            "x",
            "x/y",
            &deep[8..],
            &deep[8..60],
        ];
        for value in values {
            for namespace in Namespace::ALL {
                let query = LabelQuery::In(namespace, value.to_owned());
                let mut wanted: Vec<String> = (0u8..)
                    .zip(&sets)
                    .filter(|(_, labels)| labels.iter().any(|label| query.matches(label)))
                    .map(|(n, _)| RecordCid::of(&[n]).to_string())
                    .collect();
                wanted.sort();
                let found = published.list(std::slice::from_ref(&query), 10, None).unwrap();
                let found: Vec<_> = found.iter().map(|listed| listed.cid.to_string()).collect();
                assert_eq!(found, wanted, "{query:?}");
            }
        }
        let all = published.list(&[], 10, None).unwrap();
        assert_eq!(all.len(), 5);
        let rest = published.list(&[LabelQuery::Any], 10, Some(&all[1].cid)).unwrap();
        assert_eq!(rest, all[2..]);
        for listed in all {
            published.remove(&listed.cid);
        }
        assert!(published.under.is_empty() && published.labels.dict.len() == 0 && published.len() == 0);
    }
}
