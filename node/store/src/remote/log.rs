//! The bytes of the snapshot and of the logs: steps, each in a frame that checks. Integers are big-endian.
//!
//! A file begins with 24 bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `DIRNODEL` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 2 | 1 for a snapshot, 2 for a log |
//! | 12 | 8 | number: of a log; of a snapshot, the first log that is not in it |
//! | 20 | 4 | CRC-32 (IEEE) of bytes 0 to 20 |
//!
//! A frame:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the step |
//! | 4 | CRC-32 (IEEE) of the length and of the step |
//! | n | the step |
//!
//! A step begins with its kind (1), the digest of the record (32), and the peer id behind its length (1); then:
//!
//! | kind | what follows |
//! |---|---|
//! | 1 put | times, standing (1: 0 hearsay, 1 claimed, 2 verified), labels |
//! | 2 add | labels |
//! | 3 refresh | times, standing (1) |
//! | 4 remove | |
//! | 5 bury | timestamp (8), until (8), first hand (1: 0 or 1) |
//! | 6 forget | |
//!
//! Times are timestamp, last seen, expires at (8 each): unix nanoseconds. Labels are their number (2), and each behind its
//! length (2). A put of more labels than fit into a step is followed by adds.

use std::io::{self, Read};

use bytes::{Buf, BufMut};
use dirnode_record::Label;

use super::types::{Change, PeerId, Row, Standing, Tomb};
use crate::RecordCid;

pub(super) const HEADER_BYTES: usize = 24;
const MAGIC: &[u8; 8] = b"DIRNODEL";
const VERSION: u16 = 1;
const FRAME_BYTES: usize = 8;
/// Bytes of labels after which a step gets no more; a step is never longer than this with one label and a key.
const STEP_LABEL_BYTES: usize = 256 << 10;
const MAX_STEP_BYTES: usize = STEP_LABEL_BYTES + (128 << 10);

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot,
    Log,
}

pub(super) fn header(kind: Kind, number: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.put_slice(MAGIC);
    header.put_u16(VERSION);
    header.put_u16(match kind {
        Kind::Snapshot => 1,
        Kind::Log => 2,
    });
    header.put_u64(number);
    let checksum = crc32fast::hash(&header);
    header.put_u32(checksum);
    header
}

/// The number in a header; `None` if it is not one of this kind and version.
pub(super) fn read_header(bytes: &[u8], kind: Kind) -> Option<u64> {
    let number = bytes.get(12..)?.try_get_u64().ok()?;
    (bytes == header(kind, number)).then_some(number)
}

/// Adds the frames of a step to `out`.
pub(super) fn encode(out: &mut Vec<u8>, step: &Change) {
    match step {
        Change::Put(row) => {
            let (first, mut rest) = portion(&row.labels);
            frame(out, 1, &row.cid, &row.peer, |out| {
                put_times(
                    out,
                    row.timestamp_ns,
                    row.last_seen_ns,
                    row.expires_at_ns,
                    row.standing,
                );
                put_labels(out, first);
            });
            while !rest.is_empty() {
                let (next, behind) = portion(rest);
                frame(out, 2, &row.cid, &row.peer, |out| put_labels(out, next));
                rest = behind;
            }
        }
        Change::Add { cid, peer, labels } => {
            let mut rest = labels.as_slice();
            while !rest.is_empty() {
                let (next, behind) = portion(rest);
                frame(out, 2, cid, peer, |out| put_labels(out, next));
                rest = behind;
            }
        }
        Change::Refresh {
            cid,
            peer,
            timestamp_ns,
            last_seen_ns,
            expires_at_ns,
            standing,
        } => frame(out, 3, cid, peer, |out| {
            put_times(out, *timestamp_ns, *last_seen_ns, *expires_at_ns, *standing);
        }),
        Change::Remove { cid, peer } => frame(out, 4, cid, peer, |_| ()),
        Change::Bury(tomb) => frame(out, 5, &tomb.cid, &tomb.peer, |out| {
            out.put_i64(tomb.timestamp_ns);
            out.put_i64(tomb.until_ns);
            out.put_u8(u8::from(tomb.first_hand));
        }),
        Change::Forget { cid, peer } => frame(out, 6, cid, peer, |_| ()),
        // Made of removals, which are the steps.
        Change::RemovePeer { .. } => {}
    }
}

/// Labels that fit into one step, and those behind them. The first always fits.
fn portion(labels: &[Label]) -> (&[Label], &[Label]) {
    let mut bytes = 0usize;
    let count = labels
        .iter()
        .take(usize::from(u16::MAX))
        .take_while(|label| {
            let fits = bytes < STEP_LABEL_BYTES;
            bytes = bytes.saturating_add(label.as_str().len()).saturating_add(2);
            fits
        })
        .count();
    labels.split_at_checked(count).unwrap_or((labels, &[]))
}

fn put_times(out: &mut Vec<u8>, timestamp: i64, last_seen: i64, expires_at: i64, standing: Standing) {
    out.put_i64(timestamp);
    out.put_i64(last_seen);
    out.put_i64(expires_at);
    out.put_u8(match standing {
        Standing::Hearsay => 0,
        Standing::Claimed => 1,
        Standing::Verified => 2,
    });
}

fn put_labels(out: &mut Vec<u8>, labels: &[Label]) {
    out.put_u16(u16::try_from(labels.len()).unwrap_or(u16::MAX));
    for label in labels {
        // A row has no label that is longer than 16 KiB.
        out.put_u16(u16::try_from(label.as_str().len()).unwrap_or(u16::MAX));
        out.put_slice(label.as_str().as_bytes());
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, cid: &RecordCid, peer: &PeerId, rest: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_bytes(0, FRAME_BYTES);
    out.put_u8(kind);
    out.put_slice(cid.digest());
    out.put_u8(u8::try_from(peer.as_bytes().len()).unwrap_or(u8::MAX));
    out.put_slice(peer.as_bytes());
    rest(out);
    let Some((head, step)) = out
        .get_mut(start..)
        .and_then(|frame| frame.split_at_mut_checked(FRAME_BYTES))
    else {
        return;
    };
    let length = u32::try_from(step.len()).unwrap_or(u32::MAX);
    let checksum = checksum(length, step);
    let mut head = head;
    head.put_u32(length);
    head.put_u32(checksum);
}

fn checksum(length: u32, step: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_be_bytes());
    hasher.update(step);
    hasher.finalize()
}

/// Reads a step; `None` if it does not parse.
pub(super) fn decode(step: &[u8]) -> Option<Change> {
    let mut bytes = step;
    let rest = &mut bytes;
    let kind = rest.try_get_u8().ok()?;
    let cid = RecordCid::from_digest(part(rest, 32)?.try_into().ok()?);
    let length = usize::from(rest.try_get_u8().ok()?);
    let peer = PeerId::from_bytes(part(rest, length)?)?;
    let change = match kind {
        1 => {
            let (timestamp_ns, last_seen_ns, expires_at_ns, standing) = times(rest)?;
            Change::Put(Row {
                cid,
                peer,
                labels: labels(rest)?,
                timestamp_ns,
                last_seen_ns,
                expires_at_ns,
                standing,
            })
        }
        2 => Change::Add {
            cid,
            peer,
            labels: labels(rest)?,
        },
        3 => {
            let (timestamp_ns, last_seen_ns, expires_at_ns, standing) = times(rest)?;
            Change::Refresh {
                cid,
                peer,
                timestamp_ns,
                last_seen_ns,
                expires_at_ns,
                standing,
            }
        }
        4 => Change::Remove { cid, peer },
        5 => Change::Bury(Tomb {
            cid,
            peer,
            timestamp_ns: rest.try_get_i64().ok()?,
            until_ns: rest.try_get_i64().ok()?,
            first_hand: match rest.try_get_u8().ok()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        }),
        6 => Change::Forget { cid, peer },
        _ => return None,
    };
    rest.is_empty().then_some(change)
}

fn part<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

fn times(rest: &mut &[u8]) -> Option<(i64, i64, i64, Standing)> {
    let mut next = || rest.try_get_i64().ok();
    let (timestamp, last_seen, expires_at) = (next()?, next()?, next()?);
    let standing = match rest.try_get_u8().ok()? {
        0 => Standing::Hearsay,
        1 => Standing::Claimed,
        2 => Standing::Verified,
        _ => return None,
    };
    Some((timestamp, last_seen, expires_at, standing))
}

fn labels(rest: &mut &[u8]) -> Option<Vec<Label>> {
    let count = usize::from(rest.try_get_u16().ok()?);
    // A label takes three bytes at least, so that a false count reserves no more than was read.
    let mut labels = Vec::with_capacity(count.min(rest.len() / 3));
    for _ in 0..count {
        let length = usize::from(rest.try_get_u16().ok()?);
        let text = std::str::from_utf8(part(rest, length)?).ok()?;
        labels.push(Label::parse(text)?);
    }
    Some(labels)
}

/// The steps of a file, up to the first frame that does not check.
pub(super) struct Frames<R> {
    reader: R,
    step: Vec<u8>,
    /// Bytes of the frames that checked.
    pub(super) bytes: u64,
}

impl<R: Read> Frames<R> {
    /// The frames behind a header.
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            step: Vec::new(),
            bytes: 0,
        }
    }

    /// The next step; `None` at the end of what checks.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let mut head = [0; FRAME_BYTES];
        if !read_whole(&mut self.reader, &mut head)? {
            return Ok(None);
        }
        let mut fields = head.as_slice();
        let (length, expected) = (fields.get_u32(), fields.get_u32());
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if size == 0 || size > MAX_STEP_BYTES {
            return Ok(None);
        }
        self.step.resize(size, 0);
        if !read_whole(&mut self.reader, &mut self.step)? || checksum(length, &self.step) != expected {
            return Ok(None);
        }
        self.bytes = self
            .bytes
            .saturating_add(FRAME_BYTES as u64)
            .saturating_add(u64::from(length));
        Ok(Some(&self.step))
    }
}

/// Whether the buffer could be filled.
fn read_whole(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_change() -> impl Strategy<Value = Change> {
        let key = (any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 1..=64));
        let label = "/(skills|domains|modules|locators)/[a-z/é]{0,40}";
        let labels = prop::collection::vec(label, 1..20);
        (0u8..6, key, labels, any::<[i64; 3]>(), 0usize..3, any::<bool>()).prop_map(
            |(kind, (digest, peer), labels, times, standing, first_hand)| {
                let cid = RecordCid::from_digest(digest);
                let peer = PeerId::from_bytes(&peer).unwrap();
                let labels = labels.iter().map(|label| Label::parse(label).unwrap()).collect();
                let [timestamp_ns, last_seen_ns, expires_at_ns] = times;
                let standing = Standing::BEST_FIRST[standing];
                match kind {
                    0 => Change::Put(Row {
                        cid,
                        peer,
                        labels,
                        timestamp_ns,
                        last_seen_ns,
                        expires_at_ns,
                        standing,
                    }),
                    1 => Change::Add { cid, peer, labels },
                    2 => Change::Refresh {
                        cid,
                        peer,
                        timestamp_ns,
                        last_seen_ns,
                        expires_at_ns,
                        standing,
                    },
                    3 => Change::Remove { cid, peer },
                    4 => Change::Bury(Tomb {
                        cid,
                        peer,
                        timestamp_ns,
                        first_hand,
                        until_ns: expires_at_ns,
                    }),
                    _ => Change::Forget { cid, peer },
                }
            },
        )
    }

    fn read(bytes: &[u8]) -> (Vec<Change>, u64) {
        let mut frames = Frames::new(bytes);
        let mut steps = Vec::new();
        while let Some(step) = frames.next().unwrap() {
            steps.push(decode(step).unwrap());
        }
        (steps, frames.bytes)
    }

    proptest! {
        #[test]
        fn steps_round_trip_and_a_damaged_one_ends_the_file(
            steps in prop::collection::vec(any_change(), 1..20),
            at: prop::sample::Index,
            bit in 0u8..8,
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for step in &steps {
                encode(&mut bytes, step);
                ends.push(bytes.len());
            }
            prop_assert_eq!(read(&bytes), (steps.clone(), bytes.len() as u64));
            let place = at.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= place).count() - 1;
            let expected = (steps[..whole].to_vec(), ends[whole] as u64);
            prop_assert_eq!(&read(&bytes[..place]), &expected);
            bytes[place] ^= 1 << bit;
            prop_assert_eq!(&read(&bytes), &expected);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            decode(&bytes);
            read_header(&bytes, Kind::Log);
            let mut frames = Frames::new(bytes.as_slice());
            while frames.next().unwrap().is_some() {}
        }
    }

    #[test]
    fn a_row_of_many_labels_takes_several_steps() {
        let peer = PeerId::from_bytes(b"p").unwrap();
        let label =
            |number: usize| Label::parse(&format!("/skills/{number:08}/{}", "x".repeat(16_000))).unwrap();
        let row = Row {
            cid: RecordCid::of(b"a"),
            peer: peer.clone(),
            labels: (0..100).map(label).collect(),
            timestamp_ns: 1,
            last_seen_ns: 2,
            expires_at_ns: 3,
            standing: Standing::Claimed,
        };
        let mut bytes = Vec::new();
        encode(&mut bytes, &Change::Put(row.clone()));
        let (steps, _) = read(&bytes);
        let mut labels = Vec::new();
        for step in &steps {
            match step {
                Change::Put(part) => labels.extend(part.labels.clone()),
                Change::Add { labels: part, .. } => labels.extend(part.clone()),
                other => panic!("{other:?}"),
            }
        }
        assert!(steps.len() > 5);
        assert_eq!(labels, row.labels);
    }

    /// Files of this version are read by later ones.
    #[test]
    fn the_bytes_are_those_of_version_1() {
        let cid = RecordCid::from_digest([7; 32]);
        let peer = PeerId::from_bytes(b"peer").unwrap();
        let mut bytes = header(Kind::Log, 3);
        encode(
            &mut bytes,
            &Change::Put(Row {
                cid,
                peer: peer.clone(),
                labels: vec![Label::parse("/skills/a").unwrap()],
                timestamp_ns: 1,
                last_seen_ns: 2,
                expires_at_ns: -3,
                standing: Standing::Verified,
            }),
        );
        encode(
            &mut bytes,
            &Change::Bury(Tomb {
                cid,
                peer,
                timestamp_ns: 4,
                first_hand: true,
                until_ns: 5,
            }),
        );
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let key = format!("{}0470656572", "07".repeat(32));
        let put = format!(
            "01{key}{:016x}{:016x}{:016x}02000100092f736b696c6c732f61",
            1, 2, -3i64
        );
        let bury = format!("05{key}{:016x}{:016x}01", 4, 5);
        let framed = |step: &str| {
            let step: Vec<u8> = (0..step.len() / 2)
                .map(|at| u8::from_str_radix(&step[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let length = u32::try_from(step.len()).unwrap();
            let crc = crc32fast::hash(&[&length.to_be_bytes()[..], &step].concat());
            format!("{length:08x}{crc:08x}")
        };
        let start = format!("4449524e4f44454c000100020000000000000003{:08x}", {
            let mut start = b"DIRNODEL\0\x01\0\x02".to_vec();
            start.put_u64(3);
            crc32fast::hash(&start)
        });
        assert_eq!(
            hex,
            format!("{start}{}{put}{}{bury}", framed(&put), framed(&bury))
        );
        assert_eq!(read_header(&bytes[..HEADER_BYTES], Kind::Log), Some(3));
        assert_eq!(read_header(&bytes[..HEADER_BYTES], Kind::Snapshot), None);
    }
}
