//! Content identifiers of records and referrers: the sha2-256 of the canonical bytes as a CIDv1 with codec 0x01.
//!
//! [`RecordCid`] is the parsed form that travels inside the node. [`decode_any`] answers what an arbitrary CID text
//! means; nothing here normalises a text on its own, because the store knows a record by one exact spelling only.
//! Holds no state. Follows grpc-api §3.2.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use crate::any_cid::{AnyCid, CidError, MAX_CID_TEXT_BYTES, decode_any};

/// Length of the text of a [`RecordCid`], in bytes.
pub const RECORD_CID_TEXT_BYTES: usize = 59;

/// Version 1, codec 1, sha2-256, 32 bytes of digest.
const PREFIX: [u8; 4] = [0x01, 0x01, 0x12, 0x20];
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The identity of a record or referrer.
///
/// Shape: 32 bytes of sha2-256; the text is 59 characters and begins with `baearei`. Order and hash are those of the
/// digest bytes. Serde writes the digest as 32 plain bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordCid([u8; 32]);

impl RecordCid {
    /// The CID of `bytes`, which should be canonical: the hash is taken of exactly what is given.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The CID with this sha2-256 digest.
    #[must_use]
    pub const fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The sha2-256 digest.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest as 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        hex(&self.0)
    }

    /// The digest as OCI spells it: `sha256:` and 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn oci_digest(&self) -> String {
        format!("sha256:{}", self.digest_hex())
    }

    /// The CID of an OCI digest text.
    ///
    /// # Errors
    /// [`CidError::Digest`] unless the text is `sha256:` and 64 lower-case hexadecimal digits.
    pub fn from_oci_digest(text: &str) -> Result<Self, CidError> {
        let invalid = || CidError::Digest {
            text: crate::shorten(text),
        };
        let digits = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut digest = [0u8; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(invalid()) };
            let (Some(high), Some(low)) = (hex_value(*high), hex_value(*low)) else {
                return Err(invalid());
            };
            *byte = (high << 4) | low;
        }
        Ok(Self(digest))
    }

    /// Reads the canonical spelling and nothing else: the store uses the text of a CID as an exact tag, so another
    /// spelling of the same digest names nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let body = text.strip_prefix('b')?;
        if text.len() != RECORD_CID_TEXT_BYTES {
            return None;
        }
        let mut decoded = [0u8; 36];
        let mut out = decoded.iter_mut();
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in body.bytes() {
            let value = match byte {
                b'a'..=b'z' => byte - b'a',
                b'2'..=b'7' => byte - b'2' + 26,
                _ => return None,
            };
            bits = (bits << 5) | u32::from(value);
            held += 5;
            if held >= 8 {
                held -= 8;
                *out.next()? = ((bits >> held) & 0xff) as u8;
                bits &= (1 << held) - 1;
            }
        }
        // 58 characters carry two bits more than 36 bytes need; the canonical spelling leaves them clear.
        if bits != 0 {
            return None;
        }
        let digest = decoded.strip_prefix(&PREFIX)?;
        Some(Self(digest.try_into().ok()?))
    }

    /// The 36 bytes of the binary CID.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 36] {
        let mut bytes = [0u8; 36];
        for (to, from) in bytes.iter_mut().zip(PREFIX.iter().chain(&self.0)) {
            *to = *from;
        }
        bytes
    }

    /// The 34 bytes of the sha2-256 multihash, which is the key of a provider record.
    #[must_use]
    pub fn multihash(&self) -> [u8; 34] {
        let mut bytes = [0u8; 34];
        for (to, from) in bytes.iter_mut().zip(PREFIX.iter().skip(2).chain(&self.0)) {
            *to = *from;
        }
        bytes
    }

    fn text(&self) -> [u8; RECORD_CID_TEXT_BYTES] {
        let mut text = [b'b'; RECORD_CID_TEXT_BYTES];
        let mut out = text.iter_mut().skip(1);
        let (mut bits, mut held) = (0u32, 0u32);
        let mut push = |value: u32| {
            if let (Some(to), Some(from)) = (out.next(), BASE32.get((value & 31) as usize)) {
                *to = *from;
            }
        };
        for byte in PREFIX.iter().chain(&self.0) {
            bits = (bits << 8) | u32::from(*byte);
            held += 8;
            while held >= 5 {
                held -= 5;
                push(bits >> held);
                bits &= (1 << held) - 1;
            }
        }
        if held > 0 {
            push(bits << (5 - held));
        }
        text
    }
}

impl fmt::Display for RecordCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for RecordCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordCid({self})")
    }
}

impl FromStr for RecordCid {
    type Err = CidError;

    fn from_str(text: &str) -> Result<Self, CidError> {
        Self::parse(text).ok_or_else(|| CidError::NotCanonical {
            text: crate::shorten(text),
        })
    }
}

/// The request rule `is_cid`: 1 to 128 Unicode code points, no look at the syntax (grpc-api §1.2).
#[must_use]
pub fn length_rule(text: &str) -> bool {
    // Every code point takes at most four bytes, so a long text needs no counting.
    !text.is_empty() && text.len() <= 4 * MAX_RULE_CHARS && text.chars().count() <= MAX_RULE_CHARS
}

const MAX_RULE_CHARS: usize = 128;

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(if nibble < 10 {
                b'0' + nibble
            } else {
                b'a' + nibble - 10
            }));
        }
    }
    text
}

/// Lower-case digits only, as an OCI digest has them.
fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_object_has_the_published_cid() {
        let cid = RecordCid::of(b"{}");
        assert_eq!(
            cid.to_string(),
            "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri"
        );
        assert_eq!(RecordCid::from_oci_digest(&cid.oci_digest()).unwrap(), cid);
    }

    #[test]
    fn only_the_canonical_spelling_parses() {
        let text = RecordCid::of(b"{}").to_string();
        for other in [
            text.to_uppercase(),
            format!("{text}\n"),
            format!(" {text}"),
            text.replace("7ri", "7rj"),
            text.replace("baearei", "bafkrei"),
            String::new(),
        ] {
            assert_eq!(RecordCid::parse(&other), None, "{other}");
        }
    }

    #[test]
    fn length_rule_counts_code_points() {
        assert!(!length_rule(""));
        assert!(length_rule("foo"));
        assert!(length_rule(&"é".repeat(128)));
        assert!(!length_rule(&"é".repeat(129)));
        assert!(length_rule(&"😀".repeat(128)));
    }

    proptest! {
        #[test]
        fn text_and_bytes_round_trip(digest: [u8; 32]) {
            let cid = RecordCid::from_digest(digest);
            let text = cid.to_string();
            prop_assert_eq!(text.len(), RECORD_CID_TEXT_BYTES);
            prop_assert!(text.starts_with("baearei"));
            prop_assert_eq!(RecordCid::parse(&text), Some(cid));
            let any = decode_any(&text).unwrap();
            prop_assert_eq!(any.to_bytes(), cid.to_bytes().to_vec());
            prop_assert_eq!(any.to_string(), text);
        }

        #[test]
        fn any_text_is_read_without_panic(text: String) {
            let _ = RecordCid::parse(&text);
            let _ = decode_any(&text);
        }
    }
}
