//! The answering side: what was asked, and the bytes of each answer.
//!
//! What cannot be decoded is answered as the reference answers it, twice for an undecodable ServiceID; what makes the
//! reference die or answer falsely is answered properly. Pure. Follows p2p-wire §5.1 and §5.4.

use super::super::msgpack::{
    Fault, MsgpackError, Progress, Reader, Scanner, put_bool, put_list, put_map, put_nil, put_raw, put_small,
};
use super::referrer::put_referrer;
use super::{
    Call, Code, MAX_REQUEST_BYTES, Method, RecordMeta, Reply, SERVICE, ServiceId, Status, put_annotations,
    put_descriptor, read_descriptor, read_record_ref,
};

/// The service is not to blame but the call: framework errors of the server.
const ERR_TYPE_SERVER: u8 = 1;

/// What has arrived of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// At least so many bytes more belong to the request.
    More(usize),
    /// A call.
    Call(Call),
    /// A call that needs no library to be answered.
    Refused {
        /// The method, when it got so far.
        method: Option<Method>,
        /// The whole answer.
        answer: Vec<u8>,
    },
}

/// Says how much of a request is still to be read. Keeps its place, so that a request may arrive byte by byte.
#[derive(Debug)]
pub struct RequestScanner {
    service: Scanner,
    argument: Option<(usize, Scanner)>,
}

impl Default for RequestScanner {
    fn default() -> Self {
        Self {
            service: Scanner::new(MAX_REQUEST_BYTES),
            argument: None,
        }
    }
}

impl RequestScanner {
    /// A scanner for one request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with `buffer`, which holds the request from its first byte on. `Done` means that [`read_request`] has
    /// an answer or a call, whatever follows.
    pub fn scan(&mut self, buffer: &[u8]) -> Progress {
        let whole = Progress::Done(buffer.len());
        let (start, scanner) = match &mut self.argument {
            Some((start, scanner)) => (*start, scanner),
            None => match self.service.scan(buffer) {
                Ok(Progress::Done(start)) => {
                    let left = MAX_REQUEST_BYTES.saturating_sub(start);
                    if method_of(buffer).is_err() {
                        return whole;
                    }
                    let (start, scanner) = self.argument.insert((start, Scanner::new(left)));
                    (*start, scanner)
                }
                Ok(more) => return more,
                Err(_) => return whole,
            },
        };
        match scanner.scan(buffer.get(start..).unwrap_or_default()) {
            Ok(Progress::Done(length)) => Progress::Done(start.saturating_add(length)),
            Ok(more) => more,
            Err(_) => whole,
        }
    }
}

/// The method that the ServiceID at the start of `buffer` names.
fn method_of(buffer: &[u8]) -> Result<Method, ()> {
    let mut service = ServiceId::default();
    service.fill(&mut Reader::new(buffer)).map_err(drop)?;
    if service.name != SERVICE {
        return Err(());
    }
    Method::from_name(&service.method).ok_or(())
}

/// Reads a request from what has arrived. `ended` says that no more will come; a cut request is then refused.
#[must_use]
pub fn read_request(bytes: &[u8], ended: bool) -> Reading {
    if let Progress::More(count) = RequestScanner::new().scan(bytes)
        && !ended
    {
        return Reading::More(count);
    }
    // Whatever stands behind a request that is as long as it may be is not looked at.
    let bytes = bytes.get(..MAX_REQUEST_BYTES).unwrap_or(bytes);
    let mut reader = Reader::new(bytes);
    let mut service = ServiceId::default();
    let mut answer = Vec::new();
    if let Err(error) = service.fill(&mut reader) {
        // The reference reports the fault under no name and then goes on with what it has read.
        put_fault(
            &mut answer,
            &ServiceId::default(),
            &format!("error reading service ID: {error}"),
        );
        if service.name != SERVICE {
            put_fault(&mut answer, &service, &unknown_service(&service));
        } else if Method::from_name(&service.method).is_none() {
            put_fault(&mut answer, &service, &unknown_method(&service));
        }
        return Reading::Refused { method: None, answer };
    }
    if service.name != SERVICE {
        put_fault(&mut answer, &service, &unknown_service(&service));
        return Reading::Refused { method: None, answer };
    }
    let Some(method) = Method::from_name(&service.method) else {
        put_fault(&mut answer, &service, &unknown_method(&service));
        return Reading::Refused { method: None, answer };
    };
    match read_argument(method, &mut reader) {
        Ok(Ok(call)) => Reading::Call(call),
        Ok(Err(status)) => Reading::Refused {
            method: Some(method),
            answer: encode_answer(method, &Err(status)),
        },
        Err(error) => Reading::Refused {
            method: Some(method),
            answer: encode_fault(method, &error),
        },
    }
}

fn unknown_service(service: &ServiceId) -> String {
    format!("rpc: can't find service {}", service.name)
}

fn unknown_method(service: &ServiceId) -> String {
    format!("rpc: can't find method {}", service.method)
}

/// The call, or the status that its argument alone earns.
fn read_argument(method: Method, reader: &mut Reader<'_>) -> Result<Result<Call, Status>, MsgpackError> {
    let invalid = |message: &str| Ok(Err(Status::new(Code::InvalidArgument, message)));
    if method == Method::PullReferrer {
        let (mut record, mut referrer) = (None, None);
        reader.structure(&["RecordRef", "Referrer"], |reader, place| {
            match place {
                0 => record = read_record_ref(reader)?,
                _ => referrer = read_descriptor(reader)?,
            }
            Ok(())
        })?;
        let Some(cid) = record.filter(|cid| !cid.is_empty()) else {
            return invalid("record cid is required");
        };
        // The reference dies of a missing referrer; it is a missing type here.
        let referrer = referrer.unwrap_or_default();
        if referrer.kind.is_empty() {
            return invalid("referrer type is required");
        }
        if referrer.cid.is_empty() {
            return invalid("referrer cid is required");
        }
        return Ok(Ok(Call::PullReferrer { cid, referrer }));
    }
    let cid = read_record_ref(reader)?.unwrap_or_default();
    if cid.is_empty() {
        return invalid(match method {
            Method::ListReferrers => "record cid is required",
            _ => "failed to lookup: record CID cannot be empty",
        });
    }
    Ok(Ok(match method {
        Method::Lookup => Call::Lookup { cid },
        Method::Pull => Call::Pull { cid },
        _ => Call::ListReferrers { cid },
    }))
}

fn put_fault(out: &mut Vec<u8>, service: &ServiceId, error: &str) {
    put_header(out, service, error, ERR_TYPE_SERVER);
    put_nil(out);
}

fn put_header(out: &mut Vec<u8>, service: &ServiceId, error: &str, err_type: u8) {
    let there = [!service.is_empty(), !error.is_empty(), err_type != 0];
    put_map(out, there.iter().filter(|there| **there).count());
    if !service.is_empty() {
        put_raw(out, b"Service");
        service.put(out);
    }
    if !error.is_empty() {
        put_raw(out, b"Error");
        put_raw(out, error.as_bytes());
    }
    if err_type != 0 {
        put_raw(out, b"ErrType");
        put_small(out, err_type);
    }
}

/// The answer to a call of `method` whose argument cannot be read.
#[must_use]
pub fn encode_fault(method: Method, error: &MsgpackError) -> Vec<u8> {
    let mut out = Vec::new();
    put_fault(&mut out, &ServiceId::of(method), &error.to_string());
    out
}

/// The answer to a call of `method`: header and body.
///
/// A reply of another method is a fault of the caller and answered as Internal; so is one that passes
/// [`super::MAX_REPLY_BYTES`], as FailedPrecondition.
#[must_use]
pub fn encode_answer(method: Method, result: &Result<Reply, Status>) -> Vec<u8> {
    let status = match result {
        Ok(reply) => {
            let mut out = Vec::new();
            put_header(&mut out, &ServiceId::of(method), "", 0);
            match put_body(&mut out, method, reply) {
                Ok(()) if out.len() <= super::MAX_REPLY_BYTES => return out,
                Ok(()) => Status::new(
                    Code::FailedPrecondition,
                    format!(
                        "reply is {} bytes, limit is {}",
                        out.len(),
                        super::MAX_REPLY_BYTES
                    ),
                ),
                Err(status) => status,
            }
        }
        Err(status) => status.clone(),
    };
    let mut out = Vec::new();
    put_header(&mut out, &ServiceId::of(method), &status.to_string(), 0);
    // The body of a failed call has every field at zero, and zero values are always writable.
    let zero = put_body(&mut out, method, &Reply::zero(method));
    debug_assert!(zero.is_ok(), "a zero body is writable");
    out
}

fn put_body(out: &mut Vec<u8>, method: Method, reply: &Reply) -> Result<(), Status> {
    match (method, reply) {
        (Method::Lookup, Reply::Lookup(RecordMeta { cid, annotations })) => {
            put_map(out, 2);
            put_raw(out, b"Cid");
            put_raw(out, cid.as_bytes());
            put_raw(out, b"Annotations");
            put_annotations(out, annotations);
        }
        (Method::Pull, Reply::Pull(record)) => {
            put_map(out, 3);
            put_raw(out, b"Cid");
            put_raw(out, record.cid.as_bytes());
            put_raw(out, b"Annotations");
            put_annotations(out, &record.annotations);
            put_raw(out, b"Data");
            if record.data.is_empty() {
                put_nil(out);
            } else {
                put_raw(out, &record.data);
            }
        }
        (Method::ListReferrers, Reply::ListReferrers(list)) => {
            put_map(out, 2);
            put_raw(out, b"Referrers");
            let shown = list
                .referrers
                .get(..super::MAX_REFERRERS)
                .unwrap_or(&list.referrers);
            if shown.is_empty() {
                put_nil(out);
            } else {
                put_list(out, shown.len());
                shown
                    .iter()
                    .for_each(|descriptor| put_descriptor(out, descriptor));
            }
            put_raw(out, b"Truncated");
            put_bool(out, list.truncated || shown.len() < list.referrers.len());
        }
        (Method::PullReferrer, Reply::PullReferrer(referrer)) => {
            put_map(out, 1);
            put_raw(out, b"Referrer");
            match referrer {
                None => put_nil(out),
                Some(referrer) => put_referrer(out, referrer).map_err(|_| {
                    Status::new(
                        Code::FailedPrecondition,
                        format!("referrer: {}", Fault::TooDeep(super::MAX_REFERRER_DEPTH)),
                    )
                })?,
            }
        }
        (method, _) => {
            return Err(Status::new(
                Code::Internal,
                format!("the answer is not one of {}", method.name()),
            ));
        }
    }
    Ok(())
}

/// What [`serve`] makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Served {
    /// At least so many bytes more belong to the request.
    More(usize),
    /// The whole answer.
    Answer(Vec<u8>),
}

/// The whole server side, for a library that answers at once.
pub fn serve(bytes: &[u8], ended: bool, library: impl FnOnce(&Call) -> Result<Reply, Status>) -> Served {
    match read_request(bytes, ended) {
        Reading::More(count) => Served::More(count),
        Reading::Refused { answer, .. } => Served::Answer(answer),
        Reading::Call(call) => Served::Answer(encode_answer(call.method(), &library(&call))),
    }
}
