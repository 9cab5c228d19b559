//! Copying one record with its referrers from a peer, through the same door as every write.
//!
//! The network checks that a record's bytes are those of the CID; a referrer's are checked here. A referrer that does
//! not arrive does not undo the record; the copy is asked for again when the record is announced again.

use dirnode_network::{NetworkHandle, PeerId, ReferrerDescriptor};
use dirnode_record::{RecordCid, Referrer, is_referrer_type, read_struct};
use dirnode_routing::{Failure, SyncOutcome};
use dirnode_store::{Store, StoreErrorKind};

use super::driver::failure;
use crate::ingest::{Ingest, IngestError};
use crate::policy::{Action, Caller, Policy};

/// Referrers copied with one record.
const MAX_REFERRERS: usize = 1024;

#[derive(Clone)]
pub(super) struct Syncer {
    pub(super) network: NetworkHandle,
    pub(super) store: Store,
    pub(super) ingest: Ingest,
    pub(super) policy: Policy,
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
        let pulled = self
            .network
            .pull(peer, cid)
            .await
            .map_err(|error| failure(&error))?;
        let data = tokio::task::spawn_blocking(move || read_struct(&pulled.data).ok().flatten())
            .await
            .map_err(|_| Failure::Invalid)?
            .ok_or(Failure::Invalid)?;
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
        // Canonical bytes that hash to the CID give it again; anything else was not canonical.
        if admitted.cid == cid {
            Ok(())
        } else {
            Err(Failure::Mismatch)
        }
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
        let mut new = 0;
        for descriptor in list.referrers.into_iter().take(MAX_REFERRERS) {
            let Some(referrer_cid) = RecordCid::parse(&descriptor.cid) else {
                continue;
            };
            if known.iter().any(|row| row.cid == referrer_cid) || !is_referrer_type(&descriptor.kind) {
                continue;
            }
            match self.referrer(cid, referrer_cid, peer, descriptor).await {
                Ok(()) => new += 1,
                // One that the peer cannot give, or gives wrongly, does not keep the others away.
                Err(Failure::Invalid | Failure::Mismatch | Failure::NotFound) => {
                    tracing::warn!(component = "sync", %cid, referrer = %referrer_cid, %peer, "referrer not taken");
                }
                Err(other) => return Err(other),
            }
        }
        Ok(new)
    }

    async fn referrer(
        &self,
        cid: RecordCid,
        referrer_cid: RecordCid,
        peer: PeerId,
        descriptor: ReferrerDescriptor,
    ) -> Result<(), Failure> {
        let kind = descriptor.kind.clone();
        let referrer: Referrer = self
            .network
            .pull_referrer(peer, cid, descriptor)
            .await
            .map_err(|error| failure(&error))?;
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
            .map(drop)
            .map_err(|_| Failure::Storage)
    }
}
