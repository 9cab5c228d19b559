//! The tokens of JSON text, for the two readers of this room: the strict one of records and the one of the validator.
//!
//! Knows syntax and nothing of values or nesting; never recurses. Bytes that are not UTF-8 are let through inside
//! strings and reported as a fault beside the string, since a syntax fault further on goes before them. Holds no
//! state beyond its place in the text. Follows RFC 8259, with grpc-api §3.1 on top.

/// Something wrong at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Syntax(&'static str),
    DuplicateKey(String),
    LoneSurrogate,
    InvalidUtf8,
    NumberOutOfRange,
    TooDeep,
}

/// A fault and its byte offset.
pub(crate) type At = (Fault, usize);

/// Line and column, both from 1, the column in bytes.
pub(crate) fn position(text: &[u8], at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.iter().filter(|b| **b == b'\n').count();
    let column = before.iter().rev().take_while(|b| **b != b'\n').count();
    (line + 1, column + 1)
}

/// A number as it was written.
pub(crate) struct Literal<'a> {
    /// ASCII: an optional minus, digits, and what else the grammar allows.
    pub(crate) text: &'a str,
    /// No point and no exponent.
    pub(crate) integer: bool,
}

impl Literal<'_> {
    /// The nearest double; infinite when out of range.
    pub(crate) fn to_double(&self) -> f64 {
        // Fifteen digits are exact in a double, so the general conversion is not needed.
        if self.integer && self.text.len() <= 15 {
            let (negative, digits) = match self.text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, self.text),
            };
            let mut whole = 0i64;
            for digit in digits.bytes() {
                whole = whole * 10 + i64::from(digit.wrapping_sub(b'0'));
            }
            #[expect(clippy::cast_precision_loss, reason = "at most fifteen digits are exact")]
            let size = whole as f64;
            return if negative { -size } else { size };
        }
        self.text.parse().unwrap_or(f64::INFINITY)
    }
}

pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    /// The same text, when all of it is UTF-8.
    text: Option<&'a str>,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            text: std::str::from_utf8(bytes).ok(),
            at: 0,
        }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn advance(&mut self) {
        self.at += 1;
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn syntax(&self, fault: &'static str) -> At {
        let fault = if self.at >= self.bytes.len() {
            "unexpected end of text"
        } else {
            fault
        };
        (Fault::Syntax(fault), self.at)
    }

    pub(crate) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    pub(crate) fn peek_after_space(&mut self) -> Option<u8> {
        self.skip_space();
        self.peek()
    }

    /// Skips white space, then `byte` if it is next.
    pub(crate) fn take_after_space(&mut self, byte: u8) -> bool {
        let found = self.peek_after_space() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// The first byte of the value that is due.
    pub(crate) fn value_start(&mut self) -> Result<u8, At> {
        self.peek_after_space()
            .ok_or_else(|| self.syntax("expected a value"))
    }

    /// After an item: true at a comma, false at the closing bracket.
    pub(crate) fn separator(&mut self, close: u8) -> Result<bool, At> {
        match self.peek_after_space() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.syntax("expected a comma or the end of the list or object")),
        }
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), At> {
        match self.peek_after_space() {
            None => Ok(()),
            Some(_) => Err(self.syntax("unexpected data after the value")),
        }
    }

    pub(crate) fn literal(&mut self, word: &[u8]) -> Result<(), At> {
        for byte in word {
            if self.peek() != Some(*byte) {
                return Err(self.syntax("expected true, false or null"));
            }
            self.at += 1;
        }
        Ok(())
    }

    pub(crate) fn number(&mut self) -> Result<Literal<'a>, At> {
        let start = self.at;
        let mut integer = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self
            .bytes
            .get(start..self.at)
            .and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(Literal {
            text: text.unwrap_or_default(),
            integer,
        })
    }

    fn digits(&mut self) -> Result<(), At> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.syntax("expected a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// Reads the string that starts at the quote here. A fault beside the string says that its content is not what
    /// was meant, though the syntax is good.
    pub(crate) fn string(&mut self) -> Result<(String, Option<Fault>), At> {
        self.at += 1;
        let mut fault = None;
        let (plain, end) = self.plain(&mut fault);
        // Most strings have no escape, and are copied once at their full length.
        if end == Some(b'"') {
            self.at += 1;
            return Ok((plain.to_owned(), fault));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((text, fault));
                }
                Some(b'\\') => self.escape(&mut text, &mut fault)?,
                _ => return Err(self.syntax("control character in a string")),
            }
            text.push_str(self.plain(&mut fault).0);
        }
    }

    /// The run up to the next quote, backslash or control character, and what that is.
    fn plain(&mut self, fault: &mut Option<Fault>) -> (&'a str, Option<u8>) {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|b| *b < 0x20 || *b == b'"' || *b == b'\\')
            .unwrap_or(rest.len());
        self.at += length;
        let end = self.peek();
        if let Some(text) = self.text.and_then(|text| text.get(start..self.at)) {
            return (text, end);
        }
        match std::str::from_utf8(rest.get(..length).unwrap_or_default()) {
            Ok(text) => (text, end),
            Err(_) => {
                fault.get_or_insert(Fault::InvalidUtf8);
                ("", end)
            }
        }
    }

    fn escape(&mut self, text: &mut String, fault: &mut Option<Fault>) -> Result<(), At> {
        self.at += 1;
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode(text, fault);
            }
            _ => return Err(self.syntax("unknown escape in a string")),
        };
        self.at += 1;
        text.push(plain);
        Ok(())
    }

    /// The four digits after `\u`, and the low half when they are the high half of a pair.
    fn unicode(&mut self, text: &mut String, fault: &mut Option<Fault>) -> Result<(), At> {
        let unit = self.hex4()?;
        if let Some(plain) = char::from_u32(unit) {
            text.push(plain);
            return Ok(());
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if unit < 0xdc00 && rest.starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low)
                && let Some(pair) = char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
            {
                text.push(pair);
                return Ok(());
            }
            // What follows is not the other half; it is read again as an escape of its own.
            self.at = back;
        }
        fault.get_or_insert(Fault::LoneSurrogate);
        text.push(char::REPLACEMENT_CHARACTER);
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, At> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            unit = (unit << 4) | digit.ok_or_else(|| self.syntax("expected a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(unit)
    }
}
