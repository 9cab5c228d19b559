//! Appends groups of entries to the newest log file, one write and one flush for each group.
//!
//! Files are filled with zeros ahead of the writing: a flush then has no new length or block to record, which
//! takes a file system commit off the path of an acknowledgement.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileKind, HEADER_BYTES, file_name, header};
use crate::StoreError;
use crate::disk::{Disk, DiskFile};

/// How far zeros are written ahead.
const AHEAD_BYTES: u64 = 1 << 20;

/// A failed append.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of the group is in the journal, which goes on.
    Refused(StoreError),
    /// What the device holds is unknown; nothing may be written any more.
    Poisoned(StoreError),
}

/// The newest log file, open for appending.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    len: u64,
    filled: u64,
    limit: u64,
}

impl Writer {
    /// Starts log file `number`, whose first entry will be `first_seq`.
    ///
    /// # Errors
    /// When the file cannot be made durable.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        number: u64,
        first_seq: u64,
        limit: u64,
    ) -> Result<Self, StoreError> {
        let path = dir.join(file_name(number, FileKind::Log));
        let made = (|| {
            let file = disk.create(&path)?;
            let mut start = header(FileKind::Log, first_seq);
            let len = start.len() as u64;
            start.resize(usize::try_from(AHEAD_BYTES).map_err(std::io::Error::other)?, 0);
            file.write_at(0, &start)?;
            file.sync_data()?;
            disk.sync_dir(dir)?;
            Ok((file, len))
        })();
        match made {
            Ok((file, len)) => Ok(Self {
                dir: dir.to_owned(),
                number,
                path,
                file: Arc::from(file),
                len,
                filled: AHEAD_BYTES,
                limit,
                disk,
            }),
            Err(error) => {
                // Without its header it would be thrown away at the next start anyway.
                let _ = disk.remove(&path);
                Err(StoreError::io("create", path, &error))
            }
        }
    }

    /// The number of the file that is written to.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The file and the place where the next group begins.
    pub(crate) fn place(&self) -> (Arc<dyn DiskFile>, u64) {
        (Arc::clone(&self.file), self.len)
    }

    /// True if a new file is due before the next group.
    pub(crate) fn is_full(&self) -> bool {
        self.len > self.limit && self.len > HEADER_BYTES as u64
    }

    /// Closes the file and starts the next one at `first_seq`. On an error the old one stays in use.
    ///
    /// # Errors
    /// As for [`Writer::create`].
    pub(crate) fn roll(&mut self, first_seq: u64) -> Result<(), StoreError> {
        let next = Self::create(
            Arc::clone(&self.disk),
            &self.dir,
            self.number.saturating_add(1),
            first_seq,
            self.limit,
        )?;
        let old = std::mem::replace(self, next);
        // Cutting the zeros off only saves space; every entry is durable already.
        if let Err(error) = old.file.set_len(old.len) {
            tracing::warn!(path = %old.path.display(), %error, "closed journal file keeps its zeros");
        }
        Ok(())
    }

    /// Appends `group` and makes it durable.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub(crate) fn append(&mut self, group: &mut Vec<u8>) -> Result<(), AppendError> {
        let bytes = group.len();
        let end = self.len.saturating_add(bytes as u64);
        if end > self.filled {
            let fill_to = end.div_ceil(AHEAD_BYTES).saturating_mul(AHEAD_BYTES);
            let zeros = usize::try_from(fill_to.saturating_sub(end)).unwrap_or(0);
            group.resize(bytes.saturating_add(zeros), 0);
        }
        let mut written = self.file.write_at(self.len, group);
        if written.is_err() && group.len() > bytes {
            // On a nearly full disk the entries may fit where the zeros do not.
            group.truncate(bytes);
            written = self.file.write_at(self.len, group);
        }
        if let Err(error) = written {
            let refused = StoreError::io("write", &self.path, &error);
            // A part of the group may be in the file: it must not be found there at the next start. The file
            // ends before it then, durably, before anything else is appended.
            return match self.file.set_len(self.len).and_then(|()| self.file.sync_data()) {
                Ok(()) => {
                    self.filled = self.len;
                    Err(AppendError::Refused(refused))
                }
                Err(cut) => Err(AppendError::Poisoned(StoreError::Poisoned(format!(
                    "{refused}, then {cut}"
                )))),
            };
        }
        if let Err(error) = self.file.sync_data() {
            return Err(AppendError::Poisoned(StoreError::Poisoned(error.to_string())));
        }
        self.filled = self.filled.max(self.len.saturating_add(group.len() as u64));
        self.len = end;
        Ok(())
    }
}
