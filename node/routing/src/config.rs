//! Intervals, deadlines and bounds of the routing room.
//!
//! What operators may set is in [`Config`]; what every peer relies on, or what bounds memory, is a constant with its
//! reason. Holds no state.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::peer::PeerId;

/// Peers that hold a provider record: Kademlia's k (p2p-wire §2.7).
pub const REPLICATION: usize = 20;
/// How long a provider record lasts at the peers that keep it (p2p-wire §2.7).
pub const PROVIDER_RECORD_TTL: Duration = Duration::from_secs(48 * 60 * 60);
/// How long the reference keeps the addresses of a provider (p2p-wire §2.7).
pub const PROVIDER_ADDRESS_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time between two provides of a record. Addresses are gone after 24 h, so that even the retries of a round
/// that failed have two hours; provider records survive one missed round.
pub const REPROVIDE_INTERVAL: Duration = Duration::from_secs(22 * 60 * 60);
const _: () = assert!(2 * REPROVIDE_INTERVAL.as_secs() <= PROVIDER_RECORD_TTL.as_secs());
const _: () =
    assert!(REPROVIDE_INTERVAL.as_secs() + 4 * RETRY_CAP.as_secs() <= PROVIDER_ADDRESS_TTL.as_secs());
/// A round comes up to this part of the interval early, at random, so that rounds spread over the day.
pub const REPROVIDE_EARLY: f64 = 0.25;

/// How long a peer's labels are believed after they were last heard of. As long as the provider record that stands for
/// the same promise: whoever dies is forgotten by both at once. The reference republishes every 36 h.
pub const CLAIM_TTL: Duration = Duration::from_secs(48 * 60 * 60);
const _: () = assert!(CLAIM_TTL.as_secs() >= PROVIDER_RECORD_TTL.as_secs());
const _: () = assert!(CLAIM_TTL.as_secs() > 36 * 60 * 60);
/// How long a withdrawal is remembered: until nothing that it covers can be believed any more.
pub const TOMBSTONE_TTL: Duration =
    Duration::from_secs(CLAIM_TTL.as_secs() + MAX_AGE.as_secs() + MAX_AHEAD.as_secs());
/// Oldest announcement taken. Gossip crosses the network in seconds; the rest is for clocks and pauses.
pub const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// How far ahead of our clock an announcement's time may be.
pub const MAX_AHEAD: Duration = Duration::from_secs(10 * 60);

/// First pause before a failed step is tried again; it doubles each time.
pub const RETRY_BASE: Duration = Duration::from_secs(5);
/// Longest pause before a failed step is tried again.
pub const RETRY_CAP: Duration = Duration::from_secs(30 * 60);
/// A publication that did not get through for so long is reported as failed; the republisher goes on with it.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// What we wait for an answer of the network or of the disk before we take it for lost.
pub const STEP_DEADLINE: Duration = Duration::from_secs(120);

/// Single provides on their way. Each is a lookup; more than a hundred queries slow the swarm down (measured).
pub const MAX_PLAIN_PROVIDES: usize = 16;
/// Regions swept at once.
pub const MAX_SWEEPS: usize = 4;
/// Keys of one sweep; what is above waits for the next.
pub const MAX_SWEEP_KEYS: usize = 8_192;
/// Lookups of one sweep before what is left is given to the nearest peers known.
pub const MAX_SWEEP_LOOKUPS: usize = 256;
/// Streams of one sweep at once.
pub const MAX_SWEEP_STREAMS: usize = 8;
/// Provider records sent in one go down one stream; a fifth of a second of the receiver's time.
pub const PROVIDE_BATCH: usize = 256;
/// Part of the peers asked for which must have taken a provider record.
pub const MIN_REPLICA_PART: f64 = 0.2;
/// Announcements of ours on their way.
pub const MAX_ANNOUNCES: usize = 32;
/// Announcements we send per second, and at once.
pub const ANNOUNCE_RATE: (f64, f64) = (100.0, 500.0);

/// Announcements of one author taken per second, and at once; a good publisher stays far below.
pub const AUTHOR_RATE: (f64, f64) = (300.0, 3_000.0);
/// Lies after which an author is not listened to for [`MUTED_FOR`].
pub const MAX_LIES: u8 = 3;
/// How long a liar is not listened to.
pub const MUTED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Fetches on their way.
pub const MAX_FETCHES: usize = 32;
/// Fetches from one peer on their way.
pub const MAX_FETCHES_PER_PEER: usize = 2;
/// Fetches that wait for one peer.
pub const MAX_WAITING_PER_PEER: usize = 256;
/// Fetches that wait in all.
pub const MAX_WAITING_FETCHES: usize = 8_192;
/// Fetches of records of one peer that wait for their time: for an announcement on its way, or for an author to be back.
pub const MAX_LATER_PER_PEER: usize = MAX_WAITING_FETCHES / 4;
/// What a peer has for a fetch.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(30);
/// How long a provider record waits for the announcement that comes with it, before the record is fetched for its labels.
pub const SIGHTING_GRACE: Duration = Duration::from_secs(3);
/// First pause before an author is asked again whether it withdrew a record; it doubles each time.
pub const DOUBT_PAUSE: Duration = Duration::from_secs(60);
/// How often an author is asked.
pub const MAX_DOUBT_TRIES: u8 = 8;
/// Failed fetches remembered.
pub const MAX_NEGATIVE: usize = 16_384;
/// How long a failed fetch is not tried again; doubled with each failure up to 64 times as long.
pub const NEGATIVE_FOR: Duration = Duration::from_secs(10 * 60);

/// Rows shown to searchers that wait to be verified.
pub const MAX_SHOWN: usize = 1_024;
/// Verifications per second, and at once.
pub const VERIFY_RATE: (f64, f64) = (1.0, 16.0);
/// Pause between verifications of rows that nobody asked for.
pub const VERIFY_IDLE: Duration = Duration::from_secs(20);

/// Peers we catch up with after joining.
pub const CATCHUP_PEERS: usize = 3;
/// Pause before what came while joining is compared once more; each one after it is [`CATCHUP_SETTLE_GROWTH`] times as
/// long, until the pauses are those of a node that has been there for long.
pub const CATCHUP_SETTLE: Duration = Duration::from_secs(10);
/// How fast the pauses grow after joining.
pub const CATCHUP_SETTLE_GROWTH: u32 = 2;
/// Pause between later exchanges, each with one peer picked at random.
pub const CATCHUP_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Least pause between exchanges, when peers come that were not there before.
pub const CATCHUP_SOONEST: Duration = Duration::from_secs(5 * 60);
/// Pages of one exchange.
pub const MAX_CATCHUP_PAGES: usize = 2_048;
/// Requests of one peer answered per second, and at once.
pub const CATCHUP_RATE: (f64, f64) = (20.0, 200.0);
/// What a peer has for one page.
pub const CATCHUP_DEADLINE: Duration = Duration::from_secs(30);
/// What a peer has for all pages of one exchange; enough for a million rows at the rate that [`CATCHUP_RATE`] allows.
pub const CATCHUP_EXCHANGE: Duration = Duration::from_secs(10 * 60);
/// First pause between two readings of one author from the beginning; it doubles while they do not make digests equal.
pub const REREAD_AT_LEAST: Duration = Duration::from_secs(30);
/// Longest such pause.
pub const REREAD_AT_MOST: Duration = Duration::from_secs(6 * 60 * 60);
/// Peers that we keep account of; more than a node has connections.
pub const MAX_PEERS: usize = 4_096;

/// Records waiting to be synchronised.
pub const MAX_SYNC_JOBS: usize = 4_096;
/// Synchronisations on their way.
pub const MAX_SYNCS: usize = 4;
/// What one synchronisation has; longer than the transfers it is made of.
pub const SYNC_DEADLINE: Duration = Duration::from_secs(5 * 60);
/// Tries with each peer that announced the record.
pub const MAX_SYNC_TRIES: u8 = 3;

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Config {
    /// Longest time between two provides of a record; at most [`REPROVIDE_INTERVAL`].
    pub reprovide_interval: Duration,
    /// Records of one author that are remembered; one with many labels counts for several.
    pub max_claims_per_author: usize,
    /// Records of all authors that are remembered; about 300 bytes each.
    pub max_claims: usize,
    /// Records remembered on the word of one peer that is not their author.
    pub max_hearsay_per_relay: usize,
    /// Withdrawals remembered, of all authors; an eighth of it of one author.
    pub max_tombstones: usize,
    /// Own records that may be published.
    pub max_published: usize,
    /// Publications whose outcome is still open.
    pub max_open: usize,
    /// Whether the labels that others claim are checked in the background.
    pub verify: bool,
    /// Whether near keys share their lookups; off only to measure what it saves.
    pub sweep: bool,
    /// Peers whose announced records are copied here; nobody by default.
    pub sync_from: BTreeSet<PeerId>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            reprovide_interval: REPROVIDE_INTERVAL,
            max_claims_per_author: 100_000,
            max_claims: 500_000,
            max_hearsay_per_relay: 100_000,
            max_tombstones: 100_000,
            max_published: 2_000_000,
            max_open: 200_000,
            verify: true,
            sweep: true,
            sync_from: BTreeSet::new(),
        }
    }
}

impl Config {
    /// The interval, within what keeps us findable.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.reprovide_interval
            .clamp(Duration::from_secs(60), REPROVIDE_INTERVAL)
    }
}
