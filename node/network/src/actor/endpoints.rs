//! `/dir` and `/oci` endpoints of peers, as the shim reports them.
//!
//! They are claims: kept beside a connected peer for display, passed on as events, and told to whoever asks us for the
//! provider they belong to; nothing more (p2p-wire §1.7).

use super::Actor;
use crate::event::{EndpointKind, EndpointSeen, NetworkEvent};
use crate::shim::{self, EndpointSource};
use crate::wire::RawAddr;

/// Longest endpoint value kept.
const MAX_VALUE_BYTES: usize = 512;

impl Actor {
    pub(super) fn on_endpoint(&mut self, seen: &shim::EndpointSeen) {
        let reporter = match seen.source {
            EndpointSource::Identify | EndpointSource::Announcement => None,
            EndpointSource::Answer { reporter } => Some(reporter),
        };
        for endpoint in RawAddr::read(&seen.endpoint).endpoints() {
            if reporter.is_none() {
                self.endpoints.remember(seen.peer, &endpoint);
            }
            let (kind, value) = (endpoint.kind, endpoint.value);
            if value.len() > MAX_VALUE_BYTES {
                continue;
            }
            // What the peer says of itself counts; what others say of it is only passed on.
            if reporter.is_none()
                && let Some(state) = self.peers.get_mut(&seen.peer)
            {
                match kind {
                    EndpointKind::DirectoryApi => state.directory_api = Some(value.clone()),
                    EndpointKind::Oci => state.oci = Some(value.clone()),
                }
            }
            let event = NetworkEvent::EndpointSeen(EndpointSeen {
                peer: seen.peer,
                kind,
                value,
                reporter,
            });
            self.out.offer(event, "endpoint");
        }
    }
}
