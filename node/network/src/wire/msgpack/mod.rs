//! Msgpack as the reference's RPC speaks it: struct maps, and one raw family for texts and bytes.
//!
//! [`Reader`] takes a whole value apart, [`Scanner`] finds the end of a value in a stream that has no length prefix, and
//! the `put` functions write. Texts and bytes are written in the legacy raw family (`a0`-`bf`, `da`, `db`) and read in
//! any: raw, `d9`, `c4`-`c6`, or an array of small integers. Nothing here recurses: skipping counts the values that are
//! still owed. Pure. Follows p2p-wire §5.2; the texts of errors travel on the wire and are those of the reference.

mod read;
mod scan;
mod write;

pub use read::Reader;
pub use scan::{Progress, Scanner};
pub use write::{put_bool, put_list, put_map, put_nil, put_number, put_raw, put_small};

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

/// First bytes of a map: with its count in the low half, before a count of two bytes, and before one of four.
const MAP: [u8; 3] = [0x80, 0xde, 0xdf];
/// The same of a list.
const LIST: [u8; 3] = [0x90, 0xdc, 0xdd];

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
