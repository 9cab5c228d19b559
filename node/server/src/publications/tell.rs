//! The end of a job: once the news of all its records is out, one of them failed, or a day has passed.

use std::sync::Arc;
use std::time::Duration;

use dirnode_record::RecordCid;
use dirnode_routing::config::GIVE_UP_AFTER;
use tokio_util::sync::CancellationToken;

use super::Publications;
use super::work::Chosen;
use crate::routing::{End, Following};

/// How often is looked for jobs that are too old, and for whether there is anybody to tell.
const LOOK: Duration = Duration::from_secs(2);
/// Records handed to the routing room at once.
const HANDED: usize = 1024;
/// Pause before the store is tried again.
const PAUSE: Duration = Duration::from_secs(1);

const DAY: &str = "its news did not get out for a day";

fn reason(failed: (RecordCid, End)) -> String {
    let (cid, end) = failed;
    match end {
        End::GivenUp(failure) => format!("record {cid}: {DAY}: {failure}; it is tried on"),
        End::TakenBack | End::Told => {
            format!("record {cid} was taken back or deleted before its news was out")
        }
    }
}

impl Publications {
    /// Ends jobs as their news gets out.
    pub(super) async fn tell_all(&self, stop: &CancellationToken) {
        tokio::select! {
            () = self.take_up() => {}
            () = stop.cancelled() => return,
        }
        let mut waits = false;
        loop {
            tokio::select! {
                () = self.0.ended.any() => {}
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
            for (number, failed) in self.0.ended.take() {
                let outcome = failed.map_or(Ok(()), |failed| Err(reason(failed)));
                tokio::select! {
                    () = self.told(number, outcome) => {}
                    () = stop.cancelled() => return,
                }
            }
            tokio::select! {
                () = self.give_up_old() => {}
                () = stop.cancelled() => return,
            }
            self.say_who_waits(&mut waits);
        }
    }

    /// Follows again what the last run was telling.
    async fn take_up(&self) {
        let numbers = self.0.jobs.lock().all_telling();
        for number in numbers {
            let Some(head) = self.0.jobs.lock().telling(number) else {
                continue;
            };
            loop {
                let again = match self.chosen(number, &head).await {
                    Ok(Ok(chosen)) if self.0.routing.is_some() && !chosen.cids.is_empty() => {
                        self.follow(number, chosen).await;
                        Ok(())
                    }
                    // The network is off now, or what was asked for has gone: nothing is left to tell.
                    Ok(Ok(_)) => self.end(number, head.clone(), Ok(())).await,
                    Ok(Err(reason)) => self.end(number, head.clone(), Err(reason)).await,
                    Err(error) => Err(error),
                };
                let Err(error) = again else { break };
                tracing::warn!(component = "publications", number, %error, "publication not taken up, it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for the news of a job's records.
    pub(super) async fn follow(&self, number: u64, chosen: Chosen) {
        let Some(routing) = &self.0.routing else { return };
        let following = Following::new(number, chosen.cids.len(), chosen.by_query, &self.0.ended);
        self.0.jobs.lock().followed(number, Arc::clone(&following));
        let cids: Vec<RecordCid> = chosen.cids.into_iter().collect();
        for cids in cids.chunks(HANDED) {
            // A routing room that has stopped takes the node down with it.
            if routing
                .follow(cids.to_vec(), Arc::clone(&following))
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// The news of a job is out, or is not going to be.
    async fn told(&self, number: u64, outcome: Result<(), String>) {
        loop {
            let Some(head) = self.0.jobs.lock().telling(number) else {
                return;
            };
            let Err(error) = self.end(number, head, outcome.clone()).await else {
                return;
            };
            tracing::warn!(component = "publications", number, %error, "end of a publication not written, it is tried again");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Fails the jobs that wait for longer than news is tried. What is in the outbox stays there, and is told in the end.
    async fn give_up_old(&self) {
        let limit_ns = i64::try_from(GIVE_UP_AFTER.as_nanos()).unwrap_or(i64::MAX);
        let before_ns = (self.0.clock)().saturating_sub(limit_ns);
        let old = self.0.jobs.lock().told_since(before_ns);
        for number in old {
            let why = if self.waits_for_peers() {
                ": no peers yet"
            } else {
                ""
            };
            self.told(number, Err(format!("{DAY}{why}; it is tried on")))
                .await;
        }
    }

    /// Says once when news begins to wait for peers, and once when it does so no more.
    fn say_who_waits(&self, waits: &mut bool) {
        let (_, telling, _) = self.0.jobs.lock().counts();
        let now = telling > 0 && self.waits_for_peers();
        if now != *waits {
            *waits = now;
            if now {
                tracing::warn!(
                    component = "publications",
                    publications = telling,
                    "no peers yet: what is published is told to nobody until there are some"
                );
            } else {
                tracing::info!(
                    component = "publications",
                    publications = telling,
                    "publications wait for peers no more"
                );
            }
        }
    }
}
