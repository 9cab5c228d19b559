//! Writing provider records behind: the log they go to, and the thread that feeds it.
//!
//! The swarm's task must not wait for a disk, so a row is offered to a bounded queue and dropped when there is no
//! room: it is soft state and comes again with the next announcement. Times in a log are wall-clock seconds, since
//! nothing else means anything after a restart.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

use super::{Clock, ProviderMetrics};

/// Rows on their way to the log: about a megabyte, and seconds of a busy network.
const QUEUE: usize = 8192;
/// Rows handed to the log in one go.
const BATCH: usize = 1024;
/// How long a closing store waits for the log.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// One provider record of another peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRow {
    /// The key as it was announced, 1 to 80 bytes.
    pub key: Vec<u8>,
    /// Who provides it.
    pub peer: PeerId,
    /// Unix seconds when it lapses.
    pub expires: u64,
    /// The provider's addresses, if they are others than in its rows before; empty otherwise.
    pub addresses: Vec<Multiaddr>,
}

/// What a log held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows handed out, those among them that are out of date or not wanted any more.
    pub rows: u64,
    /// Bytes at the end that did not check and were cut off.
    pub damaged_bytes: u64,
    /// The file was no log of this version; it stands beside the new one under another name.
    pub set_aside: bool,
}

/// Where provider records are written down.
pub trait ProviderLog: Send {
    /// Hands out every row, oldest first; a later row of the same key and peer replaces an earlier one.
    ///
    /// # Errors
    /// [`io::Error`] if the log cannot be read or made; damage is no error.
    fn load(&mut self, now: u64, take: &mut dyn FnMut(ProviderRow)) -> io::Result<Loaded>;

    /// Writes rows behind the others. They may get lost with the machine, not with the process.
    ///
    /// # Errors
    /// [`io::Error`]; none of the rows counts as written then.
    fn append(&mut self, batch: &[ProviderRow]) -> io::Result<()>;

    /// Told after each batch, written or not, how many records are live; the log may make itself smaller, and says
    /// whether it did. What it leaves out has lapsed, and addresses that stood only there are gone with it.
    ///
    /// # Errors
    /// [`io::Error`]; the log is as before then.
    fn settle(&mut self, live: u64, now: u64) -> io::Result<bool>;
}

/// The thread that feeds a log. Ends when it is dropped or closed, after what it was given.
#[derive(Debug)]
pub struct LogWriter {
    queue: SyncSender<(ProviderRow, usize)>,
    ended: Receiver<()>,
    /// Counted up whenever rows that were taken may not be in the log any more.
    life: Arc<AtomicU64>,
}

impl LogWriter {
    /// The life of a log that was just loaded.
    pub(super) const FIRST_LIFE: u64 = 0;

    /// Starts the thread.
    ///
    /// # Errors
    /// [`io::Error`] if the machine gives no thread.
    pub(super) fn start(
        mut log: Box<dyn ProviderLog>,
        clock: Clock,
        metrics: ProviderMetrics,
    ) -> io::Result<Self> {
        let (queue, rows) = sync_channel(QUEUE);
        let (end, ended) = sync_channel(1);
        let life = Arc::new(AtomicU64::new(Self::FIRST_LIFE));
        let lives = Arc::clone(&life);
        std::thread::Builder::new()
            .name("provider-log".to_owned())
            .spawn(move || {
                write_all(&mut *log, &rows, &clock, &metrics, &lives);
                // Nobody may be waiting any more.
                let _ = end.try_send(());
            })?;
        Ok(Self { queue, ended, life })
    }

    /// Queues a row; false if there is no room, or the thread is gone. `live` is how many records there are now.
    pub(super) fn offer(&self, row: ProviderRow, live: usize) -> bool {
        self.queue.try_send((row, live)).is_ok()
    }

    /// Another number than before means that what was handed over earlier may be lost and has to be handed over again.
    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// Waits until everything is written, for ten seconds at the most.
    pub(super) fn close(self) {
        drop(self.queue);
        if let Err(RecvTimeoutError::Timeout) = self.ended.recv_timeout(CLOSE_WITHIN) {
            tracing::warn!(component = "providers", "provider log did not end in time");
        }
    }
}

fn write_all(
    log: &mut dyn ProviderLog,
    rows: &Receiver<(ProviderRow, usize)>,
    clock: &Clock,
    metrics: &ProviderMetrics,
    life: &AtomicU64,
) {
    let mut failing = false;
    while let Ok((first, mut live)) = rows.recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok((row, now_live)) = rows.try_recv()
        {
            live = now_live;
            batch.push(row);
        }
        let live = u64::try_from(live).unwrap_or(u64::MAX);
        let mut appended = log.append(&batch);
        // A log that is full takes nothing before it has made itself smaller, so it is asked to even then.
        let settled = log.settle(live, clock());
        if appended.is_err() && matches!(settled, Ok(true)) {
            appended = log.append(&batch);
        }
        if appended.is_err() || matches!(settled, Ok(true)) {
            life.fetch_add(1, Ordering::Release);
        }
        let written = appended.and(settled);
        if let Err(error) = &written {
            metrics.log_errors.inc();
            if !failing {
                tracing::warn!(component = "providers", %error, "provider records are not written down");
            }
        } else if failing {
            tracing::info!(component = "providers", "provider records are written down again");
        }
        failing = written.is_err();
    }
}
