//! Copying one record with its referrers from a peer, through the same door as every write.
//!
//! The network checks that a record's bytes are those of the CID; a referrer's are checked here. A record is validated as
//! a push is, and on disk before anything hangs on it. A referrer that does not arrive does not undo the record; the copy
//! is asked for again when the record is announced again, which is also how later referrers come (p2p-wire §6.6, §7-17).
//! Never decides what is copied, or how often it is tried: the brain does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dirnode_network::{NetworkHandle, PeerId, ReferrerDescriptor};
use dirnode_record::{RecordCid, Referrer, is_referrer_type, read_struct, to_canonical};
use dirnode_routing::{Failure, SyncOutcome};
use dirnode_store::{Store, StoreErrorKind};

use super::driver::failure;
use crate::ingest::{Ingest, IngestError};
use crate::policy::{Action, Caller, Policy};

/// Referrers copied with one record.
const MAX_REFERRERS: usize = 1024;
/// Bytes of the referrers copied with one record in one go; those behind them come when it is announced again.
const MAX_REFERRER_BYTES: usize = 64 << 20;

/// What was copied since the start.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// Records that were not here before.
    pub(super) records: AtomicU64,
    /// Referrers that were not here before.
    pub(super) referrers: AtomicU64,
    /// Referrers that a peer could not give, or gave wrongly.
    pub(super) referrers_refused: AtomicU64,
    /// Bytes of both.
    pub(super) bytes: AtomicU64,
}

impl Copied {
    fn add(&self, which: &AtomicU64, size_bytes: usize) {
        which.fetch_add(1, Ordering::Relaxed);
        let size_bytes = u64::try_from(size_bytes).unwrap_or(u64::MAX);
        self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
    }
}

#[derive(Clone)]
pub(super) struct Syncer {
    pub(super) network: NetworkHandle,
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) policy: Policy,
    pub(super) copied: Arc<Copied>,
}

impl Syncer {
    pub(super) async fn sync(&self, cid: RecordCid, peer: PeerId) -> SyncOutcome {
        let held = self.store.contains(cid);
        if !held && let Err(failed) = self.record(cid, peer).await {
            tracing::info!(component = "sync", %cid, %peer, reason = %failed, "record not copied");
            return SyncOutcome::Failed(failed);
        }
        match self.referrers(cid, peer).await {
            Ok(new) => {
                tracing::info!(component = "sync", %cid, %peer, held, referrers = new, "record copied")
            }
            Err(failed) => {
                tracing::warn!(component = "sync", %cid, %peer, reason = %failed, "referrers not copied");
                return SyncOutcome::Failed(failed);
            }
        }
        if held {
            SyncOutcome::AlreadyHeld
        } else {
            SyncOutcome::Imported
        }
    }

    async fn record(&self, cid: RecordCid, peer: PeerId) -> Result<(), Failure> {
        let network = &self.network;
        let pulled = network.seeking(peer, || network.pull(peer, cid)).await;
        let pulled = pulled.map_err(|error| failure(&error))?;
        let size_bytes = pulled.data.len();
        // Bytes that hash to the CID and are not canonical would be kept under another one.
        let read = move || {
            let data = read_struct(&pulled.data).ok().flatten().ok_or(Failure::Invalid)?;
            let canonical = to_canonical(&data).map_err(|_| Failure::Invalid)?;
            if RecordCid::of(&canonical) == cid {
                Ok(data)
            } else {
                Err(Failure::Mismatch)
            }
        };
        let data = tokio::task::spawn_blocking(read)
            .await
            .map_err(|_| Failure::Invalid)??;
        let permit = self
            .policy
            .permit(Caller::Node, Action::Push)
            .map_err(|_| Failure::Denied)?;
        let admitted = self
            .ingest
            .admit(Some(data), &permit)
            .await
            .map_err(|error| match error {
                IngestError::Store(error) if error.kind() == StoreErrorKind::Busy => Failure::Busy,
                IngestError::Store(_) => Failure::Storage,
                _ => Failure::Invalid,
            })?;
        if admitted.inserted {
            self.copied.add(&self.copied.records, size_bytes);
        }
        Ok(())
    }

    /// How many are new here.
    async fn referrers(&self, cid: RecordCid, peer: PeerId) -> Result<usize, Failure> {
        let list = self
            .network
            .list_referrers(peer, cid)
            .await
            .map_err(|error| failure(&error))?;
        let known = self.store.referrers(cid).await.map_err(|_| Failure::Storage)?;
        let known = known.unwrap_or_default();
        let (mut new, mut size_bytes) = (0, 0_usize);
        if list.truncated {
            tracing::warn!(component = "sync", %cid, %peer, "the peer does not list all referrers");
        }
        for descriptor in list.referrers.into_iter().take(MAX_REFERRERS) {
            let Some(referrer_cid) = RecordCid::parse(&descriptor.cid) else {
                continue;
            };
            if known.iter().any(|row| row.cid == referrer_cid) || !is_referrer_type(&descriptor.kind) {
                continue;
            }
            if size_bytes >= MAX_REFERRER_BYTES {
                tracing::warn!(component = "sync", %cid, %peer, size_bytes, "referrers left for the next time");
                break;
            }
            match self.referrer(cid, referrer_cid, peer, descriptor).await {
                Ok(bytes) => {
                    new += 1;
                    size_bytes = size_bytes.saturating_add(bytes);
                    self.copied.add(&self.copied.referrers, bytes);
                }
                // One that the peer cannot give, or gives wrongly, does not keep the others away.
                Err(Failure::Invalid | Failure::Mismatch | Failure::NotFound) => {
                    self.copied.referrers_refused.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(component = "sync", %cid, referrer = %referrer_cid, %peer, "referrer not taken");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(new)
    }

    /// One referrer; its size in bytes.
    async fn referrer(
        &self,
        cid: RecordCid,
        referrer_cid: RecordCid,
        peer: PeerId,
        descriptor: ReferrerDescriptor,
    ) -> Result<usize, Failure> {
        let kind = descriptor.kind.clone();
        let mut referrer: Referrer = self
            .network
            .pull_referrer(peer, cid, descriptor)
            .await
            .map_err(|error| failure(&error))?;
        // Peers write a copy's own CID into it, which is no part of what the CID was made of.
        referrer.referrer_ref = None;
        let body = referrer.to_canonical().map_err(|_| Failure::Invalid)?;
        let is_same = RecordCid::of(&body) == referrer_cid
            && referrer.kind == kind
            && referrer.record_cid.as_deref() == Some(cid.to_string().as_str());
        if !is_same {
            return Err(Failure::Mismatch);
        }
        let permit = self
            .policy
            .permit(Caller::Node, Action::PushReferrer)
            .map_err(|_| Failure::Denied)?;
        self.ingest
            .admit_referrer(cid, &referrer, &permit)
            .await
            .map(|_| body.len())
            .map_err(|_| Failure::Storage)
    }
}
