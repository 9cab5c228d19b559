//! Who waits for the news of a record to be out: publications that are followed to their end.
//!
//! The driver holds followers by record, weakly: a publication that has ended is followed no more. There are entries for
//! open news only, which the brain bounds. Soft state: publications follow again after a start. Decides nothing: how far
//! news has come is the brain's to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use dirnode_record::RecordCid;
use dirnode_routing::{Brain, Failure, Kind, News, Progress};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How the news of one record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is out.
    Told,
    /// It did not get out for too long; it is tried on.
    GivenUp(Failure),
    /// The record was taken back or deleted before it was out.
    TakenBack,
}

/// The record that failed a publication, and how.
pub type Fault = (RecordCid, End);

/// Publications whose last record has come to its end, for whoever writes that down.
#[derive(Debug, Default)]
pub struct Ended {
    jobs: Mutex<Vec<(u64, Option<Fault>)>>,
    any: Notify,
}

impl Ended {
    /// Takes what has ended: the publication, and the record that failed if one did. Each comes once.
    pub fn take(&self) -> Vec<(u64, Option<Fault>)> {
        std::mem::take(&mut *self.jobs.lock())
    }

    /// Waits until something has ended since the last time.
    pub async fn any(&self) {
        self.any.notified().await;
    }
}

/// One publication that waits for the news of its records.
#[derive(Debug)]
pub struct Following {
    job: u64,
    /// Records that are not published any more are none of its business: it asked for whatever matched.
    lenient: bool,
    left: AtomicUsize,
    over: AtomicBool,
    ended: Arc<Ended>,
}

impl Following {
    /// A publication that waits for `records` records.
    #[must_use]
    pub fn new(job: u64, records: usize, lenient: bool, ended: &Arc<Ended>) -> Arc<Self> {
        Arc::new(Self {
            job,
            lenient,
            left: AtomicUsize::new(records),
            over: AtomicBool::new(false),
            ended: Arc::clone(ended),
        })
    }

    /// Records whose news is not out.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// The news of one of the records has ended; called once for each.
    fn settled(&self, cid: RecordCid, end: End) {
        let fault = match end {
            End::Told => None,
            End::TakenBack if self.lenient => None,
            End::GivenUp(_) | End::TakenBack => Some((cid, end)),
        };
        let was_last = self.left.fetch_sub(1, Ordering::AcqRel) <= 1;
        // The first failure ends it: nothing that comes later makes it good.
        if (was_last || fault.is_some()) && !self.over.swap(true, Ordering::AcqRel) {
            self.ended.jobs.lock().push((self.job, fault));
            self.ended.any.notify_one();
        }
    }
}

/// Followers by record.
#[derive(Debug, Default)]
pub(super) struct Followers(BTreeMap<RecordCid, Vec<Weak<Following>>>);

/// The end of a record's news; nothing while it goes on.
fn end_of(news: Option<News>) -> Option<End> {
    match news {
        None => Some(End::TakenBack),
        Some(news) => match (news.kind, news.progress) {
            (Kind::Withdraw, Progress::Pending(_)) if news.next_announcement.is_none() => None,
            (Kind::Withdraw, _) => Some(End::TakenBack),
            (Kind::Publish, Progress::Completed) => Some(End::Told),
            (Kind::Publish, Progress::Failed(failure)) => Some(End::GivenUp(failure)),
            (Kind::Publish, Progress::Pending(_) | Progress::InProgress(_)) => None,
        },
    }
}

impl Followers {
    /// `following` waits for the news of these records from now on.
    pub(super) fn follow(&mut self, brain: &Brain, cids: Vec<RecordCid>, following: &Arc<Following>) {
        for cid in cids {
            match end_of(brain.news(&cid)) {
                Some(end) => following.settled(cid, end),
                None => {
                    let waiting = self.0.entry(cid).or_default();
                    // Those that ended are dropped before the list grows.
                    if waiting.len() == waiting.capacity() {
                        waiting.retain(|one| one.strong_count() > 0);
                    }
                    waiting.push(Arc::downgrade(following));
                }
            }
        }
    }

    /// Something happened to the news of a record.
    pub(super) fn look(&mut self, brain: &Brain, cid: &RecordCid) {
        if !self.0.contains_key(cid) {
            return;
        }
        if let Some(end) = end_of(brain.news(cid)) {
            for following in self.0.remove(cid).unwrap_or_default() {
                if let Some(following) = following.upgrade() {
                    following.settled(*cid, end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(kind: Kind, progress: Progress) -> Option<News> {
        Some(News {
            kind,
            progress,
            open_since: None,
            provided_at: None,
            announced_at: None,
            next_provide: None,
            next_announcement: None,
            provide_tries: 0,
            announce_tries: 0,
            failure: None,
        })
    }

    #[test]
    fn news_ends_when_it_is_out_given_up_or_taken_back() {
        let publish = |progress| end_of(news(Kind::Publish, progress));
        assert_eq!(publish(Progress::Pending(Some(Failure::NoPeers))), None);
        assert_eq!(publish(Progress::InProgress(None)), None);
        assert_eq!(publish(Progress::Completed), Some(End::Told));
        let late = Failure::TimedOut;
        assert_eq!(publish(Progress::Failed(late)), Some(End::GivenUp(late)));
        assert_eq!(
            end_of(news(Kind::Withdraw, Progress::InProgress(None))),
            Some(End::TakenBack)
        );
        assert_eq!(end_of(None), Some(End::TakenBack));
    }

    #[test]
    fn a_publication_ends_once_with_its_last_record_or_its_first_failure() {
        let (a, b) = (RecordCid::of(b"a"), RecordCid::of(b"b"));
        let ended = Arc::new(Ended::default());
        let good = Following::new(1, 2, false, &ended);
        good.settled(a, End::Told);
        assert_eq!((good.left(), ended.take()), (1, Vec::new()));
        good.settled(b, End::Told);
        assert_eq!(ended.take(), [(1, None)]);

        let bad = Following::new(2, 2, false, &ended);
        bad.settled(a, End::TakenBack);
        assert_eq!(ended.take(), [(2, Some((a, End::TakenBack)))]);
        bad.settled(b, End::Told);
        assert_eq!(ended.take(), []);

        let lenient = Following::new(3, 1, true, &ended);
        lenient.settled(a, End::TakenBack);
        assert_eq!(ended.take(), [(3, None)]);
    }
}
