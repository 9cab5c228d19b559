//! The canonical bytes of a record: the one JSON text whose hash is its CID.
//!
//! Writes, never reads; works through an explicit stack, so depth is bounded by memory and not by the thread. Holds
//! no state. Follows grpc-api §3.1: keys in byte order, no white space, shortest digits, `<`, `>`, `&` and the two
//! Unicode line separators escaped.

use std::collections::btree_map;

use dirnode_proto::{Struct, Value};

/// A value that has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CanonicalError {
    /// NaN or an infinity.
    #[error("number {number} has no json form")]
    NonFinite {
        /// The number.
        number: f64,
    },
    /// A value whose kind was never set.
    #[error("a value without a kind has no json form")]
    ValueWithoutKind,
}

impl CanonicalError {
    /// The name of the failure that the vectors use.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::NonFinite { .. } => "non_finite_number",
            Self::ValueWithoutKind => "value_without_kind",
        }
    }

    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::Invalid
    }
}

/// The canonical bytes of `record`.
///
/// # Errors
/// [`CanonicalError`] when the record holds something JSON cannot say.
pub fn to_canonical(record: &Struct) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::with_capacity(1024);
    write_struct(&mut out, record)?;
    Ok(out)
}

/// Appends the canonical bytes of `object`.
///
/// # Errors
/// As [`to_canonical`]; `out` then ends in the middle of a value.
pub fn write_struct(out: &mut Vec<u8>, object: &Struct) -> Result<(), CanonicalError> {
    out.push(b'{');
    write_open(out, Open::Object(object.fields.iter(), true))
}

/// Appends the canonical bytes of `value`.
///
/// # Errors
/// As [`to_canonical`]; `out` then ends in the middle of a value.
pub fn write_value(out: &mut Vec<u8>, value: &Value) -> Result<(), CanonicalError> {
    match write_start(out, value)? {
        Some(open) => write_open(out, open),
        None => Ok(()),
    }
}

/// A list or object whose opening bracket is written; the flag is set until its first item is.
enum Open<'a> {
    List(std::slice::Iter<'a, Value>, bool),
    Object(btree_map::Iter<'a, String, Value>, bool),
}

fn write_open<'a>(out: &mut Vec<u8>, first: Open<'a>) -> Result<(), CanonicalError> {
    let mut parents: Vec<Open<'a>> = Vec::new();
    let mut current = first;
    loop {
        let next = match &mut current {
            Open::List(items, first) => items.next().inspect(|_| comma(out, first)),
            Open::Object(members, first) => members.next().map(|(key, value)| {
                comma(out, first);
                write_string(out, key);
                out.push(b':');
                value
            }),
        };
        match next {
            Some(value) => {
                if let Some(inner) = write_start(out, value)? {
                    parents.push(std::mem::replace(&mut current, inner));
                }
            }
            None => {
                out.push(if matches!(current, Open::List(..)) {
                    b']'
                } else {
                    b'}'
                });
                match parents.pop() {
                    Some(parent) => current = parent,
                    None => return Ok(()),
                }
            }
        }
    }
}

fn comma(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::take(first) {
        out.push(b',');
    }
}

/// Writes a scalar, or the opening bracket of a list or object, which is then returned.
fn write_start<'a>(out: &mut Vec<u8>, value: &'a Value) -> Result<Option<Open<'a>>, CanonicalError> {
    match value {
        Value::Unset => return Err(CanonicalError::ValueWithoutKind),
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, *number)?,
        Value::String(text) => write_string(out, text),
        Value::List(items) => {
            out.push(b'[');
            return Ok(Some(Open::List(items.iter(), true)));
        }
        Value::Object(fields) => {
            out.push(b'{');
            return Ok(Some(Open::Object(fields.iter(), true)));
        }
    }
    Ok(None)
}

/// Below this, every integral double is written from its integer.
const EXACT_INTEGERS: f64 = 9_007_199_254_740_992.0;

/// Appends the shortest digits that read back as `number`.
///
/// # Errors
/// [`CanonicalError::NonFinite`] for NaN and the infinities.
pub fn write_number(out: &mut Vec<u8>, number: f64) -> Result<(), CanonicalError> {
    if !number.is_finite() {
        return Err(CanonicalError::NonFinite { number });
    }
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let size = number.abs();
    if size < EXACT_INTEGERS && size.fract() == 0.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "integral and within 2^53, so the cast is exact"
        )]
        let whole = size as u64;
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
        return Ok(());
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, point) = decimal(buffer.format_finite(size));
    // Plain decimal from 1e-6 up to, not including, 1e21.
    match point {
        -5..=0 => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', point.unsigned_abs() as usize));
            out.extend_from_slice(digits.get());
        }
        1..=21 => {
            let point = point.unsigned_abs() as usize;
            match digits.get().split_at_checked(point) {
                Some((whole, [])) => out.extend_from_slice(whole),
                Some((whole, fraction)) => {
                    out.extend_from_slice(whole);
                    out.push(b'.');
                    out.extend_from_slice(fraction);
                }
                None => {
                    out.extend_from_slice(digits.get());
                    out.extend(std::iter::repeat_n(b'0', point - digits.get().len()));
                }
            }
        }
        _ => {
            let (first, rest) = digits.get().split_at_checked(1).unwrap_or_default();
            out.extend_from_slice(first);
            if !rest.is_empty() {
                out.push(b'.');
                out.extend_from_slice(rest);
            }
            out.extend_from_slice(if point > 0 { b"e+" } else { b"e-" });
            out.extend_from_slice(itoa::Buffer::new().format((point - 1).unsigned_abs()).as_bytes());
        }
    }
    Ok(())
}

/// Significant digits without zeros at either end; a double needs at most 17.
pub(crate) struct Digits {
    bytes: [u8; 24],
    len: usize,
}

impl Digits {
    pub(crate) fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, digit: u8) {
        if let Some(to) = self.bytes.get_mut(self.len) {
            *to = digit;
            self.len += 1;
        }
    }
}

/// Takes a positive decimal text apart into its digits and the place of the point counted from the first digit, so
/// that the value is `0.DIGITS * 10^place`. Reads any spelling: with or without point, with or without exponent.
pub(crate) fn decimal(text: &str) -> (Digits, i32) {
    let mut digits = Digits {
        bytes: [0; 24],
        len: 0,
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().unwrap_or(0)),
        None => (text, 0i32),
    };
    let mut point = exponent;
    let (mut fraction, mut zeros) = (false, 0usize);
    for byte in mantissa.bytes() {
        match byte {
            b'.' => fraction = true,
            b'0' if digits.len == 0 => point -= i32::from(fraction),
            _ => {
                point += i32::from(!fraction);
                // Zeros count only when another digit follows them.
                if byte == b'0' {
                    zeros += 1;
                } else {
                    for _ in 0..std::mem::take(&mut zeros) {
                        digits.push(b'0');
                    }
                    digits.push(byte);
                }
            }
        }
    }
    (digits, point)
}

/// What the byte asks for: 0 plain, 1 an escape, 2 possibly a line separator (they begin with 0xe2).
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, within the table"
)]
const ESCAPE: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte {
            0..0x20 | 0x22 | 0x26 | 0x3c | 0x3e | 0x5c => 1,
            0xe2 => 2,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// Appends `text` as a JSON string with its quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(stop) = rest
        .iter()
        .position(|byte| ESCAPE.get(usize::from(*byte)) != Some(&0))
    {
        let (plain, from) = rest.split_at_checked(stop).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        rest = write_special(out, from);
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes what stands at the start of `from` and returns what follows it.
fn write_special<'a>(out: &mut Vec<u8>, from: &'a [u8]) -> &'a [u8] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match from {
        [0xe2, 0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            rest
        }
        [byte @ 0x80..=0xff, rest @ ..] => {
            out.push(*byte);
            rest
        }
        [byte, rest @ ..] => {
            let short = match byte {
                b'"' => b'"',
                b'\\' => b'\\',
                0x08 => b'b',
                0x0c => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                _ => 0,
            };
            if short != 0 {
                out.extend_from_slice(&[b'\\', short]);
            } else {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 15] {
                    out.extend(HEX.get(usize::from(nibble)));
                }
            }
            rest
        }
        [] => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(number: f64) -> String {
        let mut out = Vec::new();
        write_number(&mut out, number).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_take_the_shortest_form() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (123_456_789_012_345_678.0, "123456789012345680"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (5e-324, "5e-324"),
            (1.797_693_134_862_315_7e308, "1.7976931348623157e+308"),
            (0.1 + 0.2, "0.30000000000000004"),
            (12345.678e5, "1234567800"),
            (100.25, "100.25"),
        ] {
            assert_eq!(number(value), text);
        }
        assert!(write_number(&mut Vec::new(), f64::NAN).is_err());
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut value = Value::Null;
        for _ in 0..100_000 {
            value = Value::List(vec![value]);
        }
        let record = Struct {
            fields: [("x".to_owned(), value)].into(),
        };
        assert_eq!(
            to_canonical(&record).unwrap().len(),
            200_000 + "{\"x\":null}".len()
        );
    }

    proptest! {
        #[test]
        fn number_text_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                prop_assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), bits);
            }
        }

        #[test]
        fn string_text_is_json(text: String) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
