//! The committer: one thread through which every write goes.
//!
//! It takes requests from a bounded queue, plans them against the applied state, forms a group, appends the group
//! to the journal with one flush, applies it, and only then answers. A group never holds two requests about the
//! same key, so a plan never depends on what is not applied yet.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::journal::entry::{self, Change};
use crate::journal::writer::{AppendError, Writer};
use crate::overlay::Place;
use crate::rows::{Family, StoredRecord, StoredReferrer};
use crate::state::Shared;
use crate::types::{NewRecord, NewReferrer, ReferrerFilter, ReferrerRow};
use crate::{MAX_ROW_BYTES, RecordCid, StoreError};

/// A group is written when it reaches this many bytes, so that one flush does not hold up many callers.
const GROUP_BYTES: usize = 8 << 20;
/// Most requests in a group.
const GROUP_LEN: usize = 512;
/// Labels kept in a published row: they must fit beside the rest of it.
const MAX_LABELS_BYTES: usize = 48 << 10;
const MAX_LABELS: usize = 2048;
/// Usage counters of one group at the close, when all have to be written.
const USAGE_AT_CLOSE: usize = 8192;
/// How long a write waits for the mover before it is told that the store is busy.
const BACKLOG_WAIT: Duration = Duration::from_millis(100);
const BACKLOG_ROUNDS: u32 = 100;

/// What a caller asks for.
pub(crate) enum Request {
    PutRecord(Box<NewRecord>),
    DropRecord(RecordCid),
    PutReferrer(NewReferrer),
    DropReferrers(RecordCid, ReferrerFilter),
    Publish(RecordCid),
    Unpublish(RecordCid),
    PutJob(String, Bytes),
    DropJob(String),
    /// Write at most so many of the usage counters that changed.
    Usage(usize),
    /// Copy the rows into a new folder.
    CompactRows,
    /// Write what is left and stop.
    Close,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Whether anything changed.
    Changed(bool),
    Cids(Vec<RecordCid>),
}

pub(crate) type Reply = oneshot::Sender<Result<Answer, StoreError>>;

pub(crate) struct Command {
    pub(crate) request: Request,
    pub(crate) reply: Option<Reply>,
}

impl Command {
    fn answer(reply: Option<Reply>, answer: Result<Answer, StoreError>) {
        if let Some(reply) = reply {
            // A caller who is gone does not need the answer.
            let _ = reply.send(answer);
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Cid(RecordCid),
    Job(String),
    Usage,
}

enum Plan {
    Write(Change, Answer),
    Nothing(Answer),
}

struct Planned {
    seq: u64,
    change: Change,
    /// Where the body ends in the group.
    end: usize,
    answer: Answer,
    reply: Option<Reply>,
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) next_seq: u64,
    pub(crate) last_inserted_ns: i64,
}

impl Committer {
    /// Works until the queue is closed and empty, or [`Request::Close`] came.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut held = None;
        while let Some(first) = held.take().or_else(|| queue.blocking_recv()) {
            match first.request {
                Request::CompactRows => {
                    let done = crate::open::compact_rows(&self.shared);
                    Command::answer(first.reply, done.map(Answer::Changed));
                    continue;
                }
                Request::Close => {
                    queue.close();
                    while let Some(late) = held.take().or_else(|| queue.try_recv().ok()) {
                        held = self.group(late, &mut queue);
                    }
                    let mut waiting = self.shared.index.read().waiting_usage();
                    while waiting > 0 {
                        let last = Command {
                            request: Request::Usage(USAGE_AT_CLOSE),
                            reply: None,
                        };
                        self.group(last, &mut queue);
                        let left = self.shared.index.read().waiting_usage();
                        // A poisoned journal takes nothing any more.
                        waiting = if left < waiting { left } else { 0 };
                    }
                    // Set before `closed`, so that the mover does not take this for a crash.
                    self.shared.mover.lock().finish = true;
                    Command::answer(first.reply, Ok(Answer::Changed(true)));
                    break;
                }
                _ => held = self.group(first, &mut queue),
            }
        }
        // Handles may be gone without a close: what is left is in the journal, and replayed at the next start.
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.mover_wake.notify_all();
    }

    /// Forms a group that begins with `first`, writes and applies it. Returns the request that has to wait for it.
    fn group(&mut self, first: Command, queue: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let mut group = Vec::new();
        let mut planned: Vec<Planned> = Vec::new();
        let mut keys = HashSet::new();
        let mut next = Some(first);
        let mut held = None;
        while let Some(command) = next.take() {
            let own = keys_of(&command.request);
            let control = matches!(command.request, Request::CompactRows | Request::Close);
            if control || own.iter().any(|key| keys.contains(key)) {
                held = Some(command);
                break;
            }
            keys.extend(own);
            let seq = self.next_seq.saturating_add(planned.len() as u64);
            let Command { request, reply } = command;
            match self.plan(request, seq) {
                Ok(Plan::Nothing(answer)) => Command::answer(reply, Ok(answer)),
                Ok(Plan::Write(change, answer)) => match entry::encode(seq, &change, &mut group) {
                    Ok(()) => planned.push(Planned {
                        seq,
                        change,
                        end: group.len(),
                        answer,
                        reply,
                    }),
                    Err(error) => Command::answer(reply, Err(error)),
                },
                Err(error) => Command::answer(reply, Err(error)),
            }
            if planned.len() < GROUP_LEN && group.len() < GROUP_BYTES {
                next = queue.try_recv().ok();
            }
        }
        if !planned.is_empty() {
            self.commit(&mut group, planned);
        }
        held
    }

    fn commit(&mut self, group: &mut Vec<u8>, planned: Vec<Planned>) {
        if let Err(error) = self.append(group) {
            for entry in planned {
                Command::answer(entry.reply, Err(error.clone()));
            }
            return;
        }
        let (file, end) = self.writer.place();
        let start = end.saturating_sub(planned.last().map_or(0, |entry| entry.end as u64));
        self.next_seq = self.next_seq.saturating_add(planned.len() as u64);
        let counters = &self.shared.counters;
        counters.groups.fetch_add(1, Ordering::Relaxed);
        counters
            .entries
            .fetch_add(planned.len() as u64, Ordering::Relaxed);
        counters
            .journal_bytes
            .fetch_add(end.saturating_sub(start), Ordering::Relaxed);
        let mut answers = Vec::with_capacity(planned.len());
        let mut last_seq = 0;
        for Planned {
            seq,
            change,
            end,
            answer,
            reply,
        } in planned
        {
            let len = change.body_len() as u64;
            let at = start.saturating_add(end as u64).saturating_sub(len);
            let place = Place {
                file: Arc::clone(&file),
                at,
                len,
            };
            // The row engine may panic where it should fail; the journal holds the change either way.
            let shared = &self.shared;
            let applied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                shared.apply(seq, change, Some(place), false)
            }))
            .unwrap_or_else(|_| Err(StoreError::Rows("row engine panicked".to_owned())));
            if let Err(error) = &applied {
                self.shared
                    .poison(StoreError::Rows(format!("journal is ahead of the rows: {error}")));
            }
            last_seq = seq;
            answers.push((reply, applied.map(|()| answer)));
        }
        // Before anybody is answered: who asks next must not find a gap.
        if self.shared.poison.lock().is_none() {
            self.shared.overlay.applied(last_seq);
        }
        for (reply, answer) in answers {
            Command::answer(reply, answer);
        }
        let waiting = self.shared.overlay.waiting();
        if waiting.bytes >= crate::mover::WAKE_BYTES || waiting.bodies >= crate::mover::WAKE_BODIES {
            self.shared.mover_wake.notify_one();
        }
    }

    fn append(&mut self, group: &mut Vec<u8>) -> Result<(), StoreError> {
        if let Some(error) = self.shared.poison.lock().clone() {
            return Err(error);
        }
        if self.writer.is_full() {
            let closed = self.writer.number();
            self.writer.roll(self.next_seq)?;
            self.shared
                .closed_logs
                .lock()
                .push((closed, self.next_seq.saturating_sub(1)));
        }
        self.writer.append(group).map_err(|error| match error {
            AppendError::Refused(error) => {
                tracing::warn!(%error, "journal refused a group");
                error
            }
            AppendError::Poisoned(error) => {
                self.shared.poison(error.clone());
                error
            }
        })
    }

    fn plan(&mut self, request: Request, seq: u64) -> Result<Plan, StoreError> {
        // Not even what needs no write is acknowledged: a deletion whose flush failed may yet be on the device, and
        // the record that a duplicate put finds here would be gone after the next start.
        if let Some(error) = self.shared.poison.lock().clone() {
            return Err(error);
        }
        let unchanged = Ok(Plan::Nothing(Answer::Changed(false)));
        let changed = Answer::Changed(true);
        match request {
            Request::PutRecord(record) => self.plan_record(*record),
            Request::DropRecord(cid) => {
                if !self.shared.index.read().records.contains(&cid) {
                    return unchanged;
                }
                let referrers = self
                    .shared
                    .list_referrers(&cid)?
                    .into_iter()
                    .map(|(_, row)| row.cid)
                    .collect();
                Ok(Plan::Write(Change::DropRecord { cid, referrers }, changed))
            }
            Request::PutReferrer(referrer) => self.plan_referrer(referrer, seq),
            Request::DropReferrers(record, which) => {
                self.must_hold(record)?;
                let rows = self.shared.list_referrers(&record)?.into_iter();
                let rows = rows.map(|(_, row)| ReferrerRow {
                    cid: row.cid,
                    kind: row.kind,
                });
                let cids: Vec<_> = rows.filter(|row| which.takes(row)).map(|row| row.cid).collect();
                let answer = Answer::Cids(cids.clone());
                if cids.is_empty() {
                    return Ok(Plan::Nothing(answer));
                }
                Ok(Plan::Write(Change::DropReferrers { record, cids }, answer))
            }
            Request::Publish(cid) => {
                self.must_hold(cid)?;
                if self.has_row(Family::Published, cid.digest())? {
                    return unchanged;
                }
                let at_ns = (self.shared.clock)();
                let mut labels = crate::fill::listed_labels(&self.shared, &cid).unwrap_or_default();
                let size: usize = labels.iter().map(|label| label.as_str().len()).sum();
                if size > MAX_LABELS_BYTES || labels.len() > MAX_LABELS {
                    // A row would not hold them; they are read from the record as long as it is here.
                    labels.clear();
                }
                Ok(Plan::Write(Change::Publish { cid, at_ns, labels }, changed))
            }
            Request::Unpublish(cid) => {
                if !self.has_row(Family::Published, cid.digest())? {
                    return unchanged;
                }
                Ok(Plan::Write(Change::Unpublish { cid }, changed))
            }
            Request::PutJob(id, value) => Ok(Plan::Write(Change::Job { id, value }, changed)),
            Request::DropJob(id) => {
                if !self.has_row(Family::Jobs, id.as_bytes())? {
                    return unchanged;
                }
                Ok(Plan::Write(Change::DropJob { id }, changed))
            }
            Request::Usage(most) => {
                let rows = self.shared.index.write().take_usage(most);
                if rows.is_empty() {
                    return unchanged;
                }
                Ok(Plan::Write(Change::Usage(rows), changed))
            }
            Request::CompactRows | Request::Close => unchanged,
        }
    }

    fn plan_record(&mut self, record: NewRecord) -> Result<Plan, StoreError> {
        let NewRecord { cid, body, summary } = record;
        let held = self.shared.index.read().records.get(&cid);
        if held.is_some() && self.shared.has_body(&cid)? {
            return Ok(Plan::Nothing(Answer::Changed(false)));
        }
        self.wait_for_room()?;
        // A record whose body was lost keeps its place when it is pushed again.
        let inserted_at_ns = match held {
            Some((at, _)) => at,
            None => {
                let now = (self.shared.clock)().max(self.last_inserted_ns.saturating_add(1));
                self.last_inserted_ns = now;
                now
            }
        };
        let mut row = StoredRecord {
            inserted_at_ns,
            size_bytes: body.len() as u64,
            summary: Some(Box::new(summary)),
        };
        if crate::rows::encode("record", &row)?.len() > MAX_ROW_BYTES {
            row.summary = None;
        }
        Ok(Plan::Write(
            Change::Record {
                cid,
                row,
                body: Some(body),
            },
            Answer::Changed(held.is_none()),
        ))
    }

    fn plan_referrer(&mut self, referrer: NewReferrer, seq: u64) -> Result<Plan, StoreError> {
        let NewReferrer {
            record,
            cid,
            kind,
            body,
        } = referrer;
        self.must_hold(record)?;
        let member = crate::rows::member_key(&record, &cid);
        let held = self.shared.with_rows(|rows| rows.get(Family::Members, &member))?;
        if held.is_some() && self.shared.has_body(&cid)? {
            return Ok(Plan::Nothing(Answer::Changed(false)));
        }
        self.wait_for_room()?;
        let position = held.as_deref().and_then(crate::rows::number_of).unwrap_or(seq);
        let row = StoredReferrer {
            cid,
            kind,
            size_bytes: body.len() as u64,
        };
        let answer = Answer::Changed(held.is_none());
        Ok(Plan::Write(
            Change::Referrer {
                record,
                position,
                row,
                body: Some(body),
            },
            answer,
        ))
    }

    fn must_hold(&self, cid: RecordCid) -> Result<(), StoreError> {
        if self.shared.index.read().records.contains(&cid) {
            Ok(())
        } else {
            Err(StoreError::NotFound(cid))
        }
    }

    fn has_row(&self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.shared.with_rows(|rows| rows.get(family, key))?.is_some())
    }

    /// Holds writes back while too many bodies wait for the layout.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        for _ in 0..BACKLOG_ROUNDS {
            let waiting = self.shared.overlay.waiting();
            if waiting.bytes < self.shared.config.backlog_bytes {
                return Ok(());
            }
            let mut mover = self.shared.mover.lock();
            if let Some(fault) = &mover.fault {
                return Err(fault.clone());
            }
            self.shared.mover_wake.notify_one();
            self.shared.mover_done.wait_for(&mut mover, BACKLOG_WAIT);
        }
        Err(StoreError::Busy {
            waiting: self.shared.overlay.waiting().entries,
        })
    }
}

/// What a request reads or changes; two with a common key go into different groups.
fn keys_of(request: &Request) -> Vec<Key> {
    match request {
        Request::PutRecord(record) => vec![Key::Cid(record.cid)],
        Request::DropRecord(cid)
        | Request::DropReferrers(cid, _)
        | Request::Publish(cid)
        | Request::Unpublish(cid) => vec![Key::Cid(*cid)],
        Request::PutReferrer(referrer) => vec![Key::Cid(referrer.record), Key::Cid(referrer.cid)],
        Request::PutJob(id, _) | Request::DropJob(id) => vec![Key::Job(id.clone())],
        Request::Usage(_) => vec![Key::Usage],
        Request::CompactRows | Request::Close => Vec::new(),
    }
}
