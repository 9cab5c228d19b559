//! What one journal entry says, and its bytes.
//!
//! A frame, integers big-endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | length of the payload |
//! | 4 | 1 | kind |
//! | 5 | 1 | version of the payload, 1 |
//! | 6 | 8 | sequence number |
//! | 14 | 4 | CRC-32 (IEEE) of bytes 0 to 14 and the payload |
//! | 18 | | payload |
//!
//! | kind | payload |
//! |---|---|
//! | 1 record with body | head length (4), record digest (32), postcard of `StoredRecord`, body |
//! | 2 record without body | record digest (32), postcard of `StoredRecord` |
//! | 3 record dropped | record digest (32), then the digests of what hung on it (32 each) |
//! | 4 referrer with body | head length (4), record digest (32), position (8), postcard of `StoredReferrer`, body |
//! | 5 referrer without body | record digest (32), position (8), postcard of `StoredReferrer` |
//! | 6 referrers dropped | record digest (32), then referrer digests (32 each) |
//! | 7 published | record digest (32), unix nanoseconds (8), postcard of the labels to list (absent if there are none) |
//! | 8 unpublished | record digest (32) |
//! | 9 usage | per record: digest (32), pulls (8), lookups (8), last use in unix nanoseconds (8); absolute |
//! | 10 job | id length (2), id, value |
//! | 11 job dropped | id |
//!
//! A payload length of zero ends a file: files are filled with zeros ahead of the writing. Every change is
//! absolute, so applying a whole run of entries twice ends where applying it once does.

use bytes::{Buf, BufMut, Bytes};

use dirnode_record::Label;

use crate::config::{MAX_BODY_BYTES, MAX_ROW_BYTES};
use crate::rows::{StoredRecord, StoredReferrer};
use crate::types::UsageRow;
use crate::{RecordCid, StoreError};

pub(crate) const FRAME_BYTES: usize = 18;
const CRC_AT: usize = 14;
const VERSION: u8 = 1;
/// A body, and a head that would fit a row with room to spare.
pub(crate) const MAX_PAYLOAD_BYTES: usize = MAX_BODY_BYTES + 4 * MAX_ROW_BYTES;

/// A change of ground state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Record {
        cid: RecordCid,
        row: StoredRecord,
        body: Option<Bytes>,
    },
    DropRecord {
        cid: RecordCid,
        /// What hung on it then. The rows may be ahead of a replay and no longer know, and the bodies have to go all
        /// the same.
        referrers: Vec<RecordCid>,
    },
    Referrer {
        record: RecordCid,
        position: u64,
        row: StoredReferrer,
        body: Option<Bytes>,
    },
    DropReferrers {
        record: RecordCid,
        cids: Vec<RecordCid>,
    },
    Publish {
        cid: RecordCid,
        at_ns: i64,
        /// Kept for List when the record itself has gone; none when they are too many.
        labels: Vec<Label>,
    },
    Unpublish {
        cid: RecordCid,
    },
    Usage(Vec<(RecordCid, UsageRow)>),
    Job {
        id: String,
        value: Bytes,
    },
    DropJob {
        id: String,
    },
}

impl Change {
    fn kind(&self) -> u8 {
        match self {
            Self::Record { body: Some(_), .. } => 1,
            Self::Record { body: None, .. } => 2,
            Self::DropRecord { .. } => 3,
            Self::Referrer { body: Some(_), .. } => 4,
            Self::Referrer { body: None, .. } => 5,
            Self::DropReferrers { .. } => 6,
            Self::Publish { .. } => 7,
            Self::Unpublish { .. } => 8,
            Self::Usage(_) => 9,
            Self::Job { .. } => 10,
            Self::DropJob { .. } => 11,
        }
    }

    /// Length of the body at the end of the payload.
    pub(crate) fn body_len(&self) -> usize {
        match self {
            Self::Record { body: Some(body), .. } | Self::Referrer { body: Some(body), .. } => body.len(),
            _ => 0,
        }
    }

    /// The same change with its body left out, as the condensed files hold it.
    pub(crate) fn without_body(self) -> Self {
        match self {
            Self::Record { cid, row, .. } => Self::Record { cid, row, body: None },
            Self::Referrer {
                record,
                position,
                row,
                ..
            } => Self::Referrer {
                record,
                position,
                row,
                body: None,
            },
            other => other,
        }
    }
}

fn bad(why: impl ToString) -> StoreError {
    StoreError::CorruptRow {
        what: "journal entry".to_owned(),
        why: why.to_string(),
    }
}

/// Appends the frame of `change` to `out`; the body, if any, ends where `out` then ends. On an error `out` is as
/// it was.
///
/// # Errors
/// `TooLarge` when the payload passes its bound.
pub(crate) fn encode(seq: u64, change: &Change, out: &mut Vec<u8>) -> Result<(), StoreError> {
    let start = out.len();
    let result = encode_frame(seq, change, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_frame(seq: u64, change: &Change, out: &mut Vec<u8>) -> Result<(), StoreError> {
    let start = out.len();
    out.put_bytes(0, FRAME_BYTES);
    let payload_at = out.len();
    match change {
        Change::Record { cid, row, body } => {
            let row = postcard::to_stdvec(row).map_err(bad)?;
            if body.is_some() {
                out.put_u32(u32::try_from(32 + row.len()).map_err(bad)?);
            }
            out.put_slice(cid.digest());
            out.put_slice(&row);
            out.put_slice(body.as_deref().unwrap_or_default());
        }
        Change::Referrer {
            record,
            position,
            row,
            body,
        } => {
            let row = postcard::to_stdvec(row).map_err(bad)?;
            if body.is_some() {
                out.put_u32(u32::try_from(40 + row.len()).map_err(bad)?);
            }
            out.put_slice(record.digest());
            out.put_u64(*position);
            out.put_slice(&row);
            out.put_slice(body.as_deref().unwrap_or_default());
        }
        Change::DropRecord { cid, referrers } => {
            out.put_slice(cid.digest());
            for referrer in referrers {
                out.put_slice(referrer.digest());
            }
        }
        Change::Unpublish { cid } => out.put_slice(cid.digest()),
        Change::DropReferrers { record, cids } => {
            out.put_slice(record.digest());
            for cid in cids {
                out.put_slice(cid.digest());
            }
        }
        Change::Publish { cid, at_ns, labels } => {
            out.put_slice(cid.digest());
            out.put_i64(*at_ns);
            if !labels.is_empty() {
                let labels = postcard::to_allocvec(labels).map_err(|error| StoreError::CorruptRow {
                    what: format!("labels of {cid}"),
                    why: error.to_string(),
                })?;
                out.put_slice(&labels);
            }
        }
        Change::Usage(rows) => {
            for (cid, row) in rows {
                out.put_slice(cid.digest());
                out.put_u64(row.pull_count);
                out.put_u64(row.lookup_count);
                out.put_i64(row.last_used_ns);
            }
        }
        Change::Job { id, value } => {
            out.put_u16(u16::try_from(id.len()).map_err(bad)?);
            out.put_slice(id.as_bytes());
            out.put_slice(value);
        }
        Change::DropJob { id } => out.put_slice(id.as_bytes()),
    }
    let payload_len = out.len() - payload_at;
    if payload_len > MAX_PAYLOAD_BYTES {
        return Err(StoreError::TooLarge {
            what: "journal entry",
            size_bytes: payload_len as u64,
            limit_bytes: MAX_PAYLOAD_BYTES as u64,
        });
    }
    let mut frame = Vec::with_capacity(FRAME_BYTES);
    frame.put_u32(u32::try_from(payload_len).map_err(bad)?);
    frame.put_u8(change.kind());
    frame.put_u8(VERSION);
    frame.put_u64(seq);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame);
    crc.update(out.get(payload_at..).unwrap_or_default());
    frame.put_u32(crc.finalize());
    if let Some(place) = out.get_mut(start..payload_at) {
        place.copy_from_slice(&frame);
    }
    Ok(())
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) payload_len: usize,
    kind: u8,
    version: u8,
    pub(crate) seq: u64,
    crc: u32,
    covered: [u8; CRC_AT],
}

/// Reads a frame head; `None` where no entry can begin.
pub(crate) fn frame(bytes: &[u8; FRAME_BYTES]) -> Option<Frame> {
    let covered = *bytes.first_chunk::<CRC_AT>()?;
    let mut bytes = &bytes[..];
    let payload_len = usize::try_from(bytes.get_u32()).ok()?;
    let (kind, version, seq, crc) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u64(), bytes.get_u32());
    (payload_len > 0 && payload_len <= MAX_PAYLOAD_BYTES).then_some(Frame {
        payload_len,
        kind,
        version,
        seq,
        crc,
        covered,
    })
}

impl Frame {
    /// True if the payload is the one that was written.
    pub(crate) fn holds(&self, payload: &[u8]) -> bool {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.covered);
        crc.update(payload);
        crc.finalize() == self.crc
    }

    /// Reads a payload that [`Frame::holds`].
    ///
    /// # Errors
    /// `CorruptRow` when kind or version are not known or the payload does not parse.
    pub(crate) fn change(&self, mut payload: Bytes) -> Result<Change, StoreError> {
        if self.version != VERSION {
            return Err(bad(format!("version {} is not known", self.version)));
        }
        let change = match self.kind {
            1 | 4 => {
                let head_len = payload.try_get_u32().map_err(bad)? as usize;
                if head_len > payload.len() {
                    return Err(bad("head is longer than the entry"));
                }
                let head = payload.split_to(head_len);
                if self.kind == 1 {
                    record(head, Some(payload))?
                } else {
                    referrer(head, Some(payload))?
                }
            }
            2 => record(payload, None)?,
            5 => referrer(payload, None)?,
            3 => {
                let record = cid(&mut payload)?;
                let mut referrers = Vec::with_capacity(payload.len() / 32);
                while payload.has_remaining() {
                    referrers.push(cid(&mut payload)?);
                }
                Change::DropRecord {
                    cid: record,
                    referrers,
                }
            }
            6 => {
                let record = cid(&mut payload)?;
                let mut cids = Vec::with_capacity(payload.len() / 32);
                while payload.has_remaining() {
                    cids.push(cid(&mut payload)?);
                }
                Change::DropReferrers { record, cids }
            }
            7 => Change::Publish {
                cid: cid(&mut payload)?,
                at_ns: payload.try_get_i64().map_err(bad)?,
                labels: match payload.chunk() {
                    [] => Vec::new(),
                    labels => postcard::from_bytes(labels).map_err(bad)?,
                },
            },
            8 => Change::Unpublish {
                cid: cid(&mut payload)?,
            },
            9 => {
                let mut rows = Vec::with_capacity(payload.len() / 56);
                while payload.has_remaining() {
                    let cid = cid(&mut payload)?;
                    let pull_count = payload.try_get_u64().map_err(bad)?;
                    let lookup_count = payload.try_get_u64().map_err(bad)?;
                    let last_used_ns = payload.try_get_i64().map_err(bad)?;
                    rows.push((
                        cid,
                        UsageRow {
                            pull_count,
                            lookup_count,
                            last_used_ns,
                        },
                    ));
                }
                Change::Usage(rows)
            }
            10 => {
                let id_len = usize::from(payload.try_get_u16().map_err(bad)?);
                if id_len > payload.len() {
                    return Err(bad("job id is longer than the entry"));
                }
                let id = payload.split_to(id_len);
                Change::Job {
                    id: text(&id)?,
                    value: payload,
                }
            }
            11 => Change::DropJob { id: text(&payload)? },
            other => return Err(bad(format!("kind {other} is not known"))),
        };
        Ok(change)
    }
}

fn cid(payload: &mut Bytes) -> Result<RecordCid, StoreError> {
    let mut digest = [0; 32];
    payload.try_copy_to_slice(&mut digest).map_err(bad)?;
    Ok(RecordCid::from_digest(digest))
}

fn text(bytes: &[u8]) -> Result<String, StoreError> {
    Ok(std::str::from_utf8(bytes).map_err(bad)?.to_owned())
}

fn record(mut head: Bytes, body: Option<Bytes>) -> Result<Change, StoreError> {
    let cid = cid(&mut head)?;
    Ok(Change::Record {
        cid,
        row: postcard::from_bytes(&head).map_err(bad)?,
        body,
    })
}

fn referrer(mut head: Bytes, body: Option<Bytes>) -> Result<Change, StoreError> {
    let record = cid(&mut head)?;
    let position = head.try_get_u64().map_err(bad)?;
    Ok(Change::Referrer {
        record,
        position,
        row: postcard::from_bytes(&head).map_err(bad)?,
        body,
    })
}
