//! The table of announcement jobs in memory: by number, by id, and by what they wait for. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use dirnode_proto::routing::v1::PublicationStatus;
use serde::{Deserialize, Serialize};

use crate::routing::Following;

/// What is kept of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// UUIDv4, as clients know the job.
    pub id: String,
    /// [`PublicationStatus`] by number.
    pub status: i32,
    /// Unix nanoseconds.
    pub created_ns: i64,
    /// Unix nanoseconds.
    pub updated_ns: i64,
    /// Why it failed; empty otherwise.
    #[serde(default)]
    pub reason: String,
    /// Records it is about; zero until they are in the published set.
    #[serde(default)]
    pub records: u64,
    /// Its records are in the published set, and their news in the outbox.
    #[serde(default)]
    pub(super) recorded: bool,
    /// Parts of the request.
    pub(super) parts: u32,
}

/// What a job waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// For its turn, or its records are on their way into the published set.
    Waiting,
    /// For the news of its records to get out.
    Telling,
    /// For nothing.
    Over,
}

impl Head {
    /// What the job waits for.
    #[must_use]
    pub fn stage(&self) -> Stage {
        let over = [PublicationStatus::Completed, PublicationStatus::Failed];
        if over.iter().any(|status| i32::from(*status) == self.status) {
            Stage::Over
        } else if self.recorded {
            Stage::Telling
        } else {
            Stage::Waiting
        }
    }
}

/// Every job, and the lists that the work goes by.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    next: u64,
    heads: BTreeMap<u64, Head>,
    by_id: HashMap<String, u64>,
    waiting: BTreeSet<u64>,
    /// Followed once the worker has asked for it; after a start it asks again.
    telling: BTreeMap<u64, Option<Arc<Following>>>,
    over: BTreeSet<u64>,
}

impl Jobs {
    /// A number that no job had.
    pub fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Puts a job in the place of what is known of it.
    pub fn put(&mut self, number: u64, head: Head) {
        self.next = self.next.max(number.saturating_add(1));
        self.waiting.remove(&number);
        self.over.remove(&number);
        match head.stage() {
            Stage::Waiting => {
                self.waiting.insert(number);
            }
            Stage::Telling => {
                self.telling.entry(number).or_default();
            }
            Stage::Over => {
                self.over.insert(number);
            }
        }
        if head.stage() != Stage::Telling {
            self.telling.remove(&number);
        }
        self.by_id.insert(head.id.clone(), number);
        self.heads.insert(number, head);
    }

    /// The job's news is followed.
    pub fn followed(&mut self, number: u64, following: Arc<Following>) {
        if let Some(place) = self.telling.get_mut(&number) {
            *place = Some(following);
        }
    }

    /// The first job whose records are not published.
    pub fn first_waiting(&self) -> Option<(u64, Head)> {
        let number = *self.waiting.first()?;
        self.heads.get(&number).map(|head| (number, head.clone()))
    }

    /// A job, if its news is being told.
    pub fn telling(&self, number: u64) -> Option<Head> {
        let head = self.heads.get(&number)?;
        (head.stage() == Stage::Telling).then(|| head.clone())
    }

    /// Numbers of the jobs whose news is being told.
    pub fn all_telling(&self) -> Vec<u64> {
        self.telling.keys().copied().collect()
    }

    /// Jobs whose news is being told and that were filed before then. Numbers grow with time, so the first that is
    /// younger ends the search.
    pub fn told_since(&self, before_ns: i64) -> Vec<u64> {
        let is_old = |number: &&u64| {
            let head = self.heads.get(number);
            head.is_some_and(|head| head.created_ns <= before_ns)
        };
        self.telling.keys().take_while(is_old).copied().collect()
    }

    /// How many wait, are being told, have ended.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.telling.len(), self.over.len())
    }

    pub fn get(&self, id: &str) -> Option<&Head> {
        self.heads.get(self.by_id.get(id)?)
    }

    /// A job, and how many of its records are not told yet.
    pub fn with_left(&self, id: &str) -> Option<(Head, u64)> {
        let number = self.by_id.get(id)?;
        let head = self.heads.get(number)?;
        let left = match (head.stage(), self.telling.get(number)) {
            (Stage::Telling, Some(Some(following))) => u64::try_from(following.left()).unwrap_or(u64::MAX),
            (Stage::Telling, _) => head.records,
            _ => 0,
        };
        Some((head.clone(), left))
    }

    /// Jobs in the order they were filed.
    pub fn list(&self, limit: usize, offset: usize) -> Vec<Head> {
        self.heads.values().skip(offset).take(limit).cloned().collect()
    }

    /// Takes out the job that ended among the first, when more than `most` have ended.
    pub fn take_oldest(&mut self, most: usize) -> Option<u64> {
        if self.over.len() <= most {
            return None;
        }
        let number = self.over.pop_first()?;
        if let Some(head) = self.heads.remove(&number) {
            self.by_id.remove(&head.id);
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: &str, status: PublicationStatus, recorded: bool) -> Head {
        Head {
            id: id.to_owned(),
            status: status.into(),
            created_ns: 5,
            updated_ns: 5,
            reason: String::new(),
            records: 2,
            recorded,
            parts: 1,
        }
    }

    #[test]
    fn a_job_is_in_the_list_of_what_it_waits_for() {
        let mut jobs = Jobs::default();
        let number = jobs.number();
        jobs.put(number, head("a", PublicationStatus::Pending, false));
        assert_eq!(jobs.counts(), (1, 0, 0));
        jobs.put(number, head("a", PublicationStatus::InProgress, false));
        assert_eq!(jobs.first_waiting().unwrap().0, number);
        jobs.put(number, head("a", PublicationStatus::InProgress, true));
        assert_eq!((jobs.counts(), jobs.first_waiting()), ((0, 1, 0), None));
        assert_eq!(jobs.with_left("a").unwrap().1, 2);
        assert_eq!((jobs.told_since(4), jobs.told_since(5)), (vec![], vec![number]));
        jobs.put(number, head("a", PublicationStatus::Completed, true));
        assert_eq!((jobs.counts(), jobs.all_telling()), ((0, 0, 1), vec![]));
        assert_eq!(jobs.with_left("a").unwrap().1, 0);
        assert_eq!((jobs.take_oldest(1), jobs.take_oldest(0)), (None, Some(number)));
        assert_eq!((jobs.get("a"), jobs.counts()), (None, (0, 0, 0)));
        assert!(jobs.number() > number);
    }

    /// A release before this one wrote down less; its jobs are done once more from the beginning.
    #[test]
    fn a_head_of_an_earlier_release_is_read() {
        let text = r#"{"id":"a","status":2,"created_ns":1,"updated_ns":2,"parts":1}"#;
        let head: Head = serde_json::from_str(text).unwrap();
        assert_eq!((head.stage(), head.records), (Stage::Waiting, 0));
    }
}
