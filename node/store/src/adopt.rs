//! Reads from a body what the rows need, for the day when only the body is left. The wire rules of records live
//! elsewhere; here a body that does not read is simply not adopted.

use serde::Deserialize;

use crate::config::ReferrerHead;
use crate::{RecordCid, Summary};

/// The default [`crate::StoreConfig::summarise`].
pub(crate) fn summary_of(_body: &[u8]) -> Option<Summary> {
    None
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    record_ref: Ref,
}

#[derive(Deserialize)]
struct Ref {
    cid: String,
}

/// The default [`crate::StoreConfig::referrer_head`] (grpc-api §3.4). Unknown members are skipped without
/// recursion, however deep they are.
pub(crate) fn referrer_head_of(body: &[u8]) -> Option<ReferrerHead> {
    let head: Head = serde_json::from_slice(body).ok()?;
    Some(ReferrerHead {
        record: RecordCid::parse(&head.record_ref.cid)?,
        kind: head.kind,
    })
}
