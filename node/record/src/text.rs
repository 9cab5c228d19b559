//! Reads JSON text into a record, as strictly as the network does: a text that any peer refuses has no CID here.
//!
//! Rejects duplicate keys, lone surrogate escapes, invalid UTF-8, numbers beyond a double, byte order marks and
//! anything after the value. Works through an explicit stack and stops at [`MAX_DEPTH`]. Writes nothing, holds no
//! state. Follows grpc-api §3.1 and §3.5.

use std::collections::BTreeMap;
use std::mem;

use dirnode_proto::{Struct, Value};

use crate::scan::{self, Fault, Scanner};

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
    let mut reader = Reader {
        scanner: Scanner::new(text),
        soft: None,
    };
    let top = reader.read().map_err(|(fault, at)| locate(text, fault, at))?;
    // From here on the value is owned by a `Struct`, whose drop does not recurse.
    let top = Owned::from(top);
    if let Some((fault, at)) = reader.soft {
        return Err(locate(text, fault, at));
    }
    top.into_struct()
}

enum Owned {
    Object(Struct),
    Null,
    Other(&'static str),
}

impl From<Value> for Owned {
    fn from(value: Value) -> Self {
        let found = match value {
            Value::Object(fields) => return Self::Object(Struct { fields }),
            Value::Null => return Self::Null,
            Value::List(items) => {
                discard(items);
                "a list"
            }
            Value::String(_) => "a string",
            Value::Bool(_) => "a boolean",
            Value::Number(_) | Value::Unset => "a number",
        };
        Self::Other(found)
    }
}

impl Owned {
    fn into_struct(self) -> Result<Option<Struct>, TextError> {
        match self {
            Self::Object(object) => Ok(Some(object)),
            Self::Null => Ok(None),
            Self::Other(found) => Err(TextError::NotAnObject { found }),
        }
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

struct Reader<'a> {
    scanner: Scanner<'a>,
    /// The first fault that is not one of syntax; reading goes on, in case the syntax is broken further down.
    soft: Option<(Fault, usize)>,
}

enum Open {
    List(Vec<Value>),
    /// The members so far and the key that waits for its value.
    Object(BTreeMap<String, Value>, String),
}

/// The open lists and objects. Dropping one half-built must not recurse either.
#[derive(Default)]
struct Stack(Vec<Open>);

impl Drop for Stack {
    fn drop(&mut self) {
        for open in mem::take(&mut self.0) {
            match open {
                Open::List(items) => discard(items),
                Open::Object(fields, _) => drop(Struct { fields }),
            }
        }
    }
}

impl Reader<'_> {
    fn read(&mut self) -> Result<Value, (Fault, usize)> {
        let mut stack = Stack::default();
        loop {
            let mut done = match self.scanner.value_start()? {
                b'{' => {
                    self.check_depth(&stack)?;
                    self.scanner.advance();
                    if self.scanner.take_after_space(b'}') {
                        Value::Object(BTreeMap::new())
                    } else {
                        let key = self.key()?;
                        stack.0.push(Open::Object(BTreeMap::new(), key));
                        continue;
                    }
                }
                b'[' => {
                    self.check_depth(&stack)?;
                    self.scanner.advance();
                    if self.scanner.take_after_space(b']') {
                        Value::List(Vec::new())
                    } else {
                        stack.0.push(Open::List(Vec::new()));
                        continue;
                    }
                }
                b'"' => Value::String(self.string()?),
                b'-' | b'0'..=b'9' => self.number()?,
                b'n' => self.scanner.literal(b"null").map(|()| Value::Null)?,
                b't' => self.scanner.literal(b"true").map(|()| Value::Bool(true))?,
                b'f' => self.scanner.literal(b"false").map(|()| Value::Bool(false))?,
                _ => return Err(self.scanner.syntax("expected a value")),
            };
            // Puts the finished value into its parent, and closes parents as long as they end here.
            loop {
                done = match stack.0.pop() {
                    None => {
                        if let Err(fault) = self.scanner.end() {
                            discard(vec![done]);
                            return Err(fault);
                        }
                        return Ok(done);
                    }
                    Some(Open::List(mut items)) => {
                        items.push(done);
                        if self
                            .scanner
                            .separator(b']')
                            .inspect_err(|_| discard(mem::take(&mut items)))?
                        {
                            stack.0.push(Open::List(items));
                            break;
                        }
                        Value::List(items)
                    }
                    Some(Open::Object(fields, key)) => {
                        let mut object = Struct { fields };
                        if let Some(old) = object.fields.insert(key, done) {
                            discard(vec![old]);
                        }
                        if self.scanner.separator(b'}')? {
                            let key = self.next_key(&object.fields)?;
                            stack.0.push(Open::Object(mem::take(&mut object.fields), key));
                            break;
                        }
                        Value::Object(mem::take(&mut object.fields))
                    }
                }
            }
        }
    }

    fn check_depth(&self, stack: &Stack) -> Result<(), (Fault, usize)> {
        if stack.0.len() >= MAX_DEPTH {
            Err((Fault::TooDeep, self.scanner.offset()))
        } else {
            Ok(())
        }
    }

    fn next_key(&mut self, fields: &BTreeMap<String, Value>) -> Result<String, (Fault, usize)> {
        self.scanner.skip_space();
        let at = self.scanner.offset();
        let key = self.key()?;
        // Keys usually come in order, and then the last one is all there is to look at.
        let behind = fields.last_key_value().is_some_and(|(last, _)| *last >= key);
        if behind && fields.contains_key(&key) {
            self.note(Fault::DuplicateKey(crate::shorten(&key)), at);
        }
        Ok(key)
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<String, (Fault, usize)> {
        if self.scanner.peek_after_space() != Some(b'"') {
            return Err(self.scanner.syntax("expected an object key"));
        }
        let key = self.string()?;
        if !self.scanner.take_after_space(b':') {
            return Err(self.scanner.syntax("expected a colon after the object key"));
        }
        Ok(key)
    }

    fn string(&mut self) -> Result<String, (Fault, usize)> {
        let at = self.scanner.offset();
        let (text, fault) = self.scanner.string()?;
        if let Some(fault) = fault {
            self.note(fault, at);
        }
        Ok(text)
    }

    fn number(&mut self) -> Result<Value, (Fault, usize)> {
        let at = self.scanner.offset();
        let number = self.scanner.number()?.to_double();
        if !number.is_finite() {
            self.note(Fault::NumberOutOfRange, at);
            return Ok(Value::Null);
        }
        Ok(Value::Number(number))
    }

    fn note(&mut self, fault: Fault, at: usize) {
        self.soft.get_or_insert((fault, at));
    }
}
