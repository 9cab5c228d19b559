//! The disk as the operating system gives it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{FlockOperation, flock};

use super::{Disk, DiskFile, DiskLock, Listed};

/// The local file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl DiskFile for File {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

struct FileLock(#[expect(dead_code, reason = "held for its lock, which goes when the file is closed")] File);

impl DiskLock for FileLock {}

impl Disk for RealDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_fs(&self, path: &Path) -> io::Result<()> {
        let folder = File::open(path)?;
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&folder)?;
        #[cfg(not(target_os = "linux"))]
        {
            // Without syncfs the whole machine is flushed, which is slower and as safe.
            drop(folder);
            rustix::fs::sync();
        }
        Ok(())
    }

    fn list(&self, path: &Path, each: &mut dyn FnMut(Listed)) -> io::Result<()> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) if meta.is_file() => meta,
                Ok(_) => continue,
                // Gone between listing and asking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let since = meta
                .modified()
                .ok()
                .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified_ns = since
                .and_then(|since| i64::try_from(since.as_nanos()).ok())
                .unwrap_or(0);
            if let Ok(name) = entry.file_name().into_string() {
                each(Listed {
                    name,
                    len: meta.len(),
                    modified_ns,
                });
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn read_cached(&self, path: &Path, limit: usize) -> Option<Vec<u8>> {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
        use rustix::io::ReadWriteFlags;

        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOATIME;
        let open = |flags| rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        // Only a file's owner may leave its access time alone.
        let file = match open(flags) {
            Err(rustix::io::Errno::PERM) => open(flags.difference(OFlags::NOATIME)),
            other => other,
        }
        .ok()?;
        let len = usize::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
        if len > limit {
            return None;
        }
        let mut bytes = vec![0; len];
        let mut into = [io::IoSliceMut::new(&mut bytes)];
        let read = rustix::io::preadv2(&file, &mut into, 0, ReadWriteFlags::NOWAIT).ok()?;
        (read == len).then_some(bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn DiskLock>, String>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Ok(Box::new(FileLock(file))))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = fs::read_to_string(path).unwrap_or_default();
                let pid = text.trim();
                let known =
                    !pid.is_empty() && pid.len() < 12 && pid.bytes().all(|byte| byte.is_ascii_digit());
                Ok(Err(if known {
                    pid.to_owned()
                } else {
                    "unknown".to_owned()
                }))
            }
            Err(error) => Err(error.into()),
        }
    }
}
