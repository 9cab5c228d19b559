//! What goes into the remote label index and comes out of it.

use dirnode_record::Label;

use crate::RecordCid;

pub use dirnode_identity::{CompactPeerId as PeerId, MAX_PEER_ID_BYTES};

/// How much a row is worth; a better one is greater, and ranks first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Told by a peer that is not its author.
    Hearsay,
    /// Said by its author.
    Claimed,
    /// The labels are those of the record's bytes.
    Verified,
}

impl Standing {
    /// All of them, best first.
    pub const BEST_FIRST: [Self; 3] = [Self::Verified, Self::Claimed, Self::Hearsay];
}

/// A change of the index. Rows are keyed by (record, publisher); times are unix nanoseconds. Each change is absolute:
/// made twice, it ends where made once does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts a row in the place of the one that is there, and forgets a withdrawal.
    Put(Row),
    /// Adds labels to a row; nothing happens if there is no row.
    Add {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// More of its labels.
        labels: Vec<Label>,
    },
    /// Sets all of a row but its labels; nothing happens if there is no row.
    Refresh {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
        /// What its author said about when.
        timestamp_ns: i64,
        /// When it was last heard of.
        last_seen_ns: i64,
        /// When it is no longer believed.
        expires_at_ns: i64,
        /// What it is worth.
        standing: Standing,
    },
    /// Removes a row.
    Remove {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
    },
    /// Removes a row and remembers that it was withdrawn.
    Bury(Tomb),
    /// Forgets a withdrawal.
    Forget {
        /// The record.
        cid: RecordCid,
        /// Its publisher.
        peer: PeerId,
    },
    /// Removes all rows of a peer; its withdrawals stay.
    RemovePeer {
        /// The publisher.
        peer: PeerId,
    },
}

/// What one peer is said to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The record.
    pub cid: RecordCid,
    /// Its publisher.
    pub peer: PeerId,
    /// Its labels as announced: read back in byte order, each once.
    pub labels: Vec<Label>,
    /// What its author said about when.
    pub timestamp_ns: i64,
    /// When it was last heard of.
    pub last_seen_ns: i64,
    /// When it is no longer believed.
    pub expires_at_ns: i64,
    /// What it is worth.
    pub standing: Standing,
}

/// A withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tomb {
    /// The record.
    pub cid: RecordCid,
    /// Its publisher.
    pub peer: PeerId,
    /// When its author said so.
    pub timestamp_ns: i64,
    /// Whether the author said so to us, or to the mesh.
    pub first_hand: bool,
    /// Until when it is remembered.
    pub until_ns: i64,
}

/// Why a change was not made. The index is then as it was, except that rows may have been evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The row alone passes a bound on the rows of one peer.
    #[error("row has {labels} labels in {postings} lists, one peer may have {max_labels} and {max_postings}")]
    RowTooLarge {
        /// Labels of the row.
        labels: usize,
        /// Lists that would name it.
        postings: usize,
        /// Labels that one peer may have.
        max_labels: usize,
        /// Entries of lists that one peer may have.
        max_postings: usize,
    },
    /// The index is full, and no peer takes more of it than this one would with this row alone.
    #[error("index is full with {rows} rows and {labels} labels, and no peer takes more than this row")]
    Full {
        /// Rows there are.
        rows: usize,
        /// Labels there are.
        labels: usize,
    },
}

/// What became of a batch of changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Changes that changed something.
    pub changed: usize,
    /// Place in the batch of those that were refused, and why.
    pub refused: Vec<(usize, Refusal)>,
    /// Place in the batch of each [`Change::Add`] and [`Change::Refresh`] of a row that is not there: whoever made it
    /// believes in a row that nobody finds. It is there again after a [`Change::Put`].
    pub absent: Vec<usize>,
    /// Rows that had to go for these changes because there was too much, in the order in which they went. They may be
    /// of other peers than the changes, and may have been put by one of them.
    pub evicted: Vec<(RecordCid, PeerId)>,
}

impl Applied {
    /// Rows that whoever made the changes believes in and nobody finds.
    #[must_use]
    pub fn lost(&self) -> usize {
        let lost = self.refused.len().saturating_add(self.absent.len());
        lost.saturating_add(self.evicted.len())
    }
}

/// Bounds of the index. None is a promise of room: together they bound memory at about 1.6 GB, of which honest rows use
/// a small part.
///
/// A peer above a bound of its own loses the row that was not heard of for longest; when all rows pass a bound, the peer
/// that takes most of what is full does. Whoever decides what is put should keep to tighter bounds, since it does not
/// know which row goes here: by default a peer may have a quarter more rows than the routing room believes in, and
/// sixteen labels for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rows of all peers.
    pub max_rows: usize,
    /// Rows of one peer; above it the one that was not heard of for longest goes.
    pub max_rows_per_peer: usize,
    /// Labels of all rows.
    pub max_labels: usize,
    /// Labels of all rows of one peer.
    pub max_labels_per_peer: usize,
    /// Bytes of the distinct labels of one peer: each counts for all peers that have it.
    pub max_text_bytes_per_peer: usize,
    /// Entries of posting lists of one peer's rows.
    pub max_postings_per_peer: usize,
    /// Labels of one row; those above are dropped.
    pub max_labels_per_row: usize,
    /// Length of a label; longer ones are dropped.
    pub max_label_bytes: usize,
    /// Bytes of all distinct labels.
    pub max_text_bytes: usize,
    /// Entries of all posting lists: a row is named once for each prefix of its labels.
    pub max_postings: usize,
    /// Withdrawals of all peers; above it the one that ends first goes.
    pub max_tombs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_rows: 1_000_000,
            max_rows_per_peer: 125_000,
            max_labels: 9_000_000,
            max_labels_per_peer: 2_000_000,
            max_text_bytes_per_peer: 8 << 20,
            max_postings_per_peer: 4_000_000,
            max_labels_per_row: 3_200,
            max_label_bytes: 1_024,
            max_text_bytes: 64 << 20,
            max_postings: 32_000_000,
            max_tombs: 100_000,
        }
    }
}

/// What was counted since the index was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Rows put.
    pub put: u64,
    /// Rows refreshed, or given more labels.
    pub refreshed: u64,
    /// Rows removed by a change.
    pub removed: u64,
    /// Rows and withdrawals that ended.
    pub expired: u64,
    /// Rows that went because their peer took more than its share of something.
    pub evicted_peer: u64,
    /// Rows that went, of the peer that took most, because the index was full.
    pub evicted_full: u64,
    /// Withdrawals that went because there were too many.
    pub evicted_tombs: u64,
    /// Changes refused.
    pub refused: u64,
    /// Changes of rows that are not there.
    pub absent: u64,
    /// Labels dropped because they were too long, or in none of the namespaces.
    pub labels_unfit: u64,
    /// Labels dropped because the row had too many.
    pub labels_above: u64,
    /// Labels dropped because those of the row had more bytes than a peer may have.
    pub labels_no_room: u64,
    /// Searches that ended before all matches were looked at.
    pub searches_cut: u64,
    /// Rows read from the folder at the start.
    pub restored_rows: u64,
    /// Withdrawals read from the folder at the start.
    pub restored_tombs: u64,
    /// Bytes of the folder that did not check.
    pub damaged_bytes: u64,
    /// Batches that were not written because too many were waiting, or because the disk did not take them.
    pub unwritten_batches: u64,
    /// Failures of the disk.
    pub disk_errors: u64,
    /// Snapshots written.
    pub snapshots: u64,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Rows by standing: hearsay, claimed, verified.
    pub rows: [usize; 3],
    /// Labels of all rows.
    pub labels: usize,
    /// Distinct labels.
    pub distinct_labels: usize,
    /// Bytes of distinct labels.
    pub text_bytes: usize,
    /// Posting lists, one for each prefix of a label.
    pub lists: usize,
    /// Entries of the posting lists.
    pub postings: usize,
    /// Records.
    pub cids: usize,
    /// Peers that have a row or a withdrawal.
    pub peers: usize,
    /// Withdrawals.
    pub tombs: usize,
}

impl Size {
    /// Rows of every standing.
    #[must_use]
    pub fn all_rows(&self) -> usize {
        self.rows.iter().sum()
    }
}

/// Memory of the index, in bytes: the capacity of every list and table, and 16 bytes for each allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Rows, their label lists, and the table that finds them.
    pub rows: u64,
    /// Records and the table that finds them.
    pub cids: u64,
    /// Peers, the order of their rows, and the table that finds them.
    pub peers: u64,
    /// Texts and numbers of labels.
    pub labels: u64,
    /// Prefixes of labels, and their posting lists.
    pub postings: u64,
    /// Withdrawals.
    pub tombs: u64,
    /// Rows and withdrawals by when they end.
    pub wheel: u64,
}

impl Bytes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.rows,
            self.cids,
            self.peers,
            self.labels,
            self.postings,
            self.tombs,
            self.wheel,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_standing_is_greater() {
        assert!(Standing::Verified > Standing::Claimed && Standing::Claimed > Standing::Hearsay);
        assert!(Standing::BEST_FIRST.is_sorted_by(|one, other| one > other));
    }
}
