//! Bodies that are acknowledged but not in the layout yet, and removals not carried out there yet.
//!
//! Soft state over the journal: each body names the place where the journal holds it. The newest are kept in
//! memory as well, up to a bound; the others are read back from there.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::RecordCid;
use crate::disk::DiskFile;

/// Where the journal holds a body.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) at: u64,
    pub(crate) len: u64,
}

impl Place {
    pub(crate) fn read(&self) -> std::io::Result<Bytes> {
        let mut bytes = vec![0; usize::try_from(self.len).map_err(std::io::Error::other)?];
        self.file.read_at(self.at, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// What is to become of a file of the layout.
#[derive(Clone)]
pub(crate) enum Pending {
    /// It is to hold this body.
    Body { place: Place, held: Option<Bytes> },
    /// It is to go.
    Removed,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<RecordCid, (u64, Pending)>,
    held_bytes: u64,
    waiting_bytes: u64,
    waiting_bodies: u64,
    applied_seq: u64,
}

impl Inner {
    fn forget(&mut self, cid: &RecordCid) {
        if let Some((_, Pending::Body { place, held })) = self.entries.remove(cid) {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(place.len);
            self.waiting_bodies = self.waiting_bodies.saturating_sub(1);
            if held.is_some() {
                self.held_bytes = self.held_bytes.saturating_sub(place.len);
            }
        }
    }
}

/// Bodies and bytes that wait, and the sequence number up to which changes are applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waiting {
    pub(crate) entries: usize,
    pub(crate) bodies: u64,
    pub(crate) bytes: u64,
    pub(crate) applied_seq: u64,
}

pub(crate) struct Overlay {
    inner: Mutex<Inner>,
    hold_limit: u64,
}

impl Overlay {
    pub(crate) fn new(hold_limit: u64) -> Self {
        Self {
            inner: Mutex::default(),
            hold_limit,
        }
    }

    pub(crate) fn get(&self, cid: &RecordCid) -> Option<Pending> {
        self.inner
            .lock()
            .entries
            .get(cid)
            .map(|(_, pending)| pending.clone())
    }

    pub(crate) fn put(&self, seq: u64, cid: RecordCid, place: Place, body: Bytes) {
        let mut inner = self.inner.lock();
        inner.forget(&cid);
        inner.waiting_bytes = inner.waiting_bytes.saturating_add(place.len);
        inner.waiting_bodies = inner.waiting_bodies.saturating_add(1);
        let held = inner.held_bytes.saturating_add(place.len) <= self.hold_limit;
        if held {
            inner.held_bytes = inner.held_bytes.saturating_add(place.len);
        }
        inner.entries.insert(
            cid,
            (
                seq,
                Pending::Body {
                    place,
                    held: held.then_some(body),
                },
            ),
        );
    }

    pub(crate) fn remove(&self, seq: u64, cid: RecordCid) {
        let mut inner = self.inner.lock();
        inner.forget(&cid);
        inner.entries.insert(cid, (seq, Pending::Removed));
    }

    /// Says that every change up to `seq` is applied.
    pub(crate) fn applied(&self, seq: u64) {
        self.inner.lock().applied_seq = seq;
    }

    /// All that waits, oldest first, and the sequence number up to which this is everything.
    pub(crate) fn snapshot(&self) -> (u64, Vec<(RecordCid, u64, Pending)>) {
        let inner = self.inner.lock();
        let mut all: Vec<_> = inner
            .entries
            .iter()
            .map(|(cid, (seq, pending))| (*cid, *seq, pending.clone()))
            .collect();
        let applied = inner.applied_seq;
        drop(inner);
        all.sort_unstable_by_key(|(_, seq, _)| *seq);
        (applied, all)
    }

    /// Forgets an entry that was carried out, unless a later change took its place.
    pub(crate) fn done(&self, cid: &RecordCid, seq: u64) {
        let mut inner = self.inner.lock();
        if inner.entries.get(cid).is_some_and(|(held, _)| *held == seq) {
            inner.forget(cid);
        }
    }

    pub(crate) fn waiting(&self) -> Waiting {
        let inner = self.inner.lock();
        Waiting {
            entries: inner.entries.len(),
            bodies: inner.waiting_bodies,
            bytes: inner.waiting_bytes,
            applied_seq: inner.applied_seq,
        }
    }
}
