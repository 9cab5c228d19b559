//! Takes descriptions apart into words, without the index at hand, so that it can be done before the index is locked.
//!
//! A word is a run of letters, or of digits, or one letter of a script written without spaces, in folded form. Pure; the
//! work goes with the length of the text, the memory is bounded by [`MAX_WORDS`].

use std::borrow::Cow;

use super::hash::hash;
use super::pattern::folded;

/// Words taken from one description; what has more is looked up for every pattern.
const MAX_WORDS: usize = 16_384;
/// The longest word.
pub(super) const MAX_WORD_BYTES: usize = 64;
/// Letters from here on are words of their own: scripts written without spaces.
const FIRST_IDEOGRAM: char = '\u{2e80}';

/// The different words of one description, in the order of their first appearance.
#[derive(Debug)]
pub(crate) struct WordList {
    /// The folded description, where it differs from the description.
    folded: Option<Box<str>>,
    places: Vec<Place>,
    whole: bool,
}

/// Where a word stands in the folded text.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u64,
    start: u32,
    len: u8,
    number: bool,
}

/// A word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    /// The [`hash`] of the text.
    pub(super) hash: u64,
    pub(super) number: bool,
}

impl WordList {
    /// The words of `description`.
    pub(crate) fn of(description: &str) -> Self {
        let folded = folded(description);
        let spans = spans(&folded);
        let mut places: Vec<Place> = Vec::with_capacity(spans.len().min(MAX_WORDS));
        let mut whole = spans.len() <= MAX_WORDS;
        let mut seen = Seen::of(spans.len().min(MAX_WORDS));
        for (from, to) in spans.into_iter().take(MAX_WORDS) {
            let Some(text) = folded.get(from..to) else {
                continue;
            };
            let (Ok(start), Ok(len)) = (u32::try_from(from), u8::try_from(text.len())) else {
                whole = false;
                continue;
            };
            if text.len() > MAX_WORD_BYTES {
                whole = false;
                continue;
            }
            let hash = hash(text);
            let is_new = seen.insert(hash, places.len(), |at| {
                places.get(at).is_some_and(|place| {
                    let held = place.start as usize;
                    place.hash == hash
                        && folded.get(held..held.saturating_add(place.len.into())) == Some(text)
                })
            });
            if is_new {
                places.push(Place {
                    hash,
                    start,
                    len,
                    number: is_number(text),
                });
            }
        }
        Self {
            places,
            whole,
            folded: match folded {
                Cow::Borrowed(_) => None,
                Cow::Owned(folded) => Some(folded.into()),
            },
        }
    }

    /// The words; `description` is what the list was made of.
    pub(super) fn words<'a>(&'a self, description: &'a str) -> impl Iterator<Item = Word<'a>> {
        let text = self.folded.as_deref().unwrap_or(description);
        self.places.iter().filter_map(move |place| {
            let start = place.start as usize;
            Some(Word {
                text: text.get(start..start.checked_add(place.len.into())?)?,
                hash: place.hash,
                number: place.number,
            })
        })
    }

    /// False if there are words that are not in the list.
    pub(super) fn whole(&self) -> bool {
        self.whole
    }
}

/// Finds words met before, by open addressing.
struct Seen {
    /// A place in the list plus one; zero for none. As long as a power of two.
    slots: Vec<u16>,
}

impl Seen {
    fn of(words: usize) -> Self {
        Self {
            slots: vec![0; words.saturating_mul(2).next_power_of_two()],
        }
    }

    /// Notes that `at` holds a word with this hash, unless `same` finds it in the list.
    fn insert(&mut self, hash: u64, at: usize, same: impl Fn(usize) -> bool) -> bool {
        let mask = self.slots.len().saturating_sub(1);
        let mut slot = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        for _ in 0..self.slots.len() {
            let Some(held) = self.slots.get_mut(slot) else {
                return true;
            };
            match usize::from(*held).checked_sub(1) {
                None => {
                    *held = u16::try_from(at.saturating_add(1)).unwrap_or(0);
                    return true;
                }
                Some(held) if same(held) => return false,
                Some(_) => slot = slot.wrapping_add(1) & mask,
            }
        }
        true
    }
}

/// Where the words of a folded text begin and end, in bytes.
pub(super) fn spans(folded: &str) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = Vec::with_capacity(folded.len() / 6);
    // Where the open word begins, and whether it is a number.
    let mut open: Option<(usize, bool)> = None;
    let bytes = folded.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (size, kind) = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => (1, Some(false)),
            b'0'..=b'9' => (1, Some(true)),
            0..=0x7f => (1, None),
            _ => {
                let letter = folded.get(at..).and_then(|rest| rest.chars().next());
                // Words begin and end at letters, so there is one.
                let letter = letter.unwrap_or(' ');
                let size = letter.len_utf8();
                if letter.is_alphanumeric() && letter >= FIRST_IDEOGRAM {
                    spans.extend(open.take().map(|(from, _)| (from, at)));
                    spans.push((at, at.saturating_add(size)));
                    at = at.saturating_add(size);
                    continue;
                }
                (size, letter.is_alphanumeric().then(|| letter.is_numeric()))
            }
        };
        if kind != open.map(|(_, number)| number) {
            spans.extend(open.take().map(|(from, _)| (from, at)));
            open = kind.map(|number| (at, number));
        }
        at = at.saturating_add(size);
    }
    spans.extend(open.map(|(from, _)| (from, bytes.len())));
    spans
}

/// True for a word of digits.
pub(super) fn is_number(word: &str) -> bool {
    word.chars()
        .next()
        .is_some_and(|letter| letter < FIRST_IDEOGRAM && letter.is_numeric())
}

/// True for a letter that is a word of its own.
pub(super) fn ideogram(word: &str) -> bool {
    word.chars().next().is_some_and(|letter| letter >= FIRST_IDEOGRAM)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::index::pattern::fold_stored;

    /// The rule, letter by letter.
    fn plain(folded: &str) -> Vec<&str> {
        let kind = |letter: char| (letter.is_alphanumeric(), letter.is_numeric());
        let letters: Vec<(usize, char)> = folded.char_indices().collect();
        let groups = letters
            .chunk_by(|one, other| kind(one.1) == kind(other.1) && one.1.max(other.1) < FIRST_IDEOGRAM);
        groups
            .filter(|group| group[0].1.is_alphanumeric())
            .map(|group| {
                let (last, letter) = group[group.len() - 1];
                &folded[group[0].0..last + letter.len_utf8()]
            })
            .collect()
    }

    proptest! {
        #[test]
        fn words_are_runs_of_one_kind(text in "[a-cA-C0-9éÉ½٣ 。日本-]{0,24}|\\PC{0,24}") {
            let folded = fold_stored(&text);
            let found: Vec<&str> = spans(&folded).into_iter().map(|(from, to)| &folded[from..to]).collect();
            prop_assert_eq!(&found, &plain(&folded));
            let list = WordList::of(&text);
            prop_assert!(list.whole());
            let words: Vec<Word<'_>> = list.words(&text).collect();
            let texts: BTreeSet<&str> = words.iter().map(|word| word.text).collect();
            prop_assert_eq!(texts.len(), words.len(), "a word came twice");
            prop_assert_eq!(texts, found.into_iter().collect::<BTreeSet<_>>());
            for word in words {
                prop_assert_eq!((word.hash, word.number), (hash(word.text), is_number(word.text)));
            }
        }
    }

    #[test]
    fn what_is_left_out_is_told() {
        assert!(!WordList::of(&"x".repeat(MAX_WORD_BYTES + 1)).whole());
        assert!(!WordList::of(&"x".repeat(300)).whole());
        assert!(WordList::of(&"x".repeat(MAX_WORD_BYTES)).whole());
        let many: String = (0..=MAX_WORDS).map(|number| format!("{number} ")).collect();
        let list = WordList::of(&many);
        assert!(!list.whole());
        assert_eq!(list.words(&many).count(), MAX_WORDS);
    }
}
