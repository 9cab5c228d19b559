//! The handle: one lock around the rows, and the writer behind them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use dirnode_record::Label;
use parking_lot::{Mutex, RwLock};

use super::folder::Folder;
use super::log;
use super::matching;
use super::query::{RemoteHits, RemoteSearch, RemoteSearchError};
use super::state::{Done, State};
use super::types::{Applied, Bytes, Change, Counters, Limits, PeerId, Row, Size, Tomb};
use super::writer::{self, Outlet, Shared};
use crate::{RecordCid, StoreError};

/// How long a flush or the closing waits for the disk.
const DISK_DEADLINE: Duration = Duration::from_secs(30);
/// A flush that finds the queue full tries again this often within the deadline.
const FLUSH_TRIES: u32 = 300;
/// Ended rows that are taken out under one lock at the start.
const EXPIRED_AT_ONCE: usize = 4_096;

/// The remote label index. Cheap to clone; readers share it, a writer holds it for one batch.
///
/// Rows that have ended are found until [`RemoteIndex::expire`] was called.
#[derive(Debug, Clone)]
pub struct RemoteIndex {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    state: Arc<RwLock<State>>,
    /// Taken under the lock of the state, so that steps are sent in the order in which they were made.
    outlet: Mutex<Option<Outlet>>,
    shared: Arc<Shared>,
    searches_cut: AtomicU64,
    /// Whether there is a folder.
    persistent: bool,
    /// Told by the writer when it ends.
    ended: Mutex<Option<Receiver<Result<(), StoreError>>>>,
}

/// What [`RemoteIndex::expire`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Rows and withdrawals that ended.
    pub ended: usize,
    /// Whether more are due.
    pub more: bool,
}

impl RemoteIndex {
    /// An index with nothing behind it.
    #[must_use]
    pub fn in_memory(limits: Limits) -> Self {
        Self {
            handle: Arc::new(Handle {
                state: Arc::new(RwLock::new(State::new(limits))),
                outlet: Mutex::new(None),
                shared: Arc::new(Shared::default()),
                searches_cut: AtomicU64::new(0),
                persistent: false,
                ended: Mutex::new(None),
            }),
        }
    }

    /// Opens the index in `dir`, a folder of its own that is made if it is missing. The caller holds the lock of the data
    /// directory: two processes at once would lose rows.
    ///
    /// Damaged ends of files are cut off, files of another version set aside, and both counted; rows that have ended at
    /// `now_ns`, unix nanoseconds, are left out.
    ///
    /// # Errors
    /// [`StoreError::Io`] and [`StoreError::Full`] if the folder cannot be read or written.
    pub fn open(dir: impl AsRef<Path>, limits: Limits, now_ns: i64) -> Result<Self, StoreError> {
        let dir = dir.as_ref();
        let mut state = State::restoring(limits.clone());
        let (folder, found) = Folder::open(dir, &mut |step| {
            // Refused only if the limits of a row have become smaller, and then counted.
            let _ = state.apply(&step, &mut |_| ());
        })?;
        while state.expire(now_ns, EXPIRED_AT_ONCE, &mut |_| ()).1 {}
        state.limit_to(limits);
        let size = state.size();
        state.counters = Counters {
            refused: state.counters.refused,
            evicted_peer: state.counters.evicted_peer,
            evicted_full: state.counters.evicted_full,
            evicted_tombs: state.counters.evicted_tombs,
            restored_rows: size.all_rows() as u64,
            restored_tombs: size.tombs as u64,
            damaged_bytes: found.damaged_bytes,
            ..Counters::default()
        };
        let state = Arc::new(RwLock::new(state));
        let mut outlet = None;
        let shared = Arc::new(Shared::default());
        let ended = writer::start(folder, dir, found.mend, Arc::clone(&shared), |made| {
            outlet = Some(made);
            Arc::clone(&state)
        })?;
        Ok(Self {
            handle: Arc::new(Handle {
                state,
                outlet: Mutex::new(outlet),
                shared,
                searches_cut: AtomicU64::new(0),
                persistent: true,
                ended: Mutex::new(Some(ended)),
            }),
        })
    }

    /// Makes changes in order, under one lock. They are written behind the caller's back.
    pub fn apply(&self, changes: &[Change]) -> Applied {
        let mut applied = Applied::default();
        self.change(|state, steps| {
            for (place, change) in changes.iter().enumerate() {
                match state.apply(change, steps) {
                    Ok(Done::Changed) => applied.changed = applied.changed.saturating_add(1),
                    Ok(Done::Same) => {}
                    Ok(Done::Absent) => applied.absent.push(place),
                    Err(refusal) => applied.refused.push((place, refusal)),
                }
            }
            applied.evicted = std::mem::take(&mut state.evicted);
        });
        applied
    }

    /// Ends rows and withdrawals whose time is over at `now_ns`, unix nanoseconds; looks at no more than `most`. An end
    /// comes up to a second late, never early.
    pub fn expire(&self, now_ns: i64, most: usize) -> Expired {
        let mut expired = Expired::default();
        self.change(|state, steps| {
            (expired.ended, expired.more) = state.expire(now_ns, most, steps);
        });
        expired
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut dyn FnMut(&Change))) {
        let mut state = self.handle.state.write();
        let outlet = self.handle.outlet.lock();
        let mut frames = Vec::new();
        let logged = outlet.is_some();
        change(&mut state, &mut |step| {
            if logged {
                log::encode(&mut frames, step);
            }
        });
        if let Some(outlet) = outlet.as_ref().filter(|_| !frames.is_empty()) {
            outlet.send(frames);
        }
    }

    /// Searches (grpc-api §4.10).
    ///
    /// Shape: hits in the order of [`Place`](super::Place), best provider first in each; no queries, no hits. Of pages of
    /// one search that follow each other by [`RemoteSearch::after`] none repeats a record, unless rows change meanwhile.
    /// Freshness: every change that was applied before.
    ///
    /// # Errors
    /// [`RemoteSearchError::TooManyQueries`].
    pub fn search(&self, search: &RemoteSearch) -> Result<RemoteHits, RemoteSearchError> {
        let hits = matching::search(&self.handle.state.read(), search)?;
        if hits.cut {
            self.handle.searches_cut.fetch_add(1, Ordering::Relaxed);
        }
        Ok(hits)
    }

    /// Peers that have a label, which can be found, for this record.
    #[must_use]
    pub fn provider_count(&self, cid: &RecordCid) -> usize {
        let state = self.handle.state.read();
        let record = state
            .records
            .find(cid)
            .and_then(|record| state.records.get(record));
        record.map_or(0, |record| record.labelled as usize)
    }

    /// The row of a record and publisher.
    #[must_use]
    pub fn row(&self, cid: &RecordCid, peer: &PeerId) -> Option<Row> {
        let state = self.handle.state.read();
        state.row(state.find(cid, peer)?)
    }

    /// Labels of a row in byte order, each once; `None` if there is no row.
    #[must_use]
    pub fn labels(&self, cid: &RecordCid, peer: &PeerId) -> Option<Vec<Label>> {
        self.row(cid, peer).map(|row| row.labels)
    }

    /// The rows of a record, at most `most`, in no order.
    #[must_use]
    pub fn rows_of(&self, cid: &RecordCid, most: usize) -> Vec<Row> {
        let state = self.handle.state.read();
        let Some(record) = state.records.find(cid) else {
            return Vec::new();
        };
        let numbers = state.rows_of(record).map(|(number, _)| number);
        numbers
            .take(most)
            .filter_map(|number| state.row(number))
            .collect()
    }

    /// Number of rows of a peer.
    #[must_use]
    pub fn rows_of_peer(&self, peer: &PeerId) -> usize {
        let state = self.handle.state.read();
        let peer = state.peers.find(peer).and_then(|peer| state.peers.get(peer));
        peer.map_or(0, |peer| peer.share.rows)
    }

    /// The withdrawal of a record and publisher.
    #[must_use]
    pub fn tomb(&self, cid: &RecordCid, peer: &PeerId) -> Option<Tomb> {
        self.handle.state.read().tomb(cid, peer)
    }

    /// Some of the rows, and where to go on: begin with 0, until there is nowhere. Rows that do not change meanwhile come
    /// exactly once.
    #[must_use]
    pub fn rows_from(&self, from: u32, most: u32) -> (Vec<Row>, Option<u32>) {
        let state = self.handle.state.read();
        let (end, to) = (state.rows.end(), from.saturating_add(most.max(1)));
        let rows = (from..to.min(end)).filter_map(|number| state.row(number));
        (rows.collect(), (to < end).then_some(to))
    }

    /// Some of the withdrawals, as [`RemoteIndex::rows_from`].
    #[must_use]
    pub fn tombs_from(&self, from: u32, most: u32) -> (Vec<Tomb>, Option<u32>) {
        let state = self.handle.state.read();
        let (end, to) = (state.tombs_end(), from.saturating_add(most.max(1)));
        let tombs = (from..to.min(end)).filter_map(|number| state.tomb_by_number(number));
        (tombs.collect(), (to < end).then_some(to))
    }

    /// What was counted since the index was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.handle.shared;
        Counters {
            searches_cut: self.handle.searches_cut.load(Ordering::Relaxed),
            unwritten_batches: shared.unwritten.load(Ordering::Relaxed),
            disk_errors: shared.disk_errors.load(Ordering::Relaxed),
            snapshots: shared.snapshots.load(Ordering::Relaxed),
            ..self.handle.state.read().counters
        }
    }

    /// How much there is. Costs nothing.
    #[must_use]
    pub fn size(&self) -> Size {
        self.handle.state.read().size()
    }

    /// What it weighs. Costs a walk over everything.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.handle.state.read().bytes()
    }

    /// Waits until every change that was made before is on the device; blocks. Changes that were dropped, because too many
    /// were waiting, are in the snapshot that follows, not here.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk failed, [`StoreError::Busy`] if it takes longer than half a minute, and
    /// [`StoreError::Closed`] after [`RemoteIndex::close`].
    pub fn flush(&self) -> Result<(), StoreError> {
        let (reply, answer) = sync_channel(1);
        for _ in 0..FLUSH_TRIES {
            let asked = match self.handle.outlet.lock().as_ref() {
                Some(outlet) => outlet.try_flush(reply.clone())?,
                None if self.handle.persistent => return Err(StoreError::Closed),
                None => return Ok(()),
            };
            if asked {
                let late = |_| StoreError::Busy { waiting: 1 };
                return answer.recv_timeout(DISK_DEADLINE).map_err(late)?;
            }
            std::thread::sleep(DISK_DEADLINE / FLUSH_TRIES);
        }
        Err(StoreError::Busy { waiting: 1 })
    }

    /// Writes what waits, makes it durable and ends the writer; blocks. Reads go on; changes are made from then on in memory
    /// only. Closing twice is no error.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the disk failed, and [`StoreError::Busy`] if it takes longer than half a minute.
    pub fn close(&self) -> Result<(), StoreError> {
        {
            // No batch is between its change and its sending.
            let _state = self.handle.state.write();
            drop(self.handle.outlet.lock().take());
        }
        let Some(ended) = self.handle.ended.lock().take() else {
            return Ok(());
        };
        let late = |_| StoreError::Busy { waiting: 1 };
        ended.recv_timeout(DISK_DEADLINE).map_err(late)?
    }
}
