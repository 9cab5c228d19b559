//! The index over the records' summaries: what each record has, and what is known of it.
//!
//! Derived state, all of it in memory; descriptions are the exception, see [`super::words`]. It is told of a record
//! once the record is durable. Never does I/O and takes no lock.

use roaring::RoaringBitmap;

use super::column::Column;
use super::dict::Needs;
use super::eval::Tuning;
use super::facts::Facts;
use super::forward::Forward;
use super::pairs::Pairs;
use super::posting::{insert, set_bytes};
use super::query::{Field, RowKind};
use super::ranks::Ranks;
use super::split::WordList;
use super::words::Words;
use crate::Summary;

/// First bit of the tag in an entry of a list: authors are 0, rows 1 and up.
const TAG_BITS: u32 = 3;
const TAG_SHIFT: u32 = 32 - TAG_BITS;
/// Texts every record has, at the head of its list.
pub(super) const FIELDS: usize = 4;

/// The index.
pub(crate) struct SearchIndex {
    pub(super) fields: [Column; FIELDS],
    pub(super) authors: Column,
    /// Records whose author list is there, and holds nobody.
    pub(super) nobody: RoaringBitmap,
    pub(super) rows: [Pairs; 5],
    pub(super) words: Words,
    pub(super) forward: Forward,
    pub(super) facts: Facts,
    pub(super) popularity: Ranks,
    pub(super) providers: Ranks,
    pub(super) tuning: Tuning,
    /// Records that are here.
    pub(super) held: RoaringBitmap,
}

/// Bytes of the index, by part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexBytes {
    /// CIDs, times, sizes.
    pub directory: u64,
    /// Name, version, schema version, creation time, authors.
    pub fields: u64,
    /// Skills, domains, modules, locators, annotations.
    pub rows: u64,
    /// Words of descriptions.
    pub words: u64,
    /// From record to values.
    pub forward: u64,
    /// Orders and the rest.
    pub other: u64,
    /// The part of `fields` and `rows` that serves wildcards.
    pub wildcards: u64,
}

impl IndexBytes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.directory,
            self.fields,
            self.rows,
            self.words,
            self.forward,
            self.other,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

impl Default for SearchIndex {
    fn default() -> Self {
        let column = |grams, order| Column::new(Needs { grams, order });
        Self {
            // Creation times are asked by comparison or by their beginning; grams of them would take as much as the
            // names' and help nobody.
            fields: [
                column(true, false),
                column(true, true),
                column(true, true),
                column(false, true),
            ],
            authors: column(true, false),
            nobody: RoaringBitmap::new(),
            rows: RowKind::ALL
                .map(|kind| Pairs::new(matches!(kind, RowKind::Skill | RowKind::Domain | RowKind::Module))),
            words: Words::default(),
            forward: Forward::default(),
            facts: Facts::default(),
            popularity: Ranks::default(),
            providers: Ranks::default(),
            tuning: Tuning::default(),
            held: RoaringBitmap::new(),
        }
    }
}

/// The list entry of a row or author.
fn tagged(tag: u32, value: u32) -> u32 {
    (tag << TAG_SHIFT) | (value & ((1 << TAG_SHIFT) - 1))
}

fn tag_of(kind: RowKind) -> u32 {
    match kind {
        RowKind::Skill => 1,
        RowKind::Domain => 2,
        RowKind::Module => 3,
        RowKind::Locator => 4,
        RowKind::Annotation => 5,
    }
}

impl SearchIndex {
    pub(super) fn field(&self, field: Field) -> &Column {
        let [name, version, schema, created] = &self.fields;
        match field {
            Field::Name => name,
            Field::Version => version,
            Field::SchemaVersion => schema,
            Field::CreatedAt => created,
        }
    }

    pub(super) fn pairs(&self, kind: RowKind) -> &Pairs {
        let [skill, domain, module, locator, annotation] = &self.rows;
        match kind {
            RowKind::Skill => skill,
            RowKind::Domain => domain,
            RowKind::Module => module,
            RowKind::Locator => locator,
            RowKind::Annotation => annotation,
        }
    }

    /// The number of a record's text in `field`.
    pub(super) fn value(&self, id: u32, field: Field) -> Option<u32> {
        let at = match field {
            Field::Name => 0,
            Field::Version => 1,
            Field::SchemaVersion => 2,
            Field::CreatedAt => 3,
        };
        self.forward.get(id)?.get(at).copied()
    }

    fn tagged_values(&self, id: u32, tag: u32) -> impl Iterator<Item = u32> {
        let list = self.forward.get(id).and_then(|list| list.get(FIELDS..));
        list.unwrap_or_default()
            .iter()
            .filter(move |entry| **entry >> TAG_SHIFT == tag)
            .map(|entry| entry & ((1 << TAG_SHIFT) - 1))
    }

    /// The numbers of a record's authors.
    pub(super) fn author_values(&self, id: u32) -> impl Iterator<Item = u32> {
        self.tagged_values(id, 0)
    }

    /// The numbers of a record's rows of one kind.
    pub(super) fn row_values(&self, id: u32, kind: RowKind) -> impl Iterator<Item = u32> {
        self.tagged_values(id, tag_of(kind))
    }

    /// True if the record is here.
    pub(crate) fn contains(&self, id: u32) -> bool {
        self.held.contains(id)
    }

    /// Name and version of a record.
    pub(crate) fn name_and_version(&self, id: u32) -> Option<(&str, &str)> {
        let text = |field| Some(self.field(field).dict.get(self.value(id, field)?));
        Some((text(Field::Name)?, text(Field::Version)?))
    }

    /// Adds a record that is not here yet; `words` are those of its description.
    pub(crate) fn insert(&mut self, id: u32, summary: &Summary, words: &WordList) {
        let [name, version, schema, created] = &mut self.fields;
        let mut class_text = itoa::Buffer::new();
        let mut list = vec![
            name.add(id, &summary.name),
            version.add(id, &summary.version),
            schema.add(id, &summary.schema_version),
            created.add(id, &summary.created_at),
        ];
        match summary.authors.as_deref() {
            Some([]) => insert(&mut self.nobody, id),
            Some(authors) => {
                for author in authors {
                    list.push(tagged(0, self.authors.add(id, author)));
                }
            }
            None => {}
        }
        let [skills, domains, modules, locators, annotations] = &mut self.rows;
        for (name, class) in &summary.skills {
            list.push(tagged(1, skills.add(id, name, class_text.format(*class))));
        }
        for (name, class) in &summary.domains {
            list.push(tagged(2, domains.add(id, name, class_text.format(*class))));
        }
        for module in &summary.modules {
            list.push(tagged(
                3,
                modules.add(id, &module.name, class_text.format(module.id)),
            ));
        }
        for (kind, url) in &summary.locators {
            list.push(tagged(4, locators.add(id, kind, url)));
        }
        for (key, value) in &summary.annotations {
            list.push(tagged(5, annotations.add(id, key, value)));
        }
        // The four texts may have equal numbers, and must stay.
        let mut rest = list.split_off(FIELDS.min(list.len()));
        rest.sort_unstable();
        rest.dedup();
        list.append(&mut rest);
        self.forward.set(id, &list);
        self.words.add(id, &summary.description, words);
        insert(&mut self.held, id);
    }

    /// Takes a record out with all that is known of it. `description` is what it was added with; without it, all
    /// words are searched.
    pub(crate) fn remove(&mut self, id: u32, description: Option<&str>) {
        self.facts.remove(id);
        self.popularity.set(id, 0);
        self.providers.set(id, 0);
        self.remove_texts(id, description);
    }

    /// Gives a record other texts; what is known of it beside them stays.
    pub(crate) fn replace(&mut self, id: u32, summary: &Summary, words: &WordList) {
        self.remove_texts(id, None);
        self.insert(id, summary, words);
    }

    fn remove_texts(&mut self, id: u32, description: Option<&str>) {
        if !self.held.remove(id) {
            return;
        }
        let list = self.forward.get(id).unwrap_or_default().to_vec();
        self.forward.clear(id);
        let (fields, rest) = list.split_at(FIELDS.min(list.len()));
        for (column, value) in self.fields.iter_mut().zip(fields) {
            column.remove(id, *value);
        }
        for entry in rest {
            let value = entry & ((1 << TAG_SHIFT) - 1);
            let [skills, domains, modules, locators, annotations] = &mut self.rows;
            match entry >> TAG_SHIFT {
                0 => self.authors.remove(id, value),
                1 => skills.remove(id, value),
                2 => domains.remove(id, value),
                3 => modules.remove(id, value),
                4 => locators.remove(id, value),
                _ => annotations.remove(id, value),
            }
        }
        self.nobody.remove(id);
        match description {
            Some(description) => self.words.remove(id, description),
            None => self.words.remove_blind(id),
        }
    }

    /// From now on many records are added, and nothing is asked until [`SearchIndex::settle`].
    pub(crate) fn collect(&mut self) {
        for column in self.fields.iter_mut().chain([&mut self.authors]) {
            column.collect();
        }
        for pairs in &mut self.rows {
            pairs.collect();
        }
        self.words.collect();
    }

    /// Gives back room after many insertions, part by part; false when `part`, counted from zero, was the last.
    pub(crate) fn settle(&mut self, part: usize) -> bool {
        let columns = self.fields.len();
        let rows = self.rows.len();
        if let Some(column) = self.fields.get_mut(part) {
            column.settle();
        } else if let Some(pairs) = self.rows.get_mut(part.saturating_sub(columns)) {
            pairs.settle();
        } else {
            self.authors.settle();
            self.words.settle();
            self.held.optimize();
        }
        part < columns.saturating_add(rows)
    }

    pub(crate) fn bytes(&self) -> IndexBytes {
        let sum = |parts: &mut dyn Iterator<Item = u64>| parts.fold(0, u64::saturating_add);
        IndexBytes {
            directory: 0,
            fields: sum(&mut self.fields.iter().chain([&self.authors]).map(Column::bytes)),
            rows: sum(&mut self.rows.iter().map(Pairs::bytes)),
            words: self.words.bytes(),
            forward: self.forward.bytes(),
            other: sum(&mut [
                set_bytes(&self.held),
                set_bytes(&self.nobody),
                self.popularity.bytes(),
                self.providers.bytes(),
            ]
            .into_iter()),
            wildcards: sum(&mut self
                .fields
                .iter()
                .map(|column| column.dict.gram_bytes())
                .chain(self.rows.iter().map(Pairs::gram_bytes))),
        }
    }

    /// Number of different values in all dictionaries: zero when nothing is left behind.
    pub(crate) fn values_len(&self) -> usize {
        let fields = self.fields.iter().map(|column| column.dict.len());
        let rows = self.rows.iter().map(Pairs::values_len);
        fields
            .chain(rows)
            .chain([self.authors.dict.len(), self.words.len()])
            .fold(0, usize::saturating_add)
    }
}
