//! The brain's changes of the remote label index, in the store's words, and back again at the start.

use dirnode_record::{Label, RecordCid};
use dirnode_routing::{
    IndexChange, PeerId as RoomPeer, Restored, RestoredClaim, RestoredTomb, Standing, Timestamp,
};
use dirnode_store::remote::{self, Change, RemoteIndex, Row, Tomb};

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
    pub(super) fn index(&self, change: IndexChange) {
        for (_, refusal) in self.index.apply(&[change_of(change)]).refused {
            // The brain keeps to tighter bounds; what it knows and the index does not is found when it is told again.
            tracing::debug!(component = "routing", %refusal, "row not taken");
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
