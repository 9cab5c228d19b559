//! Moments as the routing room counts them: nanoseconds since 1970, handed in by the caller with every input.
//!
//! Never reads a clock. Holds no state.

use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment in nanoseconds since 1970-01-01T00:00:00Z; arithmetic saturates, since remote clocks say anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970; as a due time it means "never done yet".
    pub const EPOCH: Self = Self(0);
    /// The last moment there is.
    pub const MAX: Self = Self(i64::MAX);

    /// The moment `nanos` nanoseconds after 1970; before it when negative.
    #[must_use]
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    #[must_use]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Time from `earlier` to this moment; zero when `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment `span` before this one.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// The next moment that can be told apart from this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.since(Timestamp::MAX), Duration::ZERO);
        let later = Timestamp::EPOCH + Duration::from_secs(2);
        assert_eq!(later.since(Timestamp::EPOCH), Duration::from_secs(2));
        assert_eq!(later.before(Duration::from_secs(2)), Timestamp::EPOCH);
        assert_eq!(
            Timestamp::MAX.since(Timestamp::from_nanos(i64::MIN)).as_nanos(),
            i64::MAX as u128
        );
    }
}
