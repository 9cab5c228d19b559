//! Carrying out what the brain asks for. Whatever takes time runs beside the driver and comes back as an input.

use std::sync::Arc;

use bytes::Bytes;
use dirnode_network::wire::announcement;
use dirnode_network::wire::kad::provider_key;
use dirnode_network::wire::timestamp::Timestamp as WireTimestamp;
use dirnode_network::{AnnounceOutcome, NetworkError, NetworkHandle, PeerId};
use dirnode_record::{Facts, Label, RecordCid, Summary, read_struct};
use dirnode_routing::catchup::codec::{decode_reply, encode_reply, encode_request};
use dirnode_routing::config::SYNC_DEADLINE;
use dirnode_routing::{Action, Announcement, Failure, Fault, Input, SyncOutcome};

use super::super::{peer_of, room_peer};
use super::Driver;
use crate::runtime;

impl Driver {
    /// Carries out one action; an input that comes back at once is returned.
    pub(super) fn carry(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Persist { ticket, change } => return self.persister.change(ticket, change),
            Action::PersistDue { rows } => self.persister.due(rows),
            Action::Acknowledge { request, outcome } => {
                if let Some((cid, caller)) = self.callers.remove(&request) {
                    let _ = caller.send(outcome);
                    // What was taken back has nothing to tell any more.
                    self.followers.look(&self.brain, &cid);
                }
            }
            Action::Settled { cid } => self.followers.look(&self.brain, &cid),
            Action::Serve { .. } => {}
            Action::StopServing { cid } => {
                let network = self.network.clone();
                runtime::spawn("routing.stop-providing", async move {
                    let _ = network.stop_providing(provider_key(&cid).to_vec()).await;
                });
            }
            Action::LoadLabels { ticket, cid } => {
                let store = self.store.clone();
                self.report("routing.labels", async move {
                    let listed = tokio::task::spawn_blocking(move || {
                        // A deleted record is listed until it is taken back.
                        if store.contains(cid) {
                            store.listed(&cid)
                        } else {
                            Ok(None)
                        }
                    });
                    // The index of a large store is not there at once: that says nothing about the record.
                    let labels = match listed.await {
                        Ok(Ok(listed)) => Ok(listed.map(|listed| listed.labels)),
                        Ok(Err(_)) => Err(Failure::Busy),
                        Err(_) => Err(Failure::Storage),
                    };
                    Input::Labels { ticket, labels }
                });
            }
            Action::Provide { ticket, cid } => {
                let network = self.network.clone();
                self.report("routing.provide", async move {
                    let result = network.provide(provider_key(&cid).to_vec()).await;
                    let result = result.map_err(|error| failure(&error));
                    Input::Provided { ticket, result }
                });
            }
            Action::FindClosest { ticket, key } => {
                let network = self.network.clone();
                self.report("routing.closest", async move {
                    let result = network.closest(key).await;
                    let result = result
                        .map(|near| near.iter().filter_map(|near| room_peer(&near.peer)).collect())
                        .map_err(|error| failure(&error));
                    Input::Closest { ticket, result }
                });
            }
            Action::ProvideMany { ticket, peer, cids } => {
                let network = self.network.clone();
                self.report("routing.provide-many", async move {
                    let keys: Vec<_> = cids.iter().map(|cid| provider_key(cid).to_vec()).collect();
                    let result = match peer_of(&peer) {
                        None => Err(Failure::Invalid),
                        Some(peer) => match network.provide_to(peer, &keys).await {
                            Ok(written) if written == keys.len() => Ok(()),
                            Ok(_) => Err(Failure::Unreachable),
                            Err(error) => Err(failure(&error)),
                        },
                    };
                    Input::ProvidedMany { ticket, result }
                });
            }
            Action::Announce { ticket, announcement } => {
                let (network, topic) = (self.network.clone(), Arc::clone(&self.topic));
                self.report("routing.announce", async move {
                    let result = match announce(&network, &announcement).await {
                        Err(Failure::NoPeers) if topic.is_silent() => Ok(()),
                        result => result,
                    };
                    Input::AnnounceSent { ticket, result }
                });
            }
            Action::Verdict { token, verdict } => {
                if let Some(waiting) = self.verdicts.remove(&token) {
                    self.verdict(&waiting, verdict);
                }
            }
            Action::Index(change) => {
                let rows = self.shared.index(change);
                return (!rows.is_empty()).then_some(Input::Unindexed { rows });
            }
            Action::Fetch {
                ticket,
                cid,
                peer,
                deadline,
            } => {
                let network = self.network.clone();
                let limit = deadline.since(self.now());
                self.report("routing.fetch", async move {
                    match tokio::time::timeout(limit, fetch(&network, cid, peer_of(&peer))).await {
                        Ok(Ok(labels)) => Input::Fetched { ticket, labels },
                        Ok(Err(reason)) => Input::FetchFailed { ticket, reason },
                        Err(_) => Input::FetchFailed {
                            ticket,
                            reason: Failure::TimedOut,
                        },
                    }
                });
            }
            Action::Score { peer, fault } => {
                if let Some(peer) = peer_of(&peer) {
                    let network = self.network.clone();
                    tracing::info!(component = "routing", %peer, ?fault, "peer is thought less of");
                    runtime::spawn("routing.score", async move {
                        let _ = network.score(peer, penalty(fault)).await;
                    });
                }
            }
            Action::CatchupAsk {
                exchange,
                peer,
                request,
            } => {
                let network = self.network.clone();
                self.report("routing.catch-up", async move {
                    let result = match peer_of(&peer) {
                        None => Err(Failure::Invalid),
                        Some(peer) => {
                            let asked = network.catch_up(peer, encode_request(&request).into()).await;
                            match asked {
                                Ok(bytes) => decode_reply(&bytes).map_err(|_| Failure::Invalid),
                                Err(error) => Err(failure(&error)),
                            }
                        }
                    };
                    Input::CatchupReplied { exchange, result }
                });
            }
            Action::CatchupAnswer { token, mut reply } => {
                if let Some(page) = self.pages.remove(&token) {
                    let (shared, store, me) =
                        (Arc::clone(&self.shared), self.store.clone(), self.network.id());
                    runtime::spawn("routing.page", async move {
                        // Labels of our own come from the published set, those of others from what is known of them.
                        let filled = tokio::task::spawn_blocking(move || {
                            reply.fill(|cid, author| {
                                if author.as_bytes() == me.to_bytes() {
                                    let listed = store.listed(cid).ok().flatten();
                                    listed.map(|listed| listed.labels).unwrap_or_default()
                                } else {
                                    shared.labels(cid, author)
                                }
                            });
                            encode_reply(&reply)
                        });
                        let _ = page.send(filled.await.ok().map(Bytes::from));
                    });
                }
            }
            Action::Sync { ticket, cid, peer } => {
                let syncer = self.syncer.clone();
                self.report("routing.sync", async move {
                    let outcome = match peer_of(&peer) {
                        Some(peer) => tokio::time::timeout(SYNC_DEADLINE, syncer.sync(cid, peer))
                            .await
                            .unwrap_or(SyncOutcome::Failed(Failure::TimedOut)),
                        None => SyncOutcome::Failed(Failure::Invalid),
                    };
                    Input::Synced { ticket, outcome }
                });
            }
            other => tracing::error!(component = "routing", action = ?other, "action is not known here"),
        }
        None
    }
}

async fn announce(network: &NetworkHandle, announcement: &Announcement) -> Result<(), Failure> {
    let timestamp =
        WireTimestamp::from_unix_nanos(u64::try_from(announcement.timestamp.as_nanos()).unwrap_or_default());
    let bytes = if announcement.withdrawn {
        // Microseconds fit into what JSON readers take for exact.
        let sequence = u64::try_from(announcement.timestamp.as_nanos() / 1000).unwrap_or_default();
        announcement::encode_withdrawal(&announcement.cid, timestamp, sequence)
    } else {
        let labels: Vec<&[u8]> = announcement
            .labels
            .iter()
            .map(|label| label.as_str().as_bytes())
            .collect();
        announcement::encode_reference(&announcement.cid.to_string(), &labels, timestamp)
            .map_err(|_| Failure::Invalid)?
    };
    match network.announce(Bytes::from(bytes)).await {
        Ok(AnnounceOutcome::Sent) => Ok(()),
        // Who has gossip off hears of us by provider records alone.
        Err(NetworkError::GossipDisabled) => Ok(()),
        Ok(AnnounceOutcome::NoPeersYet) => Err(Failure::NoPeers),
        Ok(_) => Err(Failure::Busy),
        Err(error) => Err(failure(&error)),
    }
}

/// The labels of a record at a peer. The network has checked that the bytes are those of the CID.
async fn fetch(network: &NetworkHandle, cid: RecordCid, peer: Option<PeerId>) -> Result<Vec<Label>, Failure> {
    let peer = peer.ok_or(Failure::Invalid)?;
    // News of a record may name a publisher that we have never met.
    let pulled = network.seeking(peer, || network.pull(peer, cid)).await;
    let pulled = pulled.map_err(|error| failure(&error))?;
    tokio::task::spawn_blocking(move || labels_in(&pulled.data))
        .await
        .map_err(|_| Failure::Invalid)?
        .ok_or(Failure::Invalid)
}

fn labels_in(body: &[u8]) -> Option<Vec<Label>> {
    let data = read_struct(body).ok().flatten()?;
    let facts = Facts::read(&data).ok()?;
    // As announced: without the repetitions, and cleaned as everybody's keys are.
    Some(dirnode_record::labels::list_labels(
        &Summary::from(&facts).labels(),
    ))
}

/// A network error as the brain sorts it.
pub(in crate::routing) fn failure(error: &NetworkError) -> Failure {
    use dirnode_network::{ErrorKind, RpcCode};
    match error {
        NetworkError::Timeout { .. } => Failure::TimedOut,
        NetworkError::NoPeers | NetworkError::NoExternalAddress => Failure::NoPeers,
        NetworkError::Remote {
            code: RpcCode::NotFound,
            ..
        } => Failure::NotFound,
        NetworkError::BadReply { .. } => Failure::Mismatch,
        other => match other.kind() {
            ErrorKind::NotFound => Failure::NotFound,
            ErrorKind::Denied => Failure::Denied,
            ErrorKind::Busy => Failure::Busy,
            ErrorKind::Invalid | ErrorKind::Corrupt => Failure::Invalid,
            _ => Failure::Unreachable,
        },
    }
}

/// What a fault costs; the sum fades by half every ten minutes. The router counts it tenfold: below -10 a peer is not
/// gossiped with, below -50 nothing is published to it, below -80 nothing that it carries is heard, whoever the author
/// is. So the third lie shuts the door, as it does in the brain, and one does not yet cut off who is behind that peer.
fn penalty(fault: Fault) -> f64 {
    match fault {
        Fault::Lied | Fault::WrongBytes => -3.0,
        Fault::NoRecord | Fault::BadPage => -1.0,
        _ => -0.5,
    }
}
