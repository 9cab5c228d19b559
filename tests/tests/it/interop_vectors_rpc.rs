//! The wire vectors over a real connection: calls, and the answers compared value by value.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dirnode_network::wire::rpc::{Call, Reply};
use dirnode_network::{Library, LibraryError, PeerId, Pulled, ReferrerDescriptor, ReferrerList};
use dirnode_record::{RecordCid, Referrer};
use dirnode_tests::go_peer::{Options, Raw};
use dirnode_tests::p2p::{Shelf, bytes, text, unhex};
use dirnode_tests::vectors::cases;
use futures_util::future::BoxFuture;
use serde_json::Value as Json;

use crate::interop_live::{Tally, different, pair, write};

/// The records and referrers that the reference had when it was recorded.
struct Recorded(Shelf);

impl Recorded {
    fn answer<T: Send + 'static>(
        &self,
        call: &Call,
        pick: impl FnOnce(Reply) -> Option<T>,
    ) -> BoxFuture<'static, Result<T, LibraryError>> {
        let answer = self
            .0
            .answer(call)
            .map(|reply| pick(reply).expect("a reply of the kind that was asked for"));
        Box::pin(std::future::ready(answer))
    }
}

impl Library for Recorded {
    fn lookup(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        self.answer(&Call::Lookup { cid: cid.to_string() }, |reply| match reply {
            Reply::Lookup(meta) => Some(meta.annotations.unwrap_or_default()),
            _ => None,
        })
    }

    fn pull(&self, _: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        self.answer(&Call::Pull { cid: cid.to_string() }, |reply| match reply {
            Reply::Pull(record) => Some(Pulled {
                annotations: record.annotations.unwrap_or_default(),
                data: record.data.into(),
            }),
            _ => None,
        })
    }

    fn list_referrers(
        &self,
        _: PeerId,
        cid: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        let call = Call::ListReferrers { cid: cid.to_string() };
        self.answer(&call, |reply| match reply {
            Reply::ListReferrers(list) => Some(list),
            _ => None,
        })
    }

    fn pull_referrer(
        &self,
        _: PeerId,
        cid: RecordCid,
        referrer: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        let cid = cid.to_string();
        self.answer(&Call::PullReferrer { cid, referrer }, |reply| match reply {
            Reply::PullReferrer(found) => found.map(|found| *found),
            _ => None,
        })
    }
}

/// A msgpack value, maps without order, texts and bytes alike, as readers of the network see them.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Integer(i64),
    Number(u64),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(BTreeMap<Vec<u8>, Value>),
}

/// Reads one value; what is read here was written by the reference or by the node under test.
fn value(bytes: &mut &[u8]) -> Option<Value> {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (head, rest) = bytes.split_at_checked(count)?;
        *bytes = rest;
        Some(head)
    }
    fn number(bytes: &mut &[u8], width: usize) -> Option<u64> {
        Some(
            take(bytes, width)?
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
        )
    }
    let tag = take(bytes, 1)?[0];
    let length = match tag {
        0x80..=0x9f => u64::from(tag & 0x0f),
        0xa0..=0xbf => u64::from(tag & 0x1f),
        0xc4 | 0xd9 => number(bytes, 1)?,
        0xc5 | 0xda | 0xdc | 0xde => number(bytes, 2)?,
        0xc6 | 0xdb | 0xdd | 0xdf => number(bytes, 4)?,
        _ => 0,
    };
    let length = usize::try_from(length).ok()?;
    Some(match tag {
        0x00..=0x7f => Value::Integer(i64::from(tag)),
        0xe0..=0xff => Value::Integer(i64::from(tag) - 256),
        0xc0 => Value::Nil,
        0xc2 | 0xc3 => Value::Bool(tag == 0xc3),
        0xcb => Value::Number(number(bytes, 8)?),
        0xcc | 0xd0 => Value::Integer(number(bytes, 1)?.cast_signed()),
        0xcd | 0xd1 => Value::Integer(number(bytes, 2)?.cast_signed()),
        0xa0..=0xbf | 0xc4..=0xc6 | 0xd9..=0xdb => Value::Bytes(take(bytes, length)?.to_vec()),
        0x90..=0x9f | 0xdc | 0xdd => Value::List((0..length).map(|_| value(bytes)).collect::<Option<_>>()?),
        0x80..=0x8f | 0xde | 0xdf => {
            let entry = |bytes: &mut &[u8]| {
                let Value::Bytes(key) = value(bytes)? else {
                    return None;
                };
                Some((key, value(bytes)?))
            };
            Value::Map((0..length).map(|_| entry(bytes)).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn values(mut bytes: &[u8]) -> Vec<Value> {
    std::iter::from_fn(|| if bytes.is_empty() { None } else { value(&mut bytes) }).collect()
}

impl Value {
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.get(key.as_bytes()),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> String {
        match self.get(key) {
            Some(Self::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }
}

fn response(case: &Json) -> Vec<u8> {
    bytes(case, "response").unwrap_or_default()
}

/// The status code inside an error text, or its beginning for errors of the framing.
fn code(error: &str) -> String {
    match error.split_once("code = ") {
        Some((_, rest)) => rest.split(' ').next().unwrap_or_default().to_owned(),
        None => error.split(':').next().unwrap_or_default().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_p2p_live_rpc_server() {
    let Some(list) = cases("p2p/rpc.jsonl") else {
        return;
    };
    // What the reference served in these cases is what our node serves.
    let recorded = Arc::new(Recorded(Shelf::from_answers(&list)));
    let Some((node, go, _folder)) = pair(Options::new(), Some(recorded)).await else {
        return;
    };
    let mut tally = Tally::default();
    for case in list.iter().filter(|case| case["op"] == "server") {
        let name = text(case, "name");
        let raw = Raw {
            protocol: Some("/dir/rpc/1.0.0"),
            data: &unhex(text(case, "request_hex")),
            half_close: case["half_close"] == true,
            quiet: Some(Duration::from_secs(2)),
            ..Raw::default()
        };
        let answer = write(&node, &go, raw).await;
        let (got, expected) = (values(&answer.data), values(&response(case)));
        let outcome = if let Some(wanted) = different("rpc", name) {
            let header = got.first().map(|header| header.text("Error")).unwrap_or_default();
            let told = if header.is_empty() {
                "ok".to_owned()
            } else {
                code(&header)
            };
            (told == wanted)
                .then_some(())
                .ok_or_else(|| format!("{told} rather than {wanted}"))
        } else {
            same_answer(&got, &expected)
        };
        tally.take("rpc", name, outcome);
    }
    tally.finish("rpc");
}

/// Headers agree in service, kind of error and code; bodies agree wholly.
fn same_answer(got: &[Value], expected: &[Value]) -> Result<(), String> {
    if got.len() != expected.len() {
        return Err(format!(
            "{} values rather than {}: {got:?}",
            got.len(),
            expected.len()
        ));
    }
    for (got, expected) in got.iter().zip(expected) {
        let header = |value: &Value| {
            (
                value.get("Service").cloned(),
                value.get("ErrType").cloned(),
                code(&value.text("Error")),
            )
        };
        let is_header = expected.get("Service").is_some() || expected.get("Error").is_some();
        let same = if is_header {
            header(got) == header(expected)
        } else {
            got == expected
        };
        if !same {
            return Err(format!("{got:?} rather than {expected:?}"));
        }
    }
    Ok(())
}
