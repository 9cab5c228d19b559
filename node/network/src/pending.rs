//! Answers that are owed: each ends exactly once.
//!
//! A waiter is consumed by answering it, so nobody is answered twice; whoever is neither answered nor taken out is
//! failed when its deadline passes, when its caller is gone, or when the table is emptied at the end. Soft state.

use std::collections::HashMap;
use std::hash::Hash;

use tokio::time::Instant;

use crate::command::Reply;
use crate::error::NetworkError;

/// Somebody who waits for one answer.
pub(crate) trait Waiter {
    /// Ends the wait without a result.
    fn fail(self, error: NetworkError);
    /// Whether nobody listens any more.
    fn gone(&self) -> bool;
}

impl<T> Waiter for Reply<T> {
    fn fail(self, error: NetworkError) {
        // The receiver may have left in this very moment, which is its own business.
        let _ = self.send(Err(error));
    }

    fn gone(&self) -> bool {
        self.is_closed()
    }
}

struct Entry<W> {
    waiter: W,
    deadline: Instant,
}

/// Waiters by the key of what they wait for, bounded.
pub(crate) struct Pending<K, W> {
    entries: HashMap<K, Entry<W>>,
    capacity: usize,
    what: &'static str,
}

impl<K: Eq + Hash + Copy, W: Waiter> Pending<K, W> {
    /// An empty table for at most `capacity` waiters; `what` names it in errors.
    pub(crate) fn new(what: &'static str, capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            capacity,
            what,
        }
    }

    /// Files a waiter. When the table is full or the key is taken, the waiter is failed at once.
    pub(crate) fn insert(&mut self, key: K, waiter: W, deadline: Instant) {
        if self.entries.len() >= self.capacity || self.entries.contains_key(&key) {
            waiter.fail(NetworkError::Busy {
                what: self.what,
                limit: self.capacity,
            });
            return;
        }
        self.entries.insert(key, Entry { waiter, deadline });
    }

    /// The waiter of a key, still waiting.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut W> {
        self.entries.get_mut(&key).map(|entry| &mut entry.waiter)
    }

    /// Takes a waiter out, to be answered.
    pub(crate) fn take(&mut self, key: K) -> Option<W> {
        self.entries.remove(&key).map(|entry| entry.waiter)
    }

    /// Takes out those whose deadline has passed (`true`) and those whose caller is gone (`false`), oldest key order
    /// not kept. The caller ends the work behind them and fails them.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<(K, W, bool)> {
        let keys: Vec<(K, bool)> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| {
                let late = entry.deadline <= now;
                (late || entry.waiter.gone()).then_some((*key, late))
            })
            .collect();
        keys.into_iter()
            .filter_map(|(key, late)| self.take(key).map(|waiter| (key, waiter, late)))
            .collect()
    }

    /// Fails everyone who still waits.
    pub(crate) fn fail_all(&mut self, error: &NetworkError) {
        for (_, entry) in self.entries.drain() {
            entry.waiter.fail(error.clone());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    type Table = Pending<u8, Reply<u8>>;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn a_result_ends_the_wait_and_the_key_is_free_again() {
        let mut table = Table::new("queries", 2);
        let (reply, answer) = oneshot::channel();
        table.insert(1, reply, soon());
        table.take(1).unwrap().send(Ok(7)).unwrap();
        assert_eq!(answer.await.unwrap(), Ok(7));
        assert!(table.take(1).is_none());
        assert_eq!(table.len(), 0);
    }

    #[tokio::test]
    async fn a_full_table_and_a_taken_key_fail_the_newcomer_only() {
        let mut table = Table::new("queries", 2);
        let (first, mut kept) = oneshot::channel();
        table.insert(1, first, soon());
        let (same, refused) = oneshot::channel();
        table.insert(1, same, soon());
        assert!(matches!(refused.await.unwrap(), Err(NetworkError::Busy { .. })));
        let (second, _kept_too) = oneshot::channel();
        table.insert(2, second, soon());
        let (third, refused) = oneshot::channel();
        table.insert(3, third, soon());
        assert_eq!(
            refused.await.unwrap(),
            Err(NetworkError::Busy {
                what: "queries",
                limit: 2
            })
        );
        assert!(kept.try_recv().is_err());
        assert_eq!(table.len(), 2);
    }

    #[tokio::test]
    async fn a_deadline_that_passed_takes_the_waiter_out() {
        let mut table = Table::new("queries", 2);
        let (reply, answer) = oneshot::channel();
        table.insert(1, reply, Instant::now());
        let overdue = table.overdue(Instant::now());
        assert_eq!(overdue.len(), 1);
        for (key, waiter, late) in overdue {
            assert_eq!((key, late), (1, true));
            waiter.fail(NetworkError::NoPeers);
        }
        assert_eq!(answer.await.unwrap(), Err(NetworkError::NoPeers));
    }

    #[test]
    fn a_caller_that_left_is_taken_out_before_its_deadline() {
        let mut table = Table::new("queries", 2);
        let (reply, answer) = oneshot::channel();
        table.insert(1, reply, soon());
        assert!(table.overdue(Instant::now()).is_empty());
        drop(answer);
        let overdue = table.overdue(Instant::now());
        assert!(matches!(overdue.as_slice(), [(1, _, false)]));
    }

    #[tokio::test]
    async fn shutdown_fails_everyone() {
        let mut table = Table::new("queries", 2);
        let (one, first) = oneshot::channel();
        let (two, second) = oneshot::channel();
        table.insert(1, one, soon());
        table.insert(2, two, soon());
        table.fail_all(&NetworkError::Closed);
        assert_eq!(first.await.unwrap(), Err(NetworkError::Closed));
        assert_eq!(second.await.unwrap(), Err(NetworkError::Closed));
        assert_eq!(table.len(), 0);
    }
}
