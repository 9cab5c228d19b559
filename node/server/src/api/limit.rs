//! Rate limits: token buckets, one token a call (grpc-api §5). A method's own limit wins over the caller's, the caller's
//! over the global one. Callers are told apart by address until they have identities.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::{Rate, RateLimit};

/// Callers that have a bucket of their own; beyond it the idle ones are forgotten, and if none is idle, new callers wait.
pub const MAX_CALLERS: usize = 65_536;

type Clocked = NoOpMiddleware<std::time::Instant>;
type Single = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, Clocked>;
type PerCaller = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock, Clocked>;

enum Bucket<L> {
    /// A rate without a bucket to draw from.
    Nothing,
    Limited(L),
}

/// The limits of a node.
pub struct Limits {
    methods: HashMap<String, Bucket<PerCaller>>,
    per_client: Option<Bucket<PerCaller>>,
    global: Option<Bucket<Single>>,
}

impl Limits {
    /// The configured limits; `None` when limiting is off.
    #[must_use]
    pub fn new(config: &RateLimit) -> Option<Self> {
        if !config.enabled {
            return None;
        }
        let keyed = |quota| PerCaller::new(quota, HashMapStateStore::default(), MonotonicClock);
        let methods = config
            .methods
            .iter()
            .filter_map(|(name, rate)| Some((name.clone(), bucket(*rate, keyed)?)));
        Some(Self {
            methods: methods.collect(),
            per_client: bucket(config.per_client, keyed),
            global: bucket(config.global, |quota| {
                Single::new(quota, InMemoryState::default(), MonotonicClock)
            }),
        })
    }

    /// Takes one token for a call; false when there is none.
    #[must_use]
    pub fn admit(&self, method: &str, caller: IpAddr) -> bool {
        let keyed = |bucket: &Bucket<PerCaller>| match bucket {
            Bucket::Nothing => false,
            Bucket::Limited(limiter) => {
                if limiter.len() >= MAX_CALLERS {
                    limiter.retain_recent();
                    if limiter.len() >= MAX_CALLERS {
                        return false;
                    }
                }
                limiter.check_key(&caller).is_ok()
            }
        };
        if let Some(bucket) = self.methods.get(method) {
            return keyed(bucket);
        }
        if let Some(bucket) = &self.per_client {
            return keyed(bucket);
        }
        match &self.global {
            None => true,
            Some(Bucket::Nothing) => false,
            Some(Bucket::Limited(limiter)) => limiter.check().is_ok(),
        }
    }
}

/// `None` for no limit.
fn bucket<L>(rate: Rate, make: impl Fn(Quota) -> L) -> Option<Bucket<L>> {
    if rate.per_second <= 0.0 {
        return None;
    }
    let pause = Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(Duration::MAX);
    let quota =
        NonZeroU32::new(rate.burst).and_then(|burst| Some(Quota::with_period(pause)?.allow_burst(burst)));
    Some(quota.map_or(Bucket::Nothing, |quota| Bucket::Limited(make(quota))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(global: Rate, per_client: Rate, methods: &[(&str, Rate)]) -> Limits {
        let methods = methods
            .iter()
            .map(|(name, rate)| ((*name).to_owned(), *rate))
            .collect();
        Limits::new(&RateLimit {
            enabled: true,
            global,
            per_client,
            methods,
        })
        .unwrap()
    }

    fn admitted(limits: &Limits, method: &str, caller: u8) -> usize {
        (0..10)
            .filter(|_| limits.admit(method, IpAddr::from([127, 0, 0, caller])))
            .count()
    }

    const SLOW: Rate = Rate {
        per_second: 0.001,
        burst: 3,
    };

    #[test]
    fn a_method_limit_wins_then_the_caller_then_the_global_one() {
        let all = limits(
            Rate {
                per_second: 0.001,
                burst: 5,
            },
            SLOW,
            &[(
                "/a",
                Rate {
                    per_second: 0.001,
                    burst: 1,
                },
            )],
        );
        assert_eq!(
            (
                admitted(&all, "/a", 1),
                admitted(&all, "/b", 1),
                admitted(&all, "/b", 2)
            ),
            (1, 3, 3)
        );
        let global = limits(SLOW, Rate::default(), &[]);
        assert_eq!((admitted(&global, "/a", 1), admitted(&global, "/a", 2)), (3, 0));
    }

    #[test]
    fn zero_means_no_limit_and_a_rate_without_a_burst_rejects() {
        assert_eq!(
            admitted(&limits(Rate::default(), Rate::default(), &[]), "/a", 1),
            10
        );
        assert_eq!(
            admitted(
                &limits(
                    Rate {
                        per_second: 5.0,
                        burst: 0
                    },
                    Rate::default(),
                    &[]
                ),
                "/a",
                1
            ),
            0
        );
        assert!(Limits::new(&RateLimit::default()).is_none());
    }
}
