//! What one query may cost. Counted in steps, not in time, so that the same query always ends the same way; a clock
//! comes in through a closure.

use std::sync::Arc;

use super::query::QueryError;

/// Steps between two looks at the clock.
const CHECK_EVERY: u64 = 4096;

/// Limits of one query.
#[derive(Clone)]
pub struct Budget {
    /// Letters compared and ids visited; about 3 ns each.
    pub max_steps: u64,
    /// Rows read from the row store, to look at descriptions; about 20 us each.
    pub max_rows: u64,
    /// True when the time of the query is over, or its caller is gone. Asked now and then.
    pub expired: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Default for Budget {
    /// About a fifth of a second of work, with no clock.
    fn default() -> Self {
        Self {
            max_steps: 60_000_000,
            max_rows: 10_000,
            expired: Arc::new(|| false),
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("max_steps", &self.max_steps)
            .field("max_rows", &self.max_rows)
            .finish_non_exhaustive()
    }
}

/// What is left of a budget.
pub(crate) struct Meter {
    budget: Budget,
    steps: u64,
    rows: u64,
    unchecked: u64,
}

impl Meter {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self {
            steps: budget.max_steps,
            rows: budget.max_rows,
            budget: budget.clone(),
            unchecked: 0,
        }
    }

    /// Takes `count` steps.
    pub(crate) fn step(&mut self, count: u64) -> Result<(), QueryError> {
        self.steps = self
            .steps
            .checked_sub(count)
            .ok_or(QueryError::TooExpensive { what: "steps" })?;
        self.unchecked = self.unchecked.saturating_add(count);
        if self.unchecked >= CHECK_EVERY {
            self.unchecked = 0;
            self.check_time()?;
        }
        Ok(())
    }

    /// Takes one row.
    pub(crate) fn row(&mut self) -> Result<(), QueryError> {
        self.rows = self
            .rows
            .checked_sub(1)
            .ok_or(QueryError::TooExpensive { what: "rows" })?;
        self.check_time()
    }

    fn check_time(&self) -> Result<(), QueryError> {
        if (self.budget.expired)() {
            return Err(QueryError::TooExpensive { what: "time" });
        }
        Ok(())
    }

    /// Runs `with` on the steps that are left.
    pub(crate) fn spend<T>(&mut self, with: impl FnOnce(&mut u64) -> Option<T>) -> Result<T, QueryError> {
        let mut left = self.steps;
        let done = with(&mut left);
        let spent = self.steps.saturating_sub(left);
        self.step(spent)?;
        done.ok_or(QueryError::TooExpensive { what: "steps" })
    }
}
