//! The two matching rules of queries (grpc-api §4.9): [`Pattern`] with `*` and `?`, and [`Comparison`] with an
//! operator in front. Pure; both are safe on any text a client sends.
//!
//! Letter case is folded by Unicode rules on both sides, one code point to one code point, so that `?` counts what was
//! stored. The reference folds the stored side by ASCII rules only and never finds a stored `É` by its name; that is a
//! slip of its database and not followed. [`fold_stored`] is the fold.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Bound;

/// A name query; see [`Pattern`].
pub type NamePattern = Pattern;

/// Folds a stored text for matching. Do it once per stored text, not once per query.
#[must_use]
pub fn fold_stored(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars()
        .map(|letter| letter.to_lowercase().next().unwrap_or(letter))
        .collect()
}

/// As [`fold_stored`], without a copy where nothing changes.
pub(super) fn folded(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .any(|byte| !byte.is_ascii() || byte.is_ascii_uppercase())
    {
        Cow::Owned(fold_stored(text))
    } else {
        Cow::Borrowed(text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    One(char),
    AnyOne,
    AnyRun,
}

/// What comes down to comparing bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// `a*`
    Starts(String),
    /// `*a`
    Ends(String),
    /// `*a*`
    Holds(String),
    Other,
}

impl Shape {
    fn of(pieces: &[Piece]) -> Self {
        let starts = pieces.first() != Some(&Piece::AnyRun);
        let ends = pieces.last() != Some(&Piece::AnyRun);
        let inner = pieces.get(usize::from(!starts)..pieces.len().saturating_sub(usize::from(!ends)));
        let mut text = String::new();
        for piece in inner.unwrap_or_default() {
            let Piece::One(letter) = piece else {
                return Self::Other;
            };
            text.push(*letter);
        }
        match (starts, ends) {
            (true, false) => Self::Starts(text),
            (false, true) => Self::Ends(text),
            (false, false) => Self::Holds(text),
            (true, true) => Self::Other,
        }
    }

    fn matches(&self, folded: &str) -> Option<bool> {
        match self {
            Self::Starts(text) => Some(folded.starts_with(text)),
            Self::Ends(text) => Some(folded.ends_with(text)),
            Self::Holds(text) => Some(memchr::memmem::find(folded.as_bytes(), text.as_bytes()).is_some()),
            Self::Other => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Exact(String),
    Wild(Vec<Piece>, Shape),
    Nothing,
}

/// A value as the NAME, AUTHOR, annotation and other pattern queries read it: `*` is any run, `?` one code point,
/// all else is literal; without either the whole text must be equal.
///
/// In a wildcard pattern a backslash escapes as it does in SQL `LIKE`, after `*` became `%` and `?` became `_`:
/// `\*` asks for a literal `%`, `\?` for a literal `_`, `\\` for one backslash, a trailing one matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Form);

impl Pattern {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn new(value: &str) -> Self {
        let folded = fold_stored(value);
        if !folded.contains(['*', '?']) {
            return Self(Form::Exact(folded));
        }
        let mut pieces = Vec::new();
        let mut rest = folded.chars();
        while let Some(letter) = rest.next() {
            pieces.push(match letter {
                // A second star in a row adds nothing, and would make matching slower.
                '*' if pieces.last() == Some(&Piece::AnyRun) => continue,
                '*' => Piece::AnyRun,
                '?' => Piece::AnyOne,
                '\\' => match rest.next() {
                    None => return Self(Form::Nothing),
                    Some('*') => Piece::One('%'),
                    Some('?') => Piece::One('_'),
                    Some(other) => Piece::One(other),
                },
                other => Piece::One(other),
            });
        }
        let shape = Shape::of(&pieces);
        Self(Form::Wild(pieces, shape))
    }

    /// The one folded text that matches, if the pattern has no wildcard: a lookup instead of a scan.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match &self.0 {
            Form::Exact(text) => Some(text),
            _ => None,
        }
    }

    /// A pattern that no text matches.
    pub(super) fn nothing() -> Self {
        Self(Form::Nothing)
    }

    /// The pattern for texts that hold a match of `value` anywhere.
    pub(super) fn within(value: &str) -> Self {
        Self::new(&format!("*{value}*"))
    }

    /// True if every text matches.
    pub(super) fn is_any(&self) -> bool {
        matches!(&self.0, Form::Wild(pieces, _) if pieces.as_slice() == [Piece::AnyRun])
    }

    /// True if no text matches.
    pub(super) fn is_nothing(&self) -> bool {
        self.0 == Form::Nothing
    }

    /// For `a/b/*`, and nothing else, the `a/b`.
    pub(super) fn ancestor(&self) -> Option<String> {
        let Form::Wild(pieces, _) = &self.0 else {
            return None;
        };
        let (Piece::AnyRun, literal) = pieces.split_last()? else {
            return None;
        };
        let mut text = String::new();
        for piece in literal {
            let Piece::One(letter) = piece else { return None };
            text.push(*letter);
        }
        text.strip_suffix('/').map(str::to_owned)
    }

    /// The texts between wildcards, folded, none of them empty.
    pub(super) fn runs(&self) -> Vec<Run> {
        let pieces = match &self.0 {
            Form::Exact(text) => {
                return vec![Run {
                    text: text.clone(),
                    at_start: true,
                    at_end: true,
                }];
            }
            Form::Nothing => return Vec::new(),
            Form::Wild(pieces, _) => pieces,
        };
        let mut runs = Vec::new();
        let mut run = Run {
            text: String::new(),
            at_start: true,
            at_end: false,
        };
        for piece in pieces {
            if let Piece::One(letter) = piece {
                run.text.push(*letter);
                continue;
            }
            if !run.text.is_empty() {
                runs.push(std::mem::take(&mut run));
            }
            run.at_start = false;
        }
        run.at_end = true;
        if !run.text.is_empty() {
            runs.push(run);
        }
        runs
    }

    /// True if `folded`, the result of [`fold_stored`], matches.
    ///
    /// Takes time in proportion to the product of both lengths at worst, and no stack.
    #[must_use]
    pub fn matches(&self, folded: &str) -> bool {
        let mut steps = u64::MAX;
        self.matches_within(folded, &mut steps) == Some(true)
    }

    /// As [`Pattern::matches`], taking one step for each letter looked at; `None` when `steps` ran out.
    pub(super) fn matches_within(&self, folded: &str, steps: &mut u64) -> Option<bool> {
        match &self.0 {
            Form::Exact(text) => Some(text == folded),
            Form::Wild(pieces, shape) => match shape.matches(folded) {
                Some(fits) => {
                    *steps = steps.checked_sub(1 + folded.len() as u64 / 16)?;
                    Some(fits)
                }
                None => wild(pieces, folded, steps),
            },
            Form::Nothing => Some(false),
        }
    }
}

/// A literal part of a pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) text: String,
    /// Nothing stands before it.
    pub(super) at_start: bool,
    /// Nothing stands after it.
    pub(super) at_end: bool,
}

/// Greedy matching that goes back to the latest star only: a shorter match of an earlier star can never help.
fn wild(pieces: &[Piece], text: &str, steps: &mut u64) -> Option<bool> {
    let mut at = 0;
    let mut rest = text.chars();
    let mut star: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        *steps = steps.checked_sub(1)?;
        match pieces.get(at) {
            Some(Piece::AnyRun) => {
                at += 1;
                star = Some((at, rest.clone()));
                continue;
            }
            Some(piece) => {
                let mut ahead = rest.clone();
                let next = ahead.next();
                let fits = match piece {
                    Piece::One(wanted) => next == Some(*wanted),
                    _ => next.is_some(),
                };
                if fits {
                    at += 1;
                    rest = ahead;
                    continue;
                }
                if next.is_none() {
                    return Some(false);
                }
            }
            None if rest.as_str().is_empty() => return Some(true),
            None => {}
        }
        let Some((after, from)) = &mut star else {
            return Some(false);
        };
        if from.next().is_none() {
            return Some(false);
        }
        at = *after;
        rest = from.clone();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    AtLeast,
    AtMost,
    Above,
    Below,
    Equal,
}

/// A value with an operator in front, as VERSION, SCHEMA_VERSION and CREATED_AT queries know it: one of `>=`,
/// `<=`, `>`, `<`, `=`, taken off once, and the rest compared byte by byte as text, in its own letter case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    operator: Operator,
    text: String,
}

impl Comparison {
    /// Reads a comparison; `None` if no operator stands in front.
    #[must_use]
    pub fn new(value: &str) -> Option<Self> {
        const OPERATORS: [(&str, Operator); 5] = [
            (">=", Operator::AtLeast),
            ("<=", Operator::AtMost),
            (">", Operator::Above),
            ("<", Operator::Below),
            ("=", Operator::Equal),
        ];
        OPERATORS.iter().find_map(|(sign, operator)| {
            let text = value.strip_prefix(sign)?.to_owned();
            Some(Self {
                operator: *operator,
                text,
            })
        })
    }

    /// The bounds of the texts that fit, in byte order.
    pub(super) fn range(&self) -> (Bound<&str>, Bound<&str>) {
        let text = self.text.as_str();
        match self.operator {
            Operator::AtLeast => (Bound::Included(text), Bound::Unbounded),
            Operator::AtMost => (Bound::Unbounded, Bound::Included(text)),
            Operator::Above => (Bound::Excluded(text), Bound::Unbounded),
            Operator::Below => (Bound::Unbounded, Bound::Excluded(text)),
            Operator::Equal => (Bound::Included(text), Bound::Included(text)),
        }
    }

    /// True if the stored text fits. It is not folded.
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        let order = stored.as_bytes().cmp(self.text.as_bytes());
        match self.operator {
            Operator::AtLeast => order != Ordering::Less,
            Operator::AtMost => order != Ordering::Greater,
            Operator::Above => order == Ordering::Greater,
            Operator::Below => order == Ordering::Less,
            Operator::Equal => order == Ordering::Equal,
        }
    }
}

/// A value of a field that takes operators or patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRule {
    /// An operator stood in front.
    Compare(Comparison),
    /// None did.
    Match(Pattern),
}

impl VersionRule {
    /// Reads a rule. Every text is one.
    #[must_use]
    pub fn new(value: &str) -> Self {
        Comparison::new(value).map_or_else(|| Self::Match(Pattern::new(value)), Self::Compare)
    }

    /// True if the stored text, unfolded, fits.
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        match self {
            Self::Compare(comparison) => comparison.matches(stored),
            Self::Match(pattern) => pattern.matches(&fold_stored(stored)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, stored: &str, expected: bool) {
        assert_eq!(
            Pattern::new(pattern).matches(&fold_stored(stored)),
            expected,
            "pattern {pattern:?} on {stored:?}"
        );
    }

    #[test]
    fn wildcards_and_case() {
        check("", "", true);
        check("", "a", false);
        check("*", "", true);
        check("?", "", false);
        check("HARBOR.example/*", "harbor.Example/ships", true);
        check("h*r*/p*t", "harbor.example/ships/pilot", true);
        check("**", "anything", true);
        check("*[*", "a[b]", true);
        check("100%", "100x", false);
        check("a?c", "a🚀c", true);
    }

    /// A capital is found whatever its alphabet, and stays one code point when its lower case has two.
    #[test]
    fn letters_beyond_ascii_fold_on_both_sides() {
        check("École", "École", true);
        check("école", "ÉCOLE", true);
        check("?cole", "École", true);
        check("İ", "İ", true);
        check("?x", "İX", true);
        check("Ω*Σ", "ωας", false);
        check("Ω*Σ", "ωασ", true);
    }

    #[test]
    fn backslash_is_the_escape_of_like() {
        check(r"a\b", r"a\b", true);
        check(r"a\*", "a%", true);
        check(r"a\*", "a*", false);
        check(r"a\?*", "a_z", true);
        check(r"*\\b", r"a\b", true);
        check(r"*\", r"a\", false);
    }

    #[test]
    fn operators_compare_bytes() {
        assert!(Comparison::new("v1").is_none());
        assert!(VersionRule::new("<v9").matches("v10"));
        assert!(!VersionRule::new(">=v9").matches("v10"));
        assert!(VersionRule::new("=>1").matches(">1"));
        assert!(VersionRule::new("<>1").matches("=") && !VersionRule::new("<>1").matches(">1"));
        assert!(VersionRule::new("<=").matches(""));
        assert!(VersionRule::new("V1.*").matches("v1.2"));
    }

    /// Many stars on a long text end at once instead of trying every split.
    #[test]
    fn hostile_pattern_is_cheap() {
        let pattern = "*a".repeat(400) + "b?";
        check(&pattern, &"a".repeat(20_000), false);
    }

    /// Tries every split; the definition, not an algorithm.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            Some(('?', rest)) => !text.is_empty() && naive(rest, &text[1..]),
            Some((letter, rest)) => text.first() == Some(letter) && naive(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[abé*?]{0,9}", text in "[abé]{0,12}") {
            let letters: Vec<char> = text.chars().collect();
            let wanted = naive(&pattern.chars().collect::<Vec<_>>(), &letters);
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), wanted);
        }

        #[test]
        fn any_text_is_a_pattern(pattern in any::<String>(), text in any::<String>()) {
            let _ = Pattern::new(&pattern).matches(&fold_stored(&text));
            let exact = VersionRule::new(&format!("={text}")).matches(&text);
            prop_assert!(exact);
        }
    }
}
