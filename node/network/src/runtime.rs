//! Time and tasks as this room is given them.
//!
//! Wall-clock time is asked for through [`Runtime::clock`] and every task goes through [`Runtime::spawn`], so that
//! the composition root can name, supervise and replace both. Deadlines inside the swarm run on tokio's own timer.

use std::sync::Arc;

use futures_util::future::BoxFuture;

/// Nanoseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Starts a named task beside the caller.
pub type Spawn = Arc<dyn Fn(&'static str, BoxFuture<'static, ()>) + Send + Sync>;

/// What the room needs from the process it runs in. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Wall clock, nanoseconds since 1970.
    pub clock: Clock,
    /// Starts connection tasks and request handlers.
    pub spawn: Spawn,
}

impl Runtime {
    /// The machine's clock and plain tokio tasks: for tests, examples and small binaries without a supervisor.
    #[must_use]
    pub fn system() -> Self {
        Self {
            clock: Arc::new(|| {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the stand-in for a supervisor reads the machine's clock here"
                )]
                let since = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }),
            spawn: Arc::new(|_, task| {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the stand-in for a supervisor spawns here"
                )]
                drop(tokio::spawn(task));
            }),
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").finish_non_exhaustive()
    }
}
