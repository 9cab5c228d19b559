//! Reads any CID text a client may send: version, codec, hash, and the OCI digest that belongs to it.
//!
//! The bases and their leniences are those of the network's other implementation: base32 ignores line breaks, letter
//! case and stray padding bits, base64 ignores line breaks; base8, base10 and z-base-32 are not known. Never used to
//! find a record: the store asks [`crate::RecordCid::parse`]. Holds no state. Follows grpc-api §3.2.

use std::fmt;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use multibase::Base;

use crate::RecordCid;
use crate::cid::hex;

/// Longest text [`decode_any`] looks at. Some bases take time that grows with the square of the length; a CID of the
/// longest common hash in the longest base (base2) stays well below.
pub const MAX_CID_TEXT_BYTES: usize = 4096;

const SHA2_256: u64 = 0x12;
const DAG_PB: u64 = 0x70;

/// Why a text is not a CID, or has no digest or record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// Fewer than two bytes of text.
    #[error("cid too short")]
    TooShort,
    /// More text than [`MAX_CID_TEXT_BYTES`].
    #[error("cid text is {size_bytes} bytes, limit is {MAX_CID_TEXT_BYTES}")]
    TooLong {
        /// Length of the text.
        size_bytes: usize,
    },
    /// The first character names no base we read.
    #[error("multibase prefix {prefix:?} is not supported")]
    Base {
        /// The first character.
        prefix: char,
    },
    /// The text is not written in its base.
    #[error("text is not valid in multibase {prefix:?}")]
    Text {
        /// The base.
        prefix: char,
    },
    /// A varint is cut off, too long or not minimal.
    #[error("varint malformed in cid")]
    Varint,
    /// Neither version 0 nor version 1.
    #[error("expected 1 as the cid version number, got {version}")]
    Version {
        /// What the bytes say.
        version: u64,
    },
    /// The multihash is cut off, or not one.
    #[error("multihash malformed in cid")]
    Multihash,
    /// Bytes are left after the multihash.
    #[error("trailing bytes after the multihash")]
    Trailing,
    /// The hash is not sha2-256, so there is no OCI digest.
    #[error("unsupported hash type {code} in cid, only sha2-256 is supported")]
    Hash {
        /// The multihash code.
        code: u64,
    },
    /// Not an OCI sha256 digest.
    #[error("invalid digest format: {text}")]
    Digest {
        /// The text, shortened.
        text: String,
    },
    /// Not the canonical spelling of a record's CID.
    #[error("{text:?} is not the canonical text of a record cid")]
    NotCanonical {
        /// The text, shortened.
        text: String,
    },
}

impl CidError {
    /// Sorts the error: all of them are the caller's.
    #[must_use]
    pub fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::Invalid
    }
}

/// What a CID text says, whatever its version, codec, base or hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnyCid {
    /// 0 or 1.
    pub version: u8,
    /// Multicodec of the content; 0x70 in version 0.
    pub codec: u64,
    /// Multihash code.
    pub hash_code: u64,
    /// The digest, of any length.
    pub digest: Vec<u8>,
}

impl AnyCid {
    /// The name of the hash function, empty when we have none for it.
    #[must_use]
    pub fn hash_name(&self) -> &'static str {
        match self.hash_code {
            0x00 => "identity",
            0x11 => "sha1",
            SHA2_256 => "sha2-256",
            0x13 => "sha2-512",
            0x14 => "sha3-512",
            0x15 => "sha3-384",
            0x16 => "sha3-256",
            0x17 => "sha3-224",
            0x1e => "blake3",
            0x20 => "sha2-384",
            0x56 => "dbl-sha2-256",
            0xd5 => "md5",
            _ => "",
        }
    }

    /// The digest as hexadecimal digits.
    #[must_use]
    pub fn hash_hex(&self) -> String {
        hex(&self.digest)
    }

    /// The binary CID.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.version == 0 {
            self.multihash()
        } else {
            self.v1_bytes()
        }
    }

    /// The same content as a version 1 CID in lower-case base32.
    #[must_use]
    pub fn v1_base32(&self) -> String {
        multibase::encode(Base::Base32Lower, self.v1_bytes())
    }

    /// The OCI digest `sha256:<hex>`. Its length is that of the hash, which may be wrong for a sha256.
    ///
    /// # Errors
    /// [`CidError::Hash`] unless the hash is sha2-256.
    pub fn to_oci_digest(&self) -> Result<String, CidError> {
        if self.hash_code != SHA2_256 {
            return Err(CidError::Hash { code: self.hash_code });
        }
        Ok(format!("sha256:{}", self.hash_hex()))
    }

    /// The record CID with the same digest.
    ///
    /// # Errors
    /// [`CidError::Hash`] or [`CidError::Digest`] when this is not a full sha2-256.
    pub fn to_record_cid(&self) -> Result<RecordCid, CidError> {
        RecordCid::from_oci_digest(&self.to_oci_digest()?)
    }

    fn multihash(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.digest.len() + 12);
        write_varint(&mut bytes, self.hash_code);
        write_varint(&mut bytes, self.digest.len() as u64);
        bytes.extend_from_slice(&self.digest);
        bytes
    }

    fn v1_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.digest.len() + 22);
        write_varint(&mut bytes, 1);
        write_varint(&mut bytes, self.codec);
        bytes.extend(self.multihash());
        bytes
    }
}

impl fmt::Display for AnyCid {
    /// The usual spelling: base58 for version 0, lower-case base32 for version 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.version == 0 {
            f.write_str(&Base::Base58Btc.encode(self.multihash()))
        } else {
            f.write_str(&self.v1_base32())
        }
    }
}

/// Reads `text` as a CID of any version, codec, base and hash.
///
/// # Errors
/// [`CidError`] says which part of the text is at fault.
pub fn decode_any(text: &str) -> Result<AnyCid, CidError> {
    if text.len() < 2 {
        return Err(CidError::TooShort);
    }
    if text.len() > MAX_CID_TEXT_BYTES {
        return Err(CidError::TooLong {
            size_bytes: text.len(),
        });
    }
    if text.len() == 46 && text.starts_with("Qm") {
        let bytes = Base::Base58Btc.decode(text).map_err(|_| CidError::Multihash)?;
        return version_0(&bytes).ok_or(CidError::Multihash);
    }
    let mut rest = text.chars();
    let prefix = rest.next().ok_or(CidError::TooShort)?;
    let bytes = decode_base(prefix, rest.as_str())?;
    if let Some(cid) = version_0(&bytes) {
        return Ok(cid);
    }
    from_bytes(&bytes)
}

/// A bare sha2-256 multihash of 34 bytes is a version 0 CID.
fn version_0(bytes: &[u8]) -> Option<AnyCid> {
    let digest = bytes.strip_prefix(&[0x12, 0x20])?;
    (digest.len() == 32).then(|| AnyCid {
        version: 0,
        codec: DAG_PB,
        hash_code: SHA2_256,
        digest: digest.to_vec(),
    })
}

fn from_bytes(bytes: &[u8]) -> Result<AnyCid, CidError> {
    let mut rest = bytes;
    let version = read_varint(&mut rest)?;
    if version != 1 {
        return Err(CidError::Version { version });
    }
    let codec = read_varint(&mut rest)?;
    let hash_code = read_varint(&mut rest)?;
    let length = usize::try_from(read_varint(&mut rest)?).map_err(|_| CidError::Multihash)?;
    let (digest, trailing) = rest.split_at_checked(length).ok_or(CidError::Multihash)?;
    if !trailing.is_empty() {
        return Err(CidError::Trailing);
    }
    Ok(AnyCid {
        version: 1,
        codec,
        hash_code,
        digest: digest.to_vec(),
    })
}

fn decode_base(prefix: char, body: &str) -> Result<Vec<u8>, CidError> {
    let fault = CidError::Text { prefix };
    match prefix {
        '\0' => Ok(body.as_bytes().to_vec()),
        '0' => base2(body).ok_or(fault),
        'f' | 'F' => base16(body).ok_or(fault),
        'b' | 'B' => base32(body, false, false).ok_or(fault),
        'c' | 'C' => base32(body, false, true).ok_or(fault),
        'v' | 'V' => base32(body, true, false).ok_or(fault),
        't' | 'T' => base32(body, true, true).ok_or(fault),
        'k' | 'K' => Base::Base36Lower
            .decode(body.to_ascii_lowercase())
            .map_err(|_| fault),
        'z' => Base::Base58Btc.decode(body).map_err(|_| fault),
        'Z' => Base::Base58Flickr.decode(body).map_err(|_| fault),
        'm' => base64(body, &base64::alphabet::STANDARD, false).ok_or(fault),
        'M' => base64(body, &base64::alphabet::STANDARD, true).ok_or(fault),
        'u' => base64(body, &base64::alphabet::URL_SAFE, false).ok_or(fault),
        'U' => base64(body, &base64::alphabet::URL_SAFE, true).ok_or(fault),
        '🚀' => Base::Base256Emoji.decode(body).map_err(|_| fault),
        _ => Err(CidError::Base { prefix }),
    }
}

/// Short input is filled up with zeros in front.
fn base2(body: &str) -> Option<Vec<u8>> {
    let fill = (8 - body.len() % 8) % 8;
    let mut bytes = Vec::with_capacity(body.len() / 8 + 1);
    let (mut byte, mut held) = (0u8, fill);
    for digit in body.bytes() {
        byte = (byte << 1)
            | match digit {
                b'0' => 0,
                b'1' => 1,
                _ => return None,
            };
        held += 1;
        if held == 8 {
            bytes.push(byte);
            (byte, held) = (0, 0);
        }
    }
    Some(bytes)
}

fn base16(body: &str) -> Option<Vec<u8>> {
    if !body.len().is_multiple_of(2) {
        return None;
    }
    body.as_bytes()
        .chunks_exact(2)
        .map(|pair| {
            let mut byte = 0u8;
            for digit in pair {
                byte = (byte << 4) | u8::try_from(char::from(*digit).to_digit(16)?).ok()?;
            }
            Some(byte)
        })
        .collect()
}

/// Base32 without regard to case, line breaks left out, left-over bits not looked at. A last group of 1, 3 or 6
/// digits gives no bytes at all, which then shows as a multihash that is too short.
fn base32(body: &str, hex_alphabet: bool, padded: bool) -> Option<Vec<u8>> {
    let mut digits = Vec::with_capacity(body.len());
    let mut padding = 0usize;
    for byte in body.bytes() {
        let byte = byte.to_ascii_lowercase();
        let value = match byte {
            b'\r' | b'\n' => continue,
            b'=' if padded => {
                padding += 1;
                continue;
            }
            _ if padding > 0 => return None,
            b'0'..=b'9' if hex_alphabet => byte - b'0',
            b'a'..=b'v' if hex_alphabet => byte - b'a' + 10,
            b'a'..=b'z' if !hex_alphabet => byte - b'a',
            b'2'..=b'7' if !hex_alphabet => byte - b'2' + 26,
            _ => return None,
        };
        digits.push(value);
    }
    if padded && (!(digits.len() + padding).is_multiple_of(8) || !matches!(padding, 0 | 1 | 3 | 4 | 6)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8 + 1);
    for group in digits.chunks(8) {
        let count = match group.len() {
            8 => 5,
            7 => 4,
            5 => 3,
            4 => 2,
            2 => 1,
            _ => 0,
        };
        let bits = group
            .iter()
            .chain(std::iter::repeat(&0))
            .take(8)
            .fold(0u64, |bits, v| (bits << 5) | u64::from(*v));
        bytes.extend((bits << 24).to_be_bytes().iter().take(count));
    }
    Some(bytes)
}

fn base64(body: &str, alphabet: &base64::alphabet::Alphabet, padded: bool) -> Option<Vec<u8>> {
    let padding = if padded {
        DecodePaddingMode::RequireCanonical
    } else {
        DecodePaddingMode::RequireNone
    };
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(padding);
    let text: Vec<u8> = body.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

fn read_varint(rest: &mut &[u8]) -> Result<u64, CidError> {
    let mut value = 0u64;
    for place in 0..9u32 {
        let (byte, tail) = rest.split_first().ok_or(CidError::Varint)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            // A last byte of zero says the same as leaving it out: not minimal.
            return if *byte == 0 && place > 0 {
                Err(CidError::Varint)
            } else {
                Ok(value)
            };
        }
    }
    Err(CidError::Varint)
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push((value & 0x7f) as u8);
}
