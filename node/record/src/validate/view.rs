//! One way to look at a record for the rules, whether it came as protobuf or as JSON text.
//!
//! A record from protobuf has doubles, and is judged by the number text that its canonical bytes would have. A record
//! from text is judged by its literals: `4.0` is not an integer there, and integers keep all their digits.
//! Follows validation §4.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;

use dirnode_proto::Value;

use crate::canonical::write_number;
use crate::scan::Literal;
use crate::tree::Node;

/// A JSON value as the rules see it.
pub(super) enum View<'a, T> {
    Null,
    Bool(bool),
    /// An integer literal of up to 127 bits.
    Int(i128),
    /// A larger integer literal, by its digits.
    Big(&'a str),
    /// A literal with a fraction or exponent.
    Float(f64),
    Text(&'a str),
    List(&'a [T]),
    Object(&'a BTreeMap<String, T>),
}

/// A tree the rules can walk.
pub(super) trait Tree: Sized {
    fn view(&self) -> View<'_, Self>;
}

/// From here on canonical number text has an exponent, which makes it a float.
const FIRST_EXPONENT: f64 = 1e21;
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Tree for Value {
    fn view(&self) -> View<'_, Self> {
        match self {
            // The caller has made sure that nothing is unset.
            Self::Null | Self::Unset => View::Null,
            Self::Bool(value) => View::Bool(*value),
            Self::Number(number) if number.fract() != 0.0 || number.abs() >= FIRST_EXPONENT => {
                View::Float(*number)
            }
            Self::Number(number) if number.abs() <= EXACT => {
                #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
                let whole = *number as i128;
                View::Int(whole)
            }
            Self::Number(number) => {
                // The text has the shortest digits, which for large numbers is not the exact value.
                let mut text = Vec::new();
                let whole = write_number(&mut text, *number)
                    .ok()
                    .and_then(|()| std::str::from_utf8(&text).ok())
                    .and_then(|text| text.parse().ok());
                whole.map_or(View::Float(*number), View::Int)
            }
            Self::String(text) => View::Text(text),
            Self::List(items) => View::List(items),
            Self::Object(fields) => View::Object(fields),
        }
    }
}

/// A JSON document with its number literals.
#[derive(Debug)]
pub(super) enum Doc {
    Null,
    Bool(bool),
    Int(i128),
    Big(String),
    Float(f64),
    Text(String),
    List(Vec<Doc>),
    Object(BTreeMap<String, Doc>),
}

impl Tree for Doc {
    fn view(&self) -> View<'_, Self> {
        match self {
            Self::Null => View::Null,
            Self::Bool(value) => View::Bool(*value),
            Self::Int(whole) => View::Int(*whole),
            Self::Big(digits) => View::Big(digits),
            Self::Float(number) => View::Float(*number),
            Self::Text(text) => View::Text(text),
            Self::List(items) => View::List(items),
            Self::Object(fields) => View::Object(fields),
        }
    }
}

impl Node for Doc {
    const FIRST_KEY_STAYS: bool = true;

    fn null() -> Self {
        Self::Null
    }

    fn bool(value: bool) -> Self {
        Self::Bool(value)
    }

    fn number(literal: &Literal<'_>) -> Option<Self> {
        if !literal.integer {
            let number = literal.to_double();
            return number.is_finite().then_some(Self::Float(number));
        }
        // Reading more digits than any rule asks for would take time that grows with their square.
        Some(
            literal
                .text
                .parse()
                .map_or_else(|_| Self::Big(literal.text.to_owned()), Self::Int),
        )
    }

    fn text(text: String) -> Self {
        Self::Text(text)
    }

    fn list(items: Vec<Self>) -> Self {
        Self::List(items)
    }

    fn object(fields: BTreeMap<String, Self>) -> Self {
        Self::Object(fields)
    }

    fn discard(mut nodes: Vec<Self>) {
        while let Some(node) = nodes.pop() {
            match node {
                Self::List(items) => nodes.extend(items),
                Self::Object(fields) => nodes.extend(fields.into_values()),
                _ => {}
            }
        }
    }
}

/// A document at the top; dropping it does not recurse.
pub(super) struct Owned(pub(super) Doc);

impl Drop for Owned {
    fn drop(&mut self) {
        Doc::discard(vec![mem::replace(&mut self.0, Doc::Null)]);
    }
}

/// Orders values so that those the rules call duplicates are equal: numbers by value, whatever their literal, and
/// null, true and false as the texts `nil`, `true` and `false`.
pub(super) fn compare<T: Tree>(a: &T, b: &T) -> Ordering {
    match (a.view(), b.view()) {
        (View::List(a), View::List(b)) => grown(|| {
            let unequal = a
                .iter()
                .zip(b)
                .map(|(a, b)| compare(a, b))
                .find(|order| order.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }),
        (View::Object(a), View::Object(b)) => grown(|| {
            let unequal = a
                .iter()
                .zip(b)
                .map(|((key, value), (other, against))| key.cmp(other).then_with(|| compare(value, against)))
                .find(|order| order.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }),
        (View::Int(a), View::Int(b)) => a.cmp(&b),
        (View::Int(a), View::Float(b)) => compare_mixed(a, b),
        (View::Float(a), View::Int(b)) => compare_mixed(b, a).reverse(),
        (View::Float(a), View::Float(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        (View::Big(a), View::Big(b)) => a.cmp(b),
        (a, b) => match (word(&a), word(&b)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => rank(&a).cmp(&rank(&b)),
        },
    }
}

fn compare_mixed(whole: i128, number: f64) -> Ordering {
    const LIMIT: f64 = 170_141_183_460_469_231_731_687_303_715_884_105_728.0;
    if number.fract() == 0.0 && number.abs() < LIMIT {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 127 bits")]
        let number = number as i128;
        return whole.cmp(&number);
    }
    // A fraction is below 2^53, where doubles are exact, and anything else left is beyond every integer here.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the order does not need the lost digits"
    )]
    let whole = whole as f64;
    whole.partial_cmp(&number).unwrap_or(Ordering::Equal)
}

fn word<'a, T>(view: &View<'a, T>) -> Option<&'a str> {
    match view {
        View::Null => Some("nil"),
        View::Bool(true) => Some("true"),
        View::Bool(false) => Some("false"),
        View::Text(text) => Some(text),
        _ => None,
    }
}

fn rank<T>(view: &View<'_, T>) -> u8 {
    match view {
        View::Null | View::Bool(_) | View::Text(_) => 0,
        View::Int(_) | View::Float(_) => 1,
        View::Big(_) => 2,
        View::List(_) => 3,
        View::Object(_) => 4,
    }
}

/// Runs `work` with enough stack for its own frames; nesting may be thousands deep.
pub(super) fn grown<R>(work: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(128 * 1024, 1024 * 1024, work)
}

/// The text of a scalar in the notation of the schema server: what is compared with closed values, and what messages
/// quote. Lists and objects have none.
pub(super) fn scalar_text<T>(view: &View<'_, T>) -> Option<String> {
    Some(match view {
        View::Null => "nil".to_owned(),
        View::Bool(value) => value.to_string(),
        View::Int(whole) => whole.to_string(),
        View::Big(digits) => (*digits).to_owned(),
        View::Float(number) => float_text(*number),
        View::Text(text) => (*text).to_owned(),
        View::List(_) | View::Object(_) => return None,
    })
}

/// The shortest digits, always with a point; written with an exponent where that is shorter, or from 2^53 on.
fn float_text(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0.0" } else { "0.0" }.to_owned();
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, point) = crate::canonical::decimal(buffer.format_finite(number.abs()));
    let digits = std::str::from_utf8(digits.get()).unwrap_or_default();
    let length = i32::try_from(digits.len()).unwrap_or(0);
    let exponent = (point - 1).to_string();
    let exponent_cost = i32::try_from(exponent.len()).unwrap_or(0) + 1 + if length == 1 { 2 } else { 1 };
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let scientific = || {
        let (first, rest) = digits.split_at_checked(1).unwrap_or_default();
        format!("{first}.{}e{exponent}", if rest.is_empty() { "0" } else { rest })
    };
    let plain = if number.abs() >= EXACT {
        scientific()
    } else if point <= 0 {
        if point == 0 || 2 - point <= exponent_cost {
            format!("0.{}{digits}", zeros(-point))
        } else {
            scientific()
        }
    } else if point >= length {
        if point - length + 2 <= exponent_cost {
            format!("{digits}{}.0", zeros(point - length))
        } else {
            scientific()
        }
    } else {
        let (whole, fraction) = digits
            .split_at_checked(usize::try_from(point).unwrap_or(0))
            .unwrap_or_default();
        format!("{whole}.{fraction}")
    };
    if number.is_sign_negative() {
        format!("-{plain}")
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_the_server_writes_them() {
        for (number, text) in [
            (5.0, "5.0"),
            (100.0, "100.0"),
            (1000.0, "1.0e3"),
            (1234.5, "1234.5"),
            (0.5, "0.5"),
            (0.001, "0.001"),
            (-2.5, "-2.5"),
            (1e21, "1.0e21"),
            (0.0, "0.0"),
        ] {
            assert_eq!(float_text(number), text);
        }
    }

    #[test]
    fn duplicates_are_equal_across_literals() {
        let number = |n| Value::Number(n);
        assert_eq!(compare(&Doc::Int(1), &Doc::Float(1.0)), Ordering::Equal);
        assert_eq!(compare(&Doc::Null, &Doc::Text("nil".to_owned())), Ordering::Equal);
        assert_eq!(
            compare(&Doc::Bool(true), &Doc::Text("true".to_owned())),
            Ordering::Equal
        );
        assert_ne!(compare(&Doc::Int(1), &Doc::Text("1".to_owned())), Ordering::Equal);
        assert_eq!(
            compare(
                &Value::List(vec![number(1.0), Value::Null]),
                &Value::List(vec![number(1.0), Value::Null])
            ),
            Ordering::Equal
        );
    }
}
