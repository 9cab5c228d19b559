//! The few file operations that journal and layout are made of, as a trait, so that a test can stand in for the
//! device: cut the power at any point, fill the disk, fail a flush.
//!
//! The trait promises what POSIX promises and no more: bytes are durable after `sync_data`, a name is durable
//! after `sync_dir` of its folder, and `sync_fs` makes everything before it durable.

mod real;
#[cfg(any(test, feature = "testing"))]
pub mod recording;

use std::io;
use std::path::Path;

pub use real::RealDisk;

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The file is then in an unknown state from `offset` on.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads exactly `into.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file is shorter.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As the file system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes, and the length needed to read them, durable.
    ///
    /// # Errors
    /// What is on the device is then unknown.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn len(&self) -> io::Result<u64>;
    /// True if the length is zero.
    ///
    /// # Errors
    /// As the file system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A file in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// File name; names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Length in bytes.
    pub len: u64,
    /// Last change, unix nanoseconds.
    pub modified_ns: i64,
}

/// Keeps the data directory locked until it is dropped.
pub trait DiskLock: Send + Sync {}

/// File operations.
#[expect(
    clippy::missing_errors_doc,
    reason = "every method fails as the file system says"
)]
pub trait Disk: Send + Sync {
    /// Makes a folder and those above it, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates or empties a file, open for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Length of a file, `None` if there is none.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Renames within the data directory, replacing the target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; no error if it is gone already.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names of a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes all of the file system that holds `path` durable.
    fn sync_fs(&self, path: &Path) -> io::Result<()>;
    /// Calls `each` for every file of a folder, in no order. A missing folder is empty.
    fn list(&self, path: &Path, each: &mut dyn FnMut(Listed)) -> io::Result<()>;
    /// Takes the lock file at `path`. `Ok(Err(pid))` if another holder has it.
    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn DiskLock>, String>>;

    /// Reads a whole file of at most `limit` bytes; `None` if there is none.
    fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = file.len()?;
        if len > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{len} bytes, limit is {limit}"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_at(0, &mut bytes)?;
        Ok(Some(bytes))
    }

    /// Reads a whole file of at most `limit` bytes if that needs no device: name and bytes are in the system's cache.
    /// `None` says nothing about the file, only that [`Disk::read`] has to be asked.
    fn read_cached(&self, _path: &Path, _limit: usize) -> Option<Vec<u8>> {
        None
    }

    /// Replaces `path` so that a reader sees the old or the new bytes, never a part: temp file in the same
    /// folder, flush, rename, flush of the folder.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temp = path.as_os_str().to_owned();
        temp.push(".tmp");
        let temp = Path::new(&temp);
        let file = self.create(temp)?;
        file.write_at(0, bytes)?;
        file.sync_data()?;
        drop(file);
        self.rename(temp, path)?;
        match path.parent() {
            Some(folder) => self.sync_dir(folder),
            None => Ok(()),
        }
    }
}
