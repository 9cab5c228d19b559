//! JSON as the reference's decoder takes it, for the small objects that peers announce.
//!
//! A library will not do: the reference replaces bytes that are not UTF-8, takes lone surrogates, matches keys without
//! regard to case, and takes nesting thousands deep in fields it does not know. Nothing here recurses; a document is
//! as long as the caller lets it be. Pure. Follows RFC 8259 and p2p-wire §4.2.

use super::go_text::lossy;

/// Deepest nesting that the reference's decoder takes.
const MAX_DEPTH: usize = 10_000;

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not valid json at byte {at}")]
pub struct JsonError {
    /// Where it goes wrong.
    pub at: usize,
}

/// A value that is known to be valid JSON, without white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a [u8]);

impl<'a> Raw<'a> {
    /// The one value that `document` consists of.
    ///
    /// # Errors
    /// [`JsonError`] for anything else.
    pub fn parse(document: &'a [u8]) -> Result<Self, JsonError> {
        let mut cursor = Cursor {
            text: document,
            at: 0,
        };
        let value = cursor.value()?;
        cursor.space();
        if cursor.peek().is_some() {
            return Err(cursor.wrong());
        }
        Ok(value)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == b"null"
    }

    /// What stands between the quotes of a text, not decoded.
    #[must_use]
    pub fn inside_quotes(self) -> Option<&'a [u8]> {
        self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")
    }

    /// The text, decoded: escapes resolved, bad bytes and lone surrogates replaced.
    #[must_use]
    pub fn text(self) -> Option<String> {
        self.inside_quotes().map(unescape)
    }

    /// A whole number without sign, fraction or exponent.
    #[must_use]
    pub fn integer(self) -> Option<u64> {
        if !self.0.iter().all(u8::is_ascii_digit) {
            return None;
        }
        std::str::from_utf8(self.0).ok()?.parse().ok()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// The values of a list, one after the other.
    #[must_use]
    pub fn items(self) -> Option<Items<'a>> {
        let inside = self.0.strip_prefix(b"[")?;
        Some(Items(Cursor { text: inside, at: 0 }))
    }

    /// The members of an object, one after the other, keys decoded.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        let inside = self.0.strip_prefix(b"{")?;
        Some(Members(Cursor { text: inside, at: 0 }))
    }
}

/// See [`Raw::items`].
#[derive(Debug)]
pub struct Items<'a>(Cursor<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Raw<'a>;

    fn next(&mut self) -> Option<Raw<'a>> {
        // The text is known to be valid: a comma may stand in front, and the end is the closing bracket.
        self.0.space();
        self.0.eat(b',');
        self.0.value().ok()
    }
}

/// See [`Raw::members`].
#[derive(Debug)]
pub struct Members<'a>(Cursor<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (String, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.space();
        self.0.eat(b',');
        self.0.space();
        let key = self.0.string().ok()?.text()?;
        self.0.space();
        self.0.eat(b':');
        Some((key, self.0.value().ok()?))
    }
}

#[derive(Debug)]
struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn wrong(&self) -> JsonError {
        JsonError { at: self.at }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.step();
        }
        there
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.eat(byte) { Ok(()) } else { Err(self.wrong()) }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.step();
        }
    }

    fn since(&self, start: usize) -> Raw<'a> {
        Raw(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Takes one value, whatever it holds. Containers that are open stand on a list, not on the stack.
    fn value(&mut self) -> Result<Raw<'a>, JsonError> {
        self.space();
        let start = self.at;
        // True for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            self.space();
            if open.len() >= MAX_DEPTH && matches!(self.peek(), Some(b'{' | b'[')) {
                return Err(self.wrong());
            }
            let opened = match self.peek() {
                Some(b'{') => {
                    self.step();
                    self.space();
                    !self.eat(b'}') && {
                        self.name()?;
                        open.push(true);
                        true
                    }
                }
                Some(b'[') => {
                    self.step();
                    self.space();
                    !self.eat(b']') && {
                        open.push(false);
                        true
                    }
                }
                Some(b'"') => {
                    self.string()?;
                    false
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    false
                }
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.wrong()),
            };
            if opened {
                continue;
            }
            // A value has ended, and with it perhaps what it stands in.
            loop {
                let Some(object) = open.last().copied() else {
                    return Ok(self.since(start));
                };
                self.space();
                if self.eat(b',') {
                    if object {
                        self.name()?;
                    }
                    break;
                }
                self.expect(if object { b'}' } else { b']' })?;
                open.pop();
            }
        }
    }

    fn name(&mut self) -> Result<(), JsonError> {
        self.space();
        self.string()?;
        self.space();
        self.expect(b':')
    }

    fn literal(&mut self, word: &[u8]) -> Result<bool, JsonError> {
        for byte in word {
            self.expect(*byte)?;
        }
        Ok(false)
    }

    fn string(&mut self) -> Result<Raw<'a>, JsonError> {
        let start = self.at;
        self.expect(b'"')?;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.step();
                    return Ok(self.since(start));
                }
                Some(b'\\') => {
                    self.step();
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.step(),
                        Some(b'u') => {
                            self.step();
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return Err(self.wrong());
                                }
                                self.step();
                            }
                        }
                        _ => return Err(self.wrong()),
                    }
                }
                Some(0x20..) => self.step(),
                _ => return Err(self.wrong()),
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.wrong());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.step();
        }
        Ok(())
    }
}

fn unescape(inside: &[u8]) -> String {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(place) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at_checked(place).unwrap_or((rest, &[]));
        text.push_str(&lossy(plain));
        let (character, behind) = escaped(escape);
        text.push(character);
        rest = behind;
    }
    text.push_str(&lossy(rest));
    text
}

/// The character of the escape at the start of `escape`, and what follows it.
fn escaped(escape: &[u8]) -> (char, &[u8]) {
    let short = |character, behind| (character, behind);
    match escape {
        [b'\\', b'u', rest @ ..] => unicode(rest),
        [b'\\', b'b', rest @ ..] => short('\u{8}', rest),
        [b'\\', b'f', rest @ ..] => short('\u{c}', rest),
        [b'\\', b'n', rest @ ..] => short('\n', rest),
        [b'\\', b'r', rest @ ..] => short('\r', rest),
        [b'\\', b't', rest @ ..] => short('\t', rest),
        [b'\\', other, rest @ ..] => short(char::from(*other), rest),
        _ => (char::REPLACEMENT_CHARACTER, &[]),
    }
}

/// `rest` stands behind `\u`. Half a surrogate pair is replaced, and what follows it is looked at by itself.
fn unicode(rest: &[u8]) -> (char, &[u8]) {
    let Some((first, behind)) = four_digits(rest) else {
        return (char::REPLACEMENT_CHARACTER, &[]);
    };
    if let Some(character) = char::from_u32(first) {
        return (character, behind);
    }
    let pair = behind
        .strip_prefix(b"\\u")
        .and_then(four_digits)
        .filter(|(second, _)| (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(second))
        .and_then(|(second, behind)| {
            let code = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
            Some((char::from_u32(code)?, behind))
        });
    pair.unwrap_or((char::REPLACEMENT_CHARACTER, behind))
}

fn four_digits(rest: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, behind) = rest.split_at_checked(4)?;
    let code = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((code, behind))
}

/// Whether the reference takes `key` for the field `name`, which must be of lower-case ASCII letters other than `k`:
/// case does not matter, and the long s is an s.
#[must_use]
pub fn is_key(key: &str, name: &str) -> bool {
    let mut folded = key.chars().map(|character| match character {
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    });
    name.chars().all(|character| folded.next() == Some(character)) && folded.next().is_none()
}

/// Writes `bytes` as the reference writes a text: `<`, `>`, `&`, U+2028 and U+2029 escaped, each bad byte as `\ufffd`.
pub fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            put_character(out, character);
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn put_character(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
        }
        other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_match_in_any_case() {
        for key in ["labels", "LABELS", "Label\u{17f}"] {
            assert!(is_key(key, "labels"), "{key}");
        }
        for key in ["label", "labelss", "", "l\u{e4}bels"] {
            assert!(!is_key(key, "labels"), "{key}");
        }
    }

    #[test]
    fn surrogates_pair_or_are_replaced() {
        for (text, expected) in [
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\/\b\"""#, "/\u{8}\""),
        ] {
            assert_eq!(
                Raw::parse(text.as_bytes()).unwrap().text().unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            "x",
            "{",
            "[1,]",
            "{,}",
            "{'a':1}",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "1e",
            "\"\n\"",
            "\"\\x\"",
            "nul",
            "{}x",
            "[}",
            "\"",
            "{\"a\"}",
            "\"\\u12g4\"",
        ] {
            assert!(Raw::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_is_as_deep_as_the_reference_takes() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Raw::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(Raw::parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn texts_round_trip(text: String) {
            let mut out = Vec::new();
            put_text(&mut out, text.as_bytes());
            prop_assert_eq!(Raw::parse(&out).unwrap().text().unwrap(), text.clone());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn json_is_what_the_library_calls_json(text in r#"[\[\]{},:"\\a10 .e+-]{0,24}"#) {
            let ours = Raw::parse(text.as_bytes()).is_ok();
            prop_assert_eq!(ours, serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn members_and_items_are_all_given(keys in proptest::collection::vec(".{0,8}", 0..8)) {
            let mut out = b" {".to_vec();
            for (place, key) in keys.iter().enumerate() {
                if place > 0 {
                    out.extend_from_slice(b" , ");
                }
                put_text(&mut out, key.as_bytes());
                out.extend_from_slice(b" : [1, {\"a\":[2,3]} ,null]");
            }
            out.push(b'}');
            let members: Vec<_> = Raw::parse(&out).unwrap().members().unwrap().collect();
            prop_assert_eq!(members.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), keys);
            for (_, value) in members {
                prop_assert_eq!(value.items().unwrap().count(), 3);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Ok(raw) = Raw::parse(&bytes) {
                let _ = (raw.text(), raw.integer(), raw.items().map(Iterator::count), raw.members().map(Iterator::count));
            }
        }
    }
}
