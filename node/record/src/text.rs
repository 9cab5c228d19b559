//! Reads JSON text into a record, as strictly as the network does: a text that any peer refuses has no CID here.
//!
//! Rejects duplicate keys, lone surrogate escapes, invalid UTF-8, numbers beyond a double, byte order marks and
//! anything after the value. Works through an explicit stack and stops at [`MAX_DEPTH`]. Writes nothing, holds no
//! state. Follows grpc-api §3.1 and §3.5.

use std::collections::BTreeMap;

use dirnode_proto::{Struct, Value};

use crate::scan::{self, Fault, Literal};
use crate::tree::{self, Node};

/// Deepest nesting that is read, the object at the top included: 9998 levels below a top-level field.
pub const MAX_DEPTH: usize = 9999;

/// Why a text is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// Not JSON.
    #[error("json syntax error at line {line} column {column}: {fault}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// What was wrong there.
        fault: &'static str,
    },
    /// A key that the same object already has, after unescaping.
    #[error("duplicate key {key:?} at line {line} column {column}")]
    DuplicateKey {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// The key, shortened.
        key: String,
    },
    /// Half of a surrogate pair.
    #[error("lone surrogate escape at line {line} column {column}")]
    LoneSurrogate {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// A string that is not UTF-8.
    #[error("invalid utf-8 in the string at line {line} column {column}")]
    InvalidUtf8 {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// A number that no double holds.
    #[error("number out of range at line {line} column {column}")]
    NumberOutOfRange {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nesting exceeds {MAX_DEPTH} levels at line {line} column {column}")]
    TooDeep {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
    },
    /// A JSON value other than an object, or `null`.
    #[error("expected a json object, got {found}")]
    NotAnObject {
        /// What there was.
        found: &'static str,
    },
}

impl TextError {
    /// The name of the failure that the vectors use.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Syntax { .. } => "syntax",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::LoneSurrogate { .. } => "lone_surrogate",
            Self::InvalidUtf8 { .. } => "invalid_utf8",
            Self::NumberOutOfRange { .. } => "number_out_of_range",
            Self::TooDeep { .. } => "too_deep",
            Self::NotAnObject { .. } => "not_an_object",
        }
    }

    /// Sorts the error.
    #[must_use]
    pub fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::Invalid
    }
}

/// Reads the object in `text`; the text `null` gives `None`.
///
/// # Errors
/// [`TextError`]. A text with several faults is reported by its first syntax fault when it has one, since a checker
/// that looks at the syntax first would never come to the others.
pub fn read_struct(text: &[u8]) -> Result<Option<Struct>, TextError> {
    let (top, fault) = tree::read::<Value>(text).map_err(|(fault, at)| locate(text, fault, at))?;
    // From here on an object is owned by a `Struct`, whose drop does not recurse.
    let read = match top {
        Value::Object(fields) => Ok(Some(Struct { fields })),
        Value::Null => Ok(None),
        Value::List(items) => {
            discard(items);
            Err("a list")
        }
        Value::String(_) => Err("a string"),
        Value::Bool(_) => Err("a boolean"),
        Value::Number(_) | Value::Unset => Err("a number"),
    };
    match fault {
        Some((fault, at)) => Err(locate(text, fault, at)),
        None => read.map_err(|found| TextError::NotAnObject { found }),
    }
}

impl Node for Value {
    const FIRST_KEY_STAYS: bool = false;

    fn null() -> Self {
        Self::Null
    }

    fn bool(value: bool) -> Self {
        Self::Bool(value)
    }

    fn number(literal: &Literal<'_>) -> Option<Self> {
        let number = literal.to_double();
        number.is_finite().then_some(Self::Number(number))
    }

    fn text(text: String) -> Self {
        Self::String(text)
    }

    fn list(items: Vec<Self>) -> Self {
        Self::List(items)
    }

    fn object(fields: BTreeMap<String, Self>) -> Self {
        Self::Object(fields)
    }

    fn discard(nodes: Vec<Self>) {
        discard(nodes);
    }
}

/// Drops a tree of values without recursion, by way of `Struct`.
fn discard(items: Vec<Value>) {
    drop(Struct {
        fields: BTreeMap::from([(String::new(), Value::List(items))]),
    });
}

/// Gives the fault at byte `at` its line and column.
fn locate(text: &[u8], fault: Fault, at: usize) -> TextError {
    let (line, column) = scan::position(text, at);
    match fault {
        Fault::Syntax(fault) => TextError::Syntax { line, column, fault },
        Fault::DuplicateKey(key) => TextError::DuplicateKey { line, column, key },
        Fault::LoneSurrogate => TextError::LoneSurrogate { line, column },
        Fault::InvalidUtf8 => TextError::InvalidUtf8 { line, column },
        Fault::NumberOutOfRange => TextError::NumberOutOfRange { line, column },
        Fault::TooDeep => TextError::TooDeep { line, column },
    }
}
