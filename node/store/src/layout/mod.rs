//! Bodies as an OCI image layout: `oci-layout`, `index.json`, `blobs/sha256/<hex>`.
//!
//! A file under its final name is whole: it is written in `tmp`, made durable, and renamed. Every read is hashed
//! and compared with its name; what does not match is moved to `quarantine` and never served.

pub(crate) mod manifest;
pub(crate) mod manifests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::MAX_BODY_BYTES;
use crate::disk::{Disk, Listed};
use crate::{RecordCid, StoreError};

/// With more files than this in a group, one flush of the file system is cheaper than one flush for each.
const SINGLE_FLUSHES: usize = 8;
/// Larger bodies are read and hashed on a thread that may take its time.
const INLINE_READ_BYTES: usize = 64 << 10;

/// The layout folder.
pub(crate) struct Layout {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    blobs: PathBuf,
    temp: PathBuf,
    quarantine: PathBuf,
}

/// What is under a CID's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Missing,
    Whole(Bytes),
    /// It did not hash to its name, and was moved to quarantine.
    Damaged,
}

impl Layout {
    /// Makes what is missing of the layout below `dir`, and empties `tmp`.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let root = dir.join("oci");
        let layout = Self {
            blobs: root.join("blobs").join("sha256"),
            temp: root.join("tmp"),
            quarantine: dir.join("quarantine"),
            root,
            disk,
        };
        for folder in [&layout.root, &layout.blobs, &layout.temp, &layout.quarantine] {
            layout
                .disk
                .create_dir_all(folder)
                .map_err(|error| StoreError::io("create", folder, &error))?;
        }
        let mut left = Vec::new();
        layout
            .disk
            .list(&layout.temp, &mut |file| left.push(file.name))
            .map_err(|error| StoreError::io("list", &layout.temp, &error))?;
        for name in left {
            let path = layout.temp.join(name);
            layout
                .disk
                .remove(&path)
                .map_err(|error| StoreError::io("remove", path, &error))?;
        }
        let marker = layout.root.join("oci-layout");
        let text = br#"{"imageLayoutVersion":"1.0.0"}"#;
        let held = layout.disk.read(&marker, 4096).ok().flatten();
        if held.as_deref() != Some(text) {
            layout
                .disk
                .replace(&marker, text)
                .map_err(|error| StoreError::io("write", marker, &error))?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Where the body of `cid` lies.
    pub(crate) fn path(&self, cid: &RecordCid) -> PathBuf {
        self.blobs.join(cid.digest_hex())
    }

    pub(crate) fn has(&self, cid: &RecordCid) -> Result<bool, StoreError> {
        let path = self.path(cid);
        let len = self
            .disk
            .len(&path)
            .map_err(|error| StoreError::io("read", path, &error))?;
        Ok(len.is_some())
    }

    /// Reads and verifies; a damaged file is moved away.
    pub(crate) fn read(&self, cid: &RecordCid) -> Result<Found, StoreError> {
        let path = self.path(cid);
        let found = match self.disk.read(&path, MAX_BODY_BYTES as u64) {
            Ok(found) => found,
            // Longer than any body we write: damaged, whatever the hash.
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Some(Vec::new()),
            Err(error) => return Err(StoreError::io("read", path, &error)),
        };
        match found {
            None => Ok(Found::Missing),
            Some(bytes) if RecordCid::of(&bytes) == *cid => Ok(Found::Whole(bytes.into())),
            Some(_) => {
                self.set_aside(cid)?;
                Ok(Found::Damaged)
            }
        }
    }

    /// A whole body, if it can be had without the device; damage is left to [`Layout::read`] to find.
    pub(crate) fn read_cached(&self, cid: &RecordCid) -> Option<Bytes> {
        let bytes = self.disk.read_cached(&self.path(cid), INLINE_READ_BYTES)?;
        (RecordCid::of(&bytes) == *cid).then(|| bytes.into())
    }

    /// The bytes under a CID's name, whatever they hash to; empty if there are too many.
    pub(crate) fn peek(&self, cid: &RecordCid) -> Result<Option<Bytes>, StoreError> {
        let path = self.path(cid);
        match self.disk.read(&path, MAX_BODY_BYTES as u64) {
            Ok(found) => Ok(found.map(Bytes::from)),
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Ok(Some(Bytes::new())),
            Err(error) => Err(StoreError::io("read", path, &error)),
        }
    }

    /// Moves a blob to quarantine.
    pub(crate) fn set_aside(&self, cid: &RecordCid) -> Result<(), StoreError> {
        let path = self.path(cid);
        let to = self.quarantine.join(cid.digest_hex());
        self.disk
            .rename(&path, &to)
            .map_err(|error| StoreError::io("rename", path, &error))
    }

    /// Writes whole files and takes others away; when it returns, both are durable.
    pub(crate) fn apply(
        &self,
        bodies: &[(RecordCid, Bytes)],
        removed: &[RecordCid],
    ) -> Result<(), StoreError> {
        let failed = |what| move |error: std::io::Error, path: &Path| StoreError::io(what, path, &error);
        let singly = bodies.len() <= SINGLE_FLUSHES;
        for (cid, body) in bodies {
            let temp = self.temp.join(cid.digest_hex());
            let written = self.disk.create(&temp).and_then(|file| {
                file.write_at(0, body)?;
                if singly { file.sync_data() } else { Ok(()) }
            });
            if let Err(error) = written {
                // On a full disk the next try needs the room.
                let _ = self.disk.remove(&temp);
                return Err(failed("write")(error, &temp));
            }
        }
        if !singly {
            self.disk
                .sync_fs(&self.temp)
                .map_err(|error| failed("flush")(error, &self.temp))?;
        }
        for (cid, _) in bodies {
            let (temp, path) = (self.temp.join(cid.digest_hex()), self.path(cid));
            self.disk
                .rename(&temp, &path)
                .map_err(|error| failed("rename")(error, &path))?;
        }
        for cid in removed {
            let path = self.path(cid);
            self.disk
                .remove(&path)
                .map_err(|error| failed("remove")(error, &path))?;
        }
        if !bodies.is_empty() || !removed.is_empty() {
            self.disk
                .sync_dir(&self.blobs)
                .map_err(|error| failed("flush")(error, &self.blobs))?;
        }
        Ok(())
    }

    /// Every blob under a well-formed name, in no order; other names are left out.
    pub(crate) fn blobs(&self) -> Result<Vec<(RecordCid, Listed)>, StoreError> {
        let mut found = Vec::new();
        self.disk
            .list(&self.blobs, &mut |file| {
                if let Some(cid) = from_hex(&file.name) {
                    found.push((cid, file));
                }
            })
            .map_err(|error| StoreError::io("list", &self.blobs, &error))?;
        Ok(found)
    }

    pub(crate) fn quarantined(&self) -> Result<u64, StoreError> {
        let mut count: u64 = 0;
        self.disk
            .list(&self.quarantine, &mut |_| count = count.saturating_add(1))
            .map_err(|error| StoreError::io("list", &self.quarantine, &error))?;
        Ok(count)
    }
}

/// Reads 64 lower-case hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<RecordCid> {
    let bytes: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut digest = [0u8; 32];
    for (out, pair) in digest.iter_mut().zip(bytes.as_chunks::<2>().0) {
        let [high, low] = pair.map(|letter| match letter {
            b'0'..=b'9' => Some(letter - b'0'),
            b'a'..=b'f' => Some(letter - b'a' + 10),
            _ => None,
        });
        *out = (high? << 4) | low?;
    }
    Some(RecordCid::from_digest(digest))
}
