//! Key files as bytes: what is taken for a key, and how one is written.
//!
//! PKCS#8 is what the reference reads; the OpenSSH container is read as well, because operators try it. Pure. Follows
//! p2p-wire §1.1.

use libp2p_identity::Keypair;
use ssh_key::private::KeypairData;
use zeroize::Zeroizing;

use crate::der::{PKCS8_HEAD, pkcs8_seed};
use crate::{KeyError, pem};

const PKCS8: &str = "PRIVATE KEY";
const OPENSSH: &str = "OPENSSH PRIVATE KEY";

/// The key in the content of a key file: the first PEM block, PKCS#8 or OpenSSH, unprotected, Ed25519.
///
/// A public key that stands beside the seed is not compared with it, as in the reference.
///
/// # Errors
/// [`KeyError`] says what was found instead.
pub fn from_bytes(file: &[u8]) -> Result<Keypair, KeyError> {
    let block = pem::first_block(file).ok_or(KeyError::NoBlock)?;
    if block.encrypted || block.label == "ENCRYPTED PRIVATE KEY" {
        return Err(KeyError::Encrypted);
    }
    match block.label.as_str() {
        PKCS8 => from_seed(pkcs8_seed(&block.content)?),
        OPENSSH => from_openssh(&block.content),
        other => Err(KeyError::WrongBlock {
            label: other.chars().take(64).collect(),
        }),
    }
}

fn from_openssh(content: &[u8]) -> Result<Keypair, KeyError> {
    let key = ssh_key::PrivateKey::from_bytes(content).map_err(|error| KeyError::Malformed {
        label: OPENSSH,
        what: error.to_string(),
    })?;
    match key.key_data() {
        KeypairData::Ed25519(pair) => from_seed(pair.private.as_ref()),
        KeypairData::Encrypted(_) => Err(KeyError::Encrypted),
        _ => Err(KeyError::NotEd25519 {
            algorithm: key.algorithm().to_string(),
        }),
    }
}

fn from_seed(seed: &[u8; 32]) -> Result<Keypair, KeyError> {
    // The constructor wipes the copy that it is given.
    Keypair::ed25519_from_bytes(*seed).map_err(|error| KeyError::Malformed {
        label: PKCS8,
        what: error.to_string(),
    })
}

/// `key` as a key file: one PKCS#8 block, the same bytes that `openssl genpkey` writes for this seed.
///
/// # Errors
/// [`KeyError::NotEd25519`] for a key of another kind.
pub fn to_pem(key: &Keypair) -> Result<Zeroizing<String>, KeyError> {
    let pair = key.clone().try_into_ed25519().map_err(|_| KeyError::NotEd25519 {
        algorithm: key.key_type().to_string(),
    })?;
    let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_HEAD.len() + 32));
    der.extend_from_slice(&PKCS8_HEAD);
    der.extend_from_slice(pair.secret().as_ref());
    Ok(pem::armour(PKCS8, &der))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = "MC4CAQAwBQYDK2VwBCIEIFqaMp9kVYY5Yde/mdzW7Jc+M910buMCiDawwuPg7Pqx";

    fn pkcs8(body: &str) -> String {
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn a_key_is_written_as_it_is_read() {
        let key = from_bytes(pkcs8(BODY).as_bytes()).unwrap();
        assert_eq!(
            key.public().to_peer_id().to_base58(),
            "12D3KooWF8YU8YhVbaLsQadY5Cj6DcBvXG1GVGUZN1rPrbmQ6Fy7"
        );
        assert_eq!(to_pem(&key).unwrap().as_str(), pkcs8(BODY));
    }

    #[test]
    fn no_text_shows_the_secret() {
        let key = from_bytes(pkcs8(BODY).as_bytes()).unwrap();
        let shown = format!("{key:?}");
        for secret in ["5a9a", "90, 154", "WpoynmR", "Wpoyn2"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let cut = pkcs8(&BODY[..40]);
        let error = from_bytes(cut.as_bytes()).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("9a"), "{error}");
    }

    #[test]
    fn what_is_refused_is_named() {
        for (label, body, expected) in [
            ("PUBLIC KEY", BODY, "`PUBLIC KEY`"),
            ("ENCRYPTED PRIVATE KEY", BODY, "passphrase"),
            ("ED25519 PRIVATE KEY", BODY, "`ED25519 PRIVATE KEY`"),
            (
                "PRIVATE KEY",
                "MC4CAQAwBQYDK2VuBCIEIFqaMp9kVYY5Yde/mdzW7Jc+M910buMCiDawwuPg7Pqx",
                "X25519",
            ),
            ("PRIVATE KEY", "MIAA", "length of key is not valid"),
            (
                "OPENSSH PRIVATE KEY",
                "AQID",
                "OPENSSH PRIVATE KEY block is malformed",
            ),
        ] {
            let file = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
            let error = from_bytes(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(from_bytes(b"\x00\x01").unwrap_err(), KeyError::NoBlock);
    }

    proptest! {
        #[test]
        fn any_seed_makes_a_file_that_reads_back(seed: [u8; 32]) {
            let key = Keypair::ed25519_from_bytes(seed).unwrap();
            let read = from_bytes(to_pem(&key).unwrap().as_bytes()).unwrap();
            prop_assert_eq!(read.public(), key.public());
        }

        #[test]
        fn any_content_is_judged_without_panic(body in proptest::collection::vec(any::<u8>(), 0..120), openssh: bool) {
            let label = if openssh { OPENSSH } else { PKCS8 };
            let _ = from_bytes(pem::armour(label, &body).as_bytes());
        }
    }
}
