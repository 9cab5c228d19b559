//! Canonical JSON straight into the protobuf form of a record, without the tree in between: what a node does on every
//! pull.
//!
//! One pass over the text makes a flat list of tokens; one pass over the tokens from the back writes the message, so
//! that each length is known when its prefix is due. Only canonical text is taken: no white space, keys in order, the
//! escapes of [`crate::canonical`]. Everything else is handed back, and the caller takes the way over
//! [`crate::read_struct`], which judges it.

/// Deeper text goes the other way, which counts levels as the network does.
const MAX_DEPTH: usize = 512;

/// The bytes of an `agntcy.dir.core.v1.Record` message whose `data` is this canonical JSON; `None` when the text is not
/// canonical, or nested too deep for the short way.
#[must_use]
pub fn record_message(canonical: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(canonical).ok()?;
    let tokens = Tokens::of(text)?;
    let mut out = BackWriter::with_capacity(text.len() + text.len() / 4 + 64);
    write(&mut out, &tokens)?;
    Some(out.finish())
}

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Quoted<'a> {
    raw: &'a str,
    escaped: bool,
}

enum Token<'a> {
    Object,
    EndObject,
    List,
    EndList,
    Key(Quoted<'a>),
    Text(Quoted<'a>),
    Number(f64),
    Bool(bool),
    Null,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Due {
    Value,
    ValueOrEnd,
    KeyOrEnd,
    Key,
    CommaOrEnd,
}

struct Tokens<'a> {
    text: &'a str,
    at: usize,
    found: Vec<Token<'a>>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Option<Vec<Token<'a>>> {
        let mut this = Self {
            text,
            at: 0,
            found: Vec::with_capacity(text.len() / 12 + 8),
        };
        if this.next()? != b'{' {
            return None;
        }
        this.found.push(Token::Object);
        // For each open container: the key before, in an object.
        let mut open: Vec<Option<&'a str>> = vec![Some("")];
        let mut due = Due::KeyOrEnd;
        while let Some(last_key) = open.last_mut() {
            let is_object = last_key.is_some();
            let byte = this.next()?;
            due = match (due, byte) {
                (Due::CommaOrEnd, b',') => {
                    if is_object {
                        Due::Key
                    } else {
                        Due::Value
                    }
                }
                (Due::CommaOrEnd | Due::KeyOrEnd, b'}') if is_object => {
                    this.found.push(Token::EndObject);
                    open.pop();
                    Due::CommaOrEnd
                }
                (Due::CommaOrEnd | Due::ValueOrEnd, b']') if !is_object => {
                    this.found.push(Token::EndList);
                    open.pop();
                    Due::CommaOrEnd
                }
                (Due::Key | Due::KeyOrEnd, b'"') => {
                    let key = this.quoted()?;
                    // Order and uniqueness are those of the unescaped keys; escaped ones are rare enough to give up on.
                    let is_first = due == Due::KeyOrEnd;
                    if key.escaped || !(is_first || last_key.is_some_and(|last| last < key.raw)) {
                        return None;
                    }
                    *last_key = Some(key.raw);
                    this.found.push(Token::Key(key));
                    if this.next()? != b':' {
                        return None;
                    }
                    Due::Value
                }
                (Due::Value | Due::ValueOrEnd, byte) => match byte {
                    b'{' | b'[' => {
                        if open.len() >= MAX_DEPTH {
                            return None;
                        }
                        let is_object = byte == b'{';
                        this.found
                            .push(if is_object { Token::Object } else { Token::List });
                        open.push(is_object.then_some(""));
                        if is_object { Due::KeyOrEnd } else { Due::ValueOrEnd }
                    }
                    byte => {
                        let token = this.scalar(byte)?;
                        this.found.push(token);
                        Due::CommaOrEnd
                    }
                },
                _ => return None,
            };
        }
        (this.at == text.len()).then_some(this.found)
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.text.as_bytes().get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn scalar(&mut self, first: u8) -> Option<Token<'a>> {
        match first {
            b'"' => self.quoted().map(Token::Text),
            b't' => self.word("rue").then_some(Token::Bool(true)),
            b'f' => self.word("alse").then_some(Token::Bool(false)),
            b'n' => self.word("ull").then_some(Token::Null),
            b'-' | b'0'..=b'9' => self.number().map(Token::Number),
            _ => None,
        }
    }

    fn word(&mut self, rest: &str) -> bool {
        let found = self
            .text
            .as_bytes()
            .get(self.at..)
            .is_some_and(|left| left.starts_with(rest.as_bytes()));
        self.at += if found { rest.len() } else { 0 };
        found
    }

    /// The string whose opening quote was just passed.
    fn quoted(&mut self) -> Option<Quoted<'a>> {
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let found = memchr::memchr2(b'"', b'\\', rest)?;
            self.at += found + 1;
            if rest.get(found) == Some(&b'"') {
                break;
            }
            escaped = true;
            self.next()?;
        }
        let raw = self.text.get(start..self.at.checked_sub(1)?)?;
        // Without an early end, so that many bytes are looked at in one step.
        if raw.bytes().fold(false, |found, byte| found | (byte < 0x20)) {
            return None;
        }
        Some(Quoted { raw, escaped })
    }

    /// The number whose first byte was just passed.
    fn number(&mut self) -> Option<f64> {
        let start = self.at.checked_sub(1)?;
        let bytes = self.text.as_bytes();
        while bytes
            .get(self.at)
            .is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e'))
        {
            self.at += 1;
        }
        let literal = self.text.get(start..self.at)?;
        let number: f64 = literal.parse().ok()?;
        // The parser takes what JSON does not (`+1`, `1.`, `01`); canonical text has just one form of each number.
        let mut canonical = Vec::with_capacity(24);
        crate::canonical::write_number(&mut canonical, number).ok()?;
        (canonical == literal.as_bytes()).then_some(number)
    }
}

/// A container that is being written, from its end.
struct Open {
    is_object: bool,
    /// Where its content ends.
    end: usize,
    /// Where the entry ends whose value was written last.
    entry_end: usize,
}

fn write(out: &mut BackWriter, tokens: &[Token<'_>]) -> Option<()> {
    let mut open: Vec<Open> = Vec::new();
    let mut unescaped = String::new();
    for token in tokens.iter().rev() {
        let end = match token {
            Token::EndObject | Token::EndList => {
                let is_object = matches!(token, Token::EndObject);
                open.push(Open {
                    is_object,
                    end: out.len(),
                    entry_end: 0,
                });
                continue;
            }
            Token::Key(key) => {
                let entry_end = open.last()?.entry_end;
                out.field(0x0a, key.raw.as_bytes());
                out.head(0x0a, out.len().checked_sub(entry_end)?);
                continue;
            }
            Token::Object | Token::List => {
                let done = open.pop()?;
                let len = out.len().checked_sub(done.end)?;
                if open.is_empty() {
                    // `Record.data`.
                    out.head(0x0a, len);
                    return Some(());
                }
                out.head(if done.is_object { 0x2a } else { 0x32 }, len);
                done.end
            }
            scalar => {
                let end = out.len();
                match scalar {
                    Token::Bool(flag) => out.put(&[0x20, u8::from(*flag)]),
                    Token::Number(number) => {
                        out.put(&number.to_le_bytes());
                        out.put(&[0x11]);
                    }
                    Token::Text(text) if text.escaped => {
                        unescape(text.raw, &mut unescaped)?;
                        out.field(0x1a, unescaped.as_bytes());
                    }
                    Token::Text(text) => out.field(0x1a, text.raw.as_bytes()),
                    _ => out.put(&[0x08, 0]),
                }
                end
            }
        };
        // A value is complete: its own head, as the value of an entry or as a list item.
        let parent = open.last_mut()?;
        let len = out.len().checked_sub(end)?;
        if parent.is_object {
            out.head(0x12, len);
            parent.entry_end = end;
        } else {
            out.head(0x0a, len);
        }
    }
    None
}

/// Takes the escapes of canonical JSON out of a string.
fn unescape(raw: &str, into: &mut String) -> Option<()> {
    into.clear();
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at(at);
        into.push_str(plain);
        let mut len = 2;
        into.push(match escape.as_bytes().get(1)? {
            b'"' => '"',
            b'\\' => '\\',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                len = 6;
                let digits = escape
                    .get(2..6)
                    .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
                // Surrogates are no characters, and not how canonical text is written.
                char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
            }
            _ => return None,
        });
        rest = escape.get(len..)?;
    }
    into.push_str(rest);
    Some(())
}

/// A buffer that is filled from its end and grows at its front.
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

    /// Bytes written so far.
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.start < bytes.len() {
            self.grow(bytes.len());
        }
        let end = self.start;
        self.start = end.saturating_sub(bytes.len());
        if let Some(room) = self.bytes.get_mut(self.start..end) {
            room.copy_from_slice(bytes);
        }
    }

    fn grow(&mut self, need: usize) {
        let written = self.len();
        let capacity = (self.bytes.len() * 2).max(written + need);
        let mut bytes = vec![0; capacity];
        let start = capacity - written;
        if let (Some(room), Some(old)) = (bytes.get_mut(start..), self.bytes.get(self.start..)) {
            room.copy_from_slice(old);
        }
        *self = Self { bytes, start };
    }

    /// A length-delimited field.
    fn field(&mut self, key: u8, bytes: &[u8]) {
        self.put(bytes);
        self.head(key, bytes.len());
    }

    /// The key and length of a field whose `len` bytes were just written.
    fn head(&mut self, key: u8, len: usize) {
        let mut head = [key, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut left = len;
        let mut used = 1;
        for place in head.iter_mut().skip(1) {
            used += 1;
            let low = u8::try_from(left & 0x7f).unwrap_or_default();
            left >>= 7;
            if left == 0 {
                *place = low;
                break;
            }
            *place = low | 0x80;
        }
        self.put(head.get(..used).unwrap_or_default());
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use dirnode_proto::Struct;
    use dirnode_proto::core::v1::Record;
    use prost::Message as _;

    use super::*;
    use crate::{read_struct, to_canonical};

    /// What the long way makes of it.
    fn long_way(data: Struct) -> Vec<u8> {
        Record::from(data).encode_to_vec()
    }

    fn check(text: &str) {
        let data = read_struct(text.as_bytes()).unwrap().unwrap();
        assert_eq!(record_message(text.as_bytes()), Some(long_way(data)), "{text}");
    }

    #[test]
    fn the_short_way_ends_where_the_long_way_does() {
        check("{}");
        check(r#"{"a":null,"b":true,"c":false,"d":-0,"e":1e+21,"f":[],"g":{},"h":[[1,[2]],{"x":"y"}]}"#);
        check(r#"{"s":"\u003ca\u0026\n\t\"\\\u2028é😀"}"#);
        check(&format!(
            r#"{{"long":"{}","next":"{}"}}"#,
            "x".repeat(300),
            "\\n".repeat(40_000)
        ));
        check(&format!(r#"{{"n":[{}]}}"#, vec!["0"; 5000].join(",")));
    }

    #[test]
    fn what_is_not_canonical_is_handed_back() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            "{}x",
            "{ }",
            r#"{"a":1,}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":01}"#,
            r#"{"a":1.0}"#,
            r#"{"a":+1}"#,
            r#"{"a":1e400}"#,
            r#"{"a":"\ud83d\ude00"}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":[1}"#,
            r#"{"a":{]}"#,
            r#"{"a"}"#,
            r#"{"a":nul}"#,
            r#"{"":1,"":2}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":[,1]}"#,
        ] {
            assert_eq!(record_message(text.as_bytes()), None, "{text}");
        }
        assert_eq!(record_message(b"{\"a\":\"\xff\"}"), None);
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(9000), "]".repeat(9000));
        assert_eq!(record_message(deep.as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn any_canonical_text_gives_the_same_message(text in "[a-e\"\\\\{}\\[\\]:,0-9 \u{1}<é😀]{0,20}", number: f64) {
            use dirnode_proto::Value;
            let number = if number.is_finite() { number } else { 0.5 };
            let list = Value::List(vec![Value::Number(number), Value::String(text.clone()), Value::Null]);
            let data = Struct { fields: [("k".to_owned(), list), (text.clone(), Value::String(text))].into() };
            let canonical = to_canonical(&data).unwrap();
            let short = record_message(&canonical);
            // An escaped key takes the long way.
            proptest::prop_assert!(short.is_none() || short == Some(long_way(data)));
        }

        #[test]
        fn what_is_taken_is_what_the_strict_reader_takes(text in "[a\"{}\\[\\]:,0-9.e+-]{0,30}") {
            let text = format!("{{\"a\":{text}}}");
            if let Some(message) = record_message(text.as_bytes()) {
                let data = read_struct(text.as_bytes()).unwrap().unwrap();
                proptest::prop_assert_eq!(message, long_way(data));
            }
        }
    }
}
