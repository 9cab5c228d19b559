//! Which entries are to be looked at when: a ring of buckets, one for each ten minutes.
//!
//! An entry stands in one bucket, that of its provider which lapses first; when its time comes it is looked at and
//! stands in another, or is gone. Nothing is ever searched for, and an expiry costs four bytes. What is in a bucket
//! may be out of date; whoever takes it asks the entry. Pure.

use std::collections::VecDeque;

/// Seconds a bucket stands for. Records lapse up to so much later than they could; readers check themselves.
pub(super) const TICK_SECS: u32 = 600;
/// Buckets ahead: three days and a half. What lapses later is looked at in between.
const RING: u32 = 512;

/// The ring.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The front bucket is that of `tick`.
    buckets: VecDeque<Vec<u32>>,
    tick: u32,
}

impl Wheel {
    /// A ring that begins at `now`, in unix seconds.
    pub(super) fn new(now: u32) -> Self {
        Self {
            buckets: (0..RING).map(|_| Vec::new()).collect(),
            tick: now / TICK_SECS,
        }
    }

    /// Stores the entry for when `expires` is over; returns the tick in which it will be handed out.
    pub(super) fn add(&mut self, entry: u32, expires: u32) -> u32 {
        // The tick behind the one it lapses in, so that it has lapsed when it is looked at.
        let ahead = (expires / TICK_SECS)
            .saturating_add(1)
            .saturating_sub(self.tick)
            .clamp(1, RING - 1);
        if let Some(bucket) = usize::try_from(ahead)
            .ok()
            .and_then(|at| self.buckets.get_mut(at))
        {
            bucket.push(entry);
        }
        self.tick.saturating_add(ahead)
    }

    /// The next entry whose time has come by `now`, with the tick it was stored for.
    pub(super) fn next(&mut self, now: u32) -> Option<(u32, u32)> {
        let end = now / TICK_SECS;
        // However far the clock went, one turn of the ring has seen every bucket.
        for _ in 0..=RING {
            if let Some(entry) = self.buckets.front_mut().and_then(Vec::pop) {
                return Some((entry, self.tick));
            }
            if self.tick >= end {
                return None;
            }
            self.buckets.rotate_left(1);
            if let Some(last) = self.buckets.back_mut() {
                last.shrink_to_fit();
            }
            self.tick = self.tick.saturating_add(1);
        }
        self.tick = end;
        None
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.buckets
            .iter()
            .map(|bucket| bucket.capacity().saturating_mul(size_of::<u32>()))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_when_they_have_lapsed() {
        let mut wheel = Wheel::new(1_000_000);
        let due = wheel.add(7, 1_000_000 + 3600);
        assert_eq!(wheel.next(1_000_000 + 3600), None);
        assert_eq!(wheel.next(1_000_000 + 3600 + 2 * TICK_SECS), Some((7, due)));
        assert_eq!(wheel.next(1_000_000 + 3600 + 2 * TICK_SECS), None);
    }

    #[test]
    fn what_lapses_beyond_the_ring_or_in_the_past_comes_within_it() {
        let mut wheel = Wheel::new(1_000_000);
        wheel.add(1, u32::MAX);
        wheel.add(2, 0);
        assert_eq!(wheel.next(1_000_000 + TICK_SECS).map(|(entry, _)| entry), Some(2));
        assert_eq!(
            wheel.next(1_000_000 + RING * TICK_SECS).map(|(entry, _)| entry),
            Some(1)
        );
    }

    #[test]
    fn a_clock_that_leaps_or_goes_back_loses_nothing() {
        let mut wheel = Wheel::new(1_000_000);
        for entry in 0..100 {
            wheel.add(entry, 1_000_000 + entry * 1000);
        }
        assert_eq!(wheel.next(5), None);
        let mut seen: Vec<u32> = Vec::new();
        while let Some((entry, _)) = wheel.next(u32::MAX) {
            seen.push(entry);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        let due = wheel.add(5, u32::MAX - 10);
        assert!(due > u32::MAX / TICK_SECS);
    }
}
