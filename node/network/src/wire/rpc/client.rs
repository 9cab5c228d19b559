//! The asking side: the bytes of a call, and what is made of the answer.
//!
//! Stricter than the reference where it believes anything: the header must name the method that was called, the CID
//! answered must be the one that was asked, and a record's bytes must hash to it. Pure. Follows p2p-wire §5.1 to §5.4.

use dirnode_record::RecordCid;

use super::super::go_text::shorten;
use super::super::msgpack::{MsgpackError, Progress, Reader, Scanner, put_map, put_raw};
use super::referrer::read_referrer;
use super::{
    Call, MAX_HEADER_BYTES, MAX_REFERRERS, MAX_REPLY_BYTES, Method, PulledRecord, RecordMeta, ReferrerList,
    Reply, ServiceId, Status, put_descriptor, put_record_ref, read_annotations, read_descriptor,
};

/// Why a call has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The peer says that it went wrong.
    #[error("peer answered: {status}")]
    Remote {
        /// What it says.
        status: Status,
        /// It did not get as far as the method: wrong service, unreadable argument, not authorized.
        framework: bool,
    },
    /// Not a reply, or one that is cut off or too large.
    #[error("reply cannot be read: {0}")]
    Malformed(#[from] MsgpackError),
    /// The header does not name the call.
    #[error("reply is to {found}, expected {expected}")]
    OtherMethod {
        /// The name in the header, shortened.
        found: String,
        /// The method that was called.
        expected: &'static str,
    },
    /// The reply is about something else.
    #[error("reply is about {found}, asked was {asked}")]
    OtherCid {
        /// The CID in the reply, shortened.
        found: String,
        /// What was asked.
        asked: String,
    },
    /// The bytes are not those of the record.
    #[error("record bytes hash to {found}, asked was {asked}")]
    OtherContent {
        /// The CID of the bytes.
        found: RecordCid,
        /// What was asked.
        asked: String,
    },
}

/// The bytes of a call. Nothing may follow them, and the stream must stay open for writing until the reply is there.
#[must_use]
pub fn encode_call(call: &Call) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    ServiceId::of(call.method()).put(&mut out);
    match call {
        Call::Lookup { cid } | Call::Pull { cid } | Call::ListReferrers { cid } => {
            put_record_ref(&mut out, cid)
        }
        Call::PullReferrer { cid, referrer } => {
            put_map(&mut out, 2);
            put_raw(&mut out, b"RecordRef");
            put_record_ref(&mut out, cid);
            put_raw(&mut out, b"Referrer");
            put_descriptor(&mut out, referrer);
        }
    }
    out
}

/// Says how much of a reply is still to be read. Keeps its place, so that a reply may arrive in many pieces.
#[derive(Debug)]
pub struct ReplyScanner {
    header: Scanner,
    body: Option<(usize, Scanner)>,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        Self {
            header: Scanner::new(MAX_HEADER_BYTES),
            body: None,
        }
    }
}

impl ReplyScanner {
    /// A scanner for one reply.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with `buffer`, which holds the reply from its first byte on. `Done` means that [`read_reply`] can say
    /// all there is to say; the body of a failed call is not waited for.
    ///
    /// # Errors
    /// When the bytes cannot become a reply: too large, or not msgpack.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Progress, MsgpackError> {
        let (start, scanner) = match &mut self.body {
            Some((start, scanner)) => (*start, scanner),
            None => match self.header.scan(buffer)? {
                Progress::Done(start) => {
                    if Header::read(&mut Reader::new(buffer)).map_or(true, |header| !header.error.is_empty())
                    {
                        return Ok(Progress::Done(start));
                    }
                    let left = MAX_REPLY_BYTES.saturating_sub(start);
                    let (start, scanner) = self.body.insert((start, Scanner::new(left)));
                    (*start, scanner)
                }
                more @ Progress::More(_) => return Ok(more),
            },
        };
        let progress = scanner
            .scan(buffer.get(start..).unwrap_or_default())
            .map_err(|error| MsgpackError {
                position: error.position.saturating_add(start),
                ..error
            })?;
        Ok(match progress {
            Progress::Done(length) => Progress::Done(start.saturating_add(length)),
            more @ Progress::More(_) => more,
        })
    }
}

#[derive(Default)]
struct Header {
    service: ServiceId,
    error: String,
    err_type: i64,
}

impl Header {
    fn read(reader: &mut Reader<'_>) -> Result<Self, MsgpackError> {
        let mut header = Self::default();
        reader.structure(&["Service", "Error", "ErrType"], |reader, place| {
            match place {
                0 => header.service.fill(reader)?,
                1 => header.error = reader.text()?,
                _ => header.err_type = reader.integer()?,
            }
            Ok(())
        })?;
        Ok(header)
    }
}

/// Reads the reply to `call`.
///
/// # Errors
/// [`ClientError`] says whose fault it is.
pub fn read_reply(call: &Call, bytes: &[u8]) -> Result<Reply, ClientError> {
    let mut reader = Reader::new(bytes);
    let header = Header::read(&mut reader)?;
    if !header.error.is_empty() {
        return Err(ClientError::Remote {
            status: Status::parse(&header.error),
            framework: header.err_type != 0,
        });
    }
    let expected = call.method();
    if header.service != ServiceId::of(expected) {
        return Err(ClientError::OtherMethod {
            found: shorten(&format!("{}.{}", header.service.name, header.service.method), 80),
            expected: expected.name(),
        });
    }
    match expected {
        Method::Lookup => {
            let record = read_record(&mut reader)?;
            same_cid(call.cid(), &record.cid)?;
            Ok(Reply::Lookup(RecordMeta {
                cid: record.cid,
                annotations: record.annotations,
            }))
        }
        Method::Pull => {
            let record = read_record(&mut reader)?;
            same_cid(call.cid(), &record.cid)?;
            let found = RecordCid::of(&record.data);
            if RecordCid::parse(call.cid()) != Some(found) {
                return Err(ClientError::OtherContent {
                    found,
                    asked: shorten(call.cid(), 80),
                });
            }
            Ok(Reply::Pull(record))
        }
        Method::ListReferrers => Ok(Reply::ListReferrers(read_list(&mut reader)?)),
        Method::PullReferrer => {
            let mut referrer = None;
            reader.structure(&["Referrer"], |reader, _| {
                referrer = read_referrer(reader)?;
                Ok(())
            })?;
            Ok(Reply::PullReferrer(referrer))
        }
    }
}

fn same_cid(asked: &str, found: &str) -> Result<(), ClientError> {
    if asked == found {
        return Ok(());
    }
    Err(ClientError::OtherCid {
        found: shorten(found, 80),
        asked: shorten(asked, 80),
    })
}

/// The bodies of Lookup and Pull; the first has no data.
fn read_record(reader: &mut Reader<'_>) -> Result<PulledRecord, MsgpackError> {
    let mut record = PulledRecord::default();
    reader.structure(&["Cid", "Annotations", "Data"], |reader, place| {
        match place {
            0 => record.cid = reader.text()?,
            1 => record.annotations = read_annotations(reader)?,
            _ => record.data = reader.bytes()?.into_owned(),
        }
        Ok(())
    })?;
    Ok(record)
}

fn read_list(reader: &mut Reader<'_>) -> Result<ReferrerList, MsgpackError> {
    let mut list = ReferrerList::default();
    reader.structure(&["Referrers", "Truncated"], |reader, place| {
        match place {
            0 => {
                let count = reader.list(MAX_REFERRERS)?.unwrap_or_default();
                for _ in 0..count {
                    list.referrers.push(read_descriptor(reader)?.unwrap_or_default());
                }
            }
            _ => list.truncated = reader.boolean()?,
        }
        Ok(())
    })?;
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Code, ReferrerDescriptor, Served, encode_answer, serve};
    use super::*;
    use proptest::prelude::*;

    fn call(method: Method) -> Call {
        let cid = RecordCid::of(b"{}").to_string();
        match method {
            Method::Lookup => Call::Lookup { cid },
            Method::Pull => Call::Pull { cid },
            Method::ListReferrers => Call::ListReferrers { cid },
            Method::PullReferrer => Call::PullReferrer {
                cid,
                referrer: ReferrerDescriptor {
                    cid: "r".to_owned(),
                    kind: "t".to_owned(),
                },
            },
        }
    }

    fn ask(call: &Call, answer: impl FnOnce(&Call) -> Result<Reply, Status>) -> Result<Reply, ClientError> {
        match serve(&encode_call(call), false, answer) {
            Served::Answer(bytes) => read_reply(call, &bytes),
            Served::More(_) => panic!("the request is whole"),
        }
    }

    #[test]
    fn each_method_is_asked_and_answered() {
        for method in Method::ALL {
            let call = call(method);
            let cid = call.cid().to_owned();
            let reply = match method {
                Method::Lookup => Reply::Lookup(RecordMeta {
                    cid,
                    annotations: Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
                }),
                Method::Pull => Reply::Pull(PulledRecord {
                    cid,
                    annotations: None,
                    data: b"{}".to_vec(),
                }),
                Method::ListReferrers => Reply::ListReferrers(ReferrerList {
                    referrers: vec![ReferrerDescriptor::default(); 3],
                    truncated: true,
                }),
                Method::PullReferrer => Reply::PullReferrer(Some(Box::default())),
            };
            let answered = ask(&call, |asked| {
                assert_eq!(asked, &call);
                Ok(reply.clone())
            });
            assert_eq!(answered, Ok(reply));
            let status = Status::new(Code::NotFound, "gone");
            assert_eq!(
                ask(&call, |_| Err(status.clone())),
                Err(ClientError::Remote {
                    status,
                    framework: false
                })
            );
        }
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let call = call(Method::ListReferrers);
        let list = ReferrerList {
            referrers: vec![ReferrerDescriptor::default(); MAX_REFERRERS + 1],
            truncated: false,
        };
        let Ok(Reply::ListReferrers(read)) = ask(&call, |_| Ok(Reply::ListReferrers(list))) else {
            panic!("a list is answered");
        };
        assert_eq!((read.referrers.len(), read.truncated), (MAX_REFERRERS, true));
    }

    #[test]
    fn an_answer_that_is_believed_elsewhere_is_refused() {
        let call = call(Method::Pull);
        assert!(matches!(
            read_reply(&call, b"\x80\x80"),
            Err(ClientError::OtherMethod { .. })
        ));
        let pulled = |cid: &str, data: &[u8]| {
            Ok(Reply::Pull(PulledRecord {
                cid: cid.to_owned(),
                annotations: None,
                data: data.to_vec(),
            }))
        };
        assert!(matches!(
            ask(&call, |_| pulled("other", b"{}")),
            Err(ClientError::OtherCid { .. })
        ));
        assert!(matches!(
            ask(&call, |call| pulled(call.cid(), b"{ }")),
            Err(ClientError::OtherContent { .. })
        ));
    }

    proptest! {
        #[test]
        fn a_reply_is_found_wherever_it_is_cut(
            data in proptest::collection::vec(any::<u8>(), 0..400),
            tail: Vec<u8>,
            failed: bool,
        ) {
            let cid = RecordCid::of(&data).to_string();
            let call = Call::Pull { cid: cid.clone() };
            let result = if failed {
                Err(Status::record_not_found(&cid))
            } else {
                Ok(Reply::Pull(PulledRecord { cid, annotations: None, data }))
            };
            let mut bytes = encode_answer(Method::Pull, &result);
            let whole = bytes.len();
            bytes.extend(tail);
            let (mut scanner, mut arrived) = (ReplyScanner::new(), 0);
            let length = loop {
                match scanner.scan(&bytes[..arrived]).unwrap() {
                    Progress::Done(length) => break length,
                    Progress::More(count) => arrived += count,
                }
                prop_assert!(arrived <= whole);
            };
            prop_assert!(failed || length == whole);
            prop_assert_eq!(read_reply(&call, &bytes[..length]).is_ok(), !failed);
        }

        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>, ended: bool) {
            let _ = serve(&bytes, ended, |call| Err(Status::record_not_found(call.cid())));
            if ended {
                let answered = matches!(serve(&bytes, true, |_| Err(Status::busy())), Served::Answer(_));
                prop_assert!(answered);
            }
        }

        #[test]
        fn any_reply_is_read_without_panic(bytes: Vec<u8>, method in 0usize..4) {
            let call = call(Method::ALL[method]);
            let _ = read_reply(&call, &bytes);
            let _ = ReplyScanner::new().scan(&bytes);
        }
    }
}
