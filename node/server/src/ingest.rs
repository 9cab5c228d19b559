//! The one door for writes: bound, check, canonical bytes, CID, typed view, store, tell. Talks to no peer.
//!
//! Order and texts of the refusals: grpc-api §4.1. Nothing of a refused record is kept.

use std::sync::Arc;

use bytes::Bytes;
use dirnode_proto::Struct;
use dirnode_proto::events::v1::EventType;
use dirnode_record::{
    CanonicalError, Facts, FactsError, RecordCid, Referrer, Report, Summary, ValidateError, Validator,
    to_canonical,
};
use dirnode_store::{NewRecord, NewReferrer, Store, StoreError};
use prost::Message as _;

use crate::config::Validation;
use crate::events::EventBus;
use crate::policy::{Action, Caller, Denied, Permit};
use crate::remote_schema::{RemoteSchema, RemoteSchemaError};
use crate::runtime;
use crate::turns::TURNS;

/// A record's own limit, apart from the message limit of the transport (grpc-api §3.5).
pub const MAX_RECORD_BYTES: usize = 4_194_304;

/// Above this many bytes the work on a record is moved off the async workers.
const OFFLOAD_BYTES: usize = 128 * 1024;

/// Why a record was not admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The message had no record.
    #[error("record validation failed: [record is nil]")]
    Nil,
    /// More bytes than a record may have.
    #[error(
        "record validation failed: [record size {size_bytes} bytes exceeds maximum allowed size of {MAX_RECORD_BYTES} bytes]"
    )]
    TooLarge {
        /// Size of the serialized record.
        size_bytes: usize,
    },
    /// The record does not name the schema it follows.
    #[error(
        "failed to validate record: failed to validate record: schema URL validation failed: failed to get schema version \
         from record: schema_version field is missing"
    )]
    NoSchemaVersion,
    /// A value in it cannot be said in JSON.
    #[error(
        "failed to validate record: failed to validate record: schema URL validation failed: failed to marshal record to \
         JSON: {0}"
    )]
    NotJson(#[source] CanonicalError),
    /// There is no schema to hold it against.
    #[error("failed to validate record: {0}")]
    NoSchema(#[source] ValidateError),
    /// The schema server did not give a verdict.
    #[error("failed to validate record: {0}")]
    Validator(#[source] RemoteSchemaError),
    /// The schema found errors.
    #[error("record validation failed: [{}]", .0.join(" "))]
    Invalid(Vec<String>),
    /// It has no typed view: a version nobody knows, or a known field of a wrong type.
    #[error(
        "failed to push record to store: rpc error: code = Internal desc = failed to create record adapter: failed to \
         decode Record: {0}"
    )]
    Unreadable(#[source] FactsError),
    /// The permit is for something else.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store did not take it.
    #[error("failed to push record to store: {0}")]
    Store(#[source] StoreError),
}

/// A record that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Its CID.
    pub cid: RecordCid,
    /// False when it was there before.
    pub inserted: bool,
}

/// The door.
#[derive(Clone)]
pub struct Ingest(Arc<Inner>);

struct Inner {
    store: Store,
    events: EventBus,
    check: Check,
}

enum Check {
    Builtin(&'static Validator),
    Remote(RemoteSchema),
    Off,
}

/// A record that is ready for the store.
struct Ready {
    cid: RecordCid,
    body: Vec<u8>,
    summary: Summary,
}

impl Ingest {
    /// A door to `store` that checks as `validation` says.
    ///
    /// # Errors
    /// When the client for a schema server cannot be set up.
    pub fn new(store: Store, events: EventBus, validation: &Validation) -> Result<Self, RemoteSchemaError> {
        let check = match validation {
            Validation::Builtin => Check::Builtin(Validator::builtin()),
            Validation::Remote { url } => Check::Remote(RemoteSchema::new(url)?),
            Validation::Off => Check::Off,
        };
        Ok(Self(Arc::new(Inner { store, events, check })))
    }

    /// Admits one record; when this returns, it is on disk.
    ///
    /// # Errors
    /// [`IngestError`]; nothing is kept then.
    pub async fn admit(&self, data: Option<Struct>, permit: &Permit) -> Result<Admitted, IngestError> {
        if !permit.is_for(Action::Push) {
            return Err(Denied {
                caller: permit.caller().clone(),
                action: Action::Push,
            }
            .into());
        }
        let admitted = self.admit_permitted(data).await;
        TURNS.written(runtime::moment());
        admitted
    }

    async fn admit_permitted(&self, data: Option<Struct>) -> Result<Admitted, IngestError> {
        let data = data.ok_or(IngestError::Nil)?;
        let size_bytes = data.encoded_len();
        if size_bytes > MAX_RECORD_BYTES {
            return Err(IngestError::TooLarge { size_bytes });
        }
        let this = self.clone();
        let ready = if size_bytes > OFFLOAD_BYTES {
            // A panic in there is the same defect as one here; it is caught and told where every call is.
            match tokio::task::spawn_blocking(move || this.prepare(data)).await {
                Ok(ready) => ready?,
                Err(ended) => match ended.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(IngestError::Store(StoreError::Closed)),
                },
            }
        } else {
            this.prepare(data)?
        };
        if let Check::Remote(server) = &self.0.check {
            let entries = server.errors_of(&ready.summary.schema_version, &ready.body).await;
            let entries = entries.map_err(IngestError::Validator)?;
            if !entries.is_empty() {
                return Err(IngestError::Invalid(entries));
            }
        }
        let Ready { cid, body, summary } = ready;
        // The labels are wanted after the summary is given away; without listeners the copy is not made.
        let labels = (self.0.events.figures().0 > 0).then(|| labels_of(&summary));
        let record = NewRecord {
            cid,
            body: Bytes::from(body),
            summary,
        };
        let put = self
            .0
            .store
            .put_record(record)
            .await
            .map_err(IngestError::Store)?;
        self.0.events.emit(EventType::RecordPushed, cid.to_string(), || {
            labels.unwrap_or_default()
        });
        Ok(Admitted {
            cid,
            inserted: put.inserted,
        })
    }

    /// Everything about a record that needs no waiting.
    fn prepare(&self, data: Struct) -> Result<Ready, IngestError> {
        if !data.fields.contains_key("schema_version") {
            return Err(IngestError::NoSchemaVersion);
        }
        let body = to_canonical(&data).map_err(IngestError::NotJson)?;
        let facts = Facts::read(&data).map_err(IngestError::Unreadable)?;
        if let Check::Builtin(validator) = self.0.check {
            let report: Report = validator
                .validate(&data, &facts.schema_version)
                .map_err(IngestError::NoSchema)?;
            if !report.is_valid() {
                return Err(IngestError::Invalid(report.entries()));
            }
        }
        Ok(Ready {
            cid: RecordCid::of(&body),
            body,
            summary: Summary::from(&facts),
        })
    }

    /// Hangs one referrer on a record; when this returns, it is on disk.
    ///
    /// # Errors
    /// A sentence for the caller; the record may be unknown, or the store may fail.
    pub async fn admit_referrer(
        &self,
        record: RecordCid,
        referrer: &Referrer,
        permit: &Permit,
    ) -> Result<RecordCid, ReferrerError> {
        if !permit.is_for(Action::PushReferrer) {
            return Err(Denied {
                caller: permit.caller().clone(),
                action: Action::PushReferrer,
            }
            .into());
        }
        let body = referrer.to_canonical().map_err(ReferrerError::NotJson)?;
        let cid = RecordCid::of(&body);
        let new = NewReferrer {
            record,
            cid,
            kind: referrer.kind.clone(),
            body: Bytes::from(body),
        };
        self.0
            .store
            .put_referrer(new)
            .await
            .map_err(ReferrerError::Store)?;
        Ok(cid)
    }

    /// A permit for the node's own writes.
    #[must_use]
    pub fn own_caller() -> Caller {
        Caller::Node
    }
}

/// Why a referrer was not admitted.
#[derive(Debug, thiserror::Error)]
pub enum ReferrerError {
    /// A value in it cannot be said in JSON.
    #[error("failed to marshal referrer: {0}")]
    NotJson(#[source] CanonicalError),
    /// The permit is for something else.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store did not take it.
    #[error("{0}")]
    Store(#[source] StoreError),
}

/// The annotations of a record's metadata: name, versions and previous CID where they are set, then the record's own, which
/// win (grpc-api §4.3).
#[must_use]
pub fn annotations_of(summary: &Summary) -> std::collections::BTreeMap<String, String> {
    let own = [
        ("name", &summary.name),
        ("version", &summary.version),
        ("oasf-version", &summary.schema_version),
        ("previous-cid", &summary.previous_record_cid),
    ];
    own.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .chain(summary.annotations.clone())
        .collect()
}

/// A record's labels as text, in record order.
#[must_use]
pub fn labels_of(summary: &Summary) -> Vec<String> {
    summary
        .labels()
        .into_iter()
        .map(|label| label.as_str().to_owned())
        .collect()
}
