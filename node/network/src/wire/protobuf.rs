//! The protobuf wire format, field by field: for messages that must be read as they stand, unknown and raw parts too.
//!
//! Nothing is copied and nothing recurses; a nested message is a field of bytes. Pure. Follows the protobuf encoding
//! guide.

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// The bytes end inside a field.
    #[error("message ends inside a field")]
    Cut,
    /// A number of more than ten bytes.
    #[error("varint is too long")]
    Varint,
    /// A field number of 0 or beyond what there is, or a wire type that is no longer used.
    #[error("field key {0} is not valid")]
    Key(u64),
    /// A known field has another wire type.
    #[error("field {0} has the wrong wire type")]
    Type(u32),
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number.
    Varint(u64),
    /// Eight bytes, little-endian.
    Fixed64(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// Four bytes, little-endian.
    Fixed32(u32),
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Key and value as they stand.
    pub raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// The bytes of it.
    ///
    /// # Errors
    /// [`ProtobufError::Type`] when it holds something else.
    pub const fn bytes(&self) -> Result<&'a [u8], ProtobufError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Type(self.number)),
        }
    }

    /// The number it holds.
    ///
    /// # Errors
    /// [`ProtobufError::Type`] when it holds something else.
    pub const fn varint(&self) -> Result<u64, ProtobufError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(ProtobufError::Type(self.number)),
        }
    }
}

/// The fields of a message, in wire order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<Field<'a>, ProtobufError> {
        let before = self.rest;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))
            .ok_or(ProtobufError::Key(key))?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Cut)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(ProtobufError::Key(key)),
        };
        let taken = before.len().saturating_sub(self.rest.len());
        Ok(Field {
            number,
            value,
            raw: before.get(..taken).unwrap_or_default(),
        })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ProtobufError::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtobufError> {
        self.take(N)?.try_into().map_err(|_| ProtobufError::Cut)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0u64;
        for place in 0..10 {
            let byte = *self.take(1)?.first().ok_or(ProtobufError::Cut)?;
            // The tenth byte has room for one bit.
            if place == 9 && byte > 1 {
                return Err(ProtobufError::Varint);
            }
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Varint)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(unsigned_varint::encode::u64(
        number,
        &mut unsigned_varint::encode::u64_buffer(),
    ));
}

/// Writes a field with a number.
pub fn put_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    put_number(out, u64::from(field) << 3);
    put_number(out, value);
}

/// Writes a field with bytes, a text or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_number(out, (u64::from(field) << 3) | 2);
    put_number(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// What the beginning of a stream of length-prefixed messages holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// More bytes are needed.
    Incomplete,
    /// A message, and what follows it.
    Whole(&'a [u8], &'a [u8]),
    /// The prefix is no length, or one beyond the limit: nothing after it can be read.
    Refused,
}

/// Takes the first message of at most `limit` bytes off a stream of length-prefixed ones.
#[must_use]
pub fn frame(stream: &[u8], limit: usize) -> Frame<'_> {
    use unsigned_varint::decode::{Error, usize};
    match usize(stream) {
        Ok((length, _)) if length > limit => Frame::Refused,
        Ok((length, rest)) => rest
            .split_at_checked(length)
            .map_or(Frame::Incomplete, |(message, rest)| Frame::Whole(message, rest)),
        Err(Error::Insufficient) => Frame::Incomplete,
        Err(_) => Frame::Refused,
    }
}

/// `message` with its length in front.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len().saturating_add(5));
    put_number(&mut out, message.len() as u64);
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fields_round_trip(
            fields in proptest::collection::vec((1u32..1 << 29, any::<u64>(), any::<Vec<u8>>(), any::<bool>()), 0..12),
        ) {
            let mut out = Vec::new();
            for (number, value, bytes, as_bytes) in &fields {
                if *as_bytes {
                    put_bytes(&mut out, *number, bytes);
                } else {
                    put_varint(&mut out, *number, *value);
                }
            }
            let read: Vec<Field<'_>> = Fields::of(&out).collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.iter().map(|field| field.raw.to_vec()).collect::<Vec<_>>().concat(), out.clone());
            for (field, (number, value, bytes, as_bytes)) in read.iter().zip(&fields) {
                prop_assert_eq!(field.number, *number);
                if *as_bytes {
                    prop_assert_eq!(field.bytes(), Ok(bytes.as_slice()));
                } else {
                    prop_assert_eq!(field.varint(), Ok(*value));
                }
            }
            let stream = framed(&out);
            prop_assert_eq!(frame(&stream, 1 << 20), Frame::Whole(&out, &[]));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Fields::of(&bytes).count();
            let _ = frame(&bytes, 64);
        }
    }

    #[test]
    fn faults_end_the_walk() {
        for message in [
            &[0x12, 0x05, 1][..],
            &[0x80],
            &[0x0b],
            &[0x19, 1],
            &[0x02, 0x00],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        ] {
            let seen: Vec<_> = Fields::of(message).collect();
            assert!(matches!(seen.last(), Some(Err(_))), "{message:?}");
        }
    }
}
