//! The text armour around a key: finds the first complete block of a file.
//!
//! As lenient as the reference's reader, so that a file which works there works here: text around the block, carriage
//! returns, header lines inside it, white space between the base64 digits. Pure. Follows RFC 7468 and p2p-wire §1.1.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Padding is asked for; the bits that the last digit carries too many are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// One block, its armour taken off.
pub(crate) struct Block {
    /// What stands between `BEGIN ` and the dashes.
    pub label: String,
    /// A header says that the content is encrypted.
    pub encrypted: bool,
    /// The content; wiped when it goes.
    pub content: Zeroizing<Vec<u8>>,
}

/// The first complete block of `text`. A block that is broken off or is not base64 is passed over, as the reference
/// does; the search then goes on behind its end line.
pub(crate) fn first_block(text: &[u8]) -> Option<Block> {
    let mut rest = text;
    loop {
        // The first end line, and the last begin line before it: an unfinished block in front does not count.
        let end = find(rest, b"\n-----END ")?.checked_add(1)?;
        let behind = rest.get(end..)?.strip_prefix(END)?;
        if let Some(block) = rest.get(..end).and_then(|before| read_block(before, behind)) {
            return Some(block);
        }
        rest = behind;
    }
}

/// `before` ends with the line break in front of the end line, `behind` begins with the end line's label.
fn read_block(before: &[u8], behind: &[u8]) -> Option<Block> {
    let begin = before.windows(BEGIN.len()).rposition(|window| window == BEGIN)?;
    let at_line_start = begin
        .checked_sub(1)
        .is_none_or(|place| before.get(place) == Some(&b'\n'));
    if !at_line_start {
        return None;
    }
    let inside = before.get(begin..)?.strip_prefix(BEGIN)?;
    let (first, mut body) = line(inside);
    let label = first.strip_suffix(DASHES)?;

    // The end line repeats the label and holds nothing else but white space.
    let closing = behind.strip_prefix(label)?.strip_prefix(DASHES)?;
    if !line(closing).0.is_empty() {
        return None;
    }

    let mut encrypted = false;
    loop {
        let (header, next) = line(body);
        let Some(colon) = header.iter().position(|byte| *byte == b':') else {
            break;
        };
        let (key, value) = header.split_at_checked(colon)?;
        encrypted |= key.trim_ascii() == b"Proc-Type" && find(value, b"ENCRYPTED").is_some();
        body = next;
    }
    let digits: Zeroizing<Vec<u8>> = Zeroizing::new(
        body.iter()
            .copied()
            .filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
            .collect(),
    );
    let content = BASE64.decode(digits.as_slice()).ok()?;
    Some(Block {
        label: String::from_utf8_lossy(label).into_owned(),
        encrypted,
        content: Zeroizing::new(content),
    })
}

/// The first line without its end and without white space behind it, and what follows.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match text.iter().position(|byte| *byte == b'\n') {
        Some(place) => (
            text.get(..place).unwrap_or_default(),
            text.get(place.saturating_add(1)..).unwrap_or_default(),
        ),
        None => (text, &[][..]),
    };
    (line.trim_ascii_end(), rest)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// `content` as a block: lines of 64 digits.
pub(crate) fn armour(label: &str, content: &[u8]) -> Zeroizing<String> {
    let digits = Zeroizing::new(BASE64.encode(content));
    let mut text = Zeroizing::new(String::with_capacity(digits.len() + 2 * label.len() + 64));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % 64 == 0 {
            text.push('\n');
        }
        text.push(digit);
    }
    text.push_str("\n-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(text: &str) -> Option<Vec<u8>> {
        first_block(text.as_bytes()).map(|block| block.content.to_vec())
    }

    #[test]
    fn text_around_and_inside_is_passed_over() {
        for text in [
            "-----BEGIN X-----\nAQID\n-----END X-----\n",
            "before\n-----BEGIN X-----\r\nAQ\r\n ID\t\r\n-----END X-----  \r\nafter",
            "-----BEGIN X-----\nA: b\nC: d\n\nAQID\n-----END X-----",
            "-----BEGIN X-----\nAQ\n-----BEGIN X-----\nAQID\n-----END X-----\n",
            "-----BEGIN X-----\n!!!!\n-----END X-----\n-----BEGIN X-----\nAQID\n-----END X-----\n",
            "-----BEGIN X-----\nAQID\n-----END Y-----\n-----BEGIN X-----\nAQID\n-----END X-----\n",
        ] {
            assert_eq!(content(text), Some(vec![1, 2, 3]), "{text}");
        }
    }

    #[test]
    fn broken_blocks_are_none() {
        for text in [
            "",
            "AQID",
            "-----BEGIN X-----\nAQID\n",
            "-----BEGIN X-----\nAQI\n-----END X-----\n",
            "x-----BEGIN X-----\nAQID\n-----END X-----\n",
            "-----BEGIN X-----\nAQID\n-----END X----- x\n",
            "-----BEGIN X\nAQID\n-----END X-----\n",
        ] {
            assert_eq!(content(text), None, "{text}");
        }
    }

    #[test]
    fn an_encrypted_block_says_so() {
        let text = "-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAQID\n-----END X-----\n";
        assert!(first_block(text.as_bytes()).unwrap().encrypted);
    }

    proptest! {
        #[test]
        fn armour_comes_off_again(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = armour("PRIVATE KEY", &bytes);
            let block = first_block(text.as_bytes()).unwrap();
            prop_assert_eq!(block.label, "PRIVATE KEY");
            prop_assert_eq!(block.content.to_vec(), bytes);
        }
    }
}
