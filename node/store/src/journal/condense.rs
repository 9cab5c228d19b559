//! Makes old journal files small: first without the bodies that are in the layout by now, then one snapshot of
//! the rows in place of many files. Each step ends in a rename, so a stop in between leaves the old files in use.

use std::ops::ControlFlow;
use std::path::Path;

use super::entry::{self, Change};
use super::reader::read_file;
use super::{FileKind, file_name, header};
use crate::StoreError;
use crate::disk::{Disk, DiskFile};
use crate::rows::{self, Family, Rows};
use crate::types::UsageRow;

const BUFFER_BYTES: usize = 1 << 20;

struct Out {
    file: Box<dyn DiskFile>,
    at: u64,
    buffer: Vec<u8>,
}

impl Out {
    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_at(self.at, &self.buffer)?;
        self.at = self.at.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a journal file under a temporary name, fills it by `fill`, and moves it into place. Returns its length.
fn write_file(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    head: Vec<u8>,
    fill: impl FnOnce(&mut dyn FnMut(u64, &Change) -> Result<(), StoreError>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let path = dir.join(name);
    let temp = dir.join(format!("{name}.tmp"));
    let failed = |error: std::io::Error| StoreError::io("write", &temp, &error);
    let file = disk.create(&temp).map_err(failed)?;
    let mut out = Out {
        file,
        at: 0,
        buffer: head,
    };
    fill(&mut |seq, change| {
        entry::encode(seq, change, &mut out.buffer)?;
        if out.buffer.len() >= BUFFER_BYTES {
            out.flush().map_err(failed)
        } else {
            Ok(())
        }
    })?;
    out.flush().and_then(|()| out.file.sync_data()).map_err(failed)?;
    disk.rename(&temp, &path)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(failed)?;
    Ok(out.at)
}

/// Replaces log file `number`, whose bodies are all in the layout, by one without bodies. Returns its length.
pub(crate) fn strip(disk: &dyn Disk, dir: &Path, number: u64, last_seq: u64) -> Result<u64, StoreError> {
    let log = dir.join(file_name(number, FileKind::Log));
    let name = file_name(number, FileKind::Rows);
    let len = write_file(disk, dir, &name, header(FileKind::Rows, last_seq), |put| {
        read_file(disk, &log, FileKind::Log, &mut |read, _| {
            put(read.seq, &read.change.without_body())
        })?;
        Ok(())
    })?;
    disk.remove(&log)
        .and_then(|()| disk.sync_dir(dir))
        .map_err(|error| StoreError::io("remove", log, &error))?;
    Ok(len)
}

/// Writes the rows as they are now as snapshot `number`, which stands for all files up to that number; entries up
/// to `seq` need not be read again. Returns its length.
///
/// Rows may change while they are read: what is missed or seen early is in a later log, and applying that log
/// ends in the same state.
pub(crate) fn snapshot(
    disk: &dyn Disk,
    dir: &Path,
    rows: &dyn Rows,
    number: u64,
    seq: u64,
) -> Result<u64, StoreError> {
    let name = file_name(number, FileKind::Snap);
    write_file(disk, dir, &name, header(FileKind::Snap, seq), |put| {
        for family in Family::ALL {
            let mut fault = Ok(());
            rows.scan(family, &[], &mut |key, value| {
                fault = match change_of(family, key, value) {
                    Ok(Some(change)) => put(seq, &change),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                if fault.is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            fault?;
        }
        Ok(())
    })
}

/// The change that makes a row; `None` for families that follow from others.
fn change_of(family: Family, key: &[u8], value: &[u8]) -> Result<Option<Change>, StoreError> {
    let corrupt = || StoreError::CorruptRow {
        what: format!("{} key", family.name()),
        why: "wrong length".into(),
    };
    let cid = || rows::cid_of(key).ok_or_else(corrupt);
    Ok(Some(match family {
        // Scans are read from the referrers again.
        Family::Meta | Family::Members | Family::Scans => return Ok(None),
        Family::Records => Change::Record {
            cid: cid()?,
            row: rows::decode("record", value)?,
            body: None,
        },
        Family::Referrers => Change::Referrer {
            record: cid()?,
            position: rows::number_of(key).ok_or_else(corrupt)?,
            row: rows::decode("referrer", value)?,
            body: None,
        },
        Family::Published => {
            let row = rows::decode_published(value)?;
            Change::Publish {
                cid: cid()?,
                at_ns: row.at_ns,
                labels: row.labels,
            }
        }
        Family::Usage => {
            let row: UsageRow = rows::decode("usage", value)?;
            Change::Usage(vec![(cid()?, row)])
        }
        Family::Jobs => {
            let id = String::from_utf8(key.to_vec()).map_err(|_| corrupt())?;
            Change::Job {
                id,
                value: bytes::Bytes::copy_from_slice(value),
            }
        }
    }))
}
