//! Which records have which words in their descriptions. The descriptions themselves are not held: what the words do not
//! settle is looked up in the row.
//!
//! [`super::split`] says what a word is. The words of letters are in a
//! dictionary, so that parts of them are found. Numbers have no end of different ones and are not: each goes, as a
//! whole, to one of a fixed number of sets.

use roaring::RoaringBitmap;

use super::budget::Meter;
use super::dict::{Dict, Fit, Needs};
use super::hash::hash;
use super::pattern::Pattern;
use super::posting::{Postings, insert, set_bytes};
use super::query::QueryError;
use super::split::{MAX_WORD_BYTES, WordList, ideogram, is_number, spans};

/// Records gathered at most for the words a pattern may stand for.
const MAX_GATHERED: u64 = 30_000_000;

/// Sets of numbers.
const NUMBER_SETS: u64 = 1 << 13;

/// The words.
pub(super) struct Words {
    dict: Dict,
    records: Postings,
    /// Records by the hash of their numbers.
    numbers: Postings,
    /// Records with a number.
    numbered: RoaringBitmap,
    /// Records whose words are not all here.
    partial: RoaringBitmap,
}

/// What the words say about a pattern. The two sets have nothing in common.
pub(super) struct Found {
    /// These match.
    pub(super) sure: RoaringBitmap,
    /// These may.
    pub(super) maybe: RoaringBitmap,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            dict: Dict::new(Needs {
                grams: true,
                order: false,
            }),
            records: Postings::default(),
            numbers: Postings::default(),
            numbered: RoaringBitmap::new(),
            partial: RoaringBitmap::new(),
        }
    }
}

impl Words {
    /// Adds a record; `description` is what `list` was made of.
    pub(super) fn add(&mut self, id: u32, description: &str, list: &WordList) {
        if !list.whole() {
            self.partial.insert(id);
        }
        let mut numbered = false;
        for word in list.words(description) {
            if word.number {
                self.numbers.add(bucket(word.hash), id);
                numbered = true;
            } else {
                let (value, _) = self.dict.intern_hashed(word.text, word.text, word.hash);
                self.records.add(value, id);
            }
        }
        if numbered {
            insert(&mut self.numbered, id);
        }
    }

    /// Takes a record out; `description` is what it was added with.
    pub(super) fn remove(&mut self, id: u32, description: &str) {
        self.partial.remove(id);
        self.numbered.remove(id);
        for word in WordList::of(description).words(description) {
            if word.number {
                self.numbers.remove(bucket(word.hash), id);
            } else if let Some(value) = self.dict.find(word.text)
                && self.records.remove(value, id)
            {
                self.dict.remove(value);
            }
        }
    }

    /// What is known about `pattern`; `all` are the records there are.
    pub(super) fn find(
        &self,
        pattern: &Pattern,
        all: &RoaringBitmap,
        meter: &mut Meter,
    ) -> Result<Found, QueryError> {
        let found = |sure, maybe| Ok(Found { sure, maybe });
        let none = RoaringBitmap::new;
        if pattern.is_any() {
            return found(all.clone(), none());
        }
        if pattern.is_nothing() {
            return found(none(), none());
        }
        let mut held: Option<RoaringBitmap> = None;
        let runs = pattern.runs();
        for run in &runs {
            let spans = spans(&run.text);
            for (from, to) in &spans {
                let Some(word) = run.text.get(*from..*to) else {
                    continue;
                };
                // At an open end the word may go on in the text.
                let open_start = *from == 0 && !run.at_start && !ideogram(word);
                let open_end = *to == run.text.len() && !run.at_end && !ideogram(word);
                if word.len() > MAX_WORD_BYTES {
                    // Only records with words left out can have it.
                    held = Some(none());
                    continue;
                }
                if is_number(word) {
                    let records = if open_start || open_end {
                        self.numbered.clone()
                    } else {
                        self.numbers.get(bucket(hash(word))).to_set().into_owned()
                    };
                    held = Some(match held {
                        Some(held) => held & records,
                        None => records,
                    });
                    continue;
                }
                let asked = match (open_start, open_end) {
                    (false, false) => Pattern::new(word),
                    (true, false) => Pattern::new(&format!("*{word}")),
                    (false, true) => Pattern::new(&format!("{word}*")),
                    (true, true) => Pattern::within(word),
                };
                let Fit::These(values) = self.dict.fit(&asked, u64::MAX / 16, meter)? else {
                    continue;
                };
                let ids: u64 = values.iter().map(|value| self.records.len(*value)).sum();
                if ids > MAX_GATHERED {
                    continue;
                }
                meter.step((values.len() as u64).saturating_add(ids / 64))?;
                let records = self.records.union(values.into_iter());
                held = Some(match held {
                    Some(held) => held & records,
                    None => records,
                });
            }
        }
        let Some(held) = held else {
            return found(none(), all.clone());
        };
        let settled = match runs.as_slice() {
            [run] if !run.at_start && !run.at_end && held_whole(pattern, &run.text) => {
                !is_number(&run.text) && spans(&run.text).as_slice() == [(0, run.text.len())]
            }
            _ => false,
        };
        if settled {
            let maybe = &self.partial - &held;
            found(held, maybe)
        } else {
            found(none(), held | &self.partial)
        }
    }

    pub(super) fn collect(&mut self) {
        self.dict.collect();
        self.records.collect();
        self.numbers.collect();
    }

    pub(super) fn settle(&mut self) {
        self.dict.settle();
        self.records.settle();
        self.numbers.settle();
    }

    pub(super) fn bytes(&self) -> u64 {
        self.dict
            .bytes()
            .saturating_add(self.numbers.bytes())
            .saturating_add(set_bytes(&self.numbered))
            .saturating_add(self.records.bytes())
            .saturating_add(set_bytes(&self.partial))
    }

    /// Number of different words, for tests.
    pub(super) fn len(&self) -> usize {
        let numbers = (0..NUMBER_SETS).filter(|bucket| {
            let bucket = u32::try_from(*bucket).unwrap_or(0);
            self.numbers.len(bucket) > 0
        });
        self.dict.len().saturating_add(numbers.count())
    }

    /// Takes a record out whose description is not known any more: every word is asked.
    pub(super) fn remove_blind(&mut self, id: u32) {
        self.partial.remove(id);
        if self.numbered.remove(id) {
            for bucket in 0..u32::try_from(NUMBER_SETS).unwrap_or(0) {
                self.numbers.remove(bucket, id);
            }
        }
        self.records.flush();
        for value in self.dict.values() {
            if self.records.contains(value, id) && self.records.remove(value, id) {
                self.dict.remove(value);
            }
        }
    }
}

/// The set of a number.
fn bucket(number_hash: u64) -> u32 {
    u32::try_from(number_hash % NUMBER_SETS).unwrap_or(0)
}

/// True if `pattern` is a star, `text` and a star: what stands around the text does not matter.
fn held_whole(pattern: &Pattern, text: &str) -> bool {
    !text.contains(['*', '?', '\\', '%', '_']) && *pattern == Pattern::within(text)
}
