//! Builds a tree from JSON text, for any kind of node: the value of a record, or the document of the validator.
//!
//! Works through an explicit stack that stops at [`MAX_DEPTH`]; half-built trees are handed to the node's own
//! `discard`, which must not recurse. Holds no state.

use std::collections::BTreeMap;
use std::mem;

use crate::scan::{At, Fault, Literal, Scanner};
use crate::text::MAX_DEPTH;

/// What a tree is made of.
pub(crate) trait Node: Sized {
    /// Whether the first of two equal keys stays, without a fault; otherwise the second is a fault.
    const FIRST_KEY_STAYS: bool;
    fn null() -> Self;
    fn bool(value: bool) -> Self;
    /// `None` when no number of this kind holds it.
    fn number(literal: &Literal<'_>) -> Option<Self>;
    fn text(text: String) -> Self;
    fn list(items: Vec<Self>) -> Self;
    fn object(fields: BTreeMap<String, Self>) -> Self;
    /// Drops nodes of any depth without recursion.
    fn discard(nodes: Vec<Self>);
}

/// Reads one value and nothing after it. A fault beside the value says that the syntax is good and the text still
/// not what it should be: the first such fault and its place.
pub(crate) fn read<N: Node>(text: &[u8]) -> Result<(N, Option<At>), At> {
    let mut reader = Reader {
        scanner: Scanner::new(text),
        soft: None,
    };
    let top = reader.value()?;
    if let Err(fault) = reader.scanner.end() {
        N::discard(vec![top]);
        return Err(fault);
    }
    Ok((top, reader.soft))
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    soft: Option<At>,
}

enum Open<N: Node> {
    List(Vec<N>),
    /// The members so far and the key that waits for its value.
    Object(BTreeMap<String, N>, String),
}

struct Stack<N: Node>(Vec<Open<N>>);

impl<N: Node> Drop for Stack<N> {
    fn drop(&mut self) {
        for open in mem::take(&mut self.0) {
            match open {
                Open::List(items) => N::discard(items),
                Open::Object(fields, _) => N::discard(fields.into_values().collect()),
            }
        }
    }
}

impl Reader<'_> {
    fn value<N: Node>(&mut self) -> Result<N, At> {
        let mut stack = Stack(Vec::new());
        loop {
            let mut done = match self.scanner.value_start()? {
                b'{' => {
                    self.enter(&stack)?;
                    if !self.scanner.take_after_space(b'}') {
                        let (key, _) = self.key()?;
                        stack.0.push(Open::Object(BTreeMap::new(), key));
                        continue;
                    }
                    N::object(BTreeMap::new())
                }
                b'[' => {
                    self.enter(&stack)?;
                    if !self.scanner.take_after_space(b']') {
                        stack.0.push(Open::List(Vec::new()));
                        continue;
                    }
                    N::list(Vec::new())
                }
                _ => self.scalar()?,
            };
            // Puts the finished value into its parent, and closes parents as long as they end here.
            loop {
                let more = match stack.0.last_mut() {
                    None => return Ok(done),
                    Some(Open::List(items)) => {
                        items.push(done);
                        self.scanner.separator(b']')?
                    }
                    Some(Open::Object(fields, key)) => {
                        self.put(fields, mem::take(key), done);
                        let more = self.scanner.separator(b'}')?;
                        if more {
                            *key = self.next_key(fields)?;
                        }
                        more
                    }
                };
                if more {
                    break;
                }
                done = match stack.0.pop() {
                    Some(Open::List(items)) => N::list(items),
                    Some(Open::Object(fields, _)) => N::object(fields),
                    None => N::null(),
                };
            }
        }
    }

    fn enter<N: Node>(&mut self, stack: &Stack<N>) -> Result<(), At> {
        if stack.0.len() >= MAX_DEPTH {
            return Err((Fault::TooDeep, self.scanner.offset()));
        }
        self.scanner.advance();
        Ok(())
    }

    fn put<N: Node>(&mut self, fields: &mut BTreeMap<String, N>, key: String, value: N) {
        if N::FIRST_KEY_STAYS && fields.contains_key(&key) {
            N::discard(vec![value]);
        } else if let Some(old) = fields.insert(key, value) {
            N::discard(vec![old]);
        }
    }

    fn next_key<N: Node>(&mut self, fields: &BTreeMap<String, N>) -> Result<String, At> {
        let (key, at) = self.key()?;
        // Keys usually come in order, and then the last one is all there is to look at.
        let behind = fields.last_key_value().is_some_and(|(last, _)| *last >= key);
        if behind && !N::FIRST_KEY_STAYS && fields.contains_key(&key) {
            self.note(Fault::DuplicateKey(crate::shorten(&key)), at);
        }
        Ok(key)
    }

    /// A key and its colon, and where the key stands.
    fn key(&mut self) -> Result<(String, usize), At> {
        if self.scanner.peek_after_space() != Some(b'"') {
            return Err(self.scanner.syntax("expected an object key"));
        }
        let at = self.scanner.offset();
        let key = self.string()?;
        if !self.scanner.take_after_space(b':') {
            return Err(self.scanner.syntax("expected a colon after the object key"));
        }
        Ok((key, at))
    }

    fn scalar<N: Node>(&mut self) -> Result<N, At> {
        match self.scanner.value_start()? {
            b'"' => self.string().map(N::text),
            b'-' | b'0'..=b'9' => {
                let at = self.scanner.offset();
                let number = N::number(&self.scanner.number()?);
                if number.is_none() {
                    self.note(Fault::NumberOutOfRange, at);
                }
                Ok(number.unwrap_or_else(N::null))
            }
            b'n' => self.scanner.literal(b"null").map(|()| N::null()),
            b't' => self.scanner.literal(b"true").map(|()| N::bool(true)),
            b'f' => self.scanner.literal(b"false").map(|()| N::bool(false)),
            _ => Err(self.scanner.syntax("expected a value")),
        }
    }

    fn string(&mut self) -> Result<String, At> {
        let at = self.scanner.offset();
        let (text, fault) = self.scanner.string()?;
        if let Some(fault) = fault {
            self.note(fault, at);
        }
        Ok(text)
    }

    fn note(&mut self, fault: Fault, at: usize) {
        self.soft.get_or_insert((fault, at));
    }
}
