//! Waiting for a fact, with a deadline. Nothing sleeps for a fixed time and hopes.

use std::future::Future;
use std::time::Duration;

use dirnode_server::runtime::moment;

/// How often a fact is looked at.
const STEP: Duration = Duration::from_millis(15);

/// Asks until the answer is there, at most for `deadline`; the last refusal is the panic's text.
pub async fn eventually<T, F, W>(deadline: Duration, mut ask: F) -> T
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, String>>,
{
    match within(deadline, &mut ask).await {
        Ok(answer) => answer,
        Err(refusal) => panic!("not so after {deadline:?}: {refusal}"),
    }
}

/// As [`eventually`], but gives the last refusal back.
///
/// # Errors
/// The text of the last refusal.
pub async fn within<T, F, W>(deadline: Duration, mut ask: F) -> Result<T, String>
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, String>>,
{
    let begun = moment();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(refusal) if begun.elapsed() >= deadline => return Err(refusal),
            Err(_) => tokio::time::sleep(STEP).await,
        }
    }
}

/// Looks for the whole of `span` and stops at the first objection: for what must not happen.
pub async fn throughout(span: Duration, mut fault: impl FnMut() -> Option<String>) {
    let begun = moment();
    while begun.elapsed() < span {
        if let Some(fault) = fault() {
            panic!("{fault}");
        }
        tokio::time::sleep(STEP).await;
    }
}
