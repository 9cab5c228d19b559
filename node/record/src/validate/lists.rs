//! The rules that look at a list as a whole: duplicate items, and duplicate locator types. Follows validation §4.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::check::{Check, Verdict, no_verdict};
use super::class::duplicate_class;
use super::path::Path;
use super::schema::{Attr, AttrKind};
use super::view::{Tree, View, compare, scalar_text};

impl Check<'_> {
    /// Reports each item that equals an earlier one.
    pub(super) fn duplicates<T: Tree>(&mut self, attr: &Attr, items: &[T], at: &Path<'_>) {
        if items.len() < 2 {
            return;
        }
        let firsts = match attr.kind {
            AttrKind::Class(place) => {
                let Some(family) = self.schema.families.get(place) else {
                    return;
                };
                let mut seen = HashMap::new();
                items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| {
                        duplicate_class(family, item).map(|class| *seen.entry(class).or_insert(index))
                    })
                    .collect()
            }
            _ => firsts(items),
        };
        // The server names the place of the first occurrence among the distinct items so far, the newest first.
        let mut distinct: HashMap<usize, usize> = HashMap::new();
        for (index, first) in firsts.into_iter().enumerate() {
            let Some(first) = first else { continue };
            let count = distinct.len();
            match distinct.get(&first) {
                None => {
                    distinct.insert(first, count);
                }
                Some(order) => {
                    let named = count - 1 - order;
                    self.error("attribute_array_duplicate", &at.index(index), |_| {
                        format!(
                            "Duplicate item found in array \"{}\" at index {index}. First occurrence at index \
                             {named}.",
                            at.render()
                        )
                    });
                }
            }
        }
    }

    pub(super) fn locator_types<T: Tree>(&mut self, items: &[T], at: &Path<'_>) -> Verdict {
        let mut seen: Vec<(usize, &T)> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let View::Object(fields) = item.view() else {
                continue;
            };
            let Some(kind) = fields.get("type") else { continue };
            if !matches!(kind.view(), View::Null) {
                seen.push((index, kind));
            }
        }
        seen.sort_by(|(a, kind), (b, other)| compare(*kind, *other).then(a.cmp(b)));
        for run in seen.chunk_by(|(_, kind), (_, other)| compare(*kind, *other).is_eq()) {
            let Some(((first, kind), repeated)) = run.split_first() else {
                continue;
            };
            for (index, _) in repeated {
                let Some(kind) = scalar_text(&kind.view()) else {
                    return no_verdict(&at.index(*index), "two equal locator types that are not text");
                };
                self.error("attribute_locators_duplicate_type", &at.index(*index), |_| {
                    format!(
                        "Duplicate locator type \"{kind}\" found in array \"{}\" at index {index}. First \
                         occurrence at index {first}. Duplicate types are not allowed in the locators array.",
                        at.render()
                    )
                });
            }
        }
        Ok(())
    }
}

/// For each item the index of the first item that equals it. Sorting keeps the cost near the size of the list, also
/// when all items share a long beginning.
fn firsts<T: Tree>(items: &[T]) -> Vec<Option<usize>> {
    let mut firsts: Vec<Option<usize>> = (0..items.len()).map(Some).collect();
    if let [a, b] = items {
        if compare(a, b) == Ordering::Equal {
            firsts = vec![Some(0), Some(0)];
        }
        return firsts;
    }
    let mut order: Vec<(usize, &T)> = items.iter().enumerate().collect();
    order.sort_by(|(a, item), (b, other)| compare(*item, *other).then(a.cmp(b)));
    for run in order.chunk_by(|(_, item), (_, other)| compare(*item, *other).is_eq()) {
        let Some(((first, _), repeated)) = run.split_first() else {
            continue;
        };
        for (index, _) in repeated {
            if let Some(place) = firsts.get_mut(*index) {
                *place = Some(*first);
            }
        }
    }
    firsts
}
