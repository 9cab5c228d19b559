//! Bytes that were meant to be text, read as the reference reads them: each byte that is not UTF-8 becomes U+FFFD.

/// The text of `bytes`. Unlike the standard library, one replacement stands for one bad byte, not for a bad sequence.
#[must_use]
pub fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// The first characters of a text from outside, for use in a message.
#[must_use]
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bad_byte_is_one_replacement() {
        assert_eq!(lossy(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
        assert_eq!(lossy(b"\xe2\x82A"), "\u{fffd}\u{fffd}A");
        assert_eq!(lossy(b"\xed\xa0\x80"), "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(lossy("\u{e9}".as_bytes()), "\u{e9}");
    }
}
