//! Bytes of `/dirnode/catchup/1`.
//!
//! Every message stands alone; whoever carries it says where it ends. `uv` is an unsigned varint of at most ten bytes,
//! `i64` eight bytes big-endian in two's complement, `peer` a `uv` length of 1 to 64 and that many bytes.
//!
//! | message | bytes |
//! |---|---|
//! | request, summary | `01` `01` then `00`, or `01` peer (the last author known) |
//! | request, rows | `01` `02` uv count (1 to 128), then each: peer (author), i64 since, 32 bytes digest of the last CID |
//! | reply, summary | `01` `01` more (`00`/`01`) uv count (to 512), then each: peer, uv rows, i64 newest, 8 bytes digest |
//! | reply, rows | `01` `02` uv sections (to 128), then each: uv cursor, complete (`00`/`01`), uv rows (to 512 in all), then each row: 32 bytes CID digest, i64 timestamp, kind (`00` labels, `01` withdrawn), and for kind 0: uv labels (to 256), each: uv length (to 2,048) and UTF-8 |
//! | reply, busy | `01` `03` uv seconds |
//!
//! Readers refuse other versions, bytes behind the end, varints that are longer than they need be and lists above their
//! bounds. `golden.rs` beside this file pins one message of each kind.

use dirnode_record::{Label, RecordCid};

use super::message::{
    AuthorSummary, CatchupError, Cursor, MAX_AUTHORS, MAX_CURSORS, MAX_LABEL_BYTES, MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES, MAX_ROW_LABEL_BYTES, MAX_ROW_LABELS, MAX_ROWS, Reply, Request, Row, Section,
};
use crate::peer::{MAX_PEER_ID_BYTES, PeerId};
use crate::time::Timestamp;

const VERSION: u8 = 1;

/// Writes a request.
#[must_use]
pub fn encode_request(request: &Request) -> Vec<u8> {
    let mut out = vec![VERSION];
    match request {
        Request::Summary { after } => {
            out.push(1);
            match after {
                None => out.push(0),
                Some(peer) => {
                    out.push(1);
                    put_peer(&mut out, peer);
                }
            }
        }
        Request::Rows { cursors } => {
            out.push(2);
            let cursors = cursors.get(..MAX_CURSORS).unwrap_or(cursors);
            put_len(&mut out, cursors.len());
            for cursor in cursors {
                put_peer(&mut out, &cursor.author);
                out.extend_from_slice(&cursor.since.as_nanos().to_be_bytes());
                out.extend_from_slice(cursor.after.digest());
            }
        }
    }
    out
}

/// Reads a request.
///
/// # Errors
/// [`CatchupError`] names the first thing that is wrong.
pub fn decode_request(bytes: &[u8]) -> Result<Request, CatchupError> {
    let mut reader = Reader::new(bytes, MAX_REQUEST_BYTES)?;
    reader.version()?;
    let request = match reader.byte()? {
        1 => Request::Summary {
            after: if reader.flag("after")? {
                Some(reader.peer()?)
            } else {
                None
            },
        },
        2 => {
            let count = reader.len("cursors", MAX_CURSORS)?;
            if count == 0 {
                return Err(CatchupError::Value {
                    field: "cursors",
                    value: 0,
                });
            }
            let mut cursors = Vec::with_capacity(count);
            for _ in 0..count {
                cursors.push(Cursor {
                    author: reader.peer()?,
                    since: reader.time()?,
                    after: reader.cid()?,
                });
            }
            Request::Rows { cursors }
        }
        value => {
            return Err(CatchupError::Value {
                field: "kind of request",
                value: value.into(),
            });
        }
    };
    reader.end()?;
    Ok(request)
}

/// Writes a reply.
#[must_use]
pub fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut out = vec![VERSION];
    match reply {
        Reply::Summary { authors, more } => {
            out.extend_from_slice(&[1, u8::from(*more)]);
            let authors = authors.get(..MAX_AUTHORS).unwrap_or(authors);
            put_len(&mut out, authors.len());
            for author in authors {
                put_peer(&mut out, &author.author);
                put_varint(&mut out, author.rows);
                out.extend_from_slice(&author.newest.as_nanos().to_be_bytes());
                out.extend_from_slice(&author.digest.to_be_bytes());
            }
        }
        Reply::Rows { sections, .. } => {
            out.push(2);
            put_len(&mut out, sections.len());
            for section in sections {
                put_varint(&mut out, section.cursor.into());
                out.push(u8::from(section.complete));
                put_len(&mut out, section.rows.len());
                for row in &section.rows {
                    out.extend_from_slice(row.cid.digest());
                    out.extend_from_slice(&row.timestamp.as_nanos().to_be_bytes());
                    out.push(u8::from(row.withdrawn));
                    if !row.withdrawn {
                        put_len(&mut out, row.labels.len());
                        for label in &row.labels {
                            put_len(&mut out, label.as_str().len());
                            out.extend_from_slice(label.as_str().as_bytes());
                        }
                    }
                }
            }
        }
        Reply::Busy { retry_seconds } => {
            out.push(3);
            put_varint(&mut out, *retry_seconds);
        }
    }
    out
}

/// Reads a reply. The authors of row sections are not on the wire: the asker knows them by its cursors.
///
/// # Errors
/// [`CatchupError`] names the first thing that is wrong.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, CatchupError> {
    let mut reader = Reader::new(bytes, MAX_REPLY_BYTES)?;
    reader.version()?;
    let reply = match reader.byte()? {
        1 => {
            let more = reader.flag("more")?;
            let count = reader.len("authors", MAX_AUTHORS)?;
            let mut authors = Vec::with_capacity(count);
            for _ in 0..count {
                authors.push(AuthorSummary {
                    author: reader.peer()?,
                    rows: reader.varint()?,
                    newest: reader.time()?,
                    digest: u64::from_be_bytes(reader.array()?),
                });
            }
            Reply::Summary { authors, more }
        }
        2 => Reply::Rows {
            sections: reader.sections()?,
            authors: Vec::new(),
        },
        3 => Reply::Busy {
            retry_seconds: reader.varint()?,
        },
        value => {
            return Err(CatchupError::Value {
                field: "kind of reply",
                value: value.into(),
            });
        }
    };
    reader.end()?;
    Ok(reply)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).unwrap_or(u64::MAX));
}

fn put_peer(out: &mut Vec<u8>, peer: &PeerId) {
    put_len(out, peer.as_bytes().len());
    out.extend_from_slice(peer.as_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], limit: usize) -> Result<Self, CatchupError> {
        if bytes.len() > limit {
            return Err(CatchupError::TooLong {
                field: "message",
                value: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                limit,
            });
        }
        Ok(Self {
            rest: bytes,
            total: bytes.len(),
        })
    }

    fn truncated(&self) -> CatchupError {
        CatchupError::Truncated { at: self.total }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], CatchupError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CatchupError> {
        let truncated = self.truncated();
        self.take(N)?.try_into().map_err(|_| truncated)
    }

    fn byte(&mut self) -> Result<u8, CatchupError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn version(&mut self) -> Result<(), CatchupError> {
        match self.byte()? {
            VERSION => Ok(()),
            version => Err(CatchupError::Version { version }),
        }
    }

    fn flag(&mut self, field: &'static str) -> Result<bool, CatchupError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(CatchupError::Value {
                field,
                value: value.into(),
            }),
        }
    }

    fn varint(&mut self) -> Result<u64, CatchupError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit; a last byte of zero says nothing.
            if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                return Err(CatchupError::Value {
                    field: "last byte of a number",
                    value: byte.into(),
                });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(CatchupError::Value {
            field: "length of a number",
            value: 11,
        })
    }

    fn len(&mut self, field: &'static str, limit: usize) -> Result<usize, CatchupError> {
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|len| *len <= limit)
            .ok_or(CatchupError::TooLong { field, value, limit })
    }

    fn time(&mut self) -> Result<Timestamp, CatchupError> {
        Ok(Timestamp::from_nanos(i64::from_be_bytes(self.array()?)))
    }

    fn cid(&mut self) -> Result<RecordCid, CatchupError> {
        Ok(RecordCid::from_digest(self.array()?))
    }

    fn peer(&mut self) -> Result<PeerId, CatchupError> {
        let len = self.len("peer id", MAX_PEER_ID_BYTES)?;
        PeerId::from_bytes(self.take(len)?).ok_or(CatchupError::Value {
            field: "length of a peer id",
            value: 0,
        })
    }

    fn sections(&mut self) -> Result<Vec<Section>, CatchupError> {
        let count = self.len("sections", MAX_CURSORS)?;
        let mut sections = Vec::with_capacity(count);
        let mut rows_left = MAX_ROWS;
        for _ in 0..count {
            let cursor = u16::try_from(self.len("cursor", MAX_CURSORS - 1)?).unwrap_or(u16::MAX);
            let complete = self.flag("complete")?;
            let count = self.len("rows", rows_left)?;
            rows_left -= count;
            let mut rows = Vec::with_capacity(count);
            for _ in 0..count {
                rows.push(self.row()?);
            }
            sections.push(Section {
                cursor,
                complete,
                rows,
            });
        }
        Ok(sections)
    }

    fn row(&mut self) -> Result<Row, CatchupError> {
        let cid = self.cid()?;
        let timestamp = self.time()?;
        let withdrawn = self.flag("kind of row")?;
        let mut labels = Vec::new();
        if !withdrawn {
            let count = self.len("labels", MAX_ROW_LABELS)?;
            let mut bytes = 0_usize;
            for place in 0..count {
                let len = self.len("label", MAX_LABEL_BYTES)?;
                bytes += len;
                if bytes > MAX_ROW_LABEL_BYTES {
                    return Err(CatchupError::TooLong {
                        field: "labels of a row in bytes",
                        value: u64::try_from(bytes).unwrap_or(u64::MAX),
                        limit: MAX_ROW_LABEL_BYTES,
                    });
                }
                let label = std::str::from_utf8(self.take(len)?).ok().and_then(Label::parse);
                labels.push(label.ok_or(CatchupError::Label { place })?);
            }
        }
        Ok(Row {
            cid,
            timestamp,
            withdrawn,
            labels,
        })
    }

    fn end(&self) -> Result<(), CatchupError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(CatchupError::Trailing { extra }),
        }
    }
}

#[cfg(test)]
#[path = "golden.rs"]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn peers() -> impl Strategy<Value = PeerId> {
        proptest::collection::vec(any::<u8>(), 1..=64).prop_map(|bytes| PeerId::from_bytes(&bytes).unwrap())
    }

    fn cids() -> impl Strategy<Value = RecordCid> {
        any::<[u8; 32]>().prop_map(RecordCid::from_digest)
    }

    fn times() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_nanos)
    }

    fn requests() -> impl Strategy<Value = Request> {
        let cursor =
            (peers(), times(), cids()).prop_map(|(author, since, after)| Cursor { author, since, after });
        prop_oneof![
            proptest::option::of(peers()).prop_map(|after| Request::Summary { after }),
            proptest::collection::vec(cursor, 1..20).prop_map(|cursors| Request::Rows { cursors }),
        ]
    }

    fn replies() -> impl Strategy<Value = Reply> {
        let author =
            (peers(), any::<u64>(), times(), any::<u64>()).prop_map(|(author, rows, newest, digest)| {
                AuthorSummary {
                    author,
                    rows,
                    newest,
                    digest,
                }
            });
        let label = "[a-z/é]{0,40}".prop_map(|value| Label::new(dirnode_record::Namespace::Skills, &value));
        let row = (
            cids(),
            times(),
            any::<bool>(),
            proptest::collection::vec(label, 0..10),
        )
            .prop_map(|(cid, timestamp, withdrawn, labels)| Row {
                cid,
                timestamp,
                withdrawn,
                labels: if withdrawn { Vec::new() } else { labels },
            });
        let section = (0..128_u16, any::<bool>(), proptest::collection::vec(row, 0..8)).prop_map(
            |(cursor, complete, rows)| Section {
                cursor,
                complete,
                rows,
            },
        );
        prop_oneof![
            (proptest::collection::vec(author, 0..20), any::<bool>())
                .prop_map(|(authors, more)| Reply::Summary { authors, more }),
            proptest::collection::vec(section, 0..8).prop_map(|sections| Reply::Rows {
                sections,
                authors: Vec::new()
            }),
            any::<u64>().prop_map(|retry_seconds| Reply::Busy { retry_seconds }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn requests_round_trip(request in requests()) {
            prop_assert_eq!(decode_request(&encode_request(&request)), Ok(request));
        }

        #[test]
        fn replies_round_trip(reply in replies()) {
            prop_assert_eq!(decode_reply(&encode_reply(&reply)), Ok(reply));
        }

        #[test]
        fn there_is_one_spelling(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 1..4_u8) {
            let mut bytes = bytes;
            bytes.splice(0..0, [VERSION, kind]);
            if let Ok(request) = decode_request(&bytes) {
                prop_assert_eq!(encode_request(&request), bytes.clone());
            }
            if let Ok(reply) = decode_reply(&bytes) {
                prop_assert_eq!(encode_reply(&reply), bytes);
            }
        }

        #[test]
        fn a_cut_message_is_refused(reply in replies(), place: prop::sample::Index) {
            let bytes = encode_reply(&reply);
            let cut = place.index(bytes.len());
            prop_assert!(decode_reply(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn promised_lengths_are_bounded_before_anything_is_kept() {
        let huge = [1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(
            decode_reply(&huge),
            Err(CatchupError::TooLong {
                field: "sections",
                ..
            })
        ));
        assert!(matches!(
            decode_request(&huge),
            Err(CatchupError::TooLong { field: "cursors", .. })
        ));
        assert!(matches!(
            decode_reply(&vec![1; MAX_REPLY_BYTES + 1]),
            Err(CatchupError::TooLong { .. })
        ));
        assert_eq!(decode_reply(&[2, 1]), Err(CatchupError::Version { version: 2 }));
        assert!(decode_reply(&[1, 3, 0x80, 0]).is_err());
        assert_eq!(
            decode_reply(&[1, 3, 0, 0]),
            Err(CatchupError::Trailing { extra: 1 })
        );
    }

    #[test]
    fn a_full_page_fits_after_filling() {
        let rows = |count: u32| -> Vec<Row> {
            (0..count)
                .map(|n| Row {
                    cid: RecordCid::of(&n.to_be_bytes()),
                    timestamp: Timestamp::from_nanos(n.into()),
                    withdrawn: n % 7 == 0,
                    labels: Vec::new(),
                })
                .collect()
        };
        let peer = PeerId::from_bytes(&[7; 38]).unwrap();
        let section = |cursor| Section {
            cursor,
            complete: true,
            rows: rows(100),
        };
        let mut reply = Reply::Rows {
            sections: (0..5).map(section).collect(),
            authors: vec![peer; 5],
        };
        let label = Label::new(dirnode_record::Namespace::Skills, &"x".repeat(900));
        reply.fill(|_, _| vec![label.clone(); 3]);
        let bytes = encode_reply(&reply);
        assert!(bytes.len() <= MAX_REPLY_BYTES, "{}", bytes.len());
        let Ok(Reply::Rows { sections, .. }) = decode_reply(&bytes) else {
            panic!()
        };
        assert_eq!(sections.len(), 1);
        assert!(!sections[0].complete && sections[0].rows.len() > 40);
        reply.fill(|_, _| vec![label.clone(); 300]);
        assert!(
            encode_reply(&reply).len() < 10_000,
            "rows with too many labels go without"
        );
    }
}
