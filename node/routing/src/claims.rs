//! What others say they have: one small row for each (record, publisher), and withdrawals.
//!
//! Keeps only what decisions need: times, standing, and the labels as keyed 32-bit hashes, enough to tell whether a claim
//! says anything that the record does not. The labels themselves are in the index, which is told of every change. All of
//! it is soft state: rows end when they are not heard of again, and the oldest go when there are too many. Bounds are
//! kept for each author, for each relaying peer and in all. Never decides whether something is believed: `hear` does.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Bound;

use dirnode_record::{Label, RecordCid};
use rand::Rng;

use crate::action::{Action, IndexChange, Standing};
use crate::catchup::AuthorSummary;
use crate::catchup::message::row_digest;
use crate::config::{CLAIM_TTL, Config, TOMBSTONE_TTL};
use crate::cx::Cx;
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Rows that end per call, so that one input never takes long.
const MAX_EXPIRED: usize = 4_096;

/// Labels as far as decisions need them: sorted hashes under a key of this node, so that nobody can make a label that
/// passes for another.
pub(crate) type LabelSet = Box<[u32]>;

#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// What its author said about when; for rows that no author announced, when we fetched it.
    pub timestamp: Timestamp,
    /// When it was last heard of; believed for [`CLAIM_TTL`] from then.
    pub seen: Timestamp,
    pub standing: Standing,
    /// Whether its author announced it, so that it can be passed on.
    pub announced: bool,
    pub labels: LabelSet,
    /// Who told it, when that was not its author.
    pub relay: Option<PeerId>,
    /// Where it is in the wheel.
    slot: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Tomb {
    pub timestamp: Timestamp,
    pub first_hand: bool,
    until: Timestamp,
}

#[derive(Debug, Default)]
struct Author {
    /// Rows and withdrawals in order of announcement time.
    order: BTreeSet<(Timestamp, RecordCid)>,
    /// Withdrawals alone, in the same order.
    tombs: BTreeSet<(Timestamp, RecordCid)>,
    /// What its rows weigh; see [`Claim::weight`].
    weight: usize,
    /// Rows and withdrawals that can be passed on.
    shared: u64,
    digest: u64,
    newest: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Claim,
    Tomb,
}

#[derive(Debug, Default)]
pub(crate) struct Claims {
    key: [u8; 16],
    rows: BTreeMap<(RecordCid, PeerId), Claim>,
    tombs: BTreeMap<(RecordCid, PeerId), Tomb>,
    authors: BTreeMap<PeerId, Author>,
    /// Authors by what their rows weigh.
    sizes: BTreeSet<(usize, PeerId)>,
    /// When each row is to be looked at again; a row that was heard of meanwhile goes back in.
    wheel: BTreeSet<(Timestamp, What, RecordCid, PeerId)>,
    tomb_order: BTreeSet<(Timestamp, RecordCid, PeerId)>,
    relays: BTreeMap<PeerId, usize>,
    standings: [usize; 3],
    weight: usize,
}

fn place(standing: Standing) -> usize {
    match standing {
        Standing::Hearsay => 0,
        Standing::Claimed => 1,
        Standing::Verified => 2,
    }
}

impl Claims {
    pub fn new(rng: &mut dyn Rng) -> Self {
        let mut me = Self::default();
        rng.fill_bytes(&mut me.key);
        me
    }

    /// Labels as a set of hashes.
    pub fn set_of(&self, labels: &[Label]) -> LabelSet {
        let mut hashes: Vec<u32> = labels
            .iter()
            .map(|label| {
                let mut hasher = DefaultHasher::new();
                self.key.hash(&mut hasher);
                label.as_str().hash(&mut hasher);
                let [a, b, c, d, ..] = hasher.finish().to_be_bytes();
                u32::from_be_bytes([a, b, c, d])
            })
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes.into()
    }

    pub fn get(&self, cid: &RecordCid, peer: &PeerId) -> Option<&Claim> {
        self.rows.get(&(*cid, peer.clone()))
    }

    pub fn tomb(&self, cid: &RecordCid, peer: &PeerId) -> Option<Tomb> {
        self.tombs.get(&(*cid, peer.clone())).copied()
    }

    /// Others who say they have this record; at most a thousand.
    pub fn others(&self, cid: &RecordCid, but: &PeerId) -> Vec<PeerId> {
        let Some(first) = PeerId::from_bytes(&[0]) else {
            return Vec::new();
        };
        self.rows
            .range((*cid, first)..)
            .take_while(|((other, _), _)| other == cid)
            .map(|((_, peer), _)| peer)
            .filter(|peer| *peer != but)
            .take(1_000)
            .cloned()
            .collect()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// What all rows weigh.
    pub fn weight(&self) -> usize {
        self.weight
    }

    pub fn tombs(&self) -> usize {
        self.tombs.len()
    }

    pub fn with_standing(&self, standing: Standing) -> usize {
        self.standings.get(place(standing)).copied().unwrap_or(0)
    }

    pub fn told_by(&self, relay: &PeerId) -> usize {
        self.relays.get(relay).copied().unwrap_or(0)
    }

    /// What the rows of one author weigh.
    pub fn of_author(&self, author: &PeerId) -> usize {
        self.authors.get(author).map_or(0, |author| author.weight)
    }

    /// Takes a row, or a withdrawal when it weighs nothing, out of its author's account.
    fn unlist(&mut self, cid: &RecordCid, peer: &PeerId, timestamp: Timestamp, shared: bool, weight: usize) {
        let Some(author) = self.authors.get_mut(peer) else {
            return;
        };
        author.order.remove(&(timestamp, *cid));
        if shared {
            author.digest ^= row_digest(cid, timestamp, weight == 0);
            author.shared = author.shared.saturating_sub(1);
        }
        if weight == 0 {
            author.tombs.remove(&(timestamp, *cid));
        } else {
            self.sizes.remove(&(author.weight, peer.clone()));
            author.weight = author.weight.saturating_sub(weight);
            self.weight = self.weight.saturating_sub(weight);
            if author.weight > 0 {
                self.sizes.insert((author.weight, peer.clone()));
            }
        }
        if author.order.is_empty() {
            self.authors.remove(peer);
        }
    }

    /// Puts a row, or a withdrawal when it weighs nothing, into its author's account.
    fn list(&mut self, cid: &RecordCid, peer: &PeerId, timestamp: Timestamp, shared: bool, weight: usize) {
        let author = self.authors.entry(peer.clone()).or_default();
        author.order.insert((timestamp, *cid));
        if shared {
            author.digest ^= row_digest(cid, timestamp, weight == 0);
            author.shared += 1;
            author.newest = author.newest.max(timestamp);
        }
        if weight == 0 {
            author.tombs.insert((timestamp, *cid));
        } else {
            self.sizes.remove(&(author.weight, peer.clone()));
            author.weight += weight;
            self.weight += weight;
            self.sizes.insert((author.weight, peer.clone()));
        }
    }

    /// Takes a row out without telling the index.
    fn take(&mut self, cid: &RecordCid, peer: &PeerId) -> Option<Claim> {
        let claim = self.rows.remove(&(*cid, peer.clone()))?;
        self.wheel.remove(&(claim.slot, What::Claim, *cid, peer.clone()));
        self.unlist(cid, peer, claim.timestamp, claim.announced, claim.weight());
        if let Some(count) = self.standings.get_mut(place(claim.standing)) {
            *count -= 1;
        }
        if let Some(relay) = &claim.relay
            && let Some(count) = self.relays.get_mut(relay)
        {
            *count -= 1;
            if *count == 0 {
                self.relays.remove(relay);
            }
        }
        Some(claim)
    }

    /// Puts a row in without telling the index.
    fn set(&mut self, cid: RecordCid, peer: &PeerId, mut claim: Claim) {
        self.take(&cid, peer);
        claim.slot = claim.expires_at();
        self.wheel.insert((claim.slot, What::Claim, cid, peer.clone()));
        self.list(&cid, peer, claim.timestamp, claim.announced, claim.weight());
        if let Some(count) = self.standings.get_mut(place(claim.standing)) {
            *count += 1;
        }
        if let Some(relay) = &claim.relay {
            *self.relays.entry(relay.clone()).or_default() += 1;
        }
        self.rows.insert((cid, peer.clone()), claim);
    }

    /// Puts a row with its labels, making room for it.
    pub fn put(
        &mut self,
        cid: RecordCid,
        peer: &PeerId,
        claim: Claim,
        labels: Vec<Label>,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        cx.push(Action::Index(IndexChange::Put {
            cid,
            peer: peer.clone(),
            labels,
            timestamp: claim.timestamp.min(cx.now),
            last_seen: claim.seen,
            expires_at: claim.expires_at(),
            standing: claim.standing,
        }));
        self.set(cid, peer, claim);
        while self.of_author(peer) > config.max_claims_per_author && self.evict(peer, &cid, cx) {
            cx.counters.evicted_author += 1;
        }
        while self.weight > config.max_claims {
            let Some((_, largest)) = self.sizes.last().cloned() else {
                break;
            };
            if !self.evict(&largest, &cid, cx) {
                break;
            }
            cx.counters.evicted_total += 1;
        }
    }

    /// Removes the oldest row of an author, but not `keep` unless it is the only one.
    fn evict(&mut self, author: &PeerId, keep: &RecordCid, cx: &mut Cx<'_>) -> bool {
        let oldest = self.authors.get(author).and_then(|rows| {
            let claims = rows
                .order
                .iter()
                .map(|(_, cid)| *cid)
                .filter(|cid| self.get(cid, author).is_some());
            let mut first = claims.take(2);
            let oldest = first.next()?;
            Some(if oldest == *keep {
                first.next().unwrap_or(oldest)
            } else {
                oldest
            })
        });
        oldest.is_some_and(|oldest| self.remove(&oldest, author, cx))
    }

    /// Changes a row whose labels stay as they are in the index, and tells the index what it should know.
    pub fn refresh(
        &mut self,
        cid: &RecordCid,
        peer: &PeerId,
        cx: &mut Cx<'_>,
        change: impl FnOnce(&mut Claim),
    ) {
        let Some(mut claim) = self.take(cid, peer) else {
            return;
        };
        change(&mut claim);
        cx.push(Action::Index(IndexChange::Refresh {
            cid: *cid,
            peer: peer.clone(),
            timestamp: claim.timestamp.min(cx.now),
            last_seen: claim.seen,
            expires_at: claim.expires_at(),
            standing: claim.standing,
        }));
        self.set(*cid, peer, claim);
    }

    /// Adds labels to a row.
    pub fn extend(&mut self, cid: &RecordCid, peer: &PeerId, more: Vec<Label>, cx: &mut Cx<'_>) {
        let added = self.set_of(&more);
        let Some(mut claim) = self.take(cid, peer) else {
            return;
        };
        let mut all: Vec<u32> = claim.labels.iter().chain(added.iter()).copied().collect();
        all.sort_unstable();
        all.dedup();
        claim.labels = all.into();
        self.set(*cid, peer, claim);
        let (cid, peer) = (*cid, peer.clone());
        cx.push(Action::Index(IndexChange::Add {
            cid,
            peer,
            labels: more,
        }));
    }

    pub fn remove(&mut self, cid: &RecordCid, peer: &PeerId, cx: &mut Cx<'_>) -> bool {
        let removed = self.take(cid, peer).is_some();
        if removed {
            let (cid, peer) = (*cid, peer.clone());
            cx.push(Action::Index(IndexChange::Remove { cid, peer }));
        }
        removed
    }

    /// Removes a row for good: an older word for it is not taken until the withdrawal is forgotten.
    pub fn bury(
        &mut self,
        cid: RecordCid,
        peer: &PeerId,
        timestamp: Timestamp,
        first_hand: bool,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        self.take(&cid, peer);
        self.set_tomb(cid, peer, timestamp, first_hand, cx.now);
        let until = timestamp.min(cx.now) + TOMBSTONE_TTL;
        cx.push(Action::Index(IndexChange::Bury {
            cid,
            peer: peer.clone(),
            timestamp,
            first_hand,
            until,
        }));
        // One author cannot make us forget what others took back.
        while let Some(author) = self.authors.get(peer)
            && author.tombs.len() > config.max_tombstones / 8
            && let Some((_, oldest)) = author.tombs.first().copied()
        {
            self.unbury(&oldest, peer);
            cx.counters.evicted_tombstones += 1;
        }
        while self.tombs.len() > config.max_tombstones {
            let Some((_, cid, peer)) = self.tomb_order.first().cloned() else {
                break;
            };
            self.unbury(&cid, &peer);
            cx.counters.evicted_tombstones += 1;
        }
    }

    fn set_tomb(
        &mut self,
        cid: RecordCid,
        peer: &PeerId,
        timestamp: Timestamp,
        first_hand: bool,
        now: Timestamp,
    ) {
        self.unbury(&cid, peer);
        let until = timestamp.min(now) + TOMBSTONE_TTL;
        self.wheel.insert((until, What::Tomb, cid, peer.clone()));
        self.tomb_order.insert((timestamp, cid, peer.clone()));
        self.list(&cid, peer, timestamp, true, 0);
        self.tombs.insert(
            (cid, peer.clone()),
            Tomb {
                timestamp,
                first_hand,
                until,
            },
        );
    }

    /// Forgets a withdrawal.
    pub fn unbury(&mut self, cid: &RecordCid, peer: &PeerId) {
        let Some(tomb) = self.tombs.remove(&(*cid, peer.clone())) else {
            return;
        };
        self.wheel.remove(&(tomb.until, What::Tomb, *cid, peer.clone()));
        self.tomb_order.remove(&(tomb.timestamp, *cid, peer.clone()));
        self.unlist(cid, peer, tomb.timestamp, true, 0);
    }

    /// Ends rows that were not heard of again.
    pub fn expire(&mut self, cx: &mut Cx<'_>) {
        for _ in 0..MAX_EXPIRED {
            let Some((at, what, cid, peer)) = self.wheel.first().cloned() else {
                break;
            };
            if at > cx.now {
                break;
            }
            match what {
                What::Tomb => self.unbury(&cid, &peer),
                What::Claim => {
                    if self.remove(&cid, &peer, cx) {
                        cx.counters.expired += 1;
                    }
                }
            }
        }
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        self.wheel.first().map(|(at, ..)| *at)
    }

    /// A row picked at random whose labels nobody has checked.
    pub fn some_unverified(&self, rng: &mut dyn Rng) -> Option<(RecordCid, PeerId)> {
        /// Rows looked at; where nearly all are verified the next try comes soon enough.
        const LOOKS: usize = 64;
        if self.rows.len() == self.with_standing(Standing::Verified) {
            return None;
        }
        let mut digest = [0_u8; 32];
        rng.fill_bytes(&mut digest);
        let from = (RecordCid::from_digest(digest), PeerId::from_bytes(&[0])?);
        self.rows
            .range(from..)
            .chain(self.rows.iter())
            .take(LOOKS)
            .find(|(_, claim)| claim.standing != Standing::Verified)
            .map(|((cid, peer), _)| (*cid, peer.clone()))
    }

    /// What is known of one author, to be passed on.
    pub fn summary(&self, peer: &PeerId) -> Option<AuthorSummary> {
        let author = self.authors.get(peer).filter(|author| author.shared > 0)?;
        Some(AuthorSummary {
            author: peer.clone(),
            rows: author.shared,
            newest: author.newest,
            digest: author.digest,
        })
    }

    /// Authors behind `after` in byte order that there is anything to pass on of.
    pub fn authors_behind(&self, after: Option<&PeerId>) -> impl Iterator<Item = AuthorSummary> + '_ {
        let from = after.map_or(Bound::Unbounded, |peer| Bound::Excluded(peer.clone()));
        self.authors
            .range((from, Bound::Unbounded))
            .filter_map(|(peer, _)| self.summary(peer))
    }

    /// Rows of one author behind (since, after) in order of announcement time: record, time, whether withdrawn; `None`
    /// for rows that are not passed on.
    pub fn rows_behind<'a>(
        &'a self,
        peer: &'a PeerId,
        since: Timestamp,
        after: RecordCid,
    ) -> impl Iterator<Item = Option<(RecordCid, Timestamp, bool)>> + 'a {
        let order = self.authors.get(peer).map(|author| &author.order);
        let bounds = (Bound::Excluded((since, after)), Bound::Unbounded);
        order
            .into_iter()
            .flat_map(move |order| order.range(bounds))
            .map(move |(timestamp, cid)| {
                let tomb = self.tomb(cid, peer).filter(|tomb| tomb.timestamp == *timestamp);
                let claim = self
                    .get(cid, peer)
                    .filter(|claim| claim.timestamp == *timestamp && claim.announced);
                (tomb.is_some() || claim.is_some()).then_some((*cid, *timestamp, tomb.is_some()))
            })
    }

    /// Takes up a row of the last run.
    pub fn restore_row(&mut self, cid: RecordCid, peer: &PeerId, claim: Claim, now: Timestamp) {
        if claim.expires_at() > now {
            self.set(cid, peer, claim);
        }
    }

    /// Takes up a withdrawal of the last run.
    pub fn restore_tomb(
        &mut self,
        cid: RecordCid,
        peer: &PeerId,
        timestamp: Timestamp,
        first_hand: bool,
        now: Timestamp,
    ) {
        if timestamp + TOMBSTONE_TTL > now {
            self.set_tomb(cid, peer, timestamp, first_hand, now);
        }
    }
}

impl Claim {
    pub fn new(timestamp: Timestamp, seen: Timestamp, standing: Standing, labels: LabelSet) -> Self {
        Self {
            timestamp,
            seen,
            standing,
            announced: true,
            labels,
            relay: None,
            slot: Timestamp::EPOCH,
        }
    }

    /// What it counts for in quotas: one, and one more for every sixteen labels.
    pub fn weight(&self) -> usize {
        1 + self.labels.len() / 16
    }

    pub fn expires_at(&self) -> Timestamp {
        self.seen + CLAIM_TTL
    }
}

/// Whether every member of `part` is in `whole`; both sorted.
pub(crate) fn is_subset(part: &[u32], whole: &[u32]) -> bool {
    part.iter().all(|hash| whole.binary_search(hash).is_ok())
}
