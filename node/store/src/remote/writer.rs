//! The thread that writes what the index did into its folder.
//!
//! Steps come through a bounded queue, in the order in which they were made, because they are sent under the lock of the
//! index. When the queue is full, or the disk fails, steps are dropped and counted, and a snapshot follows, which holds
//! what they did. A snapshot is read from the index a part at a time, and steps that arrive between two parts are written
//! to the new log at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::RwLock;

use super::folder::Folder;
use super::log;
use super::state::State;
use super::types::Change;
use crate::StoreError;

/// Batches that wait to be written, and their bytes.
const QUEUE: usize = 1_024;
const QUEUE_BYTES: usize = 32 << 20;
/// A log is not folded into a snapshot before it is this long.
const MIN_LOG_BYTES: u64 = 8 << 20;
/// Rows of a snapshot that are read under one lock.
const PART: u32 = 512;
/// Messages that pass after a failed snapshot before the next try: at first, and at most.
const FIRST_PAUSE: u32 = 16;
const LONGEST_PAUSE: u32 = 4_096;

/// What the writer is sent.
pub(super) enum Message {
    /// Frames to append.
    Frames(Vec<u8>),
    /// To be answered when all before it is durable.
    Flush(SyncSender<Result<(), StoreError>>),
}

/// What index and writer both count.
#[derive(Debug, Default)]
pub(super) struct Shared {
    queued_bytes: AtomicUsize,
    /// Whether steps were dropped since the last snapshot began.
    dropped: AtomicBool,
    pub(super) unwritten: AtomicU64,
    pub(super) disk_errors: AtomicU64,
    pub(super) snapshots: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Where the steps go.
#[derive(Debug)]
pub(super) struct Outlet {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl Outlet {
    /// Sends frames, or drops them if too much is waiting. Called under the lock of the index.
    pub(super) fn send(&self, frames: Vec<u8>) {
        let bytes = frames.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let room = queued == 0 || queued.saturating_add(bytes) <= QUEUE_BYTES;
        if room && self.sender.try_send(Message::Frames(frames)).is_ok() {
            return;
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
        count(&self.shared.unwritten);
        self.shared.dropped.store(true, Ordering::Release);
    }

    /// Asks for a flush; false if the queue is full.
    pub(super) fn try_flush(&self, reply: SyncSender<Result<(), StoreError>>) -> Result<bool, StoreError> {
        match self.sender.try_send(Message::Flush(reply)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Closed),
        }
    }
}

/// Starts the writer. It ends when the outlet is dropped; what it returns by the channel is the last error of its last
/// flush. With `mend` it begins with a snapshot.
pub(super) fn start(
    folder: Folder,
    dir: &std::path::Path,
    mend: bool,
    shared: Arc<Shared>,
    state: impl FnOnce(Outlet) -> Arc<RwLock<State>>,
) -> Result<Receiver<Result<(), StoreError>>, StoreError> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (done, ended) = sync_channel(1);
    shared.dropped.store(mend, Ordering::Release);
    let state = state(Outlet {
        sender,
        shared: Arc::clone(&shared),
    });
    let writer = Writer {
        folder,
        state,
        shared,
        pause: 0,
        next_pause: FIRST_PAUSE,
    };
    std::thread::Builder::new()
        .name("remote-labels".to_owned())
        .spawn(move || {
            // Nobody may be waiting for the end.
            let _ = done.send(writer.run(&receiver));
        })
        .map_err(|error| StoreError::io("start thread in", dir, &error))?;
    Ok(ended)
}

struct Writer {
    folder: Folder,
    state: Arc<RwLock<State>>,
    shared: Arc<Shared>,
    /// Messages that pass before a snapshot is tried.
    pause: u32,
    next_pause: u32,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) -> Result<(), StoreError> {
        self.settle(receiver);
        while let Ok(message) = receiver.recv() {
            self.on(message);
            self.settle(receiver);
        }
        // The last word: what was dropped is in the snapshot, or nowhere.
        if self.shared.dropped.load(Ordering::Acquire) {
            self.snapshot(receiver)?;
        }
        self.folder.sync()
    }

    fn on(&mut self, message: Message) {
        match message {
            Message::Frames(frames) => {
                self.shared.queued_bytes.fetch_sub(frames.len(), Ordering::AcqRel);
                if let Err(error) = self.folder.append(&frames) {
                    self.failed(&error);
                    count(&self.shared.unwritten);
                    self.shared.dropped.store(true, Ordering::Release);
                }
            }
            Message::Flush(reply) => {
                let result = self.folder.sync();
                if let Err(error) = &result {
                    self.failed(error);
                }
                // The asker may have given up.
                let _ = reply.try_send(result);
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        count(&self.shared.disk_errors);
        tracing::warn!(%error, "remote labels were not written");
    }

    /// Writes a snapshot if one is due.
    fn settle(&mut self, receiver: &Receiver<Message>) {
        let long = self.folder.log_bytes > MIN_LOG_BYTES.max(self.folder.snapshot_bytes);
        if !long && !self.shared.dropped.load(Ordering::Acquire) {
            return;
        }
        if self.pause > 0 {
            self.pause = self.pause.saturating_sub(1);
            return;
        }
        match self.snapshot(receiver) {
            Ok(()) => self.next_pause = FIRST_PAUSE,
            Err(error) => {
                self.failed(&error);
                self.shared.dropped.store(true, Ordering::Release);
                self.pause = self.next_pause;
                self.next_pause = self.next_pause.saturating_mul(2).min(LONGEST_PAUSE);
            }
        }
    }

    fn snapshot(&mut self, receiver: &Receiver<Message>) -> Result<(), StoreError> {
        let mut snapshot = self.folder.begin_snapshot()?;
        // What is dropped from here on is not in the log, and may not be in the parts that were read already.
        self.shared.dropped.store(false, Ordering::Release);
        let mut buffer = Vec::new();
        for withdrawals in [false, true] {
            let mut from = 0u32;
            loop {
                buffer.clear();
                let end = {
                    let state = self.state.read();
                    let end = if withdrawals {
                        state.tombs_end()
                    } else {
                        state.rows.end()
                    };
                    for number in from..end.min(from.saturating_add(PART)) {
                        let step = if withdrawals {
                            state.tomb_by_number(number).map(Change::Bury)
                        } else {
                            state.row(number).map(Change::Put)
                        };
                        if let Some(step) = step {
                            log::encode(&mut buffer, &step);
                        }
                    }
                    end
                };
                snapshot.append(&buffer)?;
                from = from.saturating_add(PART);
                while let Ok(message) = receiver.try_recv() {
                    self.on(message);
                }
                if from >= end {
                    break;
                }
            }
        }
        self.folder.finish_snapshot(snapshot)?;
        count(&self.shared.snapshots);
        Ok(())
    }
}
