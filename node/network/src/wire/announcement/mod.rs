//! What is said on the topic `dir/labels/v1`: a peer has a record, and these are its labels.
//!
//! Three readings of one payload. [`Payload::read`] takes the JSON apart as the reference's decoder does;
//! [`Payload::check`] adds the reference's rules and so gives its verdict, which says what other nodes will keep;
//! [`Announcement::admit`] is ours, with a real CID, labels of the four namespaces, and our extension. Authorship,
//! replays and age are judged elsewhere. Pure. Follows p2p-wire §4.2, §7-6, §7-20 and §7-21.
//!
//! # Bytes
//! One JSON object in UTF-8, at most 10 240 bytes; we write at most 10 000, so that the frame around it fits the wire.
//!
//! | field | value |
//! |---|---|
//! | `cid` | text of the record's CID |
//! | `labels` | 1 to 100 texts, in record order, with duplicates |
//! | `timestamp` | RFC 3339 with nanoseconds, trailing zeros cut |
//! | `dirnode` | our extension, see below; left out of a plain announcement, which then equals the reference's byte for byte |
//!
//! # The extension
//! An object under the key `dirnode`, written last and without white space. The reference skips it, as it does any
//! field it does not know. Members are written in this order and read in any; unknown ones are skipped.
//!
//! | member | value |
//! |---|---|
//! | `v` | 1. Another version makes the extension count as absent |
//! | `withdraw` | `true`: the author no longer provides the record. `labels` must then be empty |
//! | `seq` | number of the withdrawal, 0 to 2^53-1, growing by author |
//! | `part`, `parts` | this is part 0 to `parts`-1 of one announcement whose labels did not fit one message |
//!
//! A withdrawal reads
//! `{"cid":"baear...","labels":[],"timestamp":"...","dirnode":{"v":1,"withdraw":true,"seq":7}}`. The reference relays
//! it, finds no labels, logs a warning and keeps nothing; with labels it would cache them anew. So that its log stays
//! quiet, withdrawals are sent once each and rarely.
//!
//! A part reads `{"cid":...,"labels":[...],"timestamp":"...","dirnode":{"v":1,"part":0,"parts":2}}`. Each part is one
//! nanosecond later than the one before, so that no reader takes it for a replay; the reference keeps the labels of
//! all of them.

mod admit;
mod payload;
mod write;

pub use admit::{AdmitError, Admitted, Announcement, Dropped, MAX_LABEL_BYTES};
pub use payload::{Extension, Part, Payload, PayloadError};
pub use write::{NotAnnounced, Split, encode_reference, encode_withdrawal, split};

/// The topic.
pub const TOPIC: &str = "dir/labels/v1";
/// Largest payload that is read, in bytes; the reference's own bound.
pub const MAX_PAYLOAD_BYTES: usize = 10 * 1024;
/// Largest payload that we write: with the 137 bytes of the frame around it, it stays below the 10 240 of a frame.
pub const MAX_WRITTEN_BYTES: usize = 10_000;
/// Most labels in one message.
pub const MAX_LABELS: usize = 100;
/// Version of the extension.
pub const EXTENSION_VERSION: u64 = 1;
