//! Which records have which words in their descriptions. The descriptions themselves are not held: what the words do not
//! settle is looked up in the row.
//!
//! A word is a run of letters, or of digits, or one letter of a script written without spaces. The words of letters are in
//! a dictionary, so that parts of them are found. Numbers have no end of different ones and are not: each goes, as a
//! whole, to one of a fixed number of sets.

use std::hash::{BuildHasher, RandomState};

use roaring::RoaringBitmap;

use super::budget::Meter;
use super::dict::{Dict, Fit, Needs};
use super::pattern::{Pattern, folded};
use super::posting::{Postings, insert, set_bytes};
use super::query::QueryError;

/// Words taken from one description; what has more is looked up for every pattern.
const MAX_WORDS: usize = 16_384;
/// The longest word.
const MAX_WORD_BYTES: usize = 64;
/// Letters from here on are words of their own: scripts written without spaces.
const FIRST_IDEOGRAM: char = '\u{2e80}';
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
    hasher: RandomState,
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

/// A word inside a text: where it begins and ends, in bytes.
fn spans(folded: &str) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    let mut open = None;
    for (at, letter) in folded.char_indices() {
        let end = at.saturating_add(letter.len_utf8());
        if !letter.is_alphanumeric() {
            open = None;
        } else if letter >= FIRST_IDEOGRAM {
            spans.push((at, end));
            open = None;
        } else if open == Some(letter.is_numeric()) {
            if let Some(last) = spans.last_mut() {
                last.1 = end;
            }
        } else {
            spans.push((at, end));
            open = Some(letter.is_numeric());
        }
    }
    spans
}

/// The words of a folded text, some of them more than once, and whether they are all.
fn words(folded: &str) -> (Vec<&str>, bool) {
    let mut words: Vec<&str> = spans(folded)
        .into_iter()
        .filter_map(|(from, to)| folded.get(from..to))
        .collect();
    let count = words.len();
    words.truncate(MAX_WORDS);
    words.retain(|word| word.len() <= MAX_WORD_BYTES);
    let whole = words.len() == count;
    (words, whole)
}

impl Default for Words {
    fn default() -> Self {
        Self {
            dict: Dict::new(Needs {
                patterns: true,
                order: false,
            }),
            records: Postings::default(),
            numbers: Postings::default(),
            numbered: RoaringBitmap::new(),
            hasher: RandomState::new(),
            partial: RoaringBitmap::new(),
        }
    }
}

impl Words {
    pub(super) fn add(&mut self, id: u32, description: &str) {
        let folded = folded(description);
        let (words, whole) = words(&folded);
        if !whole {
            self.partial.insert(id);
        }
        for word in words {
            if is_number(word) {
                let bucket = self.bucket(word);
                self.numbers.add(bucket, id);
                insert(&mut self.numbered, id);
            } else {
                let (value, _) = self.dict.intern(word);
                self.records.add(value, id);
            }
        }
    }

    fn bucket(&self, number: &str) -> u32 {
        u32::try_from(self.hasher.hash_one(number) % NUMBER_SETS).unwrap_or(0)
    }

    /// Takes a record out; `description` is what it was added with.
    pub(super) fn remove(&mut self, id: u32, description: &str) {
        self.partial.remove(id);
        let folded = folded(description);
        self.numbered.remove(id);
        for word in words(&folded).0 {
            if is_number(word) {
                self.numbers.remove(self.bucket(word), id);
            } else if let Some(value) = self.dict.find(word)
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
                        self.numbers.get(self.bucket(word)).to_set().into_owned()
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

fn is_number(word: &str) -> bool {
    word.chars()
        .next()
        .is_some_and(|letter| letter < FIRST_IDEOGRAM && letter.is_numeric())
}

fn ideogram(word: &str) -> bool {
    word.chars().next().is_some_and(|letter| letter >= FIRST_IDEOGRAM)
}

/// True if `pattern` is a star, `text` and a star: what stands around the text does not matter.
fn held_whole(pattern: &Pattern, text: &str) -> bool {
    !text.contains(['*', '?', '\\', '%', '_']) && *pattern == Pattern::within(text)
}
