//! The one place of the chores that reads the clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment to measure from.
pub fn moment() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "a chore runs in real time and measures it"
    )]
    Instant::now()
}

/// A seed for a run that names none.
pub fn fresh_seed() -> u64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the seed is printed, so that the run can be replayed"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 1_000_000
}

/// Today, as year-month-day in UTC.
pub fn today() -> String {
    let today = time::OffsetDateTime::now_utc().date();
    format!(
        "{}-{:02}-{:02}",
        today.year(),
        u8::from(today.month()),
        today.day()
    )
}

/// Asks until the answer is yes or the time is over; says which.
pub fn eventually(limit: Duration, mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let begun = moment();
    loop {
        if done()? {
            return Ok(true);
        }
        if begun.elapsed() > limit {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
