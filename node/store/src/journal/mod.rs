//! The journal: ground state. An append-only row of files; an entry is acknowledged when its group is on the device.
//!
//! | file | holds |
//! |---|---|
//! | `NNNNNNNNNN.log` | entries with bodies, as they were acknowledged |
//! | `NNNNNNNNNN.rows` | the same entries without bodies, once those are in the layout |
//! | `NNNNNNNNNN.snap` | the rows as they were when all files up to that number were condensed into it |
//! | `checkpoint` | up to where bodies and rows are in place |
//!
//! Every file begins with 32 bytes, integers big-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `DIRNODEJ` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 1 | 1 log, 2 rows, 3 snap |
//! | 11 | 5 | zero |
//! | 16 | 8 | log: first sequence number; rows and snap: last sequence number covered |
//! | 24 | 4 | CRC-32 of bytes 0 to 24 |
//! | 28 | 4 | zero |
//!
//! Entries follow, see [`entry`]; they end at a zero length or at the end of the file. A tail that does not check
//! belongs to a group nobody was told of, and is cut off.

pub(crate) mod checkpoint;
pub(crate) mod condense;
pub(crate) mod entry;
pub(crate) mod reader;
pub(crate) mod writer;

use bytes::{Buf, BufMut};

/// Length of the header of every journal file.
pub(crate) const HEADER_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"DIRNODEJ";
const FORMAT: u16 = 1;

/// What a journal file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    Snap,
    Rows,
    Log,
}

impl FileKind {
    fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Rows => 2,
            Self::Snap => 3,
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Rows => "rows",
            Self::Snap => "snap",
        }
    }
}

/// The name of a journal file.
pub(crate) fn file_name(number: u64, kind: FileKind) -> String {
    format!("{number:010}.{}", kind.suffix())
}

/// Reads a name made by [`file_name`].
pub(crate) fn parse_name(name: &str) -> Option<(u64, FileKind)> {
    let (number, suffix) = name.split_once('.')?;
    let kind = [FileKind::Log, FileKind::Rows, FileKind::Snap]
        .into_iter()
        .find(|kind| kind.suffix() == suffix)?;
    let number = number.parse().ok()?;
    (file_name(number, kind) == name).then_some((number, kind))
}

/// The header of a journal file.
pub(crate) fn header(kind: FileKind, seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.put_slice(MAGIC);
    out.put_u16(FORMAT);
    out.put_u8(kind.byte());
    out.put_bytes(0, 5);
    out.put_u64(seq);
    out.put_u32(crc32fast::hash(&out));
    out.put_u32(0);
    out
}

/// Reads a header: its sequence number, or why it is none.
pub(crate) fn read_header(bytes: &[u8; HEADER_BYTES], kind: FileKind) -> Result<u64, String> {
    let mut rest = &bytes[..];
    let mut magic = [0; 8];
    rest.copy_to_slice(&mut magic);
    let (format, byte) = (rest.get_u16(), rest.get_u8());
    rest.advance(5);
    let (seq, crc) = (rest.get_u64(), rest.get_u32());
    if magic != *MAGIC {
        return Err("not a journal file".to_owned());
    }
    if crc != crc32fast::hash(bytes.get(..24).unwrap_or_default()) {
        return Err("header checksum does not match".to_owned());
    }
    if format != FORMAT {
        return Err(format!("journal format {format} is not known"));
    }
    if byte != kind.byte() {
        return Err(format!(
            "file kind {byte} under the name of a {} file",
            kind.suffix()
        ));
    }
    Ok(seq)
}

#[cfg(test)]
mod tests;
