//! Taking values apart.

use std::borrow::Cow;

use super::super::go_text::lossy;
use super::{Fault, Head, LIST, MAP, MsgpackError, big_endian, head};

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
            other => match self.count(other, LIST)? {
                Some(count) => return self.small_integers(count),
                None => return Err(self.fault(Fault::NotBytes(other))),
            },
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
        self.container(MAP, limit)
    }

    /// The head of a list: how many values follow. `None` for nil.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn list(&mut self, limit: usize) -> Result<Option<usize>, MsgpackError> {
        self.container(LIST, limit)
    }

    fn container(&mut self, forms: [u8; 3], limit: usize) -> Result<Option<usize>, MsgpackError> {
        let first = self.byte()?;
        if first == 0xc0 {
            return Ok(None);
        }
        match self.count(first, forms)? {
            Some(count) => self.counted(count, limit).map(Some),
            None => Err(self.fault(Fault::NotContainer(first))),
        }
    }

    /// The count of a container of these forms that begins with `first`; none, and nothing taken, if it is no such one.
    fn count(&mut self, first: u8, [short, two, four]: [u8; 3]) -> Result<Option<usize>, MsgpackError> {
        if first & 0xf0 == short {
            Ok(Some(usize::from(first & 0x0f)))
        } else if first == two {
            self.length(2).map(Some)
        } else if first == four {
            self.length(4).map(Some)
        } else {
            Ok(None)
        }
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
        if first == 0xc0 {
            return Ok(false);
        }
        let (count, keyed) = match self.count(first, MAP)? {
            Some(count) => (count, true),
            None => match self.count(first, LIST)? {
                Some(count) => (count, false),
                None => return Err(self.fault(Fault::NotStruct)),
            },
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
