//! Labels by number, the tree of their prefixes, and for each prefix the rows that have a label there.
//!
//! A label is kept as it was announced; where it is in the tree follows from its cleaned form (grpc-api §2.3, §4.10), so
//! that it is found by the value that List would show. A query names one place in the tree, and its answer is the list of
//! that place: nothing has to be merged, however many labels are below. A locator is one segment, as it is only ever
//! asked for whole.

use std::cmp::Ordering;
use std::hash::BuildHasher;

use dirnode_record::{Label, Namespace};
use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::room::{ALLOCATION, NONE, Slots};
use super::sorted::Sorted;

/// Segments of a label that are in the tree. What is deeper is found by these.
pub const MAX_SEGMENTS: usize = 32;

#[derive(Debug)]
struct Name {
    text: Box<str>,
    /// Its place in the tree; [`NONE`] when cleaning leaves nothing.
    node: u32,
    /// Rows that have it.
    refs: u32,
}

#[derive(Debug)]
struct Node {
    segment: Box<str>,
    /// The node above, or the namespace.
    parent: u32,
    /// Labels here, and nodes below.
    refs: u32,
    rows: Sorted,
}

/// Labels, prefixes and posting lists.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Slots<Name>,
    by_text: HashTable<u32>,
    nodes: Slots<Node>,
    by_segment: HashTable<u32>,
    text_bytes: usize,
    random: RandomState,
}

/// Namespaces stand above the first segments, under numbers that no node has.
fn root(namespace: Namespace) -> u32 {
    let place = match namespace {
        Namespace::Skills => 1,
        Namespace::Domains => 2,
        Namespace::Modules => 3,
        Namespace::Locators => 4,
    };
    NONE.saturating_sub(place)
}

fn is_root(node: u32) -> bool {
    node >= NONE.saturating_sub(4)
}

fn segments(namespace: Namespace, value: &str) -> impl Iterator<Item = &str> {
    let most = if namespace == Namespace::Locators {
        1
    } else {
        usize::MAX
    };
    value.splitn(most, '/')
}

impl Names {
    fn find(&self, text: &str) -> Option<u32> {
        let hash = self.random.hash_one(text);
        let is = |number: &u32| self.names.get(*number).is_some_and(|name| *name.text == *text);
        self.by_text.find(hash, is).copied()
    }

    fn child(&self, parent: u32, segment: &str) -> Option<u32> {
        let hash = self.random.hash_one((parent, segment));
        let is = |number: &u32| {
            let node = self.nodes.get(*number);
            node.is_some_and(|node| node.parent == parent && *node.segment == *segment)
        };
        self.by_segment.find(hash, is).copied()
    }

    /// The place of a query's value.
    pub(super) fn place(&self, namespace: Namespace, value: &str) -> Option<u32> {
        let mut node = root(namespace);
        for segment in segments(namespace, value) {
            node = self.child(node, segment)?;
        }
        Some(node)
    }

    /// The number of a label, which counts as had by one row more. `None` when it is new and no number is left.
    pub(super) fn acquire(&mut self, label: &Label) -> Option<u32> {
        let text = label.as_str();
        if let Some(number) = self.find(text) {
            let name = self.names.get_mut(number)?;
            name.refs = name.refs.saturating_add(1);
            return Some(number);
        }
        let node = label.cleaned().map_or(NONE, |cleaned| self.grow(&cleaned));
        let number = self.names.add(Name {
            text: text.into(),
            node,
            refs: 1,
        });
        if number == NONE {
            self.prune(node);
            return None;
        }
        self.text_bytes = self.text_bytes.saturating_add(text.len());
        let (names, random) = (&self.names, &self.random);
        let hash_of = |number: &u32| names.get(*number).map_or(0, |name| random.hash_one(&*name.text));
        self.by_text.insert_unique(hash_of(&number), number, hash_of);
        Some(number)
    }

    /// A label of which the number is known is had by one row more.
    pub(super) fn hold(&mut self, number: u32) {
        if let Some(name) = self.names.get_mut(number) {
            name.refs = name.refs.saturating_add(1);
        }
    }

    /// Takes back one [`Names::acquire`] or [`Names::hold`].
    pub(super) fn release(&mut self, number: u32) {
        let Some(name) = self.names.get_mut(number) else {
            return;
        };
        name.refs = name.refs.saturating_sub(1);
        if name.refs > 0 {
            return;
        }
        let hash = self.random.hash_one(&*name.text);
        if let Ok(entry) = self.by_text.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        if let Some(name) = self.names.take(number) {
            self.text_bytes = self.text_bytes.saturating_sub(name.text.len());
            self.prune(name.node);
        }
    }

    /// The place of a cleaned label, made if it is new; counts as used once more.
    fn grow(&mut self, label: &Label) -> u32 {
        let Some(namespace) = label.namespace() else {
            return NONE;
        };
        let mut above = root(namespace);
        for segment in segments(namespace, label.value()).take(MAX_SEGMENTS) {
            let node = match self.child(above, segment) {
                Some(node) => node,
                None => self.sprout(above, segment),
            };
            if node == NONE {
                break;
            }
            above = node;
        }
        if is_root(above) {
            return NONE;
        }
        self.use_place(above);
        above
    }

    fn sprout(&mut self, parent: u32, segment: &str) -> u32 {
        let node = self.nodes.add(Node {
            segment: segment.into(),
            parent,
            refs: 0,
            rows: Sorted::default(),
        });
        if is_root(node) {
            self.nodes.take(node);
            return NONE;
        }
        self.use_place(parent);
        let (nodes, random) = (&self.nodes, &self.random);
        let hash_of = |number: &u32| {
            let node = nodes.get(*number);
            node.map_or(0, |node| random.hash_one((node.parent, &*node.segment)))
        };
        self.by_segment.insert_unique(hash_of(&node), node, hash_of);
        node
    }

    fn use_place(&mut self, node: u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.refs = node.refs.saturating_add(1);
        }
    }

    /// A place is used once less; it goes, and those above it, when nothing uses it.
    fn prune(&mut self, mut number: u32) {
        while let Some(node) = self.nodes.get_mut(number) {
            node.refs = node.refs.saturating_sub(1);
            if node.refs > 0 {
                return;
            }
            let hash = self.random.hash_one((node.parent, &*node.segment));
            if let Ok(entry) = self.by_segment.find_entry(hash, |other| *other == number) {
                entry.remove();
            }
            let Some(node) = self.nodes.take(number) else {
                return;
            };
            number = node.parent;
        }
    }

    /// The label of a number.
    pub(super) fn text(&self, number: u32) -> &str {
        self.names.get(number).map_or("", |name| &name.text)
    }

    /// Places of labels and all above them, each once, in order of their numbers.
    pub(super) fn places(&self, labels: &[u32]) -> Vec<u32> {
        let mut places: Vec<u32> = labels.iter().flat_map(|label| self.above(*label)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The place of a label and all above it.
    pub(super) fn above(&self, label: u32) -> impl Iterator<Item = u32> + '_ {
        let mut next = self.names.get(label).map_or(NONE, |name| name.node);
        std::iter::from_fn(move || {
            let number = next;
            next = self.nodes.get(number)?.parent;
            Some(number)
        })
    }

    /// The rows that have a label at a place or below it.
    pub(super) fn rows(&self, place: u32) -> Option<&Sorted> {
        self.nodes.get(place).map(|node| &node.rows)
    }

    pub(super) fn insert(&mut self, place: u32, entry: u64, order: impl FnMut(u64, u64) -> Ordering) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.rows.insert(entry, order);
        }
    }

    pub(super) fn remove(&mut self, place: u32, entry: u64, order: impl FnMut(u64, u64) -> Ordering) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.rows.remove(entry, order);
        }
    }

    /// Bytes of all distinct labels.
    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    /// Distinct labels, and places.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.names.len(), self.nodes.len())
    }

    /// Memory of labels, and of places with their lists.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let text = |text: &str| (text.len() as u64).saturating_add(ALLOCATION);
        let names = self
            .names
            .iter()
            .map(|name| text(&name.text))
            .fold(self.names.bytes(), u64::saturating_add)
            .saturating_add(self.by_text.allocation_size() as u64);
        let nodes = self
            .nodes
            .iter()
            .map(|node| text(&node.segment).saturating_add(node.rows.bytes()))
            .fold(self.nodes.bytes(), u64::saturating_add)
            .saturating_add(self.by_segment.allocation_size() as u64);
        (names, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(names: &mut Names, text: &str) -> u32 {
        names.acquire(&Label::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn a_label_is_found_at_its_cleaned_place_and_above() {
        let mut names = Names::default();
        let label = acquire(&mut names, "/skills//a/./b/");
        let place = |namespace, value| names.place(namespace, value);
        let above: Vec<u32> = names.above(label).collect();
        assert_eq!(
            above,
            [
                place(Namespace::Skills, "a/b").unwrap(),
                place(Namespace::Skills, "a").unwrap()
            ]
        );
        for value in ["", "/", "a/", "/a", "a//b", "a/b/c", "b", "a/./b", "A"] {
            assert_eq!(place(Namespace::Skills, value), None, "{value:?}");
        }
        assert_eq!(place(Namespace::Domains, "a"), None);
        assert_eq!(names.text(label), "/skills//a/./b/");
    }

    #[test]
    fn a_locator_is_one_segment_and_what_cleaning_loses_is_nowhere() {
        let mut names = Names::default();
        let locator = acquire(&mut names, "/locators/oci://x");
        assert_eq!(names.above(locator).count(), 1);
        assert!(names.place(Namespace::Locators, "oci:/x").is_some());
        assert!(names.place(Namespace::Locators, "oci:").is_none());
        let lost = acquire(&mut names, "/skills/..");
        assert_eq!(names.above(lost).count(), 0);
        let moved = acquire(&mut names, "/skills/../domains/y");
        assert_eq!(names.above(moved).next(), names.place(Namespace::Domains, "y"));
    }

    #[test]
    fn what_no_row_has_is_gone() {
        let mut names = Names::default();
        let deep = format!("/skills/{}", "s/".repeat(400));
        let texts = [
            "/skills/a/b",
            "/skills/a",
            "/locators/x",
            "/skills/..",
            deep.as_str(),
        ];
        let numbers: Vec<u32> = texts.iter().map(|text| acquire(&mut names, text)).collect();
        assert_eq!(names.counts(), (5, 3 + MAX_SEGMENTS));
        assert_eq!(acquire(&mut names, "/skills/a"), numbers[1]);
        for number in &numbers {
            names.release(*number);
        }
        assert_eq!(names.counts(), (1, 1), "one row still has it");
        names.release(numbers[1]);
        assert_eq!((names.counts(), names.text_bytes), ((0, 0), 0));
        assert!(names.by_segment.is_empty() && names.by_text.is_empty());
    }
}
