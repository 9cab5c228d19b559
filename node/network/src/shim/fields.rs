//! Walking the fields of a protobuf message without knowing the rest of it.
//!
//! Pure, borrows from the message, allocates nothing and does not recurse. Used where unknown fields have to
//! survive byte for byte, which a generated decoder does not promise (p2p-wire §3.2, identify mode).

/// One field as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Value<'a>,
    /// Key and value, byte for byte.
    pub(super) raw: &'a [u8],
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// 32 or 64 fixed bits; no field we look at has them.
    Fixed,
}

/// The message is not protobuf, or holds groups, which nobody sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// All fields of `message` in order; ends after the first fault.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Result<Field<'_>, Malformed>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let read = read_field(rest);
        rest = match &read {
            Ok((_, behind)) => behind,
            Err(Malformed) => &[],
        };
        Some(read.map(|(field, _)| field))
    })
}

fn read_field(message: &[u8]) -> Result<(Field<'_>, &[u8]), Malformed> {
    let (key, rest) = varint(message)?;
    let (value, behind) = match key & 7 {
        0 => {
            let (value, behind) = varint(rest)?;
            (Value::Varint(value), behind)
        }
        1 => (Value::Fixed, rest.get(8..).ok_or(Malformed)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let length = usize::try_from(length).map_err(|_| Malformed)?;
            let (value, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
            (Value::Bytes(value), behind)
        }
        5 => (Value::Fixed, rest.get(4..).ok_or(Malformed)?),
        _ => return Err(Malformed),
    };
    let number = key >> 3;
    let raw = message
        .get(..message.len().saturating_sub(behind.len()))
        .ok_or(Malformed)?;
    if number == 0 {
        return Err(Malformed);
    }
    Ok((Field { number, value, raw }, behind))
}

/// Protobuf takes varints that are not minimal, which the varints of libp2p are not allowed to be.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        let part = u64::from(byte & 0x7f);
        let shift = u32::try_from(at * 7).map_err(|_| Malformed)?;
        if at == 9 && part > 1 {
            return Err(Malformed);
        }
        value |= part.checked_shl(shift).ok_or(Malformed)?;
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(at + 1..).ok_or(Malformed)?));
        }
    }
    Err(Malformed)
}

/// Appends a field of bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    debug_assert!(number < 16, "a key of one byte");
    let mut length = unsigned_varint::encode::usize_buffer();
    out.push(number << 3 | 2);
    out.extend_from_slice(unsigned_varint::encode::usize(value.len(), &mut length));
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_field_is_walked_and_kept() {
        let message = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x12, 0x02, 0xaa, 0xbb, // 2: bytes
            0x19, 1, 2, 3, 4, 5, 6, 7, 8, // 3: 64 bits
            0x25, 1, 2, 3, 4, // 4: 32 bits
            0x28, 0x80, 0x00, // 5: zero, not minimal
        ];
        let seen: Vec<Field<'_>> = fields(&message).map(Result::unwrap).collect();
        let values: Vec<(u64, Value<'_>)> = seen.iter().map(|field| (field.number, field.value)).collect();
        assert_eq!(
            values,
            [
                (1, Value::Varint(150)),
                (2, Value::Bytes(&[0xaa, 0xbb])),
                (3, Value::Fixed),
                (4, Value::Fixed),
                (5, Value::Varint(0)),
            ]
        );
        let raw: Vec<u8> = seen.iter().flat_map(|field| field.raw).copied().collect();
        assert_eq!(raw, message);
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
            let seen: Vec<_> = fields(message).collect();
            assert_eq!(seen.last(), Some(&Err(Malformed)), "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            let walked: usize = fields(&message).map_while(Result::ok).map(|field| field.raw.len()).sum();
            prop_assert!(walked <= message.len());
            prop_assert!(fields(&message).count() <= message.len() + 1);
        }
    }
}
