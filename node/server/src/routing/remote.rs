//! The brain's changes of the remote label index, in the store's words, and back again at the start.

use dirnode_record::{Label, RecordCid};
use dirnode_routing::{
    IndexChange, PeerId as RoomPeer, Restored, RestoredClaim, RestoredTomb, Standing, Timestamp,
};
use dirnode_store::remote::{self, Applied, Change, RemoteIndex, Row, Tomb};

use super::Shared;

/// Rows taken out in one go when their time is over.
const EXPIRED_AT_ONCE: usize = 4096;
/// Rows read at once at the start.
const PAGE: u32 = 4096;

fn standing(standing: Standing) -> remote::Standing {
    match standing {
        Standing::Hearsay => remote::Standing::Hearsay,
        Standing::Claimed => remote::Standing::Claimed,
        Standing::Verified => remote::Standing::Verified,
    }
}

fn change_of(change: IndexChange) -> Change {
    match change {
        IndexChange::Put {
            cid,
            peer,
            labels,
            timestamp,
            last_seen,
            expires_at,
            standing: worth,
        } => Change::Put(Row {
            cid,
            peer,
            labels,
            timestamp_ns: timestamp.as_nanos(),
            last_seen_ns: last_seen.as_nanos(),
            expires_at_ns: expires_at.as_nanos(),
            standing: standing(worth),
        }),
        IndexChange::Add { cid, peer, labels } => Change::Add { cid, peer, labels },
        IndexChange::Refresh {
            cid,
            peer,
            timestamp,
            last_seen,
            expires_at,
            standing: worth,
        } => Change::Refresh {
            cid,
            peer,
            timestamp_ns: timestamp.as_nanos(),
            last_seen_ns: last_seen.as_nanos(),
            expires_at_ns: expires_at.as_nanos(),
            standing: standing(worth),
        },
        IndexChange::Remove { cid, peer } => Change::Remove { cid, peer },
        IndexChange::Bury {
            cid,
            peer,
            timestamp,
            first_hand,
            until,
        } => Change::Bury(Tomb {
            cid,
            peer,
            timestamp_ns: timestamp.as_nanos(),
            first_hand,
            until_ns: until.as_nanos(),
        }),
    }
}

impl Shared {
    /// Makes a change; gives the rows that the brain believes in and nobody finds.
    pub(super) fn index(&self, change: IndexChange) -> Vec<(RecordCid, RoomPeer)> {
        let change = change_of(change);
        let applied = self.index.apply(std::slice::from_ref(&change));
        if applied.lost() == 0 {
            return Vec::new();
        }
        self.lost(&applied);
        let own = match &change {
            Change::Put(row) => Some((row.cid, row.peer.clone())),
            Change::Add { cid, peer, .. } | Change::Refresh { cid, peer, .. } => Some((*cid, peer.clone())),
            _ => None,
        };
        let own = own.filter(|_| !applied.refused.is_empty() || !applied.absent.is_empty());
        applied.evicted.into_iter().chain(own).collect()
    }

    /// Says that rows did not fit. The brain keeps to tighter bounds, so this means that somebody's labels are long or
    /// deep, or that the index is full. The brain forgets such a row, and puts it anew when it is next heard of.
    fn lost(&self, applied: &Applied) {
        for (_, refusal) in &applied.refused {
            tracing::debug!(component = "routing", %refusal, "row not taken");
        }
        for (cid, peer) in &applied.evicted {
            tracing::debug!(component = "routing", %cid, ?peer, "row evicted");
        }
        let counters = self.index.counters();
        let all = [
            counters.evicted_peer,
            counters.evicted_full,
            counters.refused,
            counters.absent,
        ]
        .into_iter()
        .fold(0, u64::saturating_add);
        if is_news(all, applied.lost()) {
            tracing::warn!(
                component = "routing",
                evicted_author = counters.evicted_peer,
                evicted_full = counters.evicted_full,
                refused = counters.refused,
                absent = counters.absent,
                "rows of other peers do not fit into the remote label index and are not found"
            );
        }
    }

    /// Takes out what is no longer believed, a bounded part of it.
    pub(super) fn expire(&self, now_ns: i64) {
        self.index.expire(now_ns, EXPIRED_AT_ONCE);
    }

    /// Labels of a row; none if it is not there.
    pub(super) fn labels(&self, cid: &RecordCid, author: &RoomPeer) -> Vec<Label> {
        self.index.labels(cid, author).unwrap_or_default()
    }
}

/// Whether what was counted has doubled with the last so many, so that a million of them are told of twenty times.
fn is_news(all: u64, last: usize) -> bool {
    let before = all.saturating_sub(last as u64);
    all.checked_ilog2() > before.checked_ilog2()
}

/// Everything, page by page.
fn pages<T>(mut page: impl FnMut(u32) -> (Vec<T>, Option<u32>)) -> impl Iterator<Item = T> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let (items, behind) = page(next?);
        next = behind;
        Some(items)
    })
    .flatten()
}

/// What the index kept over the restart.
pub(super) fn restore(index: &RemoteIndex, restored: &mut Restored) {
    for row in pages(|from| index.rows_from(from, PAGE)) {
        restored.claims.push(RestoredClaim {
            cid: row.cid,
            peer: row.peer,
            labels: row.labels,
            timestamp: Timestamp::from_nanos(row.timestamp_ns),
            last_seen: Timestamp::from_nanos(row.last_seen_ns),
            standing: match row.standing {
                remote::Standing::Hearsay => Standing::Hearsay,
                remote::Standing::Claimed => Standing::Claimed,
                remote::Standing::Verified => Standing::Verified,
            },
        });
    }
    for tomb in pages(|from| index.tombs_from(from, PAGE)) {
        restored.tombs.push(RestoredTomb {
            cid: tomb.cid,
            peer: tomb.peer,
            timestamp: Timestamp::from_nanos(tomb.timestamp_ns),
            first_hand: tomb.first_hand,
        });
    }
}

#[cfg(test)]
mod tests {
    use dirnode_routing::Config;
    use dirnode_store::remote::Limits;

    use super::*;

    /// The brain counts a row as one, and one more for every sixteen labels, and puts it before the oldest goes. What it
    /// believes in once did not fit into the index, which then evicted other rows than the brain, in silence.
    #[test]
    fn the_index_has_room_for_all_that_the_brain_believes_in() {
        let (brain, index) = (Config::default(), Limits::default());
        assert!(index.max_rows_per_peer > brain.max_claims_per_author);
        assert!(index.max_labels_per_peer >= 16 * brain.max_claims_per_author + index.max_labels_per_row);
        assert!(index.max_rows > brain.max_claims);
        assert!(index.max_labels >= 16 * brain.max_claims + index.max_labels_per_row);
        assert!(index.max_tombs >= brain.max_tombstones);
    }

    #[test]
    fn losses_are_told_of_each_time_they_double() {
        let told: Vec<u64> = (1..=40).filter(|all| is_news(*all, 1)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32]);
        assert!(is_news(9, 2) && is_news(1_000, 900) && !is_news(1_000, 400));
        assert!(!is_news(0, 0));
    }
}
