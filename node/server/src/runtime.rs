//! Time and tasks: the one place that reads the clock and spawns, so that everything else can be given others.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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

/// Watches over tasks that the node cannot do without. One that ends before the node stops, or panics, is a failure of
/// the node; who waits for [`Supervisor::failed`] hears its name and stops the node.
#[derive(Debug, Clone)]
pub struct Supervisor {
    stop: CancellationToken,
    failed: watch::Sender<Option<&'static str>>,
}

impl Supervisor {
    /// Tasks may end once `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            failed: watch::Sender::new(None),
        }
    }

    /// Runs a task beside the caller.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = Guard {
            name,
            watched: self.clone(),
        };
        spawn(name, async move {
            // Dropped when the task returns, panics or is aborted alike.
            let _guard = guard;
            task.await;
        })
    }

    /// Ends when a task has ended too early, with its name.
    pub async fn failed(&self) -> &'static str {
        let mut failed = self.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|name| *name) {
            Ok(Some(name)) => name,
            // Cannot be: the sender lives in `self`.
            _ => std::future::pending().await,
        }
    }
}

struct Guard {
    name: &'static str,
    watched: Supervisor,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.watched.stop.is_cancelled() {
            return;
        }
        tracing::error!(
            component = "runtime",
            task = self.name,
            "task ended although the node runs"
        );
        self.watched.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(self.name);
            }
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_or_returns_early_is_a_failure_and_one_that_was_stopped_is_not() {
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(stop.clone());
        supervisor.spawn("panics", async { panic!("on purpose") });
        assert_eq!(supervisor.failed().await, "panics");

        let supervisor = Supervisor::new(stop.clone());
        supervisor.spawn("returns", async {});
        assert_eq!(supervisor.failed().await, "returns");

        let supervisor = Supervisor::new(stop.clone());
        let task = supervisor.spawn("stops", stop.clone().cancelled_owned());
        stop.cancel();
        task.await.unwrap();
        assert_eq!(*supervisor.failed.borrow(), None);
    }
}
