//! The protobuf form of [`Struct`], read and written in one pass each.
//!
//! The reader follows the protobuf rules for repeated map keys and repeated oneof members (grpc-api §3.1), keeps count
//! of nested messages up to [`MAX_DEPTH`] as the reference does (§3.5), and grows the stack where a record is deep.
//! The writer fills a buffer from its end, so that a length is known when its prefix is due: linear in the size of the
//! record, however deep it is.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

use crate::value::{Struct, Value};

/// Messages that may be nested in one another, the outermost included. Map entries count.
pub const MAX_DEPTH: u32 = 10_000;

/// Depth of a `Struct` that is a field of the outermost message, as in every message of this API that has one.
const STRUCT_DEPTH: u32 = 2;

/// Room that one level of reading or writing needs at most; below it the stack grows by [`STACK_STEP`].
const RED_ZONE: usize = 64 * 1024;
const STACK_STEP: usize = 1024 * 1024;

impl Message for Struct {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        let mut writer = BackWriter::with_capacity(members_len(&self.fields));
        write_members(&mut writer, &self.fields);
        buf.put_slice(writer.written());
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != 1 || wire_type != WireType::LengthDelimited {
            return encoding::skip_field(wire_type, tag, buf, ctx);
        }
        let len = usize::try_from(encoding::decode_varint(buf)?).map_err(|_| fault(Fault::Syntax))?;
        if len > buf.remaining() {
            return Err(fault(Fault::Syntax));
        }
        let entry = buf.copy_to_bytes(len);
        read_entry(&mut Reader(&entry), &mut self.fields, STRUCT_DEPTH + 1).map_err(fault)
    }

    fn encoded_len(&self) -> usize {
        members_len(&self.fields)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

// ---- reading

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Syntax,
    Utf8,
    Depth,
}

#[expect(
    deprecated,
    reason = "prost has no other constructor for the error of a hand-written Message"
)]
fn fault(fault: Fault) -> DecodeError {
    DecodeError::new(match fault {
        Fault::Syntax => "invalid wire format",
        Fault::Utf8 => "string field contains invalid UTF-8",
        Fault::Depth => "exceeded maximum recursion depth",
    })
}

/// What is left of one message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value = 0_u64;
        for shift in (0..).step_by(7).take(10) {
            let (&byte, rest) = self.0.split_first().ok_or(Fault::Syntax)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                return Err(Fault::Syntax);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Fault::Syntax)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        let len = usize::try_from(len).map_err(|_| Fault::Syntax)?;
        let (head, rest) = self.0.split_at_checked(len).ok_or(Fault::Syntax)?;
        self.0 = rest;
        Ok(head)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.varint()?;
        self.take(len)
    }

    fn text(&mut self) -> Result<String, Fault> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| Fault::Utf8)
    }

    /// The next field's number and wire type; `None` at the end.
    fn key(&mut self) -> Result<Option<(u32, u8)>, Fault> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Fault::Syntax)?;
        if number == 0 || number > (1 << 29) - 1 {
            return Err(Fault::Syntax);
        }
        Ok(Some((number, (key & 7) as u8)))
    }

    /// Passes over a field that is not ours, groups included.
    fn skip(&mut self, number: u32, wire: u8) -> Result<(), Fault> {
        let mut open = Vec::new();
        let mut next = (number, wire);
        loop {
            match next.1 {
                0 => {
                    self.varint()?;
                }
                1 => {
                    self.take(8)?;
                }
                2 => {
                    self.bytes()?;
                }
                3 => {
                    if open.len() >= MAX_DEPTH as usize {
                        return Err(Fault::Depth);
                    }
                    open.push(next.0);
                }
                4 => {
                    if open.pop() != Some(next.0) {
                        return Err(Fault::Syntax);
                    }
                }
                5 => {
                    self.take(4)?;
                }
                _ => return Err(Fault::Syntax),
            }
            if open.is_empty() {
                return Ok(());
            }
            next = self.key()?.ok_or(Fault::Syntax)?;
        }
    }
}

fn enter(depth: u32) -> Result<(), Fault> {
    if depth > MAX_DEPTH {
        Err(Fault::Depth)
    } else {
        Ok(())
    }
}

/// One map entry: the last of several equal keys wins; a missing value is one without a kind.
fn read_entry(reader: &mut Reader<'_>, into: &mut BTreeMap<String, Value>, depth: u32) -> Result<(), Fault> {
    enter(depth)?;
    let mut key = String::new();
    let mut holder = Guard(Value::Unset);
    while let Some((number, wire)) = reader.key()? {
        match (number, wire) {
            (1, 2) => key = reader.text()?,
            (2, 2) => {
                let inner = reader.bytes()?;
                read_value(&mut Reader(inner), &mut holder.0, depth + 1)?;
            }
            _ => reader.skip(number, wire)?,
        }
    }
    if let Some(old) = into.insert(key, std::mem::take(&mut holder.0)) {
        drop(Guard(old));
    }
    Ok(())
}

/// Merges one `Value` message into `into`: the same kind of message is merged, another kind replaces.
fn read_value(reader: &mut Reader<'_>, into: &mut Value, depth: u32) -> Result<(), Fault> {
    enter(depth)?;
    stacker::maybe_grow(RED_ZONE, STACK_STEP, || {
        while let Some((number, wire)) = reader.key()? {
            match (number, wire) {
                (1, 0) => {
                    reader.varint()?;
                    replace(into, Value::Null);
                }
                (2, 1) => {
                    let bytes = reader.take(8)?.try_into().map_err(|_| Fault::Syntax)?;
                    replace(into, Value::Number(f64::from_le_bytes(bytes)));
                }
                (3, 2) => {
                    let text = reader.text()?;
                    replace(into, Value::String(text));
                }
                (4, 0) => {
                    let flag = reader.varint()? != 0;
                    replace(into, Value::Bool(flag));
                }
                (5, 2) => {
                    let inner = reader.bytes()?;
                    if !matches!(into, Value::Object(_)) {
                        replace(into, Value::Object(BTreeMap::new()));
                    }
                    if let Value::Object(fields) = into {
                        read_members(&mut Reader(inner), fields, depth + 1)?;
                    }
                }
                (6, 2) => {
                    let inner = reader.bytes()?;
                    if !matches!(into, Value::List(_)) {
                        replace(into, Value::List(Vec::new()));
                    }
                    if let Value::List(items) = into {
                        read_items(&mut Reader(inner), items, depth + 1)?;
                    }
                }
                _ => reader.skip(number, wire)?,
            }
        }
        Ok(())
    })
}

fn read_members(
    reader: &mut Reader<'_>,
    into: &mut BTreeMap<String, Value>,
    depth: u32,
) -> Result<(), Fault> {
    enter(depth)?;
    while let Some((number, wire)) = reader.key()? {
        if (number, wire) == (1, 2) {
            let inner = reader.bytes()?;
            read_entry(&mut Reader(inner), into, depth + 1)?;
        } else {
            reader.skip(number, wire)?;
        }
    }
    Ok(())
}

fn read_items(reader: &mut Reader<'_>, into: &mut Vec<Value>, depth: u32) -> Result<(), Fault> {
    enter(depth)?;
    while let Some((number, wire)) = reader.key()? {
        if (number, wire) == (1, 2) {
            let inner = reader.bytes()?;
            let mut holder = Guard(Value::Unset);
            read_value(&mut Reader(inner), &mut holder.0, depth + 1)?;
            into.push(std::mem::take(&mut holder.0));
        } else {
            reader.skip(number, wire)?;
        }
    }
    Ok(())
}

fn replace(into: &mut Value, with: Value) {
    drop(Guard(std::mem::replace(into, with)));
}

/// A value that is taken apart without recursion when it is dropped, on every path.
struct Guard(Value);

impl Drop for Guard {
    fn drop(&mut self) {
        std::mem::take(&mut self.0).dismantle();
    }
}

// ---- writing

/// Length of a varint.
fn varint_len(value: usize) -> usize {
    encoding::encoded_len_varint(value as u64)
}

/// Length of a length-delimited field with a one-byte key.
fn field_len(len: usize) -> usize {
    1 + varint_len(len) + len
}

fn members_len(fields: &BTreeMap<String, Value>) -> usize {
    fields
        .iter()
        .map(|(key, value)| field_len(field_len(key.len()) + field_len(value_len(value))))
        .sum()
}

fn value_len(value: &Value) -> usize {
    match value {
        Value::Unset => 0,
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 9,
        Value::String(text) => field_len(text.len()),
        Value::Object(fields) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || field_len(members_len(fields))),
        Value::List(items) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || {
            field_len(items.iter().map(|item| field_len(value_len(item))).sum())
        }),
    }
}

/// A buffer that is filled from its end.
struct BackWriter {
    bytes: Vec<u8>,
    start: usize,
}

impl BackWriter {
    fn with_capacity(len: usize) -> Self {
        Self {
            bytes: vec![0; len],
            start: len,
        }
    }

    /// The length is computed before anything is written, so there is always room.
    fn put(&mut self, bytes: &[u8]) {
        let end = self.start;
        self.start = end.saturating_sub(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.start..end) {
            debug_assert_eq!(room.len(), bytes.len(), "the computed length is too short");
            if room.len() == bytes.len() {
                room.copy_from_slice(bytes);
            }
        }
    }

    /// The key and length of a field whose `len` bytes were just written.
    fn head(&mut self, key: u8, len: usize) {
        let mut varint = [0_u8; 10];
        let mut room: &mut [u8] = &mut varint;
        let before = room.remaining_mut();
        encoding::encode_varint(len as u64, &mut room);
        let used = before - room.remaining_mut();
        self.put(varint.get(..used).unwrap_or_default());
        self.put(&[key]);
    }

    fn written(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

fn write_members(out: &mut BackWriter, fields: &BTreeMap<String, Value>) {
    for (key, value) in fields.iter().rev() {
        let end = out.start;
        write_value(out, value);
        out.head(0x12, end - out.start);
        out.put(key.as_bytes());
        out.head(0x0a, key.len());
        out.head(0x0a, end - out.start);
    }
}

fn write_value(out: &mut BackWriter, value: &Value) {
    match value {
        Value::Unset => {}
        Value::Null => out.put(&[0x08, 0]),
        Value::Bool(flag) => out.put(&[0x20, u8::from(*flag)]),
        Value::Number(number) => {
            out.put(&number.to_le_bytes());
            out.put(&[0x11]);
        }
        Value::String(text) => {
            out.put(text.as_bytes());
            out.head(0x1a, text.len());
        }
        Value::Object(fields) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || {
            let end = out.start;
            write_members(out, fields);
            out.head(0x2a, end - out.start);
        }),
        Value::List(items) => stacker::maybe_grow(RED_ZONE, STACK_STEP, || {
            let end = out.start;
            for item in items.iter().rev() {
                let end = out.start;
                write_value(out, item);
                out.head(0x0a, end - out.start);
            }
            out.head(0x32, end - out.start);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest_list(levels: usize) -> Struct {
        let mut value = Value::Number(1.0);
        for _ in 0..levels {
            value = Value::List(vec![value]);
        }
        Struct {
            fields: BTreeMap::from([("x".to_owned(), value)]),
        }
    }

    fn nest_object(levels: usize) -> Struct {
        let mut value = Value::Number(1.0);
        for _ in 0..levels {
            value = Value::Object(BTreeMap::from([("k".to_owned(), value)]));
        }
        Struct {
            fields: BTreeMap::from([("x".to_owned(), value)]),
        }
    }

    fn in_record(data: Struct) -> Vec<u8> {
        crate::core::v1::Record::from(data).encode_to_vec()
    }

    fn read(bytes: &[u8]) -> Result<crate::core::v1::Record, String> {
        crate::core::v1::Record::decode(bytes)
            .map_err(|error| crate::codec::unreadable(&error).message().to_owned())
    }

    #[test]
    fn what_is_written_reads_back() {
        let data = Struct {
            fields: BTreeMap::from([
                ("".to_owned(), Value::Null),
                (
                    "a".to_owned(),
                    Value::List(vec![Value::Bool(true), Value::Unset, Value::Number(-0.0)]),
                ),
                (
                    "é".to_owned(),
                    Value::Object(BTreeMap::from([("k".to_owned(), Value::String("v".repeat(300)))])),
                ),
            ]),
        };
        let bytes = in_record(data.clone());
        assert_eq!(read(&bytes).unwrap().data, Some(data));
    }

    #[test]
    fn records_are_read_as_deep_as_the_contract_says_and_no_deeper() {
        for (data, fits) in [
            (nest_list(4998), true),
            (nest_list(4999), false),
            (nest_object(3332), true),
            (nest_object(3333), false),
            (nest_list(60_000), false),
        ] {
            let bytes = in_record(data);
            let answer = read(&bytes);
            if fits {
                let again = answer.unwrap();
                assert_eq!(again.encode_to_vec(), bytes);
            } else {
                let reason = answer.map(drop).unwrap_err();
                assert!(
                    reason.ends_with("proto: exceeded maximum recursion depth"),
                    "{reason}"
                );
            }
        }
    }

    #[test]
    fn bad_bytes_are_named() {
        for (bytes, reason) in [
            (&[0xff, 0xff, 0xff][..], "cannot parse invalid wire-format data"),
            (
                &[0x0a, 0x08, 0x0a, 0x06, 0x0a, 0x01, 0xff, 0x12, 0x01, 0x00],
                "string field contains invalid UTF-8",
            ),
            (
                &[0x0a, 0x03, 0x0a, 0x05, 0x0a],
                "cannot parse invalid wire-format data",
            ),
        ] {
            let error = read(bytes).map(drop).unwrap_err();
            assert!(error.ends_with(reason), "{error}");
        }
    }
}
