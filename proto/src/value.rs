//! `google.protobuf.Struct` and `Value` as this project reads them: numbers are IEEE doubles, objects are
//! sorted by the bytes of their keys, and nesting may be thousands deep without risk to the stack.

use std::collections::BTreeMap;

/// A JSON-like value. `Unset` is a protobuf `Value` whose `kind` was never set: it can be received, but has no
/// JSON form.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// A `Value` message without a kind.
    #[default]
    Unset,
    /// JSON `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any JSON number; may be NaN or infinite when it came from the wire.
    Number(f64),
    /// UTF-8 text.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// An object; iteration is in byte order of the keys.
    Object(BTreeMap<String, Value>),
}

/// `google.protobuf.Struct`: the object at the top of a record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Struct {
    /// The members, in byte order of their keys.
    pub fields: BTreeMap<String, Value>,
}

impl Drop for Struct {
    /// Takes the tree apart with a work list: a record may be nested thousands deep, and the derived drop recurses.
    fn drop(&mut self) {
        let mut rest: Vec<Value> = std::mem::take(&mut self.fields).into_values().collect();
        while let Some(value) = rest.pop() {
            match value {
                Value::List(items) => rest.extend(items),
                Value::Object(fields) => rest.extend(fields.into_values()),
                _ => {}
            }
        }
    }
}

impl Value {
    /// Drops the value without recursion, however deep it is.
    pub fn dismantle(self) {
        let mut rest = vec![self];
        while let Some(value) = rest.pop() {
            match value {
                Self::List(items) => rest.extend(items),
                Self::Object(fields) => rest.extend(fields.into_values()),
                _ => {}
            }
        }
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self {
            Some(text)
        } else {
            None
        }
    }
}
