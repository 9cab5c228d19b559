//! Requests and replies of `/dirnode/catchup/1`, as values.
//!
//! Bounds are part of the types' promise: what decodes is within them, and what is built here is made to fit. Holds no
//! state.

use dirnode_record::{Label, RecordCid};

use crate::peer::PeerId;
use crate::time::Timestamp;

/// Largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// Largest reply, in bytes.
pub const MAX_REPLY_BYTES: usize = 128 * 1024;
/// Most authors of one summary page.
pub const MAX_AUTHORS: usize = 512;
/// Most authors whose rows one request asks for.
pub const MAX_CURSORS: usize = 128;
/// Most rows of one reply.
pub const MAX_ROWS: usize = 512;
/// Most labels of one row; a record with more is sent without, so that the author is asked.
pub const MAX_ROW_LABELS: usize = 256;
/// Longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 2_048;
/// Most bytes of all labels of one row; a row with more is sent without.
pub const MAX_ROW_LABEL_BYTES: usize = 16 * 1024;
const _: () = assert!(MAX_ROW_LABEL_BYTES * 2 < MAX_REPLY_BYTES);
const _: () = assert!(MAX_CURSORS * (2 + 64 + 8 + 32) < MAX_REQUEST_BYTES);

/// A message of this protocol that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CatchupError {
    /// It ends too early.
    #[error("message ends after {at} bytes, more were promised")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// It goes on behind its end.
    #[error("message has {extra} bytes behind its end")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A newer protocol, or none.
    #[error("version {version} is not known")]
    Version {
        /// The first byte.
        version: u8,
    },
    /// A field has a value that means nothing.
    #[error("{field} is {value}, which means nothing")]
    Value {
        /// Which.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A list or text is longer than allowed.
    #[error("{field} is {value}, limit is {limit}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// How long.
        value: u64,
        /// How long it may be.
        limit: usize,
    },
    /// A label is no label.
    #[error("label number {place} of a row does not read")]
    Label {
        /// Its place.
        place: usize,
    },
}

/// Where to go on reading an author's rows: behind (`since`, `after`), in that order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The author.
    pub author: PeerId,
    /// Announcement time of the last row that was read.
    pub since: Timestamp,
    /// The last row that was read; all zeroes for none.
    pub after: RecordCid,
}

/// What one asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Which authors do you know, behind this one in byte order?
    Summary {
        /// The last one known from the page before.
        after: Option<PeerId>,
    },
    /// What did these say? At most [`MAX_CURSORS`].
    Rows {
        /// From where.
        cursors: Vec<Cursor>,
    },
}

/// What a node knows of one author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorSummary {
    /// The author.
    pub author: PeerId,
    /// How many rows, withdrawals included.
    pub rows: u64,
    /// The newest announcement time among them.
    pub newest: Timestamp,
    /// Exclusive or of the rows' digests; see [`row_digest`].
    pub digest: u64,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record.
    pub cid: RecordCid,
    /// The author's announcement time.
    pub timestamp: Timestamp,
    /// Whether the author took it back.
    pub withdrawn: bool,
    /// Its labels; empty when it is withdrawn, has none, or has too many to send.
    pub labels: Vec<Label>,
}

/// Rows of one author, in order of (announcement time, CID).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Place of its cursor in the request.
    pub cursor: u16,
    /// Whether there are no more behind the last row.
    pub complete: bool,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What one answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Authors in byte order.
    Summary {
        /// At most [`MAX_AUTHORS`].
        authors: Vec<AuthorSummary>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// Sections in the order of the cursors; cursors without one were not reached.
    Rows {
        /// At most [`MAX_ROWS`] rows in all.
        sections: Vec<Section>,
        /// Whose rows each section holds, for [`Reply::fill`]; not on the wire.
        authors: Vec<PeerId>,
    },
    /// Come back later.
    Busy {
        /// When.
        retry_seconds: u64,
    },
}

impl Reply {
    /// Puts labels into rows and cuts the page to size; a row whose labels are too many or unknown goes without.
    pub fn fill(&mut self, mut labels_of: impl FnMut(&RecordCid, &PeerId) -> Vec<Label>) {
        let Self::Rows { sections, authors } = self else {
            return;
        };
        let mut size = 16_usize;
        let mut cut_at = None;
        for (place, (section, author)) in sections.iter_mut().zip(authors.iter()).enumerate() {
            size += 8;
            let mut fits = 0;
            for row in &mut section.rows {
                if !row.withdrawn {
                    row.labels = labels_of(&row.cid, author);
                    let bytes: usize = row.labels.iter().map(|label| label.as_str().len()).sum();
                    let too_long = row
                        .labels
                        .iter()
                        .any(|label| label.as_str().len() > MAX_LABEL_BYTES);
                    if row.labels.len() > MAX_ROW_LABELS || bytes > MAX_ROW_LABEL_BYTES || too_long {
                        row.labels.clear();
                    }
                }
                let row_bytes: usize = row.labels.iter().map(|label| label.as_str().len() + 3).sum();
                size += 32 + 8 + 1 + 3 + row_bytes;
                if size > MAX_REPLY_BYTES {
                    break;
                }
                fits += 1;
            }
            if fits < section.rows.len() {
                section.rows.truncate(fits);
                section.complete = false;
                cut_at = Some(place + 1);
                break;
            }
        }
        if let Some(cut_at) = cut_at {
            sections.truncate(cut_at);
            authors.truncate(cut_at);
        }
    }
}

/// What one row adds to its author's digest: the first eight bytes of the CID's digest and the announcement time, mixed.
///
/// `x = cid[0..8] (big-endian) ^ (timestamp rotated left by 17) ^ (withdrawn ? 0x9e3779b97f4a7c15 : 0)`, then the
/// finaliser of splitmix64. Two nodes that know the same rows have the same sum, in whatever order they came.
#[must_use]
pub fn row_digest(cid: &RecordCid, timestamp: Timestamp, withdrawn: bool) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *cid.digest();
    let mut x = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    x ^= timestamp.as_nanos().cast_unsigned().rotate_left(17);
    if withdrawn {
        x ^= 0x9e37_79b9_7f4a_7c15;
    }
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
