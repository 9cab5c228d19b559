//! Links: how long a message takes, whether it is lost, and who can reach whom.
//!
//! Every pair of nodes has a latency of its own that follows from the seed, and each message differs from it a little.
//! Only additions and multiplications are used, so that every machine computes the same.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Part of the pairs that are nearer, and how many times the median they take: about as a world-wide network has it.
const QUANTILES: [(f64, f64); 7] = [
    (0.0, 0.2),
    (0.1, 0.4),
    (0.3, 0.75),
    (0.5, 1.0),
    (0.7, 1.4),
    (0.9, 2.2),
    (1.0, 4.0),
];

/// How much a message may differ from the latency of its link.
const LEAST_JITTER: f64 = 0.95;
const MOST_JITTER: f64 = 1.15;

/// All links of a run.
#[derive(Debug)]
pub struct Links {
    median: Duration,
    spread: f64,
    loss: f64,
    salt: u64,
    /// While the network is split: nodes with a number below this are on one side.
    split: Option<u32>,
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn factor(part: f64) -> f64 {
    for pair in QUANTILES.windows(2) {
        if let [(from, low), (to, high)] = pair
            && part <= *to
        {
            return low + (high - low) * ((part - from) / (to - from));
        }
    }
    1.0
}

impl Links {
    /// Links with this median latency, spread and loss.
    #[must_use]
    pub fn new(median: Duration, spread: f64, loss: f64, salt: u64) -> Self {
        Self {
            median,
            spread,
            loss,
            salt,
            split: None,
        }
    }

    /// Splits the network, or joins it again.
    pub fn split(&mut self, at: Option<u32>) {
        self.split = at;
    }

    /// Whether a message could go from one to the other.
    #[must_use]
    pub fn reaches(&self, a: u32, b: u32) -> bool {
        self.split.is_none_or(|at| (a < at) == (b < at))
    }

    /// How long one message takes.
    pub fn latency(&self, a: u32, b: u32, rng: &mut ChaCha8Rng) -> Duration {
        self.median
            .mul_f64(self.link(a, b) * rng.random_range(LEAST_JITTER..MOST_JITTER))
    }

    /// The latency of a pair, in medians.
    fn link(&self, a: u32, b: u32) -> f64 {
        let (low, high) = (a.min(b), a.max(b));
        let pair = mix(self.salt ^ (u64::from(low) << 32) ^ u64::from(high));
        let part = f64::from(u32::try_from(pair >> 32).unwrap_or(0)) / 4_294_967_296.0;
        (1.0 + (factor(part) - 1.0) * self.spread).max(0.01)
    }

    /// The least time in which anything gets from one of `nodes` to each, over whatever links are quickest and without a
    /// stop on the way. Costs the square of `nodes`.
    #[must_use]
    pub fn quickest(&self, from: u32, nodes: u32) -> Vec<Duration> {
        let least = |a, b| self.median.mul_f64(self.link(a, b) * LEAST_JITTER);
        let mut times: Vec<Duration> = (0..nodes)
            .map(|node| {
                if node == from {
                    Duration::ZERO
                } else {
                    Duration::MAX
                }
            })
            .collect();
        let mut open: BTreeSet<u32> = (0..nodes).collect();
        // The nearest node that is open is as near as it gets.
        while let Some(near) = open
            .iter()
            .copied()
            .min_by_key(|node| times.get(*node as usize).copied())
        {
            open.remove(&near);
            let so_far = times.get(near as usize).copied().unwrap_or(Duration::MAX);
            for node in &open {
                let by_here = so_far.saturating_add(least(near, *node));
                if let Some(time) = times.get_mut(*node as usize) {
                    *time = by_here.min(*time);
                }
            }
        }
        times
    }

    /// Whether a message gets lost.
    pub fn loses(&self, rng: &mut ChaCha8Rng) -> bool {
        self.loss > 0.0 && rng.random_bool(self.loss.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn latencies_are_spread_around_their_median() {
        let links = Links::new(Duration::from_millis(40), 1.0, 0.0, 7);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut all: Vec<Duration> = (0..5_000_u32)
            .map(|n| links.latency(n, n * 7 + 1, &mut rng))
            .collect();
        all.sort();
        let median = all[2_500].as_secs_f64();
        assert!((0.036..0.048).contains(&median), "{median}");
        assert!(all[50] < Duration::from_millis(16) && all[4_950] > Duration::from_millis(80));
    }

    #[test]
    fn the_quickest_way_is_no_longer_than_any_way() {
        let links = Links::new(Duration::from_millis(40), 1.0, 0.0, 7);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let quickest = links.quickest(3, 30);
        assert_eq!((quickest.len(), quickest[3]), (30, Duration::ZERO));
        for node in (0..30).filter(|node| *node != 3) {
            let direct = links.latency(3, node, &mut rng);
            let by_another = links.latency(3, 9, &mut rng) + links.latency(9, node, &mut rng);
            let least = quickest[node as usize];
            assert!(least > Duration::ZERO && least <= direct && (node == 9 || least <= by_another));
        }
    }

    #[test]
    fn a_split_network_has_two_sides() {
        let mut links = Links::new(Duration::from_millis(40), 1.0, 0.0, 7);
        assert!(links.reaches(0, 9));
        links.split(Some(5));
        assert!(!links.reaches(0, 9) && links.reaches(0, 4) && links.reaches(5, 9));
    }
}
