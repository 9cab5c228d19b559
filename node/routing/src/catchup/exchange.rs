//! The asking side: with whom to catch up, what to ask next, and where the last reading of each author ended.
//!
//! After joining, a few peers are asked one after the other, then one after pauses that grow from seconds to minutes:
//! what was announced while the mesh came together has reached some of it only. Later those who are new are asked, a few
//! minutes apart, and one picked at random every half hour, so that a network that was split comes together again. One
//! exchange goes on at a time, for a bounded time, so that a peer which tells without end keeps the others away for
//! minutes and no longer. While joining, what one peer told does not count for the reading of the next: it may have told
//! too little.
//!
//! Of an author whose digests differ, what is newer than the last reading is read first, and then the summary once more:
//! rows may be missing further back, since any single announcement can get lost. If the digests still differ, all of the
//! author is read again, at pauses that double as long as it does not help (two peers may differ for good, by their
//! bounds).
//!
//! Soft state: after a restart everything is compared anew, which costs a summary where nothing is missing. The newest
//! row that the index has kept of an author then stands for the last reading.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use dirnode_record::RecordCid;
use rand::RngExt as _;

use super::message::{AuthorSummary, Cursor, MAX_CURSORS, Reply, Request, Row};
use crate::action::{Action, ExchangeId, Fault};
use crate::config::{
    CATCHUP_DEADLINE, CATCHUP_EXCHANGE, CATCHUP_INTERVAL, CATCHUP_PEERS, CATCHUP_SETTLE,
    CATCHUP_SETTLE_GROWTH, CATCHUP_SOONEST, MAX_CATCHUP_PAGES, MAX_PEERS, REREAD_AT_LEAST, REREAD_AT_MOST,
};
use crate::cx::Cx;
use crate::input::Failure;
use crate::peer::PeerId;
use crate::time::Timestamp;

/// Authors whose place is remembered.
const MAX_MARKS: usize = 200_000;
/// Authors taken from one exchange.
const MAX_WANTED: usize = 100_000;
/// Rows announced so long before the newest one of the last run are read again: what came last before a stop may not
/// have been kept, and may have come in another order.
const OVERLAP: Duration = Duration::from_secs(60);
/// Longest that a peer is left alone because it says that it is busy.
const MAX_BUSY: Duration = Duration::from_secs(600);
/// Pause after an exchange that broke off.
const RETRY: Duration = Duration::from_secs(5);

/// How far one author was read.
#[derive(Debug, Clone)]
struct Mark {
    since: Timestamp,
    after: RecordCid,
    /// When all of it may be read again, and the pause after that.
    reread_at: Timestamp,
    pause: Duration,
    /// Whether it is where the index of the last run ends, and not where a reading ended.
    guessed: bool,
    /// Whom it was last read from.
    relay: Option<PeerId>,
}

#[derive(Debug)]
struct Exchange {
    id: ExchangeId,
    peer: PeerId,
    /// Whether the summary is being read.
    summary: bool,
    wanted: VecDeque<Cursor>,
    asked: Vec<Cursor>,
    /// The last author of the summary so far.
    last: Option<PeerId>,
    /// Authors of whom only what is newer was read, so that it has to be compared once more.
    tails: BTreeSet<PeerId>,
    /// Whether this is the second comparison.
    again: bool,
    pages: usize,
    /// When to give up waiting for the page that was asked for.
    deadline: Timestamp,
    /// When to end it, however far it is.
    end: Timestamp,
}

/// Rows of a page, with what the state machine has to know of each.
pub(crate) struct Told {
    pub relay: PeerId,
    pub rows: Vec<(PeerId, Row)>,
}

#[derive(Debug)]
pub(crate) struct Asker {
    /// Connected peers that speak the protocol.
    peers: BTreeSet<PeerId>,
    /// Those of them that were asked since they are connected.
    asked: BTreeSet<PeerId>,
    /// Those of them that want to be left alone for a while.
    busy: BTreeMap<PeerId, Timestamp>,
    /// Exchanges that went through since joining.
    done: usize,
    /// Pause before the next exchange while the mesh may still come together.
    settle: Duration,
    current: Option<Exchange>,
    next_at: Timestamp,
    /// When the last exchange went through.
    ended_at: Timestamp,
    marks: BTreeMap<PeerId, Mark>,
}

fn nothing() -> RecordCid {
    RecordCid::from_digest([0; 32])
}

impl Asker {
    pub fn new(now: Timestamp) -> Self {
        Self {
            peers: BTreeSet::new(),
            asked: BTreeSet::new(),
            busy: BTreeMap::new(),
            done: 0,
            settle: CATCHUP_SETTLE,
            current: None,
            next_at: now,
            ended_at: now,
            marks: BTreeMap::new(),
        }
    }

    /// Takes up where rows of the last run end: each author with the time of its newest one.
    pub fn restore(&mut self, newest: impl Iterator<Item = (PeerId, Timestamp)>, now: Timestamp) {
        self.marks = newest
            .take(MAX_MARKS)
            .map(|(author, newest)| {
                let mark = Mark {
                    since: newest.before(OVERLAP),
                    after: nothing(),
                    reread_at: now,
                    pause: REREAD_AT_LEAST,
                    guessed: true,
                    relay: None,
                };
                (author, mark)
            })
            .collect();
    }

    /// A peer that speaks the protocol is connected. Somebody new may come from a part of the network that we have not
    /// heard of for a while, so the next exchange does not wait for its time.
    pub fn connected(&mut self, peer: PeerId, cx: &mut Cx<'_>) {
        if self.peers.len() < MAX_PEERS && self.peers.insert(peer) {
            let soonest = if self.done < CATCHUP_PEERS {
                cx.now
            } else {
                self.ended_at + CATCHUP_SOONEST.mul_f64(cx.rng.random_range(1.0..=1.25))
            };
            self.next_at = self.next_at.min(soonest).max(cx.now);
        }
    }

    pub fn disconnected(&mut self, peer: &PeerId, cx: &mut Cx<'_>) {
        self.peers.remove(peer);
        self.asked.remove(peer);
        self.busy.remove(peer);
        if self.current.as_ref().is_some_and(|current| current.peer == *peer) {
            self.broke_off(cx);
        }
    }

    fn broke_off(&mut self, cx: &mut Cx<'_>) {
        cx.counters.catchup_failures += 1;
        self.current = None;
        self.next_at = cx.now + RETRY.mul_f64(cx.rng.random_range(1.0..=2.0));
    }

    fn went_through(&mut self, cx: &mut Cx<'_>) {
        cx.counters.catchups_done += 1;
        self.current = None;
        self.done += 1;
        self.ended_at = cx.now;
        let all = self.asked.len() >= self.peers.len();
        let (latest, early, late) = if all {
            (CATCHUP_INTERVAL, 0.75, 1.25)
        } else {
            (CATCHUP_SOONEST, 1.0, 1.25)
        };
        let (pause, early, late) = if self.done < CATCHUP_PEERS && !all {
            (Duration::ZERO, 0.0, 1.0)
        } else if self.settle < latest {
            let pause = self.settle;
            self.settle *= CATCHUP_SETTLE_GROWTH;
            (pause, 1.0, 1.5)
        } else {
            (latest, early, late)
        };
        self.next_at = cx.now + pause.mul_f64(cx.rng.random_range(early..=late));
    }

    /// Begins an exchange when it is time for one.
    pub fn pump(&mut self, cx: &mut Cx<'_>) {
        if self.current.is_some() || self.next_at > cx.now {
            return;
        }
        self.busy.retain(|_, until| *until > cx.now);
        // Whoever is new may know what nobody else told us.
        let free = |peer: &&PeerId| !self.busy.contains_key(*peer);
        let mut choice: Vec<&PeerId> = self.peers.difference(&self.asked).filter(free).collect();
        if choice.is_empty() {
            choice = self.peers.iter().filter(free).collect();
        }
        if choice.is_empty() {
            if let Some(until) = self.busy.values().min() {
                self.next_at = *until;
            }
            return;
        }
        let Some(peer) = choice
            .get(cx.rng.random_range(0..choice.len()))
            .map(|peer| (*peer).clone())
        else {
            return;
        };
        self.asked.insert(peer.clone());
        cx.counters.catchups += 1;
        self.current = Some(Exchange {
            id: ExchangeId(0),
            peer,
            summary: true,
            wanted: VecDeque::new(),
            asked: Vec::new(),
            last: None,
            tails: BTreeSet::new(),
            again: false,
            pages: 0,
            deadline: cx.now,
            end: cx.now + CATCHUP_EXCHANGE,
        });
        self.ask(Request::Summary { after: None }, cx);
    }

    fn ask(&mut self, request: Request, cx: &mut Cx<'_>) {
        let Some(current) = &mut self.current else { return };
        current.id = ExchangeId(cx.ticket().0);
        current.pages += 1;
        current.deadline = current.end.min(cx.now + CATCHUP_DEADLINE);
        cx.counters.catchup_pages += 1;
        let (exchange, peer) = (current.id, current.peer.clone());
        cx.push(Action::CatchupAsk {
            exchange,
            peer,
            request,
        });
    }

    fn bad_page(&mut self, cx: &mut Cx<'_>) {
        if let Some(current) = &self.current {
            let peer = current.peer.clone();
            self.peers.remove(&peer);
            self.asked.remove(&peer);
            self.busy.remove(&peer);
            cx.push(Action::Score {
                peer,
                fault: Fault::BadPage,
            });
        }
        self.broke_off(cx);
    }

    /// A page came, or did not. `known` says what we know of an author.
    pub fn replied(
        &mut self,
        id: ExchangeId,
        result: Result<Reply, Failure>,
        cx: &mut Cx<'_>,
        known: impl Fn(&PeerId) -> Option<AuthorSummary>,
    ) -> Option<Told> {
        let Some(current) = self.current.as_ref().filter(|current| current.id == id) else {
            cx.counters.stale_reports += 1;
            return None;
        };
        let peer = current.peer.clone();
        match result {
            Err(Failure::Invalid) => self.bad_page(cx),
            Err(_) => self.broke_off(cx),
            Ok(Reply::Busy { retry_seconds }) => {
                self.broke_off(cx);
                self.asked.remove(&peer);
                let until = cx.now + Duration::from_secs(retry_seconds).min(MAX_BUSY);
                self.busy.insert(peer, until);
            }
            Ok(Reply::Summary { authors, more }) if current.summary => {
                self.summary(&authors, more, cx, known)
            }
            Ok(Reply::Rows { sections, .. }) if !current.summary => {
                let mut rows = Vec::new();
                let mut progress = false;
                let mut asked: Vec<Option<Cursor>> = current.asked.iter().cloned().map(Some).collect();
                for section in sections {
                    let Some(mut cursor) = asked.get_mut(usize::from(section.cursor)).and_then(Option::take)
                    else {
                        self.bad_page(cx);
                        return None;
                    };
                    for row in section.rows {
                        if (row.timestamp, row.cid) <= (cursor.since, cursor.after) {
                            self.bad_page(cx);
                            return None;
                        }
                        (cursor.since, cursor.after) = (row.timestamp, row.cid);
                        progress = true;
                        rows.push((cursor.author.clone(), row));
                    }
                    if section.complete {
                        progress = true;
                        self.mark(&cursor, &peer, cx.now);
                    } else if let Some(current) = &mut self.current {
                        current.wanted.push_front(cursor);
                    }
                }
                if progress {
                    if let Some(current) = &mut self.current {
                        current.wanted.extend(asked.into_iter().flatten());
                    }
                    self.next_rows(cx);
                } else {
                    self.bad_page(cx);
                }
                return Some(Told { relay: peer, rows });
            }
            Ok(_) => self.bad_page(cx),
        }
        None
    }

    fn mark(&mut self, cursor: &Cursor, relay: &PeerId, now: Timestamp) {
        if self.marks.len() >= MAX_MARKS && !self.marks.contains_key(&cursor.author) {
            self.marks.pop_first();
        }
        let mark = self.marks.entry(cursor.author.clone()).or_insert(Mark {
            since: Timestamp::EPOCH,
            after: nothing(),
            reread_at: now,
            pause: REREAD_AT_LEAST,
            guessed: false,
            relay: None,
        });
        (mark.guessed, mark.relay) = (false, Some(relay.clone()));
        // Nobody moves it into the future, where everything would lie behind it.
        let (since, after) = (cursor.since.min(now), cursor.after);
        (mark.since, mark.after) = (mark.since, mark.after).max((since, after));
    }

    fn summary(
        &mut self,
        authors: &[AuthorSummary],
        more: bool,
        cx: &mut Cx<'_>,
        known: impl Fn(&PeerId) -> Option<AuthorSummary>,
    ) {
        let in_order = authors
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.author < b.author));
        let last = self.current.as_ref().and_then(|current| current.last.as_ref());
        let goes_on = authors
            .first()
            .is_none_or(|first| last.is_none_or(|last| *last < first.author));
        if !in_order || !goes_on || (more && authors.is_empty()) {
            self.bad_page(cx);
            return;
        }
        let Some(relay) = self.current.as_ref().map(|current| current.peer.clone()) else {
            return;
        };
        let joining = self.done < CATCHUP_PEERS;
        for theirs in authors {
            let cursor = |since, after| Cursor {
                author: theirs.author.clone(),
                since,
                after,
            };
            let ours = known(&theirs.author);
            if ours.is_some_and(|ours| (ours.rows, ours.digest) == (theirs.rows, theirs.digest)) {
                let behind_all = RecordCid::from_digest([0xff; 32]);
                self.mark(&cursor(theirs.newest, behind_all), &relay, cx.now);
                if let Some(mark) = self.marks.get_mut(&theirs.author) {
                    (mark.reread_at, mark.pause) = (cx.now, REREAD_AT_LEAST);
                }
                continue;
            }
            let compared = |exchange: &Exchange| exchange.again && !exchange.tails.contains(&theirs.author);
            if self.current.as_ref().is_some_and(compared) {
                continue;
            }
            let again = self.current.as_ref().is_some_and(|current| current.again);
            let (wanted, tail) = match self.marks.get_mut(&theirs.author) {
                None => (cursor(Timestamp::EPOCH, nothing()), false),
                Some(mark) if mark.guessed => (cursor(mark.since, mark.after), true),
                Some(mark) if joining && mark.relay.as_ref() != Some(&relay) => {
                    (cursor(Timestamp::EPOCH, nothing()), false)
                }
                Some(mark) if theirs.newest > mark.since && !again => (cursor(mark.since, mark.after), true),
                // Something is different further back.
                Some(mark) if mark.reread_at <= cx.now => {
                    mark.reread_at = cx.now + mark.pause;
                    mark.pause = (2 * mark.pause).min(REREAD_AT_MOST);
                    (cursor(Timestamp::EPOCH, nothing()), false)
                }
                Some(_) => continue,
            };
            if let Some(current) = self
                .current
                .as_mut()
                .filter(|current| current.wanted.len() < MAX_WANTED)
            {
                current.wanted.push_back(wanted);
                if tail {
                    current.tails.insert(theirs.author.clone());
                }
            }
        }
        let last = authors.last().map(|last| last.author.clone());
        if let Some(current) = &mut self.current {
            current.last.clone_from(&last);
        }
        match last.filter(|_| more) {
            Some(last) if self.has_pages() => self.ask(Request::Summary { after: Some(last) }, cx),
            _ => {
                if let Some(current) = &mut self.current {
                    current.summary = false;
                }
                self.next_rows(cx);
            }
        }
    }

    fn has_pages(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.pages < MAX_CATCHUP_PAGES)
    }

    fn next_rows(&mut self, cx: &mut Cx<'_>) {
        let has_pages = self.has_pages();
        let Some(current) = &mut self.current else { return };
        let count = current.wanted.len().min(MAX_CURSORS);
        if count == 0 && has_pages && !current.again && !current.tails.is_empty() {
            (current.again, current.summary, current.last) = (true, true, None);
            self.ask(Request::Summary { after: None }, cx);
            return;
        }
        if count == 0 || !has_pages {
            self.went_through(cx);
            return;
        }
        current.asked = current.wanted.drain(..count).collect();
        let cursors = current.asked.clone();
        self.ask(Request::Rows { cursors }, cx);
    }

    pub fn expire(&mut self, cx: &mut Cx<'_>) {
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.deadline <= cx.now)
        {
            self.broke_off(cx);
        }
    }

    /// Exchanges that went through.
    pub fn done(&self) -> usize {
        self.done
    }

    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    pub fn next_wake(&self) -> Option<Timestamp> {
        match &self.current {
            Some(current) => Some(current.deadline),
            None => (!self.peers.is_empty()).then_some(self.next_at),
        }
    }
}
