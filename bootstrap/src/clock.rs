//! Time and tasks: the one place of this program that reads the clock and spawns.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dirnode_network::Runtime;
use futures_util::FutureExt as _;

/// Time since 1970 by the machine's clock; zero before.
#[must_use]
pub fn since_epoch() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the process is read here and nowhere else"
    )]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Runs a task beside the caller. A panic in it is logged with the task's name; it does not pass unseen.
pub fn spawn<F>(name: &'static str, task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
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
    drop(tokio::spawn(guarded));
}

/// Both, as the network asks for them.
#[must_use]
pub fn runtime() -> Runtime {
    Runtime {
        clock: Arc::new(|| i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX)),
        spawn: Arc::new(spawn),
    }
}
