//! The golden cases of record identity: canonical bytes, typed reading, labels, referrers and CID texts.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing test may panic"
)]

mod common;

use std::collections::BTreeMap;

use common::{Family, Faults, compare_identity, input, lines, number, text};
use dirnode_proto::{Struct, Value};
use dirnode_record::cid::length_rule;
use dirnode_record::labels::{NotAnnounced, announceable, label_keys, list_labels};
use dirnode_record::{Facts, RecordCid, Referrer, Summary, decode_any, read_struct, referrer, to_canonical};
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// Reads the text and its facts as a client or peer would, and compares both with the case.
fn check_reading(faults: &mut Faults, case: &Json) -> Option<Struct> {
    let read = read_struct(&input(case));
    if let Some(expected) = case.get("struct") {
        faults.same("struct ok", &read.is_ok(), &expected["ok"].as_bool().unwrap());
        let class = read.as_ref().err().map(|error| error.class());
        faults.same("struct class", &class, &text(expected, "error_class"));
        let nil = expected.get("nil").is_some_and(|nil| nil == true);
        faults.same("nil", &matches!(read, Ok(None)), &nil);
    }
    let class = match &read {
        Err(error) => Some(error.class()),
        Ok(None) => Some("null_document"),
        Ok(Some(record)) => Facts::read(record).err().map(|error| error.error_class()),
    };
    let expected = &case["text"];
    faults.same("text ok", &class.is_none(), &expected["ok"].as_bool().unwrap());
    if text(expected, "error_class").is_some() {
        faults.same("text class", &class, &text(expected, "error_class"));
    }
    let record = read.ok().flatten()?;
    match to_canonical(&record) {
        Ok(canonical) => {
            compare_identity(faults, case, &canonical);
            let again = read_struct(&canonical).unwrap().unwrap();
            faults.same(
                "canonical again",
                &(to_canonical(&again).unwrap() == canonical),
                &true,
            );
        }
        Err(error) => faults.0.push(format!("no canonical bytes: {error}")),
    }
    let model = Facts::read(&record).ok().map(|facts| facts.model.name());
    faults.same("model", &model, &text(case, "model"));
    Some(record)
}

#[test]
fn vectors_cid_canonical() {
    let mut family = Family::new("cid canonical");
    for line in lines("cid/canonical.jsonl") {
        let case: Json = serde_json::from_str(&line).unwrap();
        let mut faults = Faults::default();
        check_reading(&mut faults, &case);
        family.case(text(&case, "id").unwrap(), &faults.0);
    }
    family.finish();
}

#[test]
fn vectors_cid_records() {
    let mut family = Family::new("cid records");
    for line in lines("cid/records.jsonl") {
        let case: Json = serde_json::from_str(&line).unwrap();
        let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&line).unwrap();
        let mut faults = Faults::default();
        if let Some(record) = check_reading(&mut faults, &case)
            && let Ok(facts) = Facts::read(&record)
        {
            check_facts(&mut faults, &facts, &raw["facts"]);
            check_labels(&mut faults, &facts, &case);
        }
        family.case(text(&case, "id").unwrap(), &faults.0);
    }
    family.finish();
}

fn check_facts(faults: &mut Faults, facts: &Facts<'_>, expected: &RawValue) {
    let expected = read_struct(expected.get().as_bytes()).unwrap().unwrap();
    let got = facts_document(facts);
    for (name, value) in &expected.fields {
        faults.same(name, &json(got.fields.get(name).unwrap()), &json(value));
    }
    assert_eq!(got.fields.len(), expected.fields.len());
}

fn json(value: &Value) -> String {
    let mut out = Vec::new();
    dirnode_record::canonical::write_value(&mut out, value).unwrap();
    String::from_utf8(out).unwrap()
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(
        fields
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

fn map(map: &BTreeMap<String, String>) -> Value {
    Value::Object(
        map.iter()
            .map(|(key, value)| (key.clone(), string(value)))
            .collect(),
    )
}

fn facts_document(facts: &Facts<'_>) -> Struct {
    let item = |item: &dirnode_record::facts::Item| {
        object([
            ("name", string(&item.name)),
            ("id", Value::Number(item.id.into())),
            ("annotations", map(&item.annotations)),
        ])
    };
    let module = |module: &dirnode_record::facts::Module<'_>| {
        object([
            ("name", string(&module.name)),
            ("id", Value::Number(module.id.into())),
            ("annotations", map(&module.annotations)),
            ("data", Value::Object(module.data.cloned().unwrap_or_default())),
            ("artifact_media_type", string(&module.artifact_media_type)),
        ])
    };
    let locator = |locator: &dirnode_record::facts::Locator| {
        object([
            ("type", string(&locator.kind)),
            ("url", string(&locator.url)),
            ("annotations", map(&locator.annotations)),
        ])
    };
    let authors = facts
        .authors
        .iter()
        .flatten()
        .map(|author| string(author))
        .collect();
    let Value::Object(fields) = object([
        ("name", string(&facts.name)),
        ("version", string(&facts.version)),
        ("description", string(&facts.description)),
        ("schema_version", string(&facts.schema_version)),
        ("created_at", string(&facts.created_at)),
        ("previous_record_cid", string(&facts.previous_record_cid)),
        ("authors", Value::List(authors)),
        ("annotations", map(&facts.annotations)),
        ("skills", Value::List(facts.skills.iter().map(item).collect())),
        ("domains", Value::List(facts.domains.iter().map(item).collect())),
        ("modules", Value::List(facts.modules.iter().map(module).collect())),
        (
            "locators",
            Value::List(facts.locators.iter().map(locator).collect()),
        ),
    ]) else {
        unreachable!("an object was just made")
    };
    Struct { fields }
}

fn strings(case: &Json, key: &str) -> Vec<String> {
    case[key]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

fn check_labels(faults: &mut Faults, facts: &Facts<'_>, case: &Json) {
    let labels = facts.labels();
    let texts = |labels: &[dirnode_record::Label]| labels.iter().map(ToString::to_string).collect::<Vec<_>>();
    faults.same("labels", &texts(&labels), &strings(case, "labels"));
    faults.same("summary labels", &Summary::from(facts).labels(), &labels);
    faults.same(
        "label_keys",
        &label_keys(&labels, "CID", "PEER"),
        &strings(case, "label_keys"),
    );
    let (mut listed, mut expected) = (texts(&list_labels(&labels)), strings(case, "list_labels"));
    listed.sort();
    expected.sort();
    faults.same("list_labels", &listed, &expected);
    let cid = RecordCid::parse(text(case, "cid").unwrap()).unwrap();
    let gossip = announceable(&labels, &cid, "2026-08-21T14:39:57.123456789Z");
    faults.same(
        "announced",
        &gossip.is_ok(),
        &case["gossip"]["announced"].as_bool().unwrap(),
    );
    match (gossip, text(&case["gossip"], "reason")) {
        (Ok(()), None)
        | (Err(NotAnnounced::NoLabels), Some("skipped: no labels"))
        | (Err(NotAnnounced::TooLarge { .. }), Some("event exceeds maximum size")) => {}
        (Err(NotAnnounced::TooManyLabels { .. }), Some(reason)) if reason.contains("labels") => {}
        (got, reason) => faults.0.push(format!("gossip {got:?}, expected {reason:?}")),
    }
}

#[test]
fn vectors_cid_referrers() {
    let mut family = Family::new("cid referrers");
    for line in lines("cid/referrers.jsonl") {
        let case: Json = serde_json::from_str(&line).unwrap();
        let mut faults = Faults::default();
        if let (Some(record), Some(cid)) = (text(&case, "record"), text(&case, "record_cid")) {
            let record = read_struct(record.as_bytes()).unwrap().unwrap();
            let canonical = to_canonical(&record).unwrap();
            faults.same(
                "record_cid",
                &RecordCid::of(&canonical).to_string().as_str(),
                &cid,
            );
        }
        let request = &case["request"];
        let own = |key: &str| text(request, key).map(str::to_owned);
        let annotations = request
            .get("annotations")
            .and_then(Json::as_object)
            .into_iter()
            .flatten();
        let sent = Referrer {
            kind: own("type").unwrap_or_default(),
            record_cid: own("record_cid"),
            annotations: annotations
                .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
                .collect(),
            created_at: own("created_at").unwrap_or_default(),
            data: text(request, "data").map(|data| read_struct(data.as_bytes()).unwrap().unwrap()),
            referrer_ref: own("referrer_ref"),
        };
        let rules = referrer::check_push(sent.record_cid.as_deref(), &sent.kind);
        if let Some(push) = case.get("push_referrer") {
            match (rules, text(push, "code").unwrap()) {
                (Ok(()), "OK") => {}
                (Err(found), "INVALID_ARGUMENT") => {
                    faults.same(
                        "message",
                        &found.to_string().as_str(),
                        &text(push, "message").unwrap(),
                    );
                }
                (found, code) => faults.0.push(format!("rules gave {found:?}, expected {code}")),
            }
        }
        let canonical = sent.to_canonical().unwrap();
        compare_identity(&mut faults, &case, &canonical);
        faults.same("read back", &Referrer::parse(&canonical).unwrap(), &sent);
        family.case(text(&case, "id").unwrap(), &faults.0);
    }
    family.finish();
}

#[test]
fn vectors_cid_strings() {
    let mut family = Family::new("cid strings");
    for line in lines("cid/cid_strings.jsonl") {
        let case: Json = serde_json::from_str(&line).unwrap();
        let mut faults = Faults::default();
        let input = String::from_utf8(input(&case)).unwrap();
        let decoded = decode_any(&input);
        let expected = &case["decode"];
        faults.same("decode ok", &decoded.is_ok(), &expected["ok"].as_bool().unwrap());
        if let (Ok(cid), true) = (&decoded, expected["ok"] == true) {
            faults.same(
                "version",
                &u64::from(cid.version),
                &expected["version"].as_u64().unwrap(),
            );
            faults.same("codec", &cid.codec, &expected["codec"].as_u64().unwrap());
            faults.same(
                "hash_code",
                &cid.hash_code,
                &expected["hash_code"].as_u64().unwrap(),
            );
            faults.same(
                "hash_length",
                &cid.digest.len(),
                &number(&expected["hash_length"]),
            );
            let bytes: String = cid.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            for (key, got) in [
                ("hash_name", cid.hash_name()),
                ("hash_hex", &cid.hash_hex()),
                ("string", &cid.to_string()),
                ("bytes_hex", &bytes),
                ("cidv1_base32", &cid.v1_base32()),
            ] {
                faults.same(key, &got, &text(expected, key).unwrap());
            }
        }
        let digest = decoded.and_then(|cid| cid.to_oci_digest());
        faults.same(
            "digest",
            &digest.as_deref().ok(),
            &text(&case["to_digest"], "digest"),
        );
        if let Some(back) = case.get("digest_to_cid") {
            let cid = digest.and_then(|digest| RecordCid::from_oci_digest(&digest)).ok();
            faults.same(
                "digest_to_cid",
                &cid.map(|cid| cid.to_string()).as_deref(),
                &text(back, "cid"),
            );
        }
        faults.same(
            "length_rule",
            &length_rule(&input),
            &case["length_rule"]["ok"].as_bool().unwrap(),
        );
        let stored = text(&case, "stored_cid").is_some_and(|stored| stored == input);
        if stored || RecordCid::parse(&input).is_some() {
            faults.same(
                "canonical spelling",
                &RecordCid::parse(&input).map(|c| c.to_string()),
                &Some(input),
            );
        }
        family.case(text(&case, "id").unwrap(), &faults.0);
    }
    family.finish();
}

/// The messages of the wire file, as far as records go: what they hold, made canonical, and read as facts.
#[test]
fn vectors_cid_wire_canonical() {
    use base64::Engine;
    use prost::Message;

    let mut family = Family::new("cid wire canonical");
    for line in lines("cid/wire.jsonl") {
        let case: Json = serde_json::from_str(&line).unwrap();
        let mut faults = Faults::default();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text(&case, "wire_b64").unwrap())
            .unwrap();
        let record = dirnode_proto::core::v1::Record::decode(bytes.as_slice());
        faults.same("wire ok", &record.is_ok(), &case["wire"]["ok"].as_bool().unwrap());
        if let Some(record) = record.ok().and_then(|record| record.data) {
            let canonical = to_canonical(&record);
            if let Some(expected) = case.get("marshal") {
                faults.same(
                    "marshal ok",
                    &canonical.is_ok(),
                    &expected["ok"].as_bool().unwrap(),
                );
                let class = canonical.as_ref().err().map(|error| error.class());
                faults.same("marshal class", &class, &text(expected, "error_class"));
            }
            if let Ok(canonical) = canonical {
                compare_identity(&mut faults, &case, &canonical);
                let facts = Facts::read(&record);
                let model = facts.as_ref().ok().map(|facts| facts.model.name());
                faults.same("model", &model, &text(&case, "model"));
                if let Some(decode) = case.get("decode") {
                    let class = facts.as_ref().err().map(|error| error.error_class());
                    faults.same("decode class", &class, &text(decode, "error_class"));
                }
            }
        }
        family.case(text(&case, "id").unwrap(), &faults.0);
    }
    family.finish();
}
