//! What the state machine counts, for the driver to show as metrics. Plain numbers that only grow.

use std::time::Duration;

/// Upper bounds of the freshness buckets, in seconds; one more bucket holds what is above.
pub const FRESHNESS_BOUNDS: [f64; 11] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0];

/// Seconds from an announcement's own time to the moment it is handed to the index. Announcements from the future
/// count as zero.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Freshness {
    /// How many fell into each bucket; not cumulative.
    pub buckets: [u64; FRESHNESS_BOUNDS.len() + 1],
    /// Sum of all, in seconds.
    pub sum_seconds: f64,
    /// How many there were.
    pub count: u64,
}

impl Freshness {
    pub(crate) fn observe(&mut self, span: Duration) {
        let seconds = span.as_secs_f64();
        let place = FRESHNESS_BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = self.buckets.get_mut(place.unwrap_or(FRESHNESS_BOUNDS.len())) {
            *bucket += 1;
        }
        self.sum_seconds += seconds;
        self.count += 1;
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counts since the start.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Counters {
            $($(#[$doc])+ pub $name: u64,)+
            /// How old announcements were when they were taken.
            pub freshness: Freshness,
        }

        impl Counters {
            /// Every plain counter with its name.
            pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Publications recorded.
    published,
    /// Withdrawals recorded.
    withdrawn,
    /// Publications and withdrawals whose news got out.
    completed,
    /// Publications reported as failed.
    failed,
    /// Requests refused because too many are open.
    refused_full,
    /// Requests that the disk did not take.
    refused_storage,
    /// Published records that were no longer there when their labels were wanted.
    orphans,
    /// Single provides begun.
    provides_plain,
    /// Keys whose provide succeeded, either way.
    provided_keys,
    /// Keys whose provide failed and is tried again.
    provide_failures,
    /// Sweeps begun.
    sweeps,
    /// Keys taken into sweeps.
    sweep_keys,
    /// Lookups of sweeps.
    sweep_lookups,
    /// Provider records handed to streams by sweeps.
    sweep_records,
    /// Streams of sweeps that failed.
    sweep_stream_failures,
    /// Keys given to the nearest peers known because a sweep had used up its lookups.
    sweep_approximate_keys,
    /// Announcements handed to the mesh.
    announced,
    /// Announcements that failed and are tried again.
    announce_failures,
    /// Labels that fit into no announcement.
    labels_left_out,
    /// Announcements taken.
    accepted,
    /// Announcements of ours that came back.
    ignored_own,
    /// Announcements of publishers that policy does not let speak.
    ignored_denied,
    /// Announcements older than what we know.
    ignored_replay,
    /// Announcements that say nothing new.
    ignored_duplicate,
    /// Announcements too old to be taken.
    ignored_old,
    /// Announcements from the future.
    ignored_ahead,
    /// Announcements above their author's rate.
    ignored_rate,
    /// Announcements of authors that lied.
    ignored_muted,
    /// Announcements that break the rules of the topic.
    rejected,
    /// Withdrawals of others taken.
    withdrawals_taken,
    /// Claims that turned out to be lies.
    lies,
    /// Claims that turned out to be true.
    verified,
    /// Claims removed because their publisher does not have the record.
    not_held,
    /// Rows that were not heard of again in time.
    expired,
    /// Rows removed because their author has too many.
    evicted_author,
    /// Rows removed because there are too many.
    evicted_total,
    /// Withdrawals forgotten early because there are too many.
    evicted_tombstones,
    /// Rows forgotten because the index has no room for them.
    unindexed,
    /// Provider records seen.
    sightings,
    /// Provider records of keys that are no records.
    sightings_ignored,
    /// Fetches begun.
    fetches,
    /// Fetches that ended well.
    fetched,
    /// Fetches that did not.
    fetch_failures,
    /// Fetches that ran out of time.
    fetch_timeouts,
    /// Fetches not begun because one just failed.
    fetch_negative,
    /// Fetches not begun because too many wait.
    fetch_dropped,
    /// Fetched records with more labels than are kept.
    labels_cut,
    /// Fetches begun to verify a claim.
    verifications,
    /// Exchanges begun to catch up.
    catchups,
    /// Exchanges that went through.
    catchups_done,
    /// Exchanges that broke off.
    catchup_failures,
    /// Pages asked for.
    catchup_pages,
    /// Rows learned from their author.
    catchup_first_hand,
    /// Rows learned from others.
    hearsay_taken,
    /// Rows of others not taken.
    hearsay_refused,
    /// Withdrawals of others that made us ask the author.
    doubts,
    /// Pages answered.
    catchup_answered,
    /// Pages not answered because the peer asks too often.
    catchup_busy,
    /// Records queued to be synchronised.
    syncs_queued,
    /// Synchronisations begun.
    syncs_started,
    /// Records synchronised.
    syncs_done,
    /// Synchronisations that failed with every peer.
    syncs_failed,
    /// Records not queued because too many wait.
    syncs_dropped,
    /// Reports of steps that are no longer waited for.
    stale_reports,
    /// Steps whose report never came.
    lost_steps,
}
