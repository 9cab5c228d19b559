//! The folder behind the index: one snapshot, and logs of the steps since.
//!
//! | file | what |
//! |---|---|
//! | `snapshot` | every row and withdrawal; names the first log that is not in it |
//! | `log.N` | steps in order; N counts up |
//! | `snapshot.new` | a snapshot that is being written; worthless after a crash |
//! | `*.unreadable` | a file of another kind or version, set aside |
//!
//! Only the owner reads them. A log is begun before its snapshot is written, so the steps made meanwhile are in both or in
//! the log alone; made again over the snapshot they end where they should. Nothing is flushed to the device but a snapshot
//! before it takes its name: what a power cut costs, the network tells again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::log::{Frames, HEADER_BYTES, Kind, decode, header, read_header};
use super::types::Change;
use crate::StoreError;

/// What is read of one file at the start.
const MAX_FILE_BYTES: u64 = 4 << 30;
const SNAPSHOT: &str = "snapshot";
const NEW_SNAPSHOT: &str = "snapshot.new";
const READ_BYTES: usize = 256 << 10;

/// The folder, open for writing.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    log: File,
    /// Number of the log that is written.
    number: u64,
    pub(super) log_bytes: u64,
    pub(super) snapshot_bytes: u64,
}

/// What was found at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) damaged_bytes: u64,
    /// Whether more is damaged than the end of the last log, so that a new snapshot is due.
    pub(super) mend: bool,
}

fn fault(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::io(what, path, &error)
}

fn open(path: &Path, fresh: bool) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(fresh)
        .mode(0o600)
        .open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o600);
        file.set_permissions(permissions)?;
    }
    Ok(file)
}

fn log_name(number: u64) -> String {
    format!("log.{number}")
}

fn set_aside(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".unreadable");
    std::fs::rename(path, name)
}

impl Folder {
    /// Opens the folder, made if it is missing, and hands every step in it to `take`.
    pub(super) fn open(dir: &Path, take: &mut dyn FnMut(Change)) -> Result<(Self, Found), StoreError> {
        make_private(dir).map_err(fault("make", dir))?;
        let mut found = Found::default();
        let path = dir.join(SNAPSHOT);
        let mut first = 0;
        let mut snapshot_bytes = 0;
        if path.exists() {
            match read(&path, Kind::Snapshot, take, &mut found).map_err(fault("read", &path))? {
                Some((number, bytes)) => {
                    (first, snapshot_bytes) = (number, bytes);
                    found.mend = found.damaged_bytes > 0;
                }
                None => set_aside(&path).map_err(fault("rename", &path))?,
            }
        }
        let mut last = None;
        let mut log_bytes = 0;
        for number in logs(dir).map_err(fault("list", dir))? {
            let path = dir.join(log_name(number));
            if number < first {
                std::fs::remove_file(&path).map_err(fault("remove", &path))?;
                continue;
            }
            // Steps behind a damaged log may be about rows it held; they are good all the same.
            found.mend |= last.is_some() && found.damaged_bytes > 0;
            match read(&path, Kind::Log, take, &mut found).map_err(fault("read", &path))? {
                Some((found_number, bytes)) if found_number == number => {
                    (last, log_bytes) = (Some((path, number)), bytes);
                }
                _ => {
                    set_aside(&path).map_err(fault("rename", &path))?;
                    found.mend = true;
                }
            }
        }
        let folder = match last {
            Some((path, number)) => {
                let log = open(&path, false).map_err(fault("open", &path))?;
                log.set_len(log_bytes).map_err(fault("truncate", &path))?;
                Self {
                    dir: dir.to_owned(),
                    log,
                    number,
                    log_bytes,
                    snapshot_bytes,
                }
            }
            None => {
                let (log, log_bytes) = begin(dir, first)?;
                Self {
                    dir: dir.to_owned(),
                    log,
                    number: first,
                    log_bytes,
                    snapshot_bytes,
                }
            }
        };
        Ok((folder, found))
    }

    /// Adds frames to the log: all of them, or nothing.
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        use std::os::unix::fs::FileExt as _;
        let path = self.dir.join(log_name(self.number));
        // What a failed write left behind is written over by the next one, and else does not check.
        self.log
            .write_all_at(frames, self.log_bytes)
            .map_err(fault("write", &path))?;
        self.log_bytes = self.log_bytes.saturating_add(frames.len() as u64);
        Ok(())
    }

    /// Makes the log durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let path = self.dir.join(log_name(self.number));
        self.log.sync_data().map_err(fault("flush", &path))
    }

    /// Begins the next log, and a snapshot of what is before it.
    pub(super) fn begin_snapshot(&mut self) -> Result<NewSnapshot, StoreError> {
        let number = self.number.saturating_add(1);
        let path = self.dir.join(NEW_SNAPSHOT);
        let file = open(&path, true).map_err(fault("create", &path))?;
        let mut writer = BufWriter::with_capacity(READ_BYTES, file);
        let head = header(Kind::Snapshot, number);
        writer.write_all(&head).map_err(fault("write", &path))?;
        let (log, log_bytes) = begin(&self.dir, number)?;
        (self.log, self.number, self.log_bytes) = (log, number, log_bytes);
        Ok(NewSnapshot {
            path,
            writer,
            bytes: head.len() as u64,
        })
    }

    /// Puts a snapshot in its place, and removes the logs that are in it.
    pub(super) fn finish_snapshot(&mut self, snapshot: NewSnapshot) -> Result<(), StoreError> {
        let NewSnapshot { path, writer, bytes } = snapshot;
        let file = writer
            .into_inner()
            .map_err(|error| fault("write", &path)(error.into_error()))?;
        file.sync_all().map_err(fault("flush", &path))?;
        let name = self.dir.join(SNAPSHOT);
        std::fs::rename(&path, &name).map_err(fault("rename", &path))?;
        let sync = File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync.map_err(fault("flush", &self.dir))?;
        self.snapshot_bytes = bytes;
        for number in logs(&self.dir).map_err(fault("list", &self.dir))? {
            if number < self.number {
                let path = self.dir.join(log_name(number));
                std::fs::remove_file(&path).map_err(fault("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct NewSnapshot {
    path: PathBuf,
    writer: BufWriter<File>,
    bytes: u64,
}

impl NewSnapshot {
    pub(super) fn append(&mut self, frames: &[u8]) -> Result<(), StoreError> {
        self.writer
            .write_all(frames)
            .map_err(fault("write", &self.path))?;
        self.bytes = self.bytes.saturating_add(frames.len() as u64);
        Ok(())
    }
}

fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut permissions = std::fs::metadata(dir)?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(0o700);
        std::fs::set_permissions(dir, permissions)?;
    }
    Ok(())
}

fn begin(dir: &Path, number: u64) -> Result<(File, u64), StoreError> {
    let path = dir.join(log_name(number));
    let mut log = open(&path, true).map_err(fault("create", &path))?;
    let head = header(Kind::Log, number);
    log.write_all(&head).map_err(fault("write", &path))?;
    Ok((log, head.len() as u64))
}

/// Numbers of the logs, in order.
fn logs(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("log.")?.parse().ok());
        // `log.007` is none of ours.
        numbers.extend(number.filter(|number| *log_name(*number) == *name));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Hands the steps of a file to `take`: its number and the bytes that check, or `None` if it is no such file.
fn read(
    path: &Path,
    kind: Kind,
    take: &mut dyn FnMut(Change),
    found: &mut Found,
) -> io::Result<Option<(u64, u64)>> {
    let file = open(path, false)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(READ_BYTES, file).take(MAX_FILE_BYTES);
    let mut head = Vec::with_capacity(HEADER_BYTES);
    reader.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut head)?;
    let Some(number) = read_header(&head, kind) else {
        found.damaged_bytes = found.damaged_bytes.saturating_add(length);
        return Ok(None);
    };
    let mut frames = Frames::new(reader);
    while let Some(step) = frames.next()? {
        match decode(step) {
            Some(step) => take(step),
            None => found.damaged_bytes = found.damaged_bytes.saturating_add(step.len() as u64),
        }
    }
    let bytes = frames.bytes.saturating_add(HEADER_BYTES as u64);
    found.damaged_bytes = found.damaged_bytes.saturating_add(length.saturating_sub(bytes));
    Ok(Some((number, bytes)))
}
