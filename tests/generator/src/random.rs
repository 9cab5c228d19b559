//! A random source that is the same on every machine and in every release: SplitMix64.
//!
//! Replaying a seed must give the same records for years, which no general random crate promises. Not for secrets.
//! Holds eight bytes of state.

/// A seeded source of numbers. Two sources with one seed give one sequence.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The source of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The source of one thing among many under a common seed; neighbours are unrelated.
    #[must_use]
    pub fn of(seed: u64, place: u64) -> Self {
        let mut mixed = Self(seed ^ place.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixed.next())
    }

    /// The next 64 bits.
    #[expect(
        clippy::should_implement_trait,
        reason = "an endless source has no end to tell of"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..limit`; 0 when `limit` is 0. The bias of the method is below 2^-32 for limits up to 2^32.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A place in a list of `len` entries; 0 when there are none.
    pub fn place(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// A number in `0.0..1.0`.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a double holds")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number between two bounds whose logarithm is spread evenly.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }

    /// One entry of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let place = self.place(list.len());
        list.get(place)
    }
}

/// A Zipf distribution over `0..count`: rank r comes with weight 1 / (r + 1).
#[derive(Debug, Clone)]
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Over so many ranks.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "ranks are few")]
    pub fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let cumulative = (0..count)
            .map(|rank| {
                sum += 1.0 / (rank as f64 + 1.0);
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// A rank; 0 when there are none.
    pub fn draw(&self, random: &mut Random) -> usize {
        let point = random.unit() * self.cumulative.last().copied().unwrap_or(0.0);
        let rank = self.cumulative.partition_point(|sum| *sum <= point);
        rank.min(self.cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_never_changes() {
        let mut random = Random::new(1);
        assert_eq!(
            [random.next(), random.next()],
            [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]
        );
    }

    #[test]
    fn numbers_stay_within_their_bounds() {
        let mut random = Random::new(7);
        for _ in 0..10_000 {
            assert!(random.below(10) < 10);
            assert!((0.0..1.0).contains(&random.unit()));
            assert!((1000.0..=20_000.0).contains(&random.log_uniform(1000.0, 20_000.0)));
        }
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }

    #[test]
    fn low_ranks_come_often_and_high_ones_at_all() {
        let (zipf, mut random) = (Zipf::new(100), Random::new(3));
        let mut counts = [0_u32; 100];
        for _ in 0..100_000 {
            counts[zipf.draw(&mut random)] += 1;
        }
        assert!(counts[0] > 15_000 && counts[0] < 23_000, "{}", counts[0]);
        assert!(counts.iter().all(|count| *count > 50));
        assert_eq!(Zipf::new(0).draw(&mut random), 0);
    }
}
