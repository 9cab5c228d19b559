//! The state machine itself: hands each input to the part that knows, and lets every part begin what it now can.
//!
//! Holds no socket, clock or random source. Each input is handled at once and in bounded time; what takes longer is an
//! action whose report comes as another input. The parts know nothing of one another but what is handed to them here.

use std::time::Duration;

use dirnode_record::{Label, RecordCid};
use rand::Rng;

use crate::action::{Action, DueRow, Kind, OutboxRow, Standing, Ticket, Verdict};
use crate::announce::Announcer;
use crate::autosync::Autosync;
use crate::catchup::Reply;
use crate::catchup::answer::Answerer;
use crate::catchup::exchange::Asker;
use crate::claims::{Claim, Claims};
use crate::config::{Config, DOUBT_PAUSE, MAX_DOUBT_TRIES, SIGHTING_GRACE};
use crate::counters::Counters;
use crate::cx::Cx;
use crate::fetch::{Fetcher, Verifier, Why};
use crate::hear::{Hearing, Next, Speakers, Told};
use crate::input::{Failure, Input};
use crate::outbox::{News, Outbox, Progress};
use crate::peer::PeerId;
use crate::provide::Provider;
use crate::time::Timestamp;

/// Rows of one [`Input::Shown`] that are looked at.
const MAX_SHOWN_ROWS: usize = 64;
/// No earlier wake than this after the last one, so that a mistake cannot make a loop.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// A row of the remote label index of the last run.
#[derive(Debug, Clone)]
pub struct RestoredClaim {
    /// The record.
    pub cid: RecordCid,
    /// Its publisher.
    pub peer: PeerId,
    /// Its labels.
    pub labels: Vec<Label>,
    /// What its author said about when.
    pub timestamp: Timestamp,
    /// When it was last heard of.
    pub last_seen: Timestamp,
    /// What it was worth.
    pub standing: Standing,
}

/// A withdrawal that the index remembers from the last run.
#[derive(Debug, Clone)]
pub struct RestoredTomb {
    /// The record.
    pub cid: RecordCid,
    /// Its publisher.
    pub peer: PeerId,
    /// When its author said so.
    pub timestamp: Timestamp,
    /// Whether the author said so itself.
    pub first_hand: bool,
}

/// Rows of the last run.
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Every row of the outbox.
    pub outbox: Vec<OutboxRow>,
    /// One for every record of the published set; [`Timestamp::EPOCH`] twice where no due time was written.
    pub published: Vec<DueRow>,
    /// Rows of the remote label index, if they were kept.
    pub claims: Vec<RestoredClaim>,
    /// Withdrawals, if they were kept.
    pub tombs: Vec<RestoredTomb>,
}

/// How things stand, for readiness, `dirnode info` and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Peers in the routing table.
    pub table_peers: usize,
    /// Peers that take our announcements.
    pub mesh_peers: usize,
    /// How many peers there are, as far as lookups tell.
    pub network_peers: usize,
    /// Whether news of ours waits because there is nobody to tell.
    pub waiting_for_peers: bool,
    /// Published records.
    pub published: usize,
    /// Withdrawals of ours that are remembered.
    pub withdrawn: usize,
    /// Publications and withdrawals whose news is not out.
    pub open: usize,
    /// Keys that should have been provided by now.
    pub overdue: usize,
    /// Single provides on their way.
    pub provides: usize,
    /// Sweeps on their way.
    pub sweeps: usize,
    /// Rows of others told by third parties.
    pub hearsay: usize,
    /// Rows claimed by their authors.
    pub claimed: usize,
    /// Rows that were checked.
    pub verified: usize,
    /// Withdrawals of others that are remembered.
    pub tombstones: usize,
    /// Fetches that wait or are on their way.
    pub fetches_waiting: usize,
    /// Fetches on their way.
    pub fetches: usize,
    /// Records that wait to be synchronised, or are being.
    pub sync_jobs: usize,
    /// Connected peers that can be caught up with.
    pub catchup_peers: usize,
    /// Exchanges that went through since the start.
    pub caught_up: usize,
}

/// The routing room's state machine.
#[derive(Debug)]
pub struct Brain {
    config: Config,
    outbox: Outbox,
    provider: Provider,
    announcer: Announcer,
    hearing: Hearing,
    fetcher: Fetcher,
    verifier: Verifier,
    asker: Asker,
    answerer: Answerer,
    autosync: Autosync,
    counters: Counters,
    tickets: u64,
    woken_at: Timestamp,
}

impl Brain {
    /// A state machine for the node `me` that takes up the rows of its last run. What is due is begun by the next input.
    pub fn restore(config: Config, me: PeerId, rows: Restored, now: Timestamp, rng: &mut impl Rng) -> Self {
        let mut claims = Claims::new(rng);
        for row in rows.claims {
            let set = claims.set_of(&row.labels);
            let claim = Claim::new(row.timestamp, row.last_seen.min(now), row.standing, set);
            claims.restore_row(row.cid, &row.peer, claim, now);
        }
        for tomb in rows.tombs {
            claims.restore_tomb(tomb.cid, &tomb.peer, tomb.timestamp, tomb.first_hand, now);
        }
        let mut asker = Asker::new(now);
        asker.restore(
            claims
                .authors_behind(None)
                .map(|known| (known.author, known.newest)),
            now,
        );
        Self {
            config,
            outbox: Outbox::restore(rows.outbox, rows.published, now),
            provider: Provider::default(),
            announcer: Announcer::new(now),
            hearing: Hearing {
                me,
                claims,
                speakers: Speakers::default(),
            },
            fetcher: Fetcher::default(),
            verifier: Verifier::new(now),
            asker,
            answerer: Answerer::default(),
            autosync: Autosync::default(),
            counters: Counters::default(),
            tickets: 0,
            woken_at: now,
        }
    }

    /// One input in, things to do out.
    pub fn on(&mut self, input: Input, now: Timestamp, rng: &mut impl Rng) -> Vec<Action> {
        let mut out = Vec::new();
        let Self {
            config,
            outbox,
            provider,
            announcer,
            hearing,
            fetcher,
            verifier,
            asker,
            answerer,
            autosync,
            counters,
            tickets,
            woken_at,
        } = self;
        let mut cx = Cx {
            now,
            rng,
            out: &mut out,
            counters,
            tickets,
        };
        let cx = &mut cx;
        match input {
            Input::Wake => *woken_at = now,
            Input::Publish { request, cid } => outbox.file(request, cid, Kind::Publish, config, cx),
            Input::Unpublish { request, cid } => outbox.file(request, cid, Kind::Withdraw, config, cx),
            Input::Persisted { ticket, result } => outbox.persisted(ticket, result, cx),
            Input::Labels { ticket, labels } => announcer.labels(ticket, labels, outbox, cx),
            Input::Provided { ticket, result } => provider.provided(ticket, result, outbox, config, cx),
            Input::Closest { ticket, result } => provider.closest(ticket, result, outbox, config, cx),
            Input::ProvidedMany { ticket, result } => provider.sent(ticket, result, outbox, config, cx),
            Input::AnnounceSent { ticket, result } => announcer.sent(ticket, result, outbox, cx),
            Input::Table { table, mesh } => (provider.table, announcer.mesh) = (table, mesh),
            Input::PeerConnected { peer, catchup } => {
                if catchup && peer != hearing.me {
                    asker.connected(peer, cx);
                }
            }
            Input::PeerDisconnected { peer } => {
                asker.disconnected(&peer, cx);
                answerer.disconnected(&peer);
            }
            Input::Announced {
                token,
                publisher,
                permitted,
                announcement,
            } => {
                let (cid, withdrawn) = (announcement.cid, announcement.withdrawn);
                let verdict = hearing.announced(&publisher, permitted, announcement, config, cx);
                cx.push(Action::Verdict { token, verdict });
                if verdict == Verdict::Accept && !withdrawn {
                    autosync.offer(cid, &publisher, config, cx);
                }
            }
            Input::ProviderSeen { cid, peer } => {
                if hearing.sighted(&cid, &peer, cx) == Next::Fetch {
                    fetcher.want_later(cid, &peer, Why::Unlabelled, SIGHTING_GRACE, cx);
                }
                if !hearing.speakers.is_muted(&peer, now) {
                    autosync.offer(cid, &peer, config, cx);
                }
            }
            Input::Fetched { ticket, labels } => {
                if let Some(flight) = fetcher.ended(ticket, None, cx) {
                    // A doubt that was not true is not held against whoever told it: it tells what others told it.
                    hearing.fetched(flight.cid, &flight.peer, labels, flight.began, config, cx);
                }
            }
            Input::FetchFailed { ticket, reason } => {
                fetch_failed(ticket, reason, fetcher, hearing, config, cx)
            }
            Input::Shown { rows } => {
                for (cid, peer) in rows.into_iter().take(MAX_SHOWN_ROWS) {
                    let claim = hearing.claims.get(&cid, &peer);
                    if config.verify && claim.is_some_and(|claim| claim.standing != Standing::Verified) {
                        verifier.shown(cid, peer);
                    }
                }
            }
            Input::Unindexed { rows } => {
                for (cid, peer) in rows {
                    let gone = hearing.claims.remove(&cid, &peer, cx);
                    cx.counters.unindexed += u64::from(gone);
                }
            }
            Input::CatchupAsked { token, peer, request } => {
                let reply = answerer.answer(&peer, &request, &hearing.me, &hearing.claims, outbox, cx);
                cx.push(Action::CatchupAnswer { token, reply });
            }
            Input::CatchupReplied { exchange, result } => {
                caught_up(asker, hearing, fetcher, config, cx, exchange, result);
            }
            Input::Synced { ticket, outcome } => autosync.ended(ticket, outcome, cx),
        }
        if now >= *woken_at {
            *woken_at = now;
            provider.expire(outbox, config, cx);
            announcer.expire(outbox, cx);
            asker.expire(cx);
            autosync.expire(cx);
            hearing.claims.expire(cx);
            for ticket in fetcher.late(now) {
                cx.counters.lost_steps += 1;
                fetch_failed(ticket, Failure::TimedOut, fetcher, hearing, config, cx);
            }
        }
        provider.pump(outbox, config, cx);
        announcer.pump(outbox, cx);
        if config.verify {
            let claims = &hearing.claims;
            while let Some((cid, peer)) = verifier.next(cx, |cx| claims.some_unverified(cx.rng)) {
                cx.counters.verifications += 1;
                fetcher.want(cid, &peer, Why::Verify, false, cx);
            }
        }
        while let Some((cid, peer, why)) = fetcher.ripe(now) {
            let known = hearing.is_known(&cid, &peer);
            match why {
                Why::Doubt { .. } => fetcher.want(cid, &peer, why, true, cx),
                Why::Unlabelled | Why::Verify if !known => fetcher.want(cid, &peer, why, false, cx),
                Why::Unlabelled | Why::Verify => {}
            }
        }
        fetcher.pump(cx);
        asker.pump(cx);
        autosync.pump(cx);
        outbox.tidy(cx);
        out
    }

    /// When to send [`Input::Wake`] at the latest, as things stand now. `None`: only when something happens.
    #[must_use]
    pub fn next_wake(&self) -> Option<Timestamp> {
        let can_announce = self.announcer.has_room();
        let outbox = self.outbox.next_wake(self.provider.has_room());
        let announce = self
            .outbox
            .next_announcement()
            .filter(|_| can_announce)
            .map(|at| at.max(self.announcer.ready_at()));
        let claims = &self.hearing.claims;
        let unverified = claims.len() > claims.with_standing(Standing::Verified);
        let verify = self.verifier.next_wake(unverified).filter(|_| self.config.verify);
        [
            outbox,
            announce,
            verify,
            self.provider.next_wake(),
            self.announcer.next_wake(),
            self.fetcher.next_wake(),
            self.asker.next_wake(),
            self.autosync.next_wake(),
            claims.next_wake(),
        ]
        .into_iter()
        .flatten()
        .min()
        .map(|at| at.max(self.woken_at + MIN_PAUSE))
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether `cid` is in the published set.
    #[must_use]
    pub fn is_published(&self, cid: &RecordCid) -> bool {
        self.outbox.is_published(cid)
    }

    /// How far the last publication or withdrawal of `cid` has come; `None` when there is none.
    #[must_use]
    pub fn progress(&self, cid: &RecordCid) -> Option<Progress> {
        self.outbox.progress(cid, self.is_alone())
    }

    /// What is known about the news of `cid`; `None` when it is neither published nor taken back of late.
    #[must_use]
    pub fn news(&self, cid: &RecordCid) -> Option<News> {
        self.outbox.news(cid, self.is_alone())
    }

    fn is_alone(&self) -> bool {
        self.provider.table == 0 || self.announcer.mesh == 0
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        let claims = &self.hearing.claims;
        let (provides, sweeps) = self.provider.in_flight();
        Status {
            table_peers: self.provider.table,
            mesh_peers: self.announcer.mesh,
            network_peers: self.provider.size.peers(self.provider.table),
            waiting_for_peers: self.outbox.open() > 0 && self.is_alone(),
            published: self.outbox.published(),
            withdrawn: self.outbox.withdrawn(),
            open: self.outbox.open(),
            overdue: self.outbox.overdue(),
            provides,
            sweeps,
            hearsay: claims.with_standing(Standing::Hearsay),
            claimed: claims.with_standing(Standing::Claimed),
            verified: claims.with_standing(Standing::Verified),
            tombstones: claims.tombs(),
            fetches_waiting: self.fetcher.waiting(),
            fetches: self.fetcher.in_flight(),
            sync_jobs: self.autosync.jobs(),
            catchup_peers: self.asker.peers(),
            caught_up: self.asker.done(),
        }
    }
}

fn fetch_failed(
    ticket: Ticket,
    reason: Failure,
    fetcher: &mut Fetcher,
    hearing: &mut Hearing,
    config: &Config,
    cx: &mut Cx<'_>,
) {
    let Some(flight) = fetcher.ended(ticket, Some(reason), cx) else {
        return;
    };
    hearing.not_fetched(&flight.cid, &flight.peer, reason, cx);
    let Why::Doubt { timestamp, tries } = flight.why else {
        return;
    };
    match reason {
        Failure::NotFound => hearing.doubt_confirmed(flight.cid, &flight.peer, timestamp, config, cx),
        Failure::Mismatch | Failure::Invalid | Failure::Denied => {}
        _ if tries < MAX_DOUBT_TRIES => {
            let why = Why::Doubt {
                timestamp,
                tries: tries + 1,
            };
            fetcher.want_later(
                flight.cid,
                &flight.peer,
                why,
                DOUBT_PAUSE.saturating_mul(1 << tries.min(8)),
                cx,
            );
        }
        _ => {}
    }
}

fn caught_up(
    asker: &mut Asker,
    hearing: &mut Hearing,
    fetcher: &mut Fetcher,
    config: &Config,
    cx: &mut Cx<'_>,
    exchange: crate::action::ExchangeId,
    result: Result<Reply, Failure>,
) {
    let known = |author: &PeerId| hearing.claims.summary(author);
    let Some(told) = asker.replied(exchange, result, cx, known) else {
        return;
    };
    for (author, row) in told.rows {
        let (cid, timestamp) = (row.cid, row.timestamp);
        match hearing.told(&told.relay, &author, row, config, cx) {
            Told::Nothing => {}
            Told::Unlabelled => fetcher.want(cid, &author, Why::Unlabelled, false, cx),
            Told::Doubt => fetcher.want(cid, &author, Why::Doubt { timestamp, tries: 0 }, true, cx),
        }
    }
}
