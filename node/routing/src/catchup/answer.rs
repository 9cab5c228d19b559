//! The answering side: pages of what we know, for peers that ask, at a bounded rate.
//!
//! Own records are told like those of any author, and count for more since the connection proves who speaks. Labels are
//! put in by the driver, which has the index. Soft state: how often each peer asked.

use std::collections::BTreeMap;

use super::message::{AuthorSummary, MAX_AUTHORS, MAX_CURSORS, MAX_ROWS, Reply, Request, Row, Section};
use crate::claims::Claims;
use crate::config::{CATCHUP_RATE, MAX_PEERS};
use crate::cx::{Bucket, Cx};
use crate::outbox::Outbox;
use crate::peer::PeerId;

/// Rows looked at for one page; some of them are not passed on.
const MAX_LOOKS: usize = 4 * MAX_ROWS;
/// When a peer that asks too often may ask again.
const RETRY_SECONDS: u64 = 5;

#[derive(Debug, Default)]
pub(crate) struct Answerer {
    askers: BTreeMap<PeerId, Bucket>,
}

impl Answerer {
    pub fn disconnected(&mut self, peer: &PeerId) {
        self.askers.remove(peer);
    }

    pub fn answer(
        &mut self,
        peer: &PeerId,
        request: &Request,
        me: &PeerId,
        claims: &Claims,
        outbox: &Outbox,
        cx: &mut Cx<'_>,
    ) -> Reply {
        let room = self.askers.contains_key(peer) || self.askers.len() < MAX_PEERS;
        let allowed = room && {
            let now = cx.now;
            let bucket = self.askers.entry(peer.clone());
            bucket.or_insert_with(|| Bucket::new(CATCHUP_RATE, now)).take(now)
        };
        if !allowed {
            cx.counters.catchup_busy += 1;
            return Reply::Busy {
                retry_seconds: RETRY_SECONDS,
            };
        }
        cx.counters.catchup_answered += 1;
        match request {
            Request::Summary { after } => summary(after.as_ref(), me, claims, outbox),
            Request::Rows { cursors } => {
                let (mut sections, mut authors) = (Vec::new(), Vec::new());
                let (mut left, mut looks) = (MAX_ROWS, MAX_LOOKS);
                for (place, cursor) in (0_u16..).zip(cursors.iter().take(MAX_CURSORS)) {
                    if left == 0 || looks == 0 {
                        break;
                    }
                    let mut section = Section {
                        cursor: place,
                        complete: true,
                        rows: Vec::new(),
                    };
                    let own = (cursor.author == *me)
                        .then(|| outbox.rows_behind(cursor.since, cursor.after).map(Some));
                    let others = (cursor.author != *me)
                        .then(|| claims.rows_behind(&cursor.author, cursor.since, cursor.after));
                    for row in own.into_iter().flatten().chain(others.into_iter().flatten()) {
                        if left == 0 || looks == 0 {
                            section.complete = false;
                            break;
                        }
                        looks -= 1;
                        if let Some((cid, timestamp, withdrawn)) = row {
                            left -= 1;
                            section.rows.push(Row {
                                cid,
                                timestamp,
                                withdrawn,
                                labels: Vec::new(),
                            });
                        }
                    }
                    // A section that looked at rows nobody may see would not get the asker any further.
                    section.complete |= section.rows.is_empty();
                    sections.push(section);
                    authors.push(cursor.author.clone());
                }
                Reply::Rows { sections, authors }
            }
        }
    }
}

fn summary(after: Option<&PeerId>, me: &PeerId, claims: &Claims, outbox: &Outbox) -> Reply {
    let (rows, newest) = outbox.summary();
    let own = AuthorSummary {
        author: me.clone(),
        rows: u64::try_from(rows).unwrap_or(u64::MAX),
        newest,
        digest: outbox.digest(),
    };
    let mut authors: Vec<AuthorSummary> = claims.authors_behind(after).take(MAX_AUTHORS + 1).collect();
    if rows > 0 && after.is_none_or(|after| after < me) {
        let place = authors.partition_point(|author| author.author < *me);
        authors.insert(place, own);
    }
    let more = authors.len() > MAX_AUTHORS;
    authors.truncate(MAX_AUTHORS);
    Reply::Summary { authors, more }
}
