//! The key file on disk: read within bounds, or made once and kept.
//!
//! A new key is ground state: it is written beside its place, flushed, given its name without replacing anything, and
//! the folder is flushed, before the caller learns of it. Never changes or removes a key file that is there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use libp2p_identity::Keypair;
use zeroize::Zeroizing;

use crate::{IdentityError, KeyError, from_bytes, to_pem};

/// The most that is read of a key file, in bytes. A key with generous text around it takes a few hundred.
pub const MAX_KEY_FILE_BYTES: usize = 64 * 1024;

/// Drafts that may lie around before a new one is refused.
const MAX_DRAFTS: u32 = 64;

/// A key, and what its user should know about the file it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The key.
    pub key: Keypair,
    /// The file was made just now.
    pub created: bool,
    /// The mode of the file, when others than its owner may read or change it: worth a warning.
    pub exposed_mode: Option<u32>,
}

/// Reads the key in the file at `path`.
///
/// # Errors
/// [`IdentityError::Read`], [`IdentityError::TooLarge`] or [`IdentityError::Key`], each with the path and a remedy.
pub fn from_path(path: &Path) -> Result<Loaded, IdentityError> {
    read(path).map_err(|error| match error {
        ReadError::Io(source) => IdentityError::Read {
            path: path.to_owned(),
            source,
        },
        ReadError::TooLarge => IdentityError::TooLarge {
            path: path.to_owned(),
            limit_bytes: MAX_KEY_FILE_BYTES,
        },
        ReadError::Key(fault) => IdentityError::Key {
            path: path.to_owned(),
            fault,
        },
    })
}

/// Reads the key in the file at `path`, or makes the file with a new key when there is none.
///
/// Two callers that come at the same time end up with the same key. The folder must exist.
///
/// # Errors
/// As [`from_path`], and [`IdentityError::Write`] when the file cannot be made.
pub fn load_or_create(path: &Path) -> Result<Loaded, IdentityError> {
    if let Some(loaded) = existing(path)? {
        return Ok(loaded);
    }
    let failed = |source| IdentityError::Write {
        path: path.to_owned(),
        source,
    };
    let key = Keypair::generate_ed25519();
    let text = to_pem(&key).map_err(|fault| IdentityError::Key {
        path: path.to_owned(),
        fault,
    })?;
    match place(path, text.as_bytes()).map_err(failed)? {
        Placed::Here => Ok(Loaded {
            key,
            created: true,
            exposed_mode: None,
        }),
        // Somebody else was faster; theirs is the key of this node.
        Placed::Taken => from_path(path),
    }
}

fn existing(path: &Path) -> Result<Option<Loaded>, IdentityError> {
    match from_path(path) {
        Ok(loaded) => Ok(Some(loaded)),
        Err(IdentityError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

enum ReadError {
    Io(io::Error),
    TooLarge,
    Key(KeyError),
}

fn read(path: &Path) -> Result<Loaded, ReadError> {
    // Opening a pipe or a device could wait for ever, so the kind is looked at first.
    let meta = fs::metadata(path).map_err(ReadError::Io)?;
    if !meta.is_file() {
        return Err(ReadError::Io(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )));
    }
    let file = File::open(path).map_err(ReadError::Io)?;
    let mode = file.metadata().map_err(ReadError::Io)?.permissions().mode() & 0o777;
    let mut content = Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_KEY_FILE_BYTES as u64 + 1)
        .read_to_end(&mut content)
        .map_err(ReadError::Io)?;
    if content.len() > MAX_KEY_FILE_BYTES {
        return Err(ReadError::TooLarge);
    }
    Ok(Loaded {
        key: from_bytes(&content).map_err(ReadError::Key)?,
        created: false,
        exposed_mode: (mode & 0o077 != 0).then_some(mode),
    })
}

enum Placed {
    Here,
    Taken,
}

/// Puts `content` at `path` unless something is there.
fn place(path: &Path, content: &[u8]) -> io::Result<Placed> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let (draft, file) = open_draft(path)?;
    let result = fill_draft(file, content).and_then(|()| give_name(&draft, path));
    // The draft has done its work or is of no use; a name left behind would only stand in the way.
    let removed = fs::remove_file(&draft);
    let placed = result?;
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    File::open(&folder)?.sync_all()?;
    Ok(placed)
}

/// A new file beside `path`. Other names are tried where a starter that was stopped has left its draft.
fn open_draft(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 0;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".new{number}"));
        let draft = path.with_file_name(name);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_DRAFTS => number += 1,
            Err(error) => return Err(error),
            Ok(file) => return Ok((draft, file)),
        }
    }
}

fn fill_draft(mut file: File, content: &[u8]) -> io::Result<()> {
    file.write_all(content)?;
    file.sync_all()
}

/// A hard link never replaces what is there. Where the file system has none, the rename could, but only within the
/// moment since the look at the start.
fn give_name(draft: &Path, path: &Path) -> io::Result<Placed> {
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(Placed::Here),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Placed::Taken),
        Err(_) if path.try_exists()? => Ok(Placed::Taken),
        Err(_) => fs::rename(draft, path).map(|()| Placed::Here),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let made = load_or_create(&path).unwrap();
        assert!(made.created);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = load_or_create(&path).unwrap();
        assert!(!again.created);
        assert_eq!(again.key.public(), made.key.public());
        assert_eq!(again.exposed_mode, None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft stays");
    }

    #[test]
    fn a_file_that_others_may_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(&path).unwrap().exposed_mode, Some(0o644));
    }

    #[test]
    fn a_file_that_is_no_key_is_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        fs::write(&path, "hello").unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("identity.pem"), "{error}");
        assert!(error.contains("no PEM block"), "{error}");
        assert!(error.contains("openssl genpkey"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"hello");

        fs::write(&path, vec![b'x'; MAX_KEY_FILE_BYTES + 1]).unwrap();
        assert!(matches!(
            load_or_create(&path),
            Err(IdentityError::TooLarge { .. })
        ));
        assert!(matches!(
            load_or_create(folder.path()),
            Err(IdentityError::Read { .. })
        ));
    }

    #[test]
    fn a_missing_folder_is_an_error_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/identity.pem");
        let error = load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("its folder exists"), "{error}");
    }

    #[test]
    fn many_starters_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| load_or_create(&path).unwrap().key.public()))
                .collect();
            starters
                .into_iter()
                .map(|starter| starter.join().unwrap())
                .collect()
        });
        assert!(
            keys.iter()
                .all(|key| *key == from_path(&path).unwrap().key.public())
        );
    }

    #[test]
    fn a_file_that_came_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pem");
        let content = |seed: u8| {
            let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
            to_pem(&key).unwrap()
        };
        fs::write(&path, content(1).as_bytes()).unwrap();
        assert!(matches!(
            place(&path, content(2).as_bytes()).unwrap(),
            Placed::Taken
        ));
        let expected = Keypair::ed25519_from_bytes([1; 32]).unwrap().public();
        assert_eq!(from_path(&path).unwrap().key.public(), expected);
    }
}
