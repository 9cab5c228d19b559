//! Whose turn it is: searches share the cores among themselves, and leave writers their half.
//!
//! A caller who asks without end can keep a core busy; a writer's record passes through several tasks, and would wait for
//! every search in between. So one search a core is at work at a time, the others wait in line; and while records come
//! in, each of them lets a few searches through. Soft state: what is counted here is forgotten with the process.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::runtime;

/// Searches that may wait for their turn.
const MAX_WAITING: usize = 4096;
/// Searches that a write lets through: together they cost about as much as the write.
const SEARCHES_PER_WRITE: usize = 2;
/// Searches that may be saved up.
const MAX_SAVED: usize = 32;
/// After a write, writers are taken to be at work for this long.
const WRITING: Duration = Duration::from_millis(10);
/// A search waits no longer than this for a write that would let it through: the writers may be waiting themselves.
const LONGEST_PAUSE: Duration = Duration::from_millis(1);

/// The turns of this process.
pub(crate) static TURNS: LazyLock<Turns> =
    LazyLock::new(|| Turns::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Turns at a number of cores.
pub(crate) struct Turns {
    cores: Semaphore,
    /// Searches in line or at work.
    asked: AtomicUsize,
    saved: Semaphore,
    begun: Instant,
    /// When the last write ended, in microseconds from `begun`; 0 before the first.
    last_write: AtomicU64,
}

/// More searches wait than may.
#[derive(Debug)]
pub(crate) struct TooMany;

/// A turn, given back when dropped.
pub(crate) struct Turn<'a> {
    _core: SemaphorePermit<'a>,
    _place: Place<'a>,
}

/// Counts one search for as long as it lives.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Turns {
    fn new(cores: usize) -> Self {
        Self {
            cores: Semaphore::new(cores),
            asked: AtomicUsize::new(0),
            saved: Semaphore::new(0),
            begun: runtime::moment(),
            last_write: AtomicU64::new(0),
        }
    }

    fn micros(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// A record was written, or refused.
    pub(crate) fn written(&self, now: Instant) {
        self.last_write.store(self.micros(now), Ordering::Relaxed);
        if self.saved.available_permits() < MAX_SAVED {
            self.saved.add_permits(SEARCHES_PER_WRITE);
        }
    }

    fn is_writing(&self, now: Instant) -> bool {
        let last = self.last_write.load(Ordering::Relaxed);
        let since = Duration::from_micros(self.micros(now).saturating_sub(last));
        last > 0 && since < WRITING
    }

    /// Waits for a turn. The caller sets the deadline.
    pub(crate) async fn take(&self, now: impl Fn() -> Instant) -> Result<Turn<'_>, TooMany> {
        let waiting = self.asked.fetch_add(1, Ordering::Relaxed);
        // Counted off again on refusal too.
        let place = Place(&self.asked);
        if waiting >= MAX_WAITING {
            return Err(TooMany);
        }
        // Neither semaphore is ever closed.
        let core = self.cores.acquire().await.map_err(|_| TooMany)?;
        if self.is_writing(now())
            && let Ok(Ok(saved)) = tokio::time::timeout(LONGEST_PAUSE, self.saved.acquire()).await
        {
            saved.forget();
        }
        Ok(Turn {
            _core: core,
            _place: place,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn searches_take_turns_and_writes_let_them_through() {
        let turns = Turns::new(1);
        let begun = turns.begun;
        let after = |millis: u64| move || begun + Duration::from_millis(millis);
        let one = turns.take(after(1)).await.ok();
        let another = tokio::time::timeout(Duration::from_millis(20), turns.take(after(1)));
        assert!(another.await.is_err(), "one at a time");
        drop(one);

        turns.written(after(2)());
        // The third finds nothing saved, and passes all the same; the fourth comes when the writers have gone.
        for (at, saved) in [(5, 1), (5, 0), (5, 0)] {
            assert!(turns.take(after(at)).await.is_ok());
            assert_eq!(turns.saved.available_permits(), saved);
        }
        turns.written(after(6)());
        assert!(turns.take(after(16)).await.is_ok());
        assert_eq!(
            turns.saved.available_permits(),
            SEARCHES_PER_WRITE,
            "nobody writes: nothing is taken"
        );
        for _ in 0..100 {
            turns.written(after(17)());
        }
        assert_eq!(turns.saved.available_permits(), MAX_SAVED);
        assert_eq!(turns.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_refuses() {
        let turns = Turns::new(1);
        turns.asked.store(MAX_WAITING, Ordering::Relaxed);
        let begun = turns.begun;
        assert!(turns.take(|| begun).await.is_err());
        assert_eq!(turns.asked.load(Ordering::Relaxed), MAX_WAITING);
    }
}
