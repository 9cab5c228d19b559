//! The news of own records as `dirnode.node.v1` says it: publications, what is provided and announced, and what waits.

use dirnode_proto::node::v1 as wire;
use dirnode_proto::node::v1::PublicationState as State;
use dirnode_proto::routing::v1::PublicationStatus;
use dirnode_record::RecordCid;
use dirnode_routing::{Failure, Kind, News, Progress, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::publications::{Stage, Standing};
use crate::routing::Routing;

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A moment as RFC 3339 with milliseconds; empty when there is none.
fn moment(at: Option<Timestamp>) -> String {
    let text = |at: Timestamp| {
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_nanos())).ok()?;
        at.replace_millisecond(at.millisecond())
            .ok()?
            .format(&Rfc3339)
            .ok()
    };
    at.filter(|at| *at < Timestamp::MAX)
        .and_then(text)
        .unwrap_or_default()
}

/// What of all news is on its way.
pub(super) fn announcing(routing: &Routing) -> wire::Announcing {
    let status = routing.figures().status;
    wire::Announcing {
        open: count(status.open),
        waiting_for_peers: status.waiting_for_peers,
        overdue: count(status.overdue),
        copying: count(status.sync_jobs),
    }
}

/// Where a publication stands.
pub(super) fn progress(standing: Standing) -> wire::PublicationProgress {
    let Standing {
        head,
        left,
        waiting_for_peers,
    } = standing;
    let state = match PublicationStatus::try_from(head.status) {
        Ok(PublicationStatus::Pending) => State::Pending,
        Ok(PublicationStatus::InProgress) => State::InProgress,
        Ok(PublicationStatus::Completed) => State::Completed,
        Ok(PublicationStatus::Failed) => State::Failed,
        Ok(PublicationStatus::Unspecified) | Err(_) => State::Unspecified,
    };
    let told = match (head.stage(), state) {
        (Stage::Telling, _) => head.records.saturating_sub(left),
        (_, State::Completed) => head.records,
        _ => 0,
    };
    wire::PublicationProgress {
        recorded: head.stage() == Stage::Telling || state == State::Completed,
        publication_id: head.id,
        state: state.into(),
        records: head.records,
        told,
        waiting_for_peers,
        reason: head.reason,
    }
}

/// The news of one record.
pub(super) fn provide_status(
    cid: RecordCid,
    stored: bool,
    published: bool,
    news: Option<News>,
) -> wire::ProvideStatus {
    let mut status = wire::ProvideStatus {
        cid: cid.to_string(),
        stored,
        published,
        ..wire::ProvideStatus::default()
    };
    let Some(news) = news else { return status };
    let (state, problem) = match news.progress {
        Progress::Pending(problem) => (State::Pending, problem),
        Progress::InProgress(problem) => (State::InProgress, problem),
        Progress::Completed => (State::Completed, None),
        Progress::Failed(problem) => (State::Failed, Some(problem)),
    };
    status.state = state.into();
    status.withdrawn = news.kind == Kind::Withdraw;
    status.in_outbox = news.open_since.is_some();
    status.waiting_for_peers = state != State::Completed && problem == Some(Failure::NoPeers);
    status.last_provided = moment(news.provided_at);
    status.last_announced = moment(news.announced_at);
    status.next_provide = moment(news.next_provide);
    status.next_announcement = moment(news.next_announcement);
    status.failed_provides = news.provide_tries.into();
    status.failed_announcements = news.announce_tries.into();
    status.last_error = news
        .failure
        .map(|failure| failure.to_string())
        .unwrap_or_default();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_text_and_none_is_empty() {
        let at = Timestamp::from_nanos(1_767_225_600_123_456_789);
        assert_eq!(moment(Some(at)), "2026-01-01T00:00:00.123Z");
        assert_eq!(
            (moment(None), moment(Some(Timestamp::MAX))),
            (String::new(), String::new())
        );
    }

    #[test]
    fn a_record_that_waits_for_peers_says_so_and_one_without_news_says_nothing() {
        let cid = RecordCid::of(b"x");
        let news = News {
            kind: Kind::Publish,
            progress: Progress::Pending(Some(Failure::NoPeers)),
            open_since: Some(Timestamp::from_nanos(1)),
            provided_at: None,
            announced_at: None,
            next_provide: Some(Timestamp::from_nanos(1)),
            next_announcement: None,
            provide_tries: 2,
            announce_tries: 0,
            failure: Some(Failure::TimedOut),
        };
        let status = provide_status(cid, true, true, Some(news));
        assert!(status.waiting_for_peers && status.in_outbox && status.published);
        assert_eq!((status.state(), status.failed_provides), (State::Pending, 2));
        assert_eq!(status.last_error, "timed out");
        let status = provide_status(cid, true, false, None);
        assert!(!status.in_outbox && status.state() == State::Unspecified);
    }
}
