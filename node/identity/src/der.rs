//! Just enough DER to take the seed out of a PKCS#8 key.
//!
//! Reads definite, minimal lengths only, and no deeper than the four values it looks for. What follows the values it
//! knows, inside or behind, is not read: later versions of the container add fields there. Pure. Follows RFC 5208,
//! RFC 5958 and RFC 8410.

use crate::KeyError;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What stands before the 32 bytes of the seed in the shortest container.
pub(crate) const PKCS8_HEAD: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The seed in a PKCS#8 container.
///
/// # Errors
/// [`KeyError::NotEd25519`] for a key of another kind, [`KeyError::Malformed`] for anything that is not the container.
pub(crate) fn pkcs8_seed(der: &[u8]) -> Result<&[u8; 32], KeyError> {
    let (key, _) = value(der, SEQUENCE, "key")?;
    let (version, key) = value(key, INTEGER, "version")?;
    if version.is_empty() || version.len() > 8 {
        return Err(malformed("version is not a small number"));
    }
    let (algorithm, key) = value(key, SEQUENCE, "algorithm")?;
    let (identifier, parameters) = value(algorithm, OBJECT_IDENTIFIER, "algorithm identifier")?;
    if identifier != ED25519 {
        return Err(KeyError::NotEd25519 {
            algorithm: name(identifier),
        });
    }
    if !parameters.is_empty() {
        return Err(malformed("an Ed25519 key has no parameters"));
    }
    let (private, _) = value(key, OCTET_STRING, "private key")?;
    let (seed, _) = value(private, OCTET_STRING, "seed")?;
    seed.try_into()
        .map_err(|_| malformed(&format!("seed is {} bytes, expected 32", seed.len())))
}

/// The content of the value in front, which must have this tag, and what follows it.
fn value<'a>(der: &'a [u8], tag: u8, what: &str) -> Result<(&'a [u8], &'a [u8]), KeyError> {
    let cut = || malformed(&format!("{what} is cut off"));
    let (found, rest) = der.split_first().ok_or_else(cut)?;
    if *found != tag {
        return Err(malformed(&format!(
            "{what} has tag {found:#04x}, expected {tag:#04x}"
        )));
    }
    let (first, rest) = rest.split_first().ok_or_else(cut)?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        long_length(*first, rest).ok_or_else(|| malformed(&format!("length of {what} is not valid")))?
    };
    rest.split_at_checked(length).ok_or_else(cut)
}

/// A length of more than one byte: at most three bytes, none of them to spare.
fn long_length(first: u8, rest: &[u8]) -> Option<(usize, &[u8])> {
    let count = usize::from(first & 0x7f);
    if !(1..=3).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let length = digits
        .iter()
        .fold(0usize, |sum, digit| (sum << 8) | usize::from(*digit));
    let minimal = length >= 0x80 && digits.first() != Some(&0);
    minimal.then_some((length, rest))
}

/// The key types that people really try, by name.
fn name(identifier: &[u8]) -> String {
    match identifier {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01] => "RSA".to_owned(),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01] => "EC".to_owned(),
        [0x2b, 0x65, 0x6e] => "X25519".to_owned(),
        [0x2b, 0x65, 0x71] => "Ed448".to_owned(),
        other => {
            let shown: Vec<String> = other.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
            format!("object identifier {}", shown.join(" "))
        }
    }
}

fn malformed(what: &str) -> KeyError {
    KeyError::Malformed {
        label: "PRIVATE KEY",
        what: what.to_owned(),
    }
}
