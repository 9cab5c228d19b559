//! What is believed of what others say: announcements, provider records, fetched records, and what peers tell of others.
//!
//! An announcement is judged by its signed author, never by who forwarded it. Its time must be near ours, and newer than
//! what its author said before about the same record. What is taken is *claimed* until somebody has looked at the
//! record's bytes; a claim that says more than the bytes do is a lie, which removes it and costs its author. The bounds
//! and their reasons are in `config`. Soft state: authors' rates and lies, forgotten with a restart.

use std::collections::{BTreeMap, BTreeSet};

use dirnode_record::{Label, RecordCid};

use crate::action::{Action, Fault, Standing, Verdict};
use crate::catchup::Row;
use crate::chunk::{MAX_LABELS, MAX_RECORD_LABELS};
use crate::claims::{Claim, Claims, is_subset};
use crate::config::{AUTHOR_RATE, CLAIM_TTL, Config, MAX_AGE, MAX_AHEAD, MAX_LIES, MUTED_FOR};
use crate::cx::{Bucket, Cx};
use crate::input::{Announcement, Failure};
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Authors whose rate and lies are remembered; the one silent for the longest goes first.
const MAX_SPEAKERS: usize = 16_384;
/// A row heard of again within this time is not written again.
const REFRESH_AFTER: std::time::Duration = std::time::Duration::from_secs(60);
/// An author that speaks too fast loses score once for so many announcements.
const TOO_FAST_STEP: u64 = 256;

/// Digest of the multihash that the reference uses to meet other nodes: sha2-256 of `dir/connect` (p2p-wire §1.5).
pub(crate) const RENDEZVOUS: [u8; 32] = [
    0xcc, 0xaa, 0xeb, 0x89, 0x8d, 0x0d, 0xd2, 0xd4, 0x58, 0xaa, 0x14, 0xe7, 0xcc, 0x3d, 0xd4, 0x79, 0xbb,
    0x3e, 0xd0, 0xc9, 0x04, 0xf8, 0x99, 0x5d, 0x5d, 0xaf, 0xc7, 0xfa, 0xde, 0x76, 0x30, 0x4a,
];

#[derive(Debug)]
struct Speaker {
    bucket: Bucket,
    too_fast: u64,
    lies: u8,
    muted_until: Timestamp,
    used: Timestamp,
}

/// What is remembered of authors besides their rows.
#[derive(Debug, Default)]
pub(crate) struct Speakers {
    speakers: BTreeMap<PeerId, Speaker>,
    by_use: BTreeSet<(Timestamp, PeerId)>,
}

impl Speakers {
    fn get(&mut self, peer: &PeerId, now: Timestamp) -> &mut Speaker {
        if let Some(speaker) = self.speakers.get(peer) {
            self.by_use.remove(&(speaker.used, peer.clone()));
        } else if self.speakers.len() >= MAX_SPEAKERS
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.speakers.remove(&oldest);
        }
        self.by_use.insert((now, peer.clone()));
        let speaker = self.speakers.entry(peer.clone()).or_insert_with(|| Speaker {
            bucket: Bucket::new(AUTHOR_RATE, now),
            too_fast: 0,
            lies: 0,
            muted_until: Timestamp::EPOCH,
            used: now,
        });
        speaker.used = now;
        speaker
    }

    pub fn is_muted(&self, peer: &PeerId, now: Timestamp) -> bool {
        self.speakers
            .get(peer)
            .is_some_and(|speaker| speaker.muted_until > now)
    }

    /// A claim of `peer` was a lie.
    fn lied(&mut self, peer: &PeerId, cx: &mut Cx<'_>) {
        cx.counters.lies += 1;
        let peer = peer.clone();
        let speaker = self.get(&peer, cx.now);
        speaker.lies = speaker.lies.saturating_add(1);
        if speaker.lies >= MAX_LIES {
            speaker.lies = 0;
            speaker.muted_until = cx.now + MUTED_FOR;
        }
        cx.push(Action::Score {
            peer,
            fault: Fault::Lied,
        });
    }
}

/// What is to be done with somebody's word that it has a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// Fetch the record and look.
    Fetch,
}

/// The claims, and the rules by which they change.
#[derive(Debug)]
pub(crate) struct Hearing {
    pub me: PeerId,
    pub claims: Claims,
    pub speakers: Speakers,
}

impl Hearing {
    /// Judges an announcement and takes it in.
    pub fn announced(
        &mut self,
        publisher: &PeerId,
        permitted: bool,
        said: Announcement,
        config: &Config,
        cx: &mut Cx<'_>,
    ) -> Verdict {
        let counted = |counter: &mut u64, verdict| {
            *counter += 1;
            verdict
        };
        let well_formed = said.labels.len() <= MAX_LABELS && said.labels.is_empty() == said.withdrawn;
        if !well_formed {
            return counted(&mut cx.counters.rejected, Verdict::Reject);
        }
        if *publisher == self.me {
            return counted(&mut cx.counters.ignored_own, Verdict::Ignore);
        }
        if !permitted {
            return counted(&mut cx.counters.ignored_denied, Verdict::Ignore);
        }
        let speaker = self.speakers.get(publisher, cx.now);
        if speaker.muted_until > cx.now {
            return counted(&mut cx.counters.ignored_muted, Verdict::Ignore);
        }
        if !speaker.bucket.take(cx.now) {
            speaker.too_fast += 1;
            if speaker.too_fast % TOO_FAST_STEP == 1 {
                cx.push(Action::Score {
                    peer: publisher.clone(),
                    fault: Fault::TooFast,
                });
            }
            return counted(&mut cx.counters.ignored_rate, Verdict::Ignore);
        }
        if said.timestamp > cx.now + MAX_AHEAD {
            return counted(&mut cx.counters.ignored_ahead, Verdict::Ignore);
        }
        if said.timestamp < cx.now.before(MAX_AGE) {
            return counted(&mut cx.counters.ignored_old, Verdict::Ignore);
        }
        let age = cx.now.since(said.timestamp);
        let verdict = self.first_hand(publisher, said, config, cx);
        if verdict == Verdict::Accept {
            cx.counters.accepted += 1;
            cx.counters.freshness.observe(age);
        }
        verdict
    }

    /// Takes in what an author says of its own record; the time is known to be within bounds.
    fn first_hand(
        &mut self,
        author: &PeerId,
        said: Announcement,
        config: &Config,
        cx: &mut Cx<'_>,
    ) -> Verdict {
        let Announcement {
            cid,
            labels,
            timestamp,
            withdrawn,
        } = said;
        if let Some(tomb) = self.claims.tomb(&cid, author)
            && tomb.first_hand
            && tomb.timestamp >= timestamp
        {
            cx.counters.ignored_replay += 1;
            return Verdict::Ignore;
        }
        let before = self.claims.get(&cid, author);
        // Neither what others told nor the time of a fetch of ours says when the author last spoke.
        let spoken = before.filter(|claim| claim.announced && claim.standing != Standing::Hearsay);
        if let Some(claim) = spoken {
            if timestamp < claim.timestamp {
                cx.counters.ignored_replay += 1;
                return Verdict::Ignore;
            }
            if timestamp == claim.timestamp && !withdrawn {
                return self.next_part(cid, author, labels, cx);
            }
        }
        if withdrawn {
            cx.counters.withdrawals_taken += 1;
            self.claims.bury(cid, author, timestamp, true, config, cx);
            return Verdict::Accept;
        }
        let set = self.claims.set_of(&labels);
        if let Some(claim) = before.filter(|claim| claim.standing == Standing::Verified) {
            if !is_subset(&set, &claim.labels) {
                self.strike(cid, author, cx);
                return Verdict::Ignore;
            }
            self.claims.unbury(&cid, author);
            let now = cx.now;
            self.claims.refresh(&cid, author, cx, |claim| {
                (claim.timestamp, claim.seen, claim.announced) = (timestamp, now, true);
            });
            return Verdict::Accept;
        }
        self.claims.unbury(&cid, author);
        let claim = Claim::new(timestamp, cx.now, Standing::Claimed, set);
        self.claims.put(cid, author, claim, labels, config, cx);
        Verdict::Accept
    }

    /// Another part of a divided announcement, or the same once more.
    fn next_part(&mut self, cid: RecordCid, author: &PeerId, labels: Vec<Label>, cx: &mut Cx<'_>) -> Verdict {
        let set = self.claims.set_of(&labels);
        let Some(claim) = self.claims.get(&cid, author) else {
            return Verdict::Ignore;
        };
        if is_subset(&set, &claim.labels) {
            cx.counters.ignored_duplicate += 1;
            // Of a record whose labels are all known every part is a subset, and others have not seen it yet.
            return if claim.standing == Standing::Verified {
                Verdict::Accept
            } else {
                Verdict::Ignore
            };
        }
        if claim.standing == Standing::Verified {
            self.strike(cid, author, cx);
            return Verdict::Ignore;
        }
        if claim.labels.len() + set.len() > MAX_RECORD_LABELS {
            cx.counters.rejected += 1;
            return Verdict::Ignore;
        }
        self.claims.extend(&cid, author, labels, cx);
        Verdict::Accept
    }

    fn strike(&mut self, cid: RecordCid, author: &PeerId, cx: &mut Cx<'_>) {
        self.claims.remove(&cid, author, cx);
        self.speakers.lied(author, cx);
    }

    /// A peer says by its own connection that it has a record.
    pub fn sighted(&mut self, cid: &RecordCid, peer: &PeerId, cx: &mut Cx<'_>) -> Next {
        cx.counters.sightings += 1;
        if *peer == self.me || *cid.digest() == RENDEZVOUS || self.speakers.is_muted(peer, cx.now) {
            cx.counters.sightings_ignored += 1;
            return Next::Nothing;
        }
        // After a withdrawal only the record itself counts, since a provider record may have been on its way.
        if self.claims.tomb(cid, peer).is_some() {
            return Next::Fetch;
        }
        match self.claims.get(cid, peer) {
            None => Next::Fetch,
            Some(claim) if claim.standing == Standing::Hearsay => Next::Fetch,
            Some(claim) => {
                if cx.now.since(claim.seen) >= REFRESH_AFTER {
                    let now = cx.now;
                    self.claims.refresh(cid, peer, cx, |claim| claim.seen = now);
                }
                Next::Nothing
            }
        }
    }

    /// Whether the labels of a record that `peer` has are known from itself.
    pub fn is_known(&self, cid: &RecordCid, peer: &PeerId) -> bool {
        let claim = self.claims.get(cid, peer);
        claim.is_some_and(|claim| claim.standing != Standing::Hearsay)
    }

    /// A record was fetched from `peer`, and its bytes are right. Fetching began at `began`.
    pub fn fetched(
        &mut self,
        cid: RecordCid,
        peer: &PeerId,
        labels: Vec<Label>,
        began: Timestamp,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        // All of them are remembered, or an honest announcement of the rest would pass for a lie; quotas count them.
        let truth = self.claims.set_of(&labels);
        let mut labels = labels;
        if labels.len() > MAX_RECORD_LABELS {
            cx.counters.labels_cut += 1;
            labels.truncate(MAX_RECORD_LABELS);
        }
        for other in self.claims.others(&cid, peer) {
            let Some(claim) = self.claims.get(&cid, &other) else {
                continue;
            };
            if !is_subset(&claim.labels, &truth) {
                if claim.standing == Standing::Hearsay {
                    // Who made it up, the author or who told of it, is not known.
                    self.claims.remove(&cid, &other, cx);
                } else {
                    self.strike(cid, &other, cx);
                }
            } else if claim.standing == Standing::Claimed {
                cx.counters.verified += 1;
                let truth = truth.clone();
                self.claims.refresh(&cid, &other, cx, |claim| {
                    claim.standing = Standing::Verified;
                    claim.labels = truth;
                });
            }
        }
        if let Some(tomb) = self.claims.tomb(&cid, peer) {
            if tomb.first_hand && tomb.timestamp >= began {
                return;
            }
            self.claims.unbury(&cid, peer);
        }
        let before = self.claims.get(&cid, peer);
        let lied = before
            .is_some_and(|claim| claim.standing == Standing::Claimed && !is_subset(&claim.labels, &truth));
        let spoken = before
            .filter(|claim| claim.announced)
            .map(|claim| claim.timestamp);
        cx.counters.verified += 1;
        let mut claim = Claim::new(spoken.unwrap_or(cx.now), cx.now, Standing::Verified, truth);
        claim.announced = spoken.is_some();
        if lied {
            self.speakers.lied(peer, cx);
        }
        self.claims.put(cid, peer, claim, labels, config, cx);
    }

    /// A record could not be had from `peer`.
    pub fn not_fetched(&mut self, cid: &RecordCid, peer: &PeerId, reason: Failure, cx: &mut Cx<'_>) {
        let fault = match reason {
            Failure::NotFound => None,
            Failure::Mismatch => Some(Fault::WrongBytes),
            Failure::Invalid => Some(Fault::NoRecord),
            // Says nothing about whether the peer has it.
            _ => return,
        };
        if let Some(fault) = fault {
            cx.push(Action::Score {
                peer: peer.clone(),
                fault,
            });
        }
        if self.claims.remove(cid, peer, cx) {
            cx.counters.not_held += 1;
        }
    }

    /// A row that `relay` tells of `author`, who may be the same. Says what to fetch, if the row is worth a look.
    pub fn told(
        &mut self,
        relay: &PeerId,
        author: &PeerId,
        row: Row,
        config: &Config,
        cx: &mut Cx<'_>,
    ) -> Told {
        let Row {
            cid,
            timestamp,
            withdrawn,
            labels,
        } = row;
        let in_bounds = timestamp <= cx.now + MAX_AHEAD && timestamp > cx.now.before(CLAIM_TTL);
        if *author == self.me || !in_bounds || self.speakers.is_muted(author, cx.now) {
            cx.counters.hearsay_refused += 1;
            return Told::Nothing;
        }
        if relay == author {
            return self.told_by_author(author, cid, timestamp, withdrawn, labels, config, cx);
        }
        if let Some(tomb) = self
            .claims
            .tomb(&cid, author)
            .filter(|tomb| !withdrawn && tomb.timestamp >= timestamp)
        {
            cx.counters.hearsay_refused += 1;
            // One third party says that it was withdrawn, another that it was not: the author knows.
            return if tomb.first_hand {
                Told::Nothing
            } else {
                Told::Unlabelled
            };
        }
        let before = self
            .claims
            .get(&cid, author)
            .map(|claim| (claim.standing, claim.timestamp));
        if withdrawn {
            return match before {
                Some((_, spoken)) if spoken < timestamp => {
                    cx.counters.doubts += 1;
                    Told::Doubt
                }
                Some(_) => Told::Nothing,
                None => {
                    let buried = self.claims.tomb(&cid, author).map(|tomb| tomb.timestamp);
                    if buried.is_none_or(|buried| buried < timestamp) {
                        self.claims.bury(cid, author, timestamp, false, config, cx);
                    }
                    Told::Nothing
                }
            };
        }
        let known =
            before.is_some_and(|(standing, spoken)| standing != Standing::Hearsay || spoken >= timestamp);
        // Hearsay never takes the place of what authors said themselves.
        let full = before.is_none()
            && (self.claims.told_by(relay) >= config.max_hearsay_per_relay
                || self.claims.of_author(author) >= config.max_claims_per_author
                || self.claims.weight() >= config.max_claims);
        if known || full {
            cx.counters.hearsay_refused += u64::from(full);
            return Told::Nothing;
        }
        if labels.is_empty() {
            return Told::Unlabelled;
        }
        cx.counters.hearsay_taken += 1;
        self.claims.unbury(&cid, author);
        let set = self.claims.set_of(&labels);
        let mut claim = Claim::new(timestamp, timestamp.min(cx.now), Standing::Hearsay, set);
        claim.relay = Some(relay.clone());
        self.claims.put(cid, author, claim, labels, config, cx);
        Told::Nothing
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one row, taken apart by its only caller"
    )]
    fn told_by_author(
        &mut self,
        author: &PeerId,
        cid: RecordCid,
        timestamp: Timestamp,
        withdrawn: bool,
        labels: Vec<Label>,
        config: &Config,
        cx: &mut Cx<'_>,
    ) -> Told {
        if labels.is_empty() && !withdrawn {
            return match self.claims.get(&cid, author) {
                None => Told::Unlabelled,
                Some(_) => Told::Nothing,
            };
        }
        let said = Announcement {
            cid,
            labels,
            timestamp,
            withdrawn,
        };
        if self.first_hand(author, said, config, cx) == Verdict::Accept {
            cx.counters.catchup_first_hand += 1;
        }
        Told::Nothing
    }

    /// The author does not serve a record of which another told that it was withdrawn.
    pub fn doubt_confirmed(
        &mut self,
        cid: RecordCid,
        author: &PeerId,
        timestamp: Timestamp,
        config: &Config,
        cx: &mut Cx<'_>,
    ) {
        self.claims.bury(cid, author, timestamp, false, config, cx);
    }
}

/// What a row that was told is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing more than was taken in.
    Nothing,
    /// The author has to be asked whether the record is withdrawn.
    Doubt,
    /// The record has to be looked at for its labels.
    Unlabelled,
}
