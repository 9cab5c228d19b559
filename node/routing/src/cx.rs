//! What every part of the state machine is handed while it handles one input: the moment, randomness, the list of actions
//! and the counters. Also pauses between tries, and token buckets.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::action::{Action, Ticket};
use crate::config::{RETRY_BASE, RETRY_CAP};
use crate::counters::Counters;
use crate::time::Timestamp;

pub(crate) struct Cx<'a> {
    pub now: Timestamp,
    pub rng: &'a mut dyn Rng,
    pub out: &'a mut Vec<Action>,
    pub counters: &'a mut Counters,
    pub tickets: &'a mut u64,
}

impl Cx<'_> {
    pub fn ticket(&mut self) -> Ticket {
        *self.tickets += 1;
        Ticket(*self.tickets)
    }

    pub fn push(&mut self, action: Action) {
        self.out.push(action);
    }

    /// The pause after this many tries: doubling, capped, and shortened by up to half at random so that what failed
    /// together does not come again together.
    pub fn pause(&mut self, tries: u8) -> Duration {
        let doubled = RETRY_BASE.saturating_mul(1_u32 << tries.min(16));
        doubled.min(RETRY_CAP).mul_f64(self.rng.random_range(0.5..=1.0))
    }
}

/// So many at once, and then so many per second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: f64,
    burst: f64,
    left: f64,
    at: Timestamp,
}

impl Bucket {
    pub fn new((rate, burst): (f64, f64), now: Timestamp) -> Self {
        Self {
            rate,
            burst,
            left: burst,
            at: now,
        }
    }

    fn fill(&mut self, now: Timestamp) {
        self.left = (self.left + now.since(self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        self.fill(now);
        let there = self.left >= 1.0;
        if there {
            self.left -= 1.0;
        }
        there
    }

    /// Takes as many, leaving a debt where there are fewer.
    pub fn charge(&mut self, count: usize) {
        self.left -= f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Gives one back that was not used.
    pub fn charge_back(&mut self) {
        self.left = (self.left + 1.0).min(self.burst);
    }

    /// When there will be one.
    pub fn ready_at(&self) -> Timestamp {
        if self.left >= 1.0 {
            return self.at;
        }
        // A millisecond more, so that rounding cannot leave a caller one step short and in a loop.
        self.at
            + Duration::from_secs_f64(((1.0 - self.left) / self.rate).clamp(0.0, 86_400.0))
            + Duration::from_millis(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut now = Timestamp::from_nanos(1);
        let mut bucket = Bucket::new((2.0, 3.0), now);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
        let ready = bucket.ready_at();
        assert!(!bucket.take(now) && ready > now);
        now = ready;
        assert!(bucket.take(now) && !bucket.take(now));
        now = now + Duration::from_secs(1000);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 3);
    }
}
