//! Time and tasks: the one place that reads the clock and spawns, so that everything else can be given others.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

/// Nanoseconds since 1970, as the rooms ask for them.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX))
}

/// Time since 1970 by the machine's clock; zero before.
#[must_use]
pub fn since_epoch() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the process is read here and nowhere else"
    )]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A moment to measure from.
#[must_use]
pub fn moment() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the process is read here and nowhere else"
    )]
    Instant::now()
}

/// Runs a task beside the caller. A panic in it is logged with the task's name; it does not pass unseen.
pub fn spawn<F>(name: &'static str, task: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    use futures_util::FutureExt as _;
    let guarded = std::panic::AssertUnwindSafe(task)
        .catch_unwind()
        .map(move |ended| {
            if ended.is_err() {
                tracing::error!(component = "runtime", task = name, "task panicked");
            }
        });
    #[expect(
        clippy::disallowed_methods,
        reason = "tasks are spawned here and nowhere else"
    )]
    tokio::spawn(guarded)
}
