//! A referrer in msgpack: the document with its free payload.
//!
//! | value | layout |
//! |---|---|
//! | referrer | map `type`, `record_ref`, `annotations`, `created_at`, `data`, `referrer_ref`; each left out when empty |
//! | struct | map `fields` = map of name to value; left out when it never had any |
//! | value | map `Kind` = nil, or a map with one of `NullValue` (0), `NumberValue`, `StringValue`, `BoolValue`, `StructValue` (struct), `ListValue` (map `values` = list of values) |
//!
//! The reference writes this and cannot read it back; other nodes can. Pure; recursion is bounded. Follows p2p-wire
//! §5.2 and §5.3.

use std::collections::BTreeMap;

use dirnode_proto::{Struct, Value};
use dirnode_record::Referrer;

use super::super::msgpack::{
    Fault, MsgpackError, Reader, put_bool, put_list, put_map, put_nil, put_number, put_raw, put_small,
};
use super::{put_annotations, put_record_ref, read_annotations, read_record_ref};

/// How deep the payload of a referrer may be nested, read or written.
pub const MAX_REFERRER_DEPTH: usize = 64;
/// How many values the payload of a referrer may hold when it is read. One takes a byte on the wire at least and some
/// fifty in memory.
pub const MAX_REFERRER_VALUES: usize = 256 * 1024;

const FIELDS: [&str; 6] = [
    "type",
    "record_ref",
    "annotations",
    "created_at",
    "data",
    "referrer_ref",
];

/// The payload is nested deeper than [`MAX_REFERRER_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooDeep;

pub(super) fn put_referrer(out: &mut Vec<u8>, referrer: &Referrer) -> Result<(), TooDeep> {
    let annotations = (!referrer.annotations.is_empty()).then(|| referrer.annotations.clone());
    let there = [
        !referrer.kind.is_empty(),
        referrer.record_cid.is_some(),
        annotations.is_some(),
        !referrer.created_at.is_empty(),
        referrer.data.is_some(),
        referrer.referrer_ref.is_some(),
    ];
    put_map(out, there.iter().filter(|there| **there).count());
    for (name, _) in FIELDS.iter().zip(there).filter(|(_, there)| *there) {
        put_raw(out, name.as_bytes());
        match *name {
            "type" => put_raw(out, referrer.kind.as_bytes()),
            "record_ref" => put_record_ref(out, referrer.record_cid.as_deref().unwrap_or_default()),
            "annotations" => put_annotations(out, &annotations),
            "created_at" => put_raw(out, referrer.created_at.as_bytes()),
            "referrer_ref" => put_record_ref(out, referrer.referrer_ref.as_deref().unwrap_or_default()),
            _ => match &referrer.data {
                Some(data) => put_fields(out, &data.fields, 0)?,
                None => put_nil(out),
            },
        }
    }
    Ok(())
}

fn put_fields(out: &mut Vec<u8>, fields: &BTreeMap<String, Value>, depth: usize) -> Result<(), TooDeep> {
    put_map(out, 1);
    put_raw(out, b"fields");
    put_map(out, fields.len());
    for (name, value) in fields {
        put_raw(out, name.as_bytes());
        put_value(out, value, depth)?;
    }
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &Value, depth: usize) -> Result<(), TooDeep> {
    if depth >= MAX_REFERRER_DEPTH {
        return Err(TooDeep);
    }
    let deeper = depth.saturating_add(1);
    let kind = |out: &mut Vec<u8>, name: &[u8]| {
        put_map(out, 1);
        put_raw(out, name);
    };
    put_map(out, 1);
    put_raw(out, b"Kind");
    match value {
        Value::Unset => put_nil(out),
        Value::Null => {
            kind(out, b"NullValue");
            put_small(out, 0);
        }
        Value::Bool(value) => {
            kind(out, b"BoolValue");
            put_bool(out, *value);
        }
        Value::Number(value) => {
            kind(out, b"NumberValue");
            put_number(out, *value);
        }
        Value::String(value) => {
            kind(out, b"StringValue");
            put_raw(out, value.as_bytes());
        }
        Value::List(values) => {
            kind(out, b"ListValue");
            // An empty list never had its slice made, so the reference leaves it out.
            if values.is_empty() {
                put_map(out, 0);
                return Ok(());
            }
            put_map(out, 1);
            put_raw(out, b"values");
            put_list(out, values.len());
            for value in values {
                put_value(out, value, deeper)?;
            }
        }
        Value::Object(fields) => {
            kind(out, b"StructValue");
            put_fields(out, fields, deeper)?;
        }
    }
    Ok(())
}

pub(super) fn read_referrer(reader: &mut Reader<'_>) -> Result<Option<Box<Referrer>>, MsgpackError> {
    let mut referrer = Referrer::default();
    let mut left = MAX_REFERRER_VALUES;
    let there = reader.structure(&FIELDS, |reader, place| {
        match FIELDS.get(place).copied().unwrap_or_default() {
            "type" => referrer.kind = reader.text()?,
            "record_ref" => referrer.record_cid = read_record_ref(reader)?,
            "annotations" => referrer.annotations = read_annotations(reader)?.unwrap_or_default(),
            "created_at" => referrer.created_at = reader.text()?,
            "referrer_ref" => referrer.referrer_ref = read_record_ref(reader)?,
            _ => referrer.data = read_fields(reader, 0, &mut left)?.map(|fields| Struct { fields }),
        }
        Ok(())
    })?;
    Ok(there.then(|| Box::new(referrer)))
}

/// `None` for nil.
fn read_fields(
    reader: &mut Reader<'_>,
    depth: usize,
    left: &mut usize,
) -> Result<Option<BTreeMap<String, Value>>, MsgpackError> {
    let mut fields = BTreeMap::new();
    let there = reader.structure(&["fields"], |reader, _| {
        let count = reader.map(*left)?.unwrap_or_default();
        for _ in 0..count {
            let name = reader.text()?;
            fields.insert(name, read_value(reader, depth, left)?);
        }
        Ok(())
    })?;
    Ok(there.then_some(fields))
}

fn read_value(reader: &mut Reader<'_>, depth: usize, left: &mut usize) -> Result<Value, MsgpackError> {
    const KINDS: [&str; 6] = [
        "NullValue",
        "NumberValue",
        "StringValue",
        "BoolValue",
        "StructValue",
        "ListValue",
    ];
    if depth >= MAX_REFERRER_DEPTH {
        return Err(reader.fault(Fault::TooDeep(MAX_REFERRER_DEPTH)));
    }
    *left = left
        .checked_sub(1)
        .ok_or(reader.fault(Fault::TooMany(MAX_REFERRER_VALUES)))?;
    let deeper = depth.saturating_add(1);
    let mut value = Value::Unset;
    reader.structure(&["Kind"], |reader, _| {
        reader
            .structure(&KINDS, |reader, place| {
                value = match KINDS.get(place).copied().unwrap_or_default() {
                    "NullValue" => {
                        reader.integer()?;
                        Value::Null
                    }
                    "NumberValue" => Value::Number(reader.number()?),
                    "StringValue" => Value::String(reader.text()?),
                    "BoolValue" => Value::Bool(reader.boolean()?),
                    "StructValue" => Value::Object(read_fields(reader, deeper, left)?.unwrap_or_default()),
                    _ => Value::List(read_values(reader, deeper, left)?),
                };
                Ok(())
            })
            .map(drop)
    })?;
    Ok(value)
}

fn read_values(reader: &mut Reader<'_>, depth: usize, left: &mut usize) -> Result<Vec<Value>, MsgpackError> {
    let mut values = Vec::new();
    reader.structure(&["values"], |reader, _| {
        let count = reader.list(*left)?.unwrap_or_default();
        for _ in 0..count {
            values.push(read_value(reader, depth, left)?);
        }
        Ok(())
    })?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Option<Box<Referrer>>, MsgpackError> {
        read_referrer(&mut Reader::new(bytes))
    }

    fn nested(depth: usize) -> Referrer {
        let mut value = Value::Bool(true);
        for _ in 0..depth {
            value = Value::List(vec![value]);
        }
        Referrer {
            data: Some(Struct {
                fields: BTreeMap::from([("x".to_owned(), value)]),
            }),
            ..Referrer::default()
        }
    }

    #[test]
    fn nesting_is_bounded_both_ways() {
        let mut out = Vec::new();
        put_referrer(&mut out, &nested(MAX_REFERRER_DEPTH - 1)).unwrap();
        assert_eq!(
            read(&out).unwrap().map(|read| *read),
            Some(nested(MAX_REFERRER_DEPTH - 1))
        );
        assert_eq!(
            put_referrer(&mut Vec::new(), &nested(MAX_REFERRER_DEPTH)),
            Err(TooDeep)
        );
    }

    #[test]
    fn many_small_values_are_refused() {
        let mut out =
            b"\x81\xa4data\x81\xa6fields\x81\xa1x\x81\xa4Kind\x81\xa9ListValue\x81\xa6values".to_vec();
        let count = MAX_REFERRER_VALUES + 1;
        put_list(&mut out, count);
        out.extend(std::iter::repeat_n(0xc0, count));
        assert!(matches!(read(&out).unwrap_err().fault, Fault::TooMany(_)));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Unset),
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-1e9f64..1e9).prop_map(Value::Number),
            ".{0,40}".prop_map(Value::String),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                proptest::collection::btree_map(".{0,6}", inner, 0..6).prop_map(Value::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_referrer_round_trips(
            kind in ".{0,40}",
            record_cid in proptest::option::of("[a-z0-9]{0,60}"),
            annotations in proptest::collection::btree_map(".{0,6}", ".{0,40}", 0..20),
            created_at in ".{0,30}",
            fields in proptest::option::of(proptest::collection::btree_map(".{0,6}", values(), 0..6)),
            referrer_ref in proptest::option::of("[a-z0-9]{0,60}"),
        ) {
            let referrer = Referrer {
                kind,
                record_cid,
                annotations,
                created_at,
                data: fields.map(|fields| Struct { fields }),
                referrer_ref,
            };
            let mut out = Vec::new();
            put_referrer(&mut out, &referrer).unwrap();
            prop_assert_eq!(read(&out).unwrap().map(|read| *read), Some(referrer));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
