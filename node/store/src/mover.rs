//! The mover: a thread that carries bodies from the journal into the layout, makes rows durable, moves the
//! checkpoint, condenses old journal files, and keeps the OCI manifests.
//!
//! Nothing waits for it in the common case. It works on what it finds, in rounds; a round that fails is told in
//! `health` and tried again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::StoreError;
use crate::commit::{Command, Request};
use crate::journal::checkpoint::{self, Checkpoint};
use crate::journal::{FileKind, condense, file_name};
use crate::layout::manifests::Manifests;
use crate::overlay::Pending;
use crate::rows::Ticket;
use crate::state::Shared;

/// How often it looks. The counts of rounds below are in this unit.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// It is woken earlier when so much waits.
pub(crate) const WAKE_BYTES: u64 = 48 << 20;
/// See [`WAKE_BYTES`].
pub(crate) const WAKE_BODIES: u64 = 12_288;
/// While writes come in, bodies wait this many rounds: moving them costs the writers device time, and a larger
/// group costs less for each body.
const BUSY_ROUNDS: u32 = 10;
/// Bodies and bytes moved at once.
const CHUNK_BODIES: usize = 4096;
const CHUNK_BYTES: u64 = 16 << 20;
/// Usage counters are written about once a second.
const USAGE_ROUNDS: u32 = 5;
/// Usage counters written each second. A node that is read all over has more of them; writing each a second later
/// would cost as much as the reads, and what is counted meanwhile is written with it.
const USAGE_AT_ONCE: usize = 1024;
/// However many wait, they are written within so many seconds.
const USAGE_SPREAD: usize = 60;
/// Manifests are written when nothing has changed for 5 s, or 60 s after the first change.
const QUIET_ROUNDS: u32 = 25;
const PATIENCE_ROUNDS: u32 = 300;
/// With more records behind than this, a stop does not wait for manifests: the next start finds what is missing.
const AT_CLOSE: usize = 10_000;
/// A snapshot replaces the condensed files when those added since the last pass three times its size, so all
/// together four times what is live; small ones are not worth it.
const SNAPSHOT_FACTOR: u64 = 3;
const SNAPSHOT_FLOOR_BYTES: u64 = 4 << 20;

pub(crate) struct Mover {
    pub(crate) shared: Arc<Shared>,
    /// Weak, so that the committer ends when the last handle is gone.
    pub(crate) queue: mpsc::WeakSender<Command>,
    pub(crate) manifests: Manifests,
    pub(crate) files: CondensedFiles,
}

/// The journal files without bodies.
#[derive(Debug, Clone, Default)]
pub(crate) struct CondensedFiles {
    pub(crate) snap: Option<(u64, u64)>,
    /// Number and length of each.
    pub(crate) rows: Vec<(u64, u64)>,
}

impl Mover {
    /// Works until the committer has stopped; then once more for what is left if that was a close.
    pub(crate) fn run(self) {
        let shared = Arc::clone(&self.shared);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || self.work()));
        let mut mover = shared.mover.lock();
        if ended.is_err() {
            mover.fault = Some(StoreError::Rows("the mover panicked".to_owned()));
        }
        mover.finished = true;
        shared.mover_done.notify_all();
    }

    fn work(mut self) {
        let mut last_seq = 0;
        let mut busy: u32 = 0;
        let mut quiet: u32 = 0;
        let mut behind: u32 = 0;
        let mut rounds: u32 = 0;
        loop {
            let finish = {
                let mut mover = self.shared.mover.lock();
                if !mover.finish && !self.shared.closed.load(Ordering::SeqCst) {
                    self.shared.mover_wake.wait_for(&mut mover, TICK);
                }
                mover.finish
            };
            if self.shared.closed.load(Ordering::SeqCst) && !finish {
                // The handles went without a close: as after a crash, the next start replays.
                return;
            }
            rounds = rounds.wrapping_add(1);
            let waiting = self.shared.overlay.waiting();
            let moving = waiting.applied_seq != last_seq;
            last_seq = waiting.applied_seq;
            busy = if moving { busy.saturating_add(1) } else { 0 };
            quiet = if moving { 0 } else { quiet.saturating_add(1) };
            let due = waiting.bytes >= WAKE_BYTES || waiting.bodies >= WAKE_BODIES || busy >= BUSY_ROUNDS;
            if finish || !moving || due {
                busy = 0;
                let result = self.round();
                self.report("moving bodies", result);
            }
            if !self.shared.config.manifests {
                self.shared.index.write().dirty_manifests.clear();
            }
            if rounds.is_multiple_of(USAGE_ROUNDS) {
                self.ask_for_usage();
            }
            let count = self.shared.index.read().dirty_manifests.len();
            let changed = count > 0 || self.manifests.is_stale();
            behind = if changed { behind.saturating_add(1) } else { 0 };
            let stopping = finish && count <= AT_CLOSE;
            // The search index goes first: callers wait for it.
            let indexed = self.shared.index.read().records.is_ready();
            if self.shared.config.manifests
                && changed
                && indexed
                && (stopping || quiet >= QUIET_ROUNDS || behind >= PATIENCE_ROUNDS)
            {
                behind = 0;
                // The layout is complete without manifests: registry tools see an older state, no more.
                if let Err(error) = self.manifests.write(&self.shared) {
                    tracing::warn!(%error, "OCI manifests were not written");
                }
            }
            if finish {
                return;
            }
        }
    }

    fn report(&self, what: &'static str, result: Result<(), StoreError>) {
        let mut mover = self.shared.mover.lock();
        mover.fault = result.err();
        if let Some(error) = &mover.fault {
            tracing::error!(%error, what, "background work of the store failed");
        }
        self.shared.mover_done.notify_all();
    }

    fn ask_for_usage(&self) {
        let waiting = self.shared.index.read().waiting_usage();
        if waiting == 0 {
            return;
        }
        if let Some(queue) = self.queue.upgrade() {
            // A full queue has more urgent work; the counters wait for the next time.
            let _ = queue.try_send(Command {
                request: Request::Usage(USAGE_AT_ONCE.max(waiting / USAGE_SPREAD)),
                reply: None,
            });
        }
    }

    /// Carries out all that waits, and moves the checkpoint.
    pub(crate) fn round(&mut self) -> Result<(), StoreError> {
        let (applied, all) = self.shared.overlay.snapshot();
        let done = self.shared.counters.checkpoint_seq.load(Ordering::Relaxed);
        if applied <= done {
            return Ok(());
        }
        let mut rest = all.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut bodies, mut removed, mut carried) = (Vec::new(), Vec::new(), Vec::new());
            let mut bytes = 0;
            while bytes < CHUNK_BYTES && carried.len() < CHUNK_BODIES {
                let Some((cid, seq, pending)) = rest.next() else {
                    break;
                };
                match pending {
                    Pending::Removed => removed.push(cid),
                    Pending::Body { place, held } => {
                        bytes += place.len;
                        let body = match held {
                            Some(body) => body,
                            None => place
                                .read()
                                .map_err(|error| StoreError::io("read", &self.shared.journal_dir, &error))?,
                        };
                        bodies.push((cid, body));
                    }
                }
                carried.push((cid, seq));
            }
            self.shared.layout.apply(&bodies, &removed)?;
            for (cid, seq) in carried {
                self.shared.overlay.done(&cid, seq);
            }
            self.shared.mover_done.notify_all();
        }
        // Whatever was applied before the snapshot was written to the rows before it, too.
        self.shared.with_rows(|rows| rows.durable(Ticket::latest()))?;
        self.advance(applied)?;
        self.condense(applied)
    }

    fn advance(&self, seq: u64) -> Result<(), StoreError> {
        let generation = self.shared.generation.load(Ordering::SeqCst);
        checkpoint::write(
            &*self.shared.config.disk,
            &self.shared.journal_dir,
            Checkpoint { seq, generation },
        )?;
        self.shared.counters.checkpoint_seq.store(seq, Ordering::Relaxed);
        Ok(())
    }

    /// Condenses closed log files that lie before the checkpoint.
    fn condense(&mut self, checkpoint: u64) -> Result<(), StoreError> {
        let (disk, dir) = (&*self.shared.config.disk, &self.shared.journal_dir);
        loop {
            // The oldest first, so that condensed files are always older than logs.
            let oldest = self.shared.closed_logs.lock().iter().min().copied();
            let Some((number, last_seq)) = oldest.filter(|(_, last)| *last <= checkpoint) else {
                break;
            };
            let path = dir.join(file_name(number, FileKind::Log));
            let before = disk.len(&path).ok().flatten().unwrap_or(0);
            let after = condense::strip(disk, dir, number, last_seq)?;
            self.files.rows.push((number, after));
            self.shared.closed_logs.lock().retain(|(held, _)| *held != number);
            let gained = before.saturating_sub(after);
            let counter = &self.shared.counters.journal_bytes;
            counter.store(
                counter.load(Ordering::Relaxed).saturating_sub(gained),
                Ordering::Relaxed,
            );
        }
        let since: u64 = self.files.rows.iter().map(|(_, len)| *len).sum();
        let last = self.files.snap.map_or(0, |(_, len)| len);
        if since > SNAPSHOT_FLOOR_BYTES.max(last.saturating_mul(SNAPSHOT_FACTOR)) {
            self.snapshot(checkpoint)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, checkpoint: u64) -> Result<(), StoreError> {
        let (disk, dir) = (&*self.shared.config.disk, &self.shared.journal_dir);
        let Some(number) = self.files.rows.iter().map(|(number, _)| *number).max() else {
            return Ok(());
        };
        let len = self
            .shared
            .with_rows(|rows| condense::snapshot(disk, dir, rows, number, checkpoint))?;
        // Also the number of a `rows` file: the snapshot wins at the next start, should we stop here.
        for (old, _) in self.files.rows.drain(..) {
            let path = dir.join(file_name(old, FileKind::Rows));
            disk.remove(&path)
                .map_err(|error| StoreError::io("remove", path, &error))?;
        }
        if let Some((old, _)) = self
            .files
            .snap
            .replace((number, len))
            .filter(|(old, _)| *old != number)
        {
            let path = dir.join(file_name(old, FileKind::Snap));
            disk.remove(&path)
                .map_err(|error| StoreError::io("remove", path, &error))?;
        }
        tracing::info!(number, len, "journal condensed into a snapshot");
        Ok(())
    }
}
