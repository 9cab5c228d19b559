//! Msgpack as the reference's RPC speaks it: struct maps, and one raw family for texts and bytes.
//!
//! [`Reader`] takes a whole value apart, [`Scanner`] finds the end of a value in a stream that has no length prefix, and
//! the `put` functions write. Texts and bytes are written in the legacy raw family (`a0`-`bf`, `da`, `db`) and read in
//! any: raw, `d9`, `c4`-`c6`, or an array of small integers. Nothing here recurses: skipping counts the values that are
//! still owed. Pure. Follows p2p-wire §5.2; the texts of errors travel on the wire and are those of the reference.

use std::borrow::Cow;

use super::go_text::lossy;

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end inside it.
    #[error("EOF")]
    Cut,
    /// A struct was expected.
    #[error("only encoded map or array can decode into struct")]
    NotStruct,
    /// A text or bytes were expected.
    #[error("invalid byte descriptor for decoding bytes, got: {0:#x}")]
    NotBytes(u8),
    /// A number was expected.
    #[error("cannot decode number: unrecognized descriptor byte: {0:x}")]
    NotNumber(u8),
    /// A truth value was expected.
    #[error("cannot decode bool: unrecognized descriptor byte: {0:x}")]
    NotBool(u8),
    /// A map or list was expected.
    #[error("cannot read container length: unrecognized descriptor byte: hex: {0:x}, decimal: {0}")]
    NotContainer(u8),
    /// The byte that stands for nothing.
    #[error("unrecognized descriptor byte: {0:x}")]
    Reserved(u8),
    /// More than the caller allows.
    #[error("value is larger than {0} bytes")]
    TooLarge(usize),
    /// More entries than the caller allows.
    #[error("more than {0} entries")]
    TooMany(usize),
    /// Nested deeper than the caller allows.
    #[error("nested deeper than {0}")]
    TooDeep(usize),
}

/// A fault and where it was met: the number of bytes taken from the stream before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("msgpack decode error [pos {position}]: {fault}")]
pub struct MsgpackError {
    /// Bytes of the stream that were taken.
    pub position: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What follows the first byte of a value.
enum Head {
    /// Nothing, or this many bytes that belong to it.
    Plain(usize),
    /// A big-endian length of this many bytes, then as many bytes, and some more.
    Sized { length_bytes: usize, extra: usize },
    /// This many values.
    Values(u64),
    /// A big-endian count of this many bytes, then so many times `each` values.
    Counted { length_bytes: usize, each: u64 },
    /// No value begins like this.
    Reserved,
}

fn head(first: u8) -> Head {
    match first {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => Head::Plain(0),
        0x80..=0x8f => Head::Values(u64::from(first & 15) * 2),
        0x90..=0x9f => Head::Values(u64::from(first & 15)),
        0xa0..=0xbf => Head::Plain(usize::from(first & 31)),
        0xc1 => Head::Reserved,
        0xc4 | 0xd9 => Head::Sized {
            length_bytes: 1,
            extra: 0,
        },
        0xc5 | 0xda => Head::Sized {
            length_bytes: 2,
            extra: 0,
        },
        0xc6 | 0xdb => Head::Sized {
            length_bytes: 4,
            extra: 0,
        },
        // Extension types: one byte of type beside the content.
        0xc7 => Head::Sized {
            length_bytes: 1,
            extra: 1,
        },
        0xc8 => Head::Sized {
            length_bytes: 2,
            extra: 1,
        },
        0xc9 => Head::Sized {
            length_bytes: 4,
            extra: 1,
        },
        0xcc | 0xd0 => Head::Plain(1),
        0xcd | 0xd1 | 0xd4 => Head::Plain(2),
        0xd5 => Head::Plain(3),
        0xca | 0xce | 0xd2 => Head::Plain(4),
        0xd6 => Head::Plain(5),
        0xcb | 0xcf | 0xd3 => Head::Plain(8),
        0xd7 => Head::Plain(9),
        0xd8 => Head::Plain(17),
        0xdc => Head::Counted {
            length_bytes: 2,
            each: 1,
        },
        0xdd => Head::Counted {
            length_bytes: 4,
            each: 1,
        },
        0xde => Head::Counted {
            length_bytes: 2,
            each: 2,
        },
        0xdf => Head::Counted {
            length_bytes: 4,
            each: 2,
        },
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// How far a [`Scanner`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// At least this many bytes more belong to the value, so that reading them never takes what follows it.
    More(usize),
    /// The value is complete and this long.
    Done(usize),
}

/// Finds the end of one value while its bytes arrive. Looks at each byte once and holds no copy.
#[derive(Debug, Clone)]
pub struct Scanner {
    limit: usize,
    /// End of what is understood; may lie beyond what has arrived.
    at: usize,
    /// Values that are owed.
    owed: u64,
}

impl Scanner {
    /// A scanner for one value of at most `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            at: 0,
            owed: 1,
        }
    }

    /// Goes on with `buffer`, which holds the value from its first byte on, as far as it has arrived.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] as soon as the value must pass the limit, [`Fault::Reserved`] for the byte that begins no
    /// value; positions count from the first byte of the value.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Progress, MsgpackError> {
        while self.owed > 0 {
            let Some(rest) = buffer.get(self.at..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            if !self.step(rest)? {
                // The head itself is cut: one byte more is sure.
                return Ok(Progress::More(1));
            }
            let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
            if self.at.saturating_add(owed) > self.limit {
                return Err(MsgpackError {
                    position: buffer.len().min(self.at),
                    fault: Fault::TooLarge(self.limit),
                });
            }
        }
        let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
        let missing = self.at.saturating_sub(buffer.len()).saturating_add(owed);
        Ok(if missing == 0 {
            Progress::Done(self.at)
        } else {
            Progress::More(missing)
        })
    }

    /// Takes one head at the start of `rest`; `false` when it is cut.
    fn step(&mut self, rest: &[u8]) -> Result<bool, MsgpackError> {
        let Some((first, behind)) = rest.split_first() else {
            return Ok(false);
        };
        let (taken, children) = match head(*first) {
            Head::Plain(length) => (length, 0),
            Head::Values(count) => (0, count),
            Head::Reserved => {
                return Err(MsgpackError {
                    position: self.at.saturating_add(1),
                    fault: Fault::Reserved(*first),
                });
            }
            Head::Sized { length_bytes, extra } => {
                let Some(length) = behind.get(..length_bytes) else {
                    return Ok(false);
                };
                let length = usize::try_from(big_endian(length)).unwrap_or(usize::MAX);
                (length.saturating_add(length_bytes).saturating_add(extra), 0)
            }
            Head::Counted { length_bytes, each } => {
                let Some(count) = behind.get(..length_bytes) else {
                    return Ok(false);
                };
                (length_bytes, big_endian(count).saturating_mul(each))
            }
        };
        self.at = self.at.saturating_add(1).saturating_add(taken);
        self.owed = self.owed.saturating_sub(1).saturating_add(children);
        Ok(true)
    }
}

/// Takes values apart. Positions in its errors count from the beginning of the stream.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of a stream.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            position: 0,
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// The bytes that were not taken.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error at this place.
    #[must_use]
    pub const fn fault(&self, fault: Fault) -> MsgpackError {
        MsgpackError {
            position: self.position,
            fault,
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MsgpackError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(self.fault(Fault::Cut))?;
        self.rest = rest;
        self.position = self.position.saturating_add(count);
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, MsgpackError> {
        let taken = self.take(1)?;
        taken.first().copied().ok_or(self.fault(Fault::Cut))
    }

    fn length(&mut self, length_bytes: usize) -> Result<usize, MsgpackError> {
        let length = big_endian(self.take(length_bytes)?);
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Takes a nil, if one stands here.
    pub fn nil(&mut self) -> bool {
        let there = self.rest.first() == Some(&0xc0);
        if there {
            // The byte has just been seen.
            let _ = self.byte();
        }
        there
    }

    /// Bytes or a text, in any of the families. Nil is empty.
    ///
    /// # Errors
    /// [`Fault::NotBytes`] for anything else, [`Fault::Cut`].
    pub fn bytes(&mut self) -> Result<Cow<'a, [u8]>, MsgpackError> {
        let first = self.byte()?;
        let length = match first {
            0xc0 => 0,
            0xa0..=0xbf => usize::from(first & 31),
            0xc4 | 0xd9 => self.length(1)?,
            0xc5 | 0xda => self.length(2)?,
            0xc6 | 0xdb => self.length(4)?,
            0x90..=0x9f => return self.small_integers(usize::from(first & 15)),
            0xdc => {
                let count = self.length(2)?;
                return self.small_integers(count);
            }
            0xdd => {
                let count = self.length(4)?;
                return self.small_integers(count);
            }
            other => return Err(self.fault(Fault::NotBytes(other))),
        };
        self.take(length).map(Cow::Borrowed)
    }

    fn small_integers(&mut self, count: usize) -> Result<Cow<'a, [u8]>, MsgpackError> {
        let mut bytes = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            let number = self.integer()?;
            let byte = u8::try_from(number).map_err(|_| self.fault(Fault::NotBytes(0)))?;
            bytes.push(byte);
        }
        Ok(Cow::Owned(bytes))
    }

    /// A text; bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn text(&mut self) -> Result<String, MsgpackError> {
        self.bytes().map(|bytes| lossy(&bytes))
    }

    /// A whole number; nil is 0, fractions are cut.
    ///
    /// # Errors
    /// [`Fault::NotNumber`] for anything else, [`Fault::Cut`].
    #[expect(
        clippy::cast_possible_truncation,
        reason = "casts from float saturate, and cutting the fraction is what is wanted"
    )]
    pub fn integer(&mut self) -> Result<i64, MsgpackError> {
        let first = self.byte()?;
        Ok(match first {
            0xc0 => 0,
            0x00..=0x7f => i64::from(first),
            0xe0..=0xff => i64::from(first.cast_signed()),
            0xcc => i64::from(self.byte()?),
            0xcd => i64::from(u16::from_be_bytes(self.array()?)),
            0xce => i64::from(u32::from_be_bytes(self.array()?)),
            0xcf => i64::try_from(u64::from_be_bytes(self.array()?)).unwrap_or(i64::MAX),
            0xd0 => i64::from(i8::from_be_bytes(self.array()?)),
            0xd1 => i64::from(i16::from_be_bytes(self.array()?)),
            0xd2 => i64::from(i32::from_be_bytes(self.array()?)),
            0xd3 => i64::from_be_bytes(self.array()?),
            0xca => f32::from_be_bytes(self.array()?) as i64,
            0xcb => f64::from_be_bytes(self.array()?) as i64,
            other => return Err(self.fault(Fault::NotNumber(other))),
        })
    }

    /// A number; nil is 0.
    ///
    /// # Errors
    /// As [`Self::integer`].
    #[expect(
        clippy::cast_precision_loss,
        reason = "json numbers are doubles everywhere here"
    )]
    pub fn number(&mut self) -> Result<f64, MsgpackError> {
        match self.rest.first() {
            Some(0xca) => {
                self.byte()?;
                Ok(f64::from(f32::from_be_bytes(self.array()?)))
            }
            Some(0xcb) => {
                self.byte()?;
                Ok(f64::from_be_bytes(self.array()?))
            }
            _ => self.integer().map(|number| number as f64),
        }
    }

    /// A truth value; nil is false.
    ///
    /// # Errors
    /// [`Fault::NotBool`] for anything else, [`Fault::Cut`].
    pub fn boolean(&mut self) -> Result<bool, MsgpackError> {
        match self.byte()? {
            0xc0 | 0xc2 | 0x00 => Ok(false),
            0xc3 | 0x01 => Ok(true),
            other => Err(self.fault(Fault::NotBool(other))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.fault(Fault::Cut))
    }

    /// The head of a map: how many entries follow. `None` for nil.
    ///
    /// # Errors
    /// [`Fault::NotContainer`] for anything else, [`Fault::TooMany`] beyond `limit`, [`Fault::Cut`].
    pub fn map(&mut self, limit: usize) -> Result<Option<usize>, MsgpackError> {
        let count = match self.byte()? {
            0xc0 => return Ok(None),
            first @ 0x80..=0x8f => usize::from(first & 15),
            0xde => self.length(2)?,
            0xdf => self.length(4)?,
            other => return Err(self.fault(Fault::NotContainer(other))),
        };
        self.counted(count, limit).map(Some)
    }

    /// The head of a list: how many values follow. `None` for nil.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn list(&mut self, limit: usize) -> Result<Option<usize>, MsgpackError> {
        let count = match self.byte()? {
            0xc0 => return Ok(None),
            first @ 0x90..=0x9f => usize::from(first & 15),
            0xdc => self.length(2)?,
            0xdd => self.length(4)?,
            other => return Err(self.fault(Fault::NotContainer(other))),
        };
        self.counted(count, limit).map(Some)
    }

    fn counted(&self, count: usize, limit: usize) -> Result<usize, MsgpackError> {
        if count > limit {
            return Err(self.fault(Fault::TooMany(limit)));
        }
        // Each entry takes a byte at least, so a count beyond what is left is a lie.
        if count > self.rest.len() {
            return Err(self.fault(Fault::Cut));
        }
        Ok(count)
    }

    /// A struct: a map whose keys are among `names`, or its values in the order of `names`. `each` is called with the
    /// reader in front of a value and the place of its name; other keys and surplus values are skipped. `false`, and no
    /// call, for nil.
    ///
    /// # Errors
    /// [`Fault::NotStruct`] for anything that is not a struct, and what `each` reports.
    pub fn structure(
        &mut self,
        names: &[&str],
        mut each: impl FnMut(&mut Self, usize) -> Result<(), MsgpackError>,
    ) -> Result<bool, MsgpackError> {
        let first = self.byte()?;
        let (count, keyed) = match first {
            0xc0 => return Ok(false),
            0x80..=0x8f => (usize::from(first & 15), true),
            0xde => (self.length(2)?, true),
            0xdf => (self.length(4)?, true),
            0x90..=0x9f => (usize::from(first & 15), false),
            0xdc => (self.length(2)?, false),
            0xdd => (self.length(4)?, false),
            _ => return Err(self.fault(Fault::NotStruct)),
        };
        // The loop cannot outlast the bytes: each round takes one at least or fails.
        for place in 0..count {
            let place = if keyed {
                let key = self.bytes()?;
                names.iter().position(|name| name.as_bytes() == key.as_ref())
            } else {
                (place < names.len()).then_some(place)
            };
            match place {
                Some(place) => each(self, place)?,
                None => self.skip()?,
            }
        }
        Ok(true)
    }

    /// Passes over one value, however it is nested.
    ///
    /// # Errors
    /// [`Fault::Cut`], [`Fault::Reserved`].
    pub fn skip(&mut self) -> Result<(), MsgpackError> {
        let mut owed: u64 = 1;
        while owed > 0 {
            let first = self.byte()?;
            let children = match head(first) {
                Head::Plain(length) => {
                    self.take(length)?;
                    0
                }
                Head::Values(count) => count,
                Head::Sized { length_bytes, extra } => {
                    let length = self.length(length_bytes)?;
                    self.take(length.saturating_add(extra))?;
                    0
                }
                Head::Counted { length_bytes, each } => {
                    let count = big_endian(self.take(length_bytes)?);
                    count.saturating_mul(each)
                }
                Head::Reserved => return Err(self.fault(Fault::Reserved(first))),
            };
            owed = owed.saturating_sub(1).saturating_add(children);
        }
        Ok(())
    }
}

/// Writes a text or bytes in the legacy raw family.
pub fn put_raw(out: &mut Vec<u8>, bytes: &[u8]) {
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(short @ 0..=31), _) => out.push(0xa0 | short),
        (_, Ok(length)) => {
            out.push(0xda);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&long(bytes.len()));
        }
    }
    // Beyond four bytes of length there is nothing to write; callers are bounded far below.
    out.extend_from_slice(bytes.get(..u32::MAX as usize).unwrap_or(bytes));
}

/// Writes the head of a map with `count` entries.
pub fn put_map(out: &mut Vec<u8>, count: usize) {
    put_container(out, count, 0x80, 0xde, 0xdf);
}

/// Writes the head of a list with `count` values.
pub fn put_list(out: &mut Vec<u8>, count: usize) {
    put_container(out, count, 0x90, 0xdc, 0xdd);
}

fn put_container(out: &mut Vec<u8>, count: usize, short: u8, two: u8, four: u8) {
    match (u8::try_from(count), u16::try_from(count)) {
        (Ok(few @ 0..=15), _) => out.push(short | few),
        (_, Ok(count)) => {
            out.push(two);
            out.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            out.push(four);
            out.extend_from_slice(&long(count));
        }
    }
}

fn long(count: usize) -> [u8; 4] {
    u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes()
}

/// Writes nil.
pub fn put_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// Writes a truth value.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

/// Writes a number from 0 to 127.
pub fn put_small(out: &mut Vec<u8>, value: u8) {
    out.push(value & 0x7f);
}

/// Writes a double.
pub fn put_number(out: &mut Vec<u8>, value: f64) {
    out.push(0xcb);
    out.extend_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_written_in_the_raw_family() {
        for (length, head) in [
            (0usize, vec![0xa0]),
            (31, vec![0xbf]),
            (32, vec![0xda, 0, 32]),
            (255, vec![0xda, 0, 255]),
            (65_535, vec![0xda, 255, 255]),
            (65_536, vec![0xdb, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            put_raw(&mut out, &vec![b'x'; length]);
            assert_eq!(&out[..head.len()], head);
            assert_eq!(Reader::new(&out).bytes().unwrap().len(), length);
        }
    }

    #[test]
    fn all_families_are_read() {
        for bytes in [
            &b"\xa2hi"[..],
            b"\xd9\x02hi",
            b"\xda\x00\x02hi",
            b"\xdb\x00\x00\x00\x02hi",
            b"\xc4\x02hi",
            b"\xc5\x00\x02hi",
            b"\xc6\x00\x00\x00\x02hi",
            b"\x92\x68\xcc\x69",
            b"\xdc\x00\x02\x68\xd1\x00\x69",
        ] {
            assert_eq!(Reader::new(bytes).text().unwrap(), "hi", "{bytes:x?}");
        }
    }

    #[test]
    fn faults_name_the_place_as_the_reference_does() {
        let at = |bytes: &[u8]| Reader::new(bytes).structure(&["a"], |reader, _| reader.bytes().map(drop));
        assert_eq!(
            at(b"\xa1x").unwrap_err().to_string(),
            "msgpack decode error [pos 1]: only encoded map or array can decode into struct"
        );
        assert_eq!(
            at(b"\x81\xa1a\x07").unwrap_err().to_string(),
            "msgpack decode error [pos 4]: invalid byte descriptor for decoding bytes, got: 0x7"
        );
        assert_eq!(
            at(b"\x81\xa1a\xda\x00\x10xx").unwrap_err().to_string(),
            "msgpack decode error [pos 6]: EOF"
        );
        assert!(at(b"\x82\xa1b\x93\x01\x80\xc0\xa1a\xa1x").unwrap());
    }

    #[test]
    fn a_lie_about_the_size_is_met_early() {
        for bytes in [
            &b"\xdd\xff\xff\xff\xff"[..],
            b"\xdb\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff",
        ] {
            let error = Scanner::new(1024).scan(bytes).unwrap_err();
            assert_eq!(error.fault, Fault::TooLarge(1024), "{bytes:x?}");
            assert!(Reader::new(bytes).skip().is_err());
        }
    }

    fn values() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            any::<Vec<u8>>().prop_map(|bytes| {
                let mut out = Vec::new();
                put_raw(&mut out, &bytes);
                out
            }),
            any::<f64>().prop_map(|number| {
                let mut out = Vec::new();
                put_number(&mut out, number);
                out
            }),
            any::<bool>().prop_map(|value| vec![if value { 0xc3 } else { 0xc0 }]),
        ];
        leaf.prop_recursive(6, 64, 20, |inner| {
            (proptest::collection::vec(inner, 0..20), any::<bool>()).prop_map(|(mut items, map)| {
                let mut out = Vec::new();
                if map && items.len() % 2 == 1 {
                    items.pop();
                }
                if map {
                    put_map(&mut out, items.len() / 2);
                } else {
                    put_list(&mut out, items.len());
                }
                out.extend(items.concat());
                out
            })
        })
    }

    proptest! {
        #[test]
        fn the_end_of_a_value_is_found_wherever_it_is_cut(value in values(), tail: Vec<u8>) {
            let mut stream = value.clone();
            stream.extend(&tail);
            let mut scanner = Scanner::new(1 << 20);
            let mut arrived = 0;
            loop {
                match scanner.scan(&stream[..arrived]).unwrap() {
                    Progress::Done(length) => {
                        prop_assert_eq!(length, value.len());
                        break;
                    }
                    Progress::More(count) => {
                        prop_assert!(count > 0);
                        arrived += count;
                        // Never a byte of what follows.
                        prop_assert!(arrived <= value.len());
                    }
                }
            }
            let mut reader = Reader::new(&stream);
            reader.skip().unwrap();
            prop_assert_eq!(reader.position(), value.len());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Scanner::new(64).scan(&bytes);
            let _ = Reader::new(&bytes).skip();
            let _ = Reader::new(&bytes).bytes();
            let _ = Reader::new(&bytes).number();
            let _ = Reader::new(&bytes).structure(&["a"], |reader, _| reader.skip());
        }
    }
}
