//! What this node hands to its peers: published records and what refers to them, as policy allows (p2p-wire §5.3).
//!
//! A record that is not published is not found, in the same words as one that is not here, so that nobody learns what the
//! node holds by asking. Never says where anything lies: texts for peers are made here, the store's own go to the log.
//! Pulls of peers move no usage counter, as anybody could raise the rank of a record with them; the network counts them.
//! State: none of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dirnode_identity::PeerId;
use dirnode_network::wire::rpc::{MAX_REFERRERS, Status};
use dirnode_network::{Library, LibraryError, Pulled, ReferrerDescriptor, ReferrerList, RpcCode};
use dirnode_record::{RecordCid, Referrer, Summary};
use dirnode_store::{Store, StoreError, StoreErrorKind};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::ingest::{MAX_RECORD_BYTES, annotations_of};
use crate::policy::{Action, Caller, Policy};
use crate::routing::Routing;

/// The two types of referrers that only match themselves; all others are one class (p2p-wire §5.3).
const OWN_CLASS: [&str; 2] = ["agntcy.dir.sign.v1.Signature", "agntcy.dir.sign.v1.PublicKey"];

/// The records of a store, as peers may see them. Cheap to clone.
#[derive(Clone)]
pub struct StoreLibrary {
    store: Store,
    policy: Policy,
    serve_unpublished: bool,
    /// Answers the catch-up exchange, from when it has started.
    routing: Arc<OnceLock<Routing>>,
}

impl StoreLibrary {
    /// Serves `store`; with `serve_unpublished`, all of it.
    #[must_use]
    pub fn new(store: Store, policy: Policy, serve_unpublished: bool) -> Self {
        Self {
            store,
            policy,
            serve_unpublished,
            routing: Arc::default(),
        }
    }

    /// Where the routing room goes once it has started; until then the catch-up exchange is not answered.
    #[must_use]
    pub fn routing(&self) -> Arc<OnceLock<Routing>> {
        Arc::clone(&self.routing)
    }

    /// Runs one call with a copy of this value, as calls outlive the borrow.
    fn serve<T, F>(&self, work: impl FnOnce(Self) -> F) -> BoxFuture<'static, Result<T, LibraryError>>
    where
        F: Future<Output = Result<T, LibraryError>> + Send + 'static,
    {
        work(self.clone()).boxed()
    }

    fn permit(&self, peer: PeerId, action: Action) -> Result<(), LibraryError> {
        match self.policy.permit(Caller::Peer(peer), action) {
            Ok(_) => Ok(()),
            Err(denied) => Err(Status::new(RpcCode::PermissionDenied, denied.to_string())),
        }
    }

    /// What is known of a record that may be served; `None` when there is none.
    async fn served(&self, cid: RecordCid) -> Result<Option<Summary>, LibraryError> {
        if !self.serve_unpublished {
            let published = self.store.published_row(cid).await;
            if published.map_err(|error| trouble(cid, &error))?.is_none() {
                return Ok(None);
            }
        }
        // A published record may have been deleted since.
        let row = self
            .store
            .record(cid)
            .await
            .map_err(|error| trouble(cid, &error))?;
        Ok(row.map(|row| row.summary))
    }

    async fn pulled(&self, cid: RecordCid) -> Result<Pulled, LibraryError> {
        let not_found = || Status::record_not_found(&cid.to_string());
        let summary = self.served(cid).await?.ok_or_else(not_found)?;
        let body = self.store.body(cid).await.map_err(|error| trouble(cid, &error))?;
        Ok(Pulled {
            annotations: annotations_of(&summary),
            data: body.ok_or_else(not_found)?,
        })
    }

    async fn referrers(&self, cid: RecordCid) -> Result<ReferrerList, LibraryError> {
        let not_found = || Status::listed_record_not_found(&cid.to_string());
        self.served(cid).await?.ok_or_else(not_found)?;
        let rows = self
            .store
            .referrers(cid)
            .await
            .map_err(|error| trouble(cid, &error))?;
        let rows = rows.ok_or_else(not_found)?;
        Ok(ReferrerList {
            truncated: rows.len() > MAX_REFERRERS,
            referrers: rows
                .into_iter()
                .take(MAX_REFERRERS)
                .map(|row| ReferrerDescriptor {
                    cid: row.cid.to_string(),
                    kind: row.kind,
                })
                .collect(),
        })
    }

    async fn referrer(&self, cid: RecordCid, wanted: ReferrerDescriptor) -> Result<Referrer, LibraryError> {
        let record = cid.to_string();
        let unknown_record = || Status::referred_record_not_found(&record);
        self.served(cid).await?.ok_or_else(unknown_record)?;
        let not_found = || Status::referrer_not_found(&wanted.cid, &record);
        let rows = self
            .store
            .referrers(cid)
            .await
            .map_err(|error| trouble(cid, &error))?;
        let found = RecordCid::parse(&wanted.cid).ok_or_else(not_found)?;
        let row = rows
            .ok_or_else(unknown_record)?
            .into_iter()
            .find(|row| row.cid == found && class_of(&row.kind) == class_of(&wanted.kind))
            .ok_or_else(not_found)?;
        let body = self.store.referrer_body(row.cid).await;
        let body = body
            .map_err(|error| trouble(row.cid, &error))?
            .ok_or_else(not_found)?;
        check_size(&body)?;
        let mut referrer = Referrer::parse(&body).map_err(|error| {
            tracing::warn!(component = "library", cid = %row.cid, %error, "stored referrer does not read");
            Status::new(RpcCode::DataLoss, "the stored referrer does not read")
        })?;
        referrer.referrer_ref = Some(row.cid.to_string());
        Ok(referrer)
    }
}

fn class_of(kind: &str) -> usize {
    OWN_CLASS
        .iter()
        .position(|own| *own == kind)
        .unwrap_or(OWN_CLASS.len())
}

fn check_size(body: &Bytes) -> Result<(), LibraryError> {
    if body.len() <= MAX_RECORD_BYTES {
        return Ok(());
    }
    let text = format!("referrer is {} bytes, limit is {MAX_RECORD_BYTES}", body.len());
    Err(Status::new(RpcCode::FailedPrecondition, text))
}

/// A failure of the store, in words that give nothing away.
fn trouble(cid: RecordCid, error: &StoreError) -> LibraryError {
    let (code, text) = match error.kind() {
        StoreErrorKind::Busy => (
            RpcCode::ResourceExhausted,
            "too much work is waiting, try again later",
        ),
        StoreErrorKind::Closed => (RpcCode::Unavailable, "the node is stopping"),
        StoreErrorKind::Corrupt => (RpcCode::DataLoss, "the stored record is damaged"),
        _ => (RpcCode::Internal, "internal error"),
    };
    tracing::warn!(component = "library", %cid, %error, "record not served to a peer");
    Status::new(code, text)
}

impl Library for StoreLibrary {
    fn lookup(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        self.serve(move |this| async move {
            this.permit(peer, Action::Lookup)?;
            let summary = this.served(cid).await?;
            let summary = summary.ok_or_else(|| Status::record_not_found(&cid.to_string()))?;
            Ok(annotations_of(&summary))
        })
    }

    fn pull(&self, peer: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        self.serve(move |this| async move {
            this.permit(peer, Action::Pull)?;
            this.pulled(cid).await
        })
    }

    fn list_referrers(
        &self,
        peer: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        self.serve(move |this| async move {
            this.permit(peer, Action::PullReferrer)?;
            this.referrers(cid).await
        })
    }

    fn pull_referrer(
        &self,
        peer: PeerId,
        cid: RecordCid,
        referrer: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        self.serve(move |this| async move {
            this.permit(peer, Action::PullReferrer)?;
            this.referrer(cid, referrer).await
        })
    }

    fn catch_up(&self, peer: PeerId, request: Bytes) -> BoxFuture<'static, Result<Bytes, LibraryError>> {
        self.serve(move |this| async move {
            let page = match this.routing.get() {
                Some(routing) => routing.catch_up(peer, request).await,
                None => None,
            };
            page.ok_or_else(|| Status::new(RpcCode::Unavailable, "there is no page for this request now"))
        })
    }
}
