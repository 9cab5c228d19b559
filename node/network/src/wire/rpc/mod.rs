//! The RPC of the network, `/dir/rpc/1.0.0`: its calls and replies, and their msgpack.
//!
//! A call is two values on a fresh stream, a `ServiceID` and the argument; the reply is two values too, a `Response`
//! header and the body. There are no lengths and no separators, so [`RequestScanner`] and [`ReplyScanner`] say how much
//! to read. [`serve`] is the whole server side as a function of bytes; [`encode_call`] and [`read_reply`] are the
//! client. Who may ask, who is asked, deadlines and streams are not here. Pure. Follows p2p-wire §5.
//!
//! | value | layout |
//! |---|---|
//! | ServiceID | map `Name` = `RPCAPI`, `Method` |
//! | Response | map `Service` = ServiceID, `Error`, `ErrType`; each left out when empty |
//! | RecordRef | map `cid`; left out when empty |
//! | LookupResponse | map `Cid`, `Annotations` |
//! | PullResponse | map `Cid`, `Annotations`, `Data` |
//! | ListReferrersResponse | map `Referrers` = list of (map `Cid`, `Type`) or nil, `Truncated` |
//! | PullReferrerRequest | map `RecordRef`, `Referrer` = map `Cid`, `Type`, or nil |
//! | PullReferrerResponse | map `Referrer` = see [`referrer`](self), or nil |

#[cfg(feature = "records")]
mod client;
#[cfg(feature = "records")]
mod referrer;
#[cfg(feature = "records")]
mod server;
mod status;

use std::collections::BTreeMap;

#[cfg(feature = "records")]
use dirnode_record::Referrer;

#[cfg(feature = "records")]
pub use client::{ClientError, ReplyScanner, encode_call, read_reply};
#[cfg(feature = "records")]
pub use referrer::{MAX_REFERRER_DEPTH, MAX_REFERRER_VALUES};
#[cfg(feature = "records")]
pub use server::{Reading, RequestScanner, Served, encode_answer, encode_fault, read_request, serve};
pub use status::{Code, Status};

use super::msgpack::{MsgpackError, Reader, put_map, put_nil, put_raw};

/// The protocol name.
pub const PROTOCOL: &str = "/dir/rpc/1.0.0";
/// The one service.
pub const SERVICE: &str = "RPCAPI";
/// Most bytes of a request: ServiceID and argument. The longest useful one, PullReferrer, takes about 250.
pub const MAX_REQUEST_BYTES: usize = 1024;
/// Most bytes of a reply: a record of 4 MiB, and its annotations once more.
pub const MAX_REPLY_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of a reply's header.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Most annotations that are read of one record or referrer.
pub const MAX_ANNOTATIONS: usize = 16 * 1024;
/// Most referrers one list may name; beyond it the server says that the list is cut.
pub const MAX_REFERRERS: usize = 1024;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// Is it there, and what are its annotations?
    Lookup,
    /// The record.
    Pull,
    /// What is attached to it.
    ListReferrers,
    /// One attached document.
    PullReferrer,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 4] = [Self::Lookup, Self::Pull, Self::ListReferrers, Self::PullReferrer];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lookup => "Lookup",
            Self::Pull => "Pull",
            Self::ListReferrers => "ListReferrers",
            Self::PullReferrer => "PullReferrer",
        }
    }

    /// The method with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// What a call is addressed to, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceId {
    /// The service.
    pub name: String,
    /// The method.
    pub method: String,
}

impl ServiceId {
    const NAMES: [&str; 2] = ["Name", "Method"];

    fn of(method: Method) -> Self {
        Self {
            name: SERVICE.to_owned(),
            method: method.name().to_owned(),
        }
    }

    fn is_empty(&self) -> bool {
        self.name.is_empty() && self.method.is_empty()
    }

    /// Fills itself, and keeps what was read before a fault.
    fn fill(&mut self, reader: &mut Reader<'_>) -> Result<(), MsgpackError> {
        reader
            .structure(&Self::NAMES, |reader, place| {
                let text = reader.text()?;
                match place {
                    0 => self.name = text,
                    _ => self.method = text,
                }
                Ok(())
            })
            .map(drop)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_map(out, 2);
        put_raw(out, b"Name");
        put_raw(out, self.name.as_bytes());
        put_raw(out, b"Method");
        put_raw(out, self.method.as_bytes());
    }
}

/// One call with its argument. CIDs are texts as they came: a reader that wants more parses them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// [`Method::Lookup`]
    Lookup {
        /// The record.
        cid: String,
    },
    /// [`Method::Pull`]
    Pull {
        /// The record.
        cid: String,
    },
    /// [`Method::ListReferrers`]
    ListReferrers {
        /// The record.
        cid: String,
    },
    /// [`Method::PullReferrer`]
    PullReferrer {
        /// The record.
        cid: String,
        /// Which document.
        referrer: ReferrerDescriptor,
    },
}

impl Call {
    /// Which method it calls.
    #[must_use]
    pub const fn method(&self) -> Method {
        match self {
            Self::Lookup { .. } => Method::Lookup,
            Self::Pull { .. } => Method::Pull,
            Self::ListReferrers { .. } => Method::ListReferrers,
            Self::PullReferrer { .. } => Method::PullReferrer,
        }
    }

    /// The record it is about.
    #[must_use]
    pub fn cid(&self) -> &str {
        match self {
            Self::Lookup { cid }
            | Self::Pull { cid }
            | Self::ListReferrers { cid }
            | Self::PullReferrer { cid, .. } => cid,
        }
    }
}

/// Texts by name; `None` is nil on the wire.
pub type Annotations = Option<BTreeMap<String, String>>;

/// What Lookup answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordMeta {
    /// The record's CID.
    pub cid: String,
    /// Annotations of its manifest and its own.
    pub annotations: Annotations,
}

/// What Pull answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PulledRecord {
    /// The record's CID.
    pub cid: String,
    /// Annotations of its manifest and its own.
    pub annotations: Annotations,
    /// The canonical bytes.
    pub data: Vec<u8>,
}

/// Names one referrer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferrerDescriptor {
    /// The referrer's CID.
    pub cid: String,
    /// Its type, e.g. `agntcy.dir.sign.v1.Signature`.
    pub kind: String,
}

/// What ListReferrers answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReferrerList {
    /// At most [`MAX_REFERRERS`].
    pub referrers: Vec<ReferrerDescriptor>,
    /// There are more.
    pub truncated: bool,
}

/// The answer to a [`Call`] that went well.
#[cfg(feature = "records")]
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Call::Lookup`].
    Lookup(RecordMeta),
    /// To [`Call::Pull`].
    Pull(PulledRecord),
    /// To [`Call::ListReferrers`].
    ListReferrers(ReferrerList),
    /// To [`Call::PullReferrer`]. A reference server never answers `None` without an error.
    PullReferrer(Option<Box<Referrer>>),
}

#[cfg(feature = "records")]
impl Reply {
    /// What stands in the body beside an error: everything zero.
    fn zero(method: Method) -> Self {
        match method {
            Method::Lookup => Self::Lookup(RecordMeta::default()),
            Method::Pull => Self::Pull(PulledRecord::default()),
            Method::ListReferrers => Self::ListReferrers(ReferrerList::default()),
            Method::PullReferrer => Self::PullReferrer(None),
        }
    }
}

fn put_annotations(out: &mut Vec<u8>, annotations: &Annotations) {
    let Some(annotations) = annotations else {
        put_nil(out);
        return;
    };
    put_map(out, annotations.len());
    for (name, value) in annotations {
        put_raw(out, name.as_bytes());
        put_raw(out, value.as_bytes());
    }
}

fn read_annotations(reader: &mut Reader<'_>) -> Result<Annotations, MsgpackError> {
    let Some(count) = reader.map(MAX_ANNOTATIONS)? else {
        return Ok(None);
    };
    let mut annotations = BTreeMap::new();
    for _ in 0..count {
        let name = reader.text()?;
        annotations.insert(name, reader.text()?);
    }
    Ok(Some(annotations))
}

fn put_record_ref(out: &mut Vec<u8>, cid: &str) {
    if cid.is_empty() {
        put_map(out, 0);
        return;
    }
    put_map(out, 1);
    put_raw(out, b"cid");
    put_raw(out, cid.as_bytes());
}

/// `None` for nil.
fn read_record_ref(reader: &mut Reader<'_>) -> Result<Option<String>, MsgpackError> {
    let mut cid = String::new();
    let there = reader.structure(&["cid"], |reader, _| {
        cid = reader.text()?;
        Ok(())
    })?;
    Ok(there.then_some(cid))
}

fn put_descriptor(out: &mut Vec<u8>, descriptor: &ReferrerDescriptor) {
    put_map(out, 2);
    put_raw(out, b"Cid");
    put_raw(out, descriptor.cid.as_bytes());
    put_raw(out, b"Type");
    put_raw(out, descriptor.kind.as_bytes());
}

/// `None` for nil.
fn read_descriptor(reader: &mut Reader<'_>) -> Result<Option<ReferrerDescriptor>, MsgpackError> {
    let mut descriptor = ReferrerDescriptor::default();
    let there = reader.structure(&["Cid", "Type"], |reader, place| {
        let text = reader.text()?;
        match place {
            0 => descriptor.cid = text,
            _ => descriptor.kind = text,
        }
        Ok(())
    })?;
    Ok(there.then_some(descriptor))
}
