//! What can be wrong with a key file, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why bytes are not a key this node can use. The text never holds any of the bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no complete PEM block.
    #[error("no PEM block found, expected `-----BEGIN PRIVATE KEY-----` (PKCS#8)")]
    NoBlock,
    /// The first block holds something else.
    #[error("the first PEM block is `{label}`, expected `PRIVATE KEY` (PKCS#8) or `OPENSSH PRIVATE KEY`")]
    WrongBlock {
        /// What the block calls itself, shortened.
        label: String,
    },
    /// The key is there, behind a passphrase.
    #[error("the key is protected by a passphrase, expected an unprotected one")]
    Encrypted,
    /// A private key of another kind.
    #[error("the key is of type {algorithm}, expected Ed25519")]
    NotEd25519 {
        /// The kind, by name or object identifier.
        algorithm: String,
    },
    /// The block does not hold what its label says.
    #[error("the {label} block is malformed: {what}")]
    Malformed {
        /// The label of the block.
        label: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// What can go wrong with a key file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is there but cannot be read.
    #[error("key file {path} cannot be read; check that it is a file and that this user may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is longer than any key.
    #[error(
        "key file {path} is larger than {limit_bytes} bytes and so holds something else; name the file of the private key"
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// The most that is read, in bytes.
        limit_bytes: usize,
    },
    /// The content is no usable key.
    #[error(
        "key file {path}: {fault}; make a usable one with `openssl genpkey -algorithm ED25519 -out {path}` (a new key is a new peer id)"
    )]
    Key {
        /// Which file.
        path: PathBuf,
        /// What was found instead.
        fault: KeyError,
    },
    /// A new key could not be put there.
    #[error(
        "key file {path} cannot be made; check that its folder exists and that this user may write there"
    )]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}
