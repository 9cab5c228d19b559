//! The vectors of the peer-to-peer wire: reading a case, and the stand-in for a library of records.
//!
//! Ids of exceptions are `p2p/<family>/<name>`. What the replay over a live connection needs too is public here.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dirnode_identity::{Keypair, from_bytes};
use dirnode_network::wire::msgpack::{Fault, Progress, Reader, Scanner};
use dirnode_network::wire::rpc::{
    Call, PulledRecord, Reading, RecordMeta, ReferrerDescriptor, ReferrerList, Reply, Status, read_reply,
    read_request,
};
use dirnode_record::Referrer;
use serde_json::Value as Json;

use crate::vectors::{self, Exception, Tally};

/// The cases of one family, as they are run and counted.
pub struct Family {
    name: &'static str,
    cases: Vec<Json>,
    exceptions: BTreeMap<String, Exception>,
    tally: Tally,
}

impl Family {
    /// The cases of `p2p/<name>.jsonl`; `None`, said aloud, when the folder has no such file.
    #[must_use]
    pub fn load(name: &'static str) -> Option<Self> {
        Some(Self {
            name,
            cases: vectors::cases(&format!("p2p/{name}.jsonl"))?,
            exceptions: vectors::exceptions(),
            tally: Tally::default(),
        })
    }

    /// All cases, in file order.
    #[must_use]
    pub fn cases(&self) -> &[Json] {
        &self.cases
    }

    /// Runs `check` on each case of the kind `op`. It is given the better answer, where the reference's is not right
    /// here, and collects what differs.
    pub fn run(&mut self, op: &str, mut check: impl FnMut(&Json, Option<&Exception>, &mut Faults)) {
        for case in self.cases.iter().filter(|case| case["op"] == op) {
            let id = format!("p2p/{}/{}", self.name, text(case, "name"));
            let better = self.exceptions.get(&id);
            let mut faults = Faults::default();
            check(case, better, &mut faults);
            self.tally.ran(&id, better.is_some(), faults.finish());
        }
    }

    /// Counts cases that this release does not serve.
    pub fn not_served(&mut self, what: &str) {
        self.tally.not_served(what);
    }

    /// Says the figures, and fails when a case was wrong.
    pub fn finish(self) {
        let known: BTreeSet<&str> = self
            .cases
            .iter()
            .filter_map(|case| case["name"].as_str())
            .collect();
        let head = format!("p2p/{}/", self.name);
        // The folder of another release may lack a case; the project's own may not.
        if std::env::var_os("DIRNODE_VECTORS").is_none() {
            for id in self.exceptions.keys().filter_map(|id| id.strip_prefix(&head)) {
                assert!(known.contains(id), "no case for the exception {head}{id}");
            }
        }
        self.tally.finish(&format!("p2p/{}", self.name));
    }
}

/// Collects what differs in one case.
#[derive(Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Notes when two values differ.
    pub fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, got: T, expected: T) {
        if got != expected {
            let cut = |value: T| format!("{value:?}").chars().take(400).collect::<String>();
            self.0
                .push(format!("{what} is {}, expected {}", cut(got), cut(expected)));
        }
    }

    /// What differs, if anything.
    #[must_use]
    pub fn finish(self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.join("; "))
    }
}

/// A text of a case; empty when it is not there.
#[must_use]
pub fn text<'a>(case: &'a Json, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_default()
}

/// The bytes of `<field>_hex` or `<field>_b64`; `None` when neither is there.
#[must_use]
pub fn bytes(case: &Json, field: &str) -> Option<Vec<u8>> {
    if let Some(digits) = case[format!("{field}_hex")].as_str() {
        return Some(unhex(digits));
    }
    let digits = case[format!("{field}_b64")].as_str()?;
    Some(STANDARD.decode(digits).expect("base64 decodes"))
}

/// The bytes of hexadecimal digits.
#[must_use]
pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "whole bytes: {digits}");
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// The hexadecimal digits of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The published key of a case of `identity`, e.g. `init-4`. Never to be used for anything but tests.
#[must_use]
pub fn keypair(name: &str) -> Keypair {
    let cases = vectors::cases("p2p/identity.jsonl").expect("the vectors hold keys");
    let case = cases
        .iter()
        .find(|case| case["name"] == name)
        .expect("a key has a name");
    from_bytes(&bytes(case, "file").expect("a key file")).expect("a key file that is read")
}

/// Records and referrers as the recorded node had them, gathered from its own answers.
#[derive(Debug, Default)]
pub struct Shelf {
    records: BTreeMap<String, PulledRecord>,
    listed: BTreeMap<String, ReferrerList>,
    referrers: BTreeMap<String, Referrer>,
}

impl Shelf {
    /// Gathers what the answers in `cases` of the family `rpc` tell.
    #[must_use]
    pub fn from_answers(cases: &[Json]) -> Self {
        let mut shelf = Self::default();
        for case in cases.iter().filter(|case| case["op"] == "server") {
            let (Some(request), Some(answer)) = (bytes(case, "request"), bytes(case, "response")) else {
                continue;
            };
            let Reading::Call(call) = read_request(&request, true) else {
                continue;
            };
            match read_reply(&call, &answer) {
                Ok(Reply::Pull(record)) => drop(shelf.records.insert(record.cid.clone(), record)),
                Ok(Reply::Lookup(meta)) => {
                    shelf.records.entry(meta.cid.clone()).or_insert(PulledRecord {
                        cid: meta.cid,
                        annotations: meta.annotations,
                        data: Vec::new(),
                    });
                }
                Ok(Reply::ListReferrers(list)) => drop(shelf.listed.insert(call.cid().to_owned(), list)),
                Ok(Reply::PullReferrer(Some(referrer))) => {
                    if let Call::PullReferrer { referrer: named, .. } = &call {
                        shelf.referrers.insert(named.cid.clone(), *referrer);
                    }
                }
                _ => {}
            }
        }
        shelf
    }

    /// Answers a call from what is on the shelf.
    ///
    /// # Errors
    /// What a node says when it is not there.
    pub fn answer(&self, call: &Call) -> Result<Reply, Status> {
        let cid = call.cid();
        let record = self.records.get(cid);
        match call {
            Call::Lookup { .. } => record
                .map(|record| {
                    Reply::Lookup(RecordMeta {
                        cid: record.cid.clone(),
                        annotations: record.annotations.clone(),
                    })
                })
                .ok_or_else(|| Status::record_not_found(cid)),
            Call::Pull { .. } => record
                .map(|record| Reply::Pull(record.clone()))
                .ok_or_else(|| Status::record_not_found(cid)),
            Call::ListReferrers { .. } => match (self.listed.get(cid), record) {
                (Some(list), _) => Ok(Reply::ListReferrers(list.clone())),
                (None, Some(_)) => Ok(Reply::ListReferrers(ReferrerList::default())),
                (None, None) => Err(Status::listed_record_not_found(cid)),
            },
            Call::PullReferrer {
                referrer: ReferrerDescriptor { cid: named, .. },
                ..
            } => match (self.referrers.get(named), record) {
                (Some(referrer), _) => Ok(Reply::PullReferrer(Some(Box::new(referrer.clone())))),
                (None, Some(_)) => Err(Status::referrer_not_found(named, cid)),
                (None, None) => Err(Status::referred_record_not_found(cid)),
            },
        }
    }
}

/// Msgpack values one after the other, with the entries of every map in byte order: equal for answers that differ in
/// the order of map entries alone.
#[must_use]
pub fn in_map_order(stream: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), stream);
    while !rest.is_empty() {
        let (value, behind) = rest.split_at(length_of(rest));
        out.extend(ordered(value));
        rest = behind;
    }
    out
}

fn length_of(bytes: &[u8]) -> usize {
    match Scanner::new(usize::MAX / 2).scan(bytes) {
        Ok(Progress::Done(length)) => length,
        other => panic!("not a whole value: {other:?}"),
    }
}

fn ordered(value: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(value);
    match (reader.map(usize::MAX), value.first()) {
        (Ok(Some(_)), _) => {
            let head = value[..reader.position()].to_vec();
            let mut entries = BTreeMap::new();
            let mut rest = reader.rest();
            while !rest.is_empty() {
                let (key, behind) = rest.split_at(length_of(rest));
                let (value, behind) = behind.split_at(length_of(behind));
                entries.insert(ordered(key), ordered(value));
                rest = behind;
            }
            entries.into_iter().fold(head, |mut out, (key, value)| {
                out.extend(key);
                out.extend(value);
                out
            })
        }
        (Err(error), Some(0x90..=0x9f | 0xdc | 0xdd)) if matches!(error.fault, Fault::NotContainer(_)) => {
            let mut reader = Reader::new(value);
            reader.list(usize::MAX).expect("a list");
            let mut out = value[..reader.position()].to_vec();
            out.extend(in_map_order(reader.rest()));
            out
        }
        _ => value.to_vec(),
    }
}
