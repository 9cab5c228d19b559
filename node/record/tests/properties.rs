//! What holds for any record, and for any bytes in place of one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing test may panic"
)]

use std::collections::BTreeMap;

use dirnode_proto::{Struct, Value};
use dirnode_record::{Facts, RecordCid, Referrer, Summary, Validator, fuzz, read_struct, to_canonical};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "name", "Name", "id", "skills", "ſkills", "domains", "modules", "locators", "type", "urls", "url", "data",
            "artifact", "authors", "annotations", "schema_version", "version", "description", "created_at", "metadata",
            "profiles", "size", "servers", "connections", "deployment", "env_vars", "json",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => prop::sample::select(vec![
            "0.7.0", "0.8.0", "1.0.0", "1.1.0", "1.0.0-x", "integration/mcp", "integration/acp", "a/../b", "nil",
            "language_processing/language_translation", "source_code", "2031-03-09T11:22:33Z", "aGVsbG8=", "",
        ])
        .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(-0.0),
        Just(1e21),
        Just(601.0),
        (0u32..20_000).prop_map(f64::from),
        any::<f64>().prop_filter("json numbers are finite", |n| n.is_finite()),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number().prop_map(Value::Number),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::btree_map(key(), inner, 0..6).prop_map(Value::Object),
        ]
    })
}

fn record() -> impl Strategy<Value = Struct> {
    prop::collection::btree_map(key(), value(), 0..10).prop_map(|fields| Struct { fields })
}

/// The object as text with its members turned around at every depth, and white space in between.
fn backwards(value: &Value, out: &mut String) {
    match value {
        Value::List(items) => {
            out.push_str("[ ");
            for (place, item) in items.iter().enumerate() {
                out.push_str(if place > 0 { "\t,\n" } else { "" });
                backwards(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (place, (key, item)) in fields.iter().rev().enumerate() {
                out.push_str(if place > 0 { " , " } else { " " });
                out.push_str(&serde_json::to_string(key).unwrap());
                out.push_str(" :\r");
                backwards(item, out);
            }
            out.push('}');
        }
        scalar => {
            let mut bytes = Vec::new();
            dirnode_record::canonical::write_value(&mut bytes, scalar).unwrap();
            out.push_str(&String::from_utf8(bytes).unwrap());
        }
    }
}

proptest! {
    #[test]
    fn canonical_bytes_read_back(record in record()) {
        let canonical = to_canonical(&record).unwrap();
        let again = read_struct(&canonical).unwrap().unwrap();
        prop_assert_eq!(&again, &record);
        prop_assert_eq!(to_canonical(&again).unwrap(), canonical);
    }

    #[test]
    fn order_and_space_do_not_change_the_cid(mut record in record()) {
        let canonical = to_canonical(&record).unwrap();
        let mut text = String::new();
        backwards(&Value::Object(std::mem::take(&mut record.fields)), &mut text);
        let again = read_struct(text.as_bytes()).unwrap().unwrap();
        prop_assert_eq!(RecordCid::of(&to_canonical(&again).unwrap()), RecordCid::of(&canonical));
    }

    #[test]
    fn every_record_has_facts_or_a_reason(mut record in record(), version in 0usize..4) {
        let version = ["0.7.1", "0.8.0", "1.1.0", "2.0.0"][version];
        record.fields.insert("schema_version".to_owned(), Value::String(version.to_owned()));
        if let Ok(facts) = Facts::read(&record) {
            prop_assert_eq!(Summary::from(&facts).labels(), facts.labels());
        }
    }

    /// Both ways of judging agree on what has been through doubles.
    #[test]
    fn verdicts_agree_for_values_and_their_text(record in record(), version in 0usize..4) {
        let version = ["0.7.0", "0.8.0", "1.0.0", "1.1.0"][version];
        let validator = Validator::builtin();
        let by_text = validator.validate_text(&to_canonical(&record).unwrap(), Some(version));
        prop_assert_eq!(validator.validate(&record, version), by_text);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
        fuzz::record_text(&bytes);
        fuzz::referrer(&bytes);
        fuzz::validate_text(&bytes);
        fuzz::cid_text(&bytes);
    }

    #[test]
    fn anything_like_json_is_read_without_panic(text in r#"([\[\]{}:,"0-9eE.+\- \\u]|"[a-d\\]{0,3}":?|true|null|\\ud83d){0,40}"#) {
        fuzz::record_text(text.as_bytes());
        fuzz::referrer(text.as_bytes());
        fuzz::validate_text(text.as_bytes());
        // A generic reader accepts more than ours, never less.
        if read_struct(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn referrers_read_back(kind in text(), cid in prop::option::of(text()), created_at in text(), data in prop::option::of(record())) {
        let referrer = Referrer {
            kind,
            record_cid: cid,
            annotations: BTreeMap::from([("k".to_owned(), created_at.clone())]),
            created_at,
            data,
            referrer_ref: None,
        };
        prop_assert_eq!(Referrer::parse(&referrer.to_canonical().unwrap()).unwrap(), referrer);
    }
}

/// A record nested as deep as the reader goes, with the schema's one recursive object and with lists to compare.
fn deep_texts() -> Vec<String> {
    let nest = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let lists = nest("[", "1", "]", 9_998);
    let objects = nest("{\"a\":", "1", "}", 9_998);
    let recursive = nest("{\"env_deps\":[{},", "{}", "]}", 4_900);
    let module = |data: &str| {
        format!(
            "{{\"schema_version\":\"0.8.0\",\"modules\":[{{\"name\":\"integration/acp\",\"id\":201,\"data\":{data}}}]}}"
        )
    };
    let half = nest("[", "1", "]", 4_900);
    vec![
        format!("{{\"schema_version\":\"1.0.0\",\"x\":{lists}}}"),
        format!("{{\"schema_version\":\"1.0.0\",\"x\":{objects}}}"),
        format!("{{\"schema_version\":\"1.0.0\",\"authors\":[{half},{half}]}}"),
        module(&format!(
            "{{\"deployment\":{{\"agent_deps\":[{{\"name\":\"n\",\"env_var_values\":[{recursive}]}}]}}}}"
        )),
        module(&format!(
            "{{\"deployment\":{{\"deployment_options\":[{half},{half},{{\"type\":{half}}}]}}}}"
        )),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
    ]
}

#[test]
fn deep_nesting_fits_a_small_stack() {
    let work = || {
        for text in deep_texts() {
            fuzz::record_text(text.as_bytes());
            fuzz::referrer(text.as_bytes());
            fuzz::validate_text(text.as_bytes());
        }
    };
    std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(work)
        .unwrap()
        .join()
        .unwrap();
}
