//! Reads a journal file entry by entry. The bytes are ours, but may be damaged: lengths are bounded before
//! anything is allocated, and nothing after the first entry that does not check is believed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::{self, Change, FRAME_BYTES};
use super::{FileKind, HEADER_BYTES, read_header};
use crate::StoreError;
use crate::disk::{Disk, DiskFile};

/// Bytes read at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// How a file ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FileEnd {
    /// Sequence number in the header.
    pub(crate) header_seq: u64,
    /// Last sequence number read; zero if there was none.
    pub(crate) last_seq: u64,
    /// Entries read.
    pub(crate) entries: u64,
    /// Where the last whole entry ends.
    pub(crate) good_len: u64,
    /// Bytes after that, up to the last that is not zero.
    pub(crate) torn_bytes: u64,
    /// Why the header was not read; nothing else was then.
    pub(crate) header_fault: Option<String>,
}

/// An entry and where its body lies in the file.
pub(crate) struct Read {
    pub(crate) seq: u64,
    pub(crate) change: Change,
    pub(crate) body_at: u64,
}

/// Takes an entry and the file that holds it.
pub(crate) type EachEntry<'a> = dyn FnMut(Read, &Arc<dyn DiskFile>) -> Result<(), StoreError> + 'a;

struct Window {
    file: Arc<dyn DiskFile>,
    len: u64,
    at: u64,
    held: Bytes,
}

impl Window {
    /// `count` bytes at the current place, or `None` if the file ends before.
    fn take(&mut self, count: usize) -> std::io::Result<Option<Bytes>> {
        if self.held.len() < count {
            let left = self.len.saturating_sub(self.at);
            if (count as u64) > left {
                return Ok(None);
            }
            let want = left.min(CHUNK_BYTES.max(count as u64));
            let mut buffer = vec![0; usize::try_from(want).map_err(std::io::Error::other)?];
            self.file.read_at(self.at, &mut buffer)?;
            self.held = Bytes::from(buffer);
        }
        self.at = self.at.saturating_add(count as u64);
        Ok(Some(self.held.split_to(count)))
    }
}

/// Calls `each` for every whole entry of a file.
///
/// # Errors
/// When the file cannot be read, or as `each` says. Damage is no error: see [`FileEnd`].
pub(crate) fn read_file(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    each: &mut EachEntry<'_>,
) -> Result<FileEnd, StoreError> {
    let failed = |error: std::io::Error| StoreError::io("read", path, &error);
    let file: Arc<dyn DiskFile> = Arc::from(disk.open(path).map_err(failed)?);
    let len = file.len().map_err(failed)?;
    let mut window = Window {
        file: Arc::clone(&file),
        len,
        at: 0,
        held: Bytes::new(),
    };
    let mut end = FileEnd::default();
    let header = window.take(HEADER_BYTES).map_err(failed)?;
    match header
        .as_ref()
        .and_then(|bytes| bytes.first_chunk())
        .map(|bytes| read_header(bytes, kind))
    {
        Some(Ok(seq)) => end.header_seq = seq,
        Some(Err(fault)) => end.header_fault = Some(fault),
        None => end.header_fault = Some("file is shorter than its header".to_owned()),
    }
    if end.header_fault.is_some() {
        end.torn_bytes = len;
        return Ok(end);
    }
    end.good_len = HEADER_BYTES as u64;
    loop {
        let Some(head) = window.take(FRAME_BYTES).map_err(failed)? else {
            break;
        };
        let Some(frame) = head.first_chunk().and_then(entry::frame) else {
            break;
        };
        let Some(payload) = window.take(frame.payload_len).map_err(failed)? else {
            break;
        };
        // A log counts up without a gap; older bytes that happen to check are no continuation.
        let expected = if end.entries == 0 {
            end.header_seq
        } else {
            end.last_seq.saturating_add(1)
        };
        if !frame.holds(&payload) || (kind == FileKind::Log && frame.seq != expected) {
            break;
        }
        let Ok(change) = frame.change(payload) else { break };
        let body_at = window.at.saturating_sub(change.body_len() as u64);
        end.last_seq = frame.seq;
        end.entries = end.entries.saturating_add(1);
        end.good_len = window.at;
        each(
            Read {
                seq: frame.seq,
                change,
                body_at,
            },
            &file,
        )?;
    }
    end.torn_bytes = torn(&*file, end.good_len, len).map_err(failed)?;
    Ok(end)
}

/// Bytes from `from` to the last that is not zero.
fn torn(file: &dyn DiskFile, from: u64, len: u64) -> std::io::Result<u64> {
    let mut last = from;
    let mut at = from;
    while at < len {
        let count = CHUNK_BYTES.min(len.saturating_sub(at));
        let mut buffer = vec![0; usize::try_from(count).map_err(std::io::Error::other)?];
        file.read_at(at, &mut buffer)?;
        if let Some(index) = buffer.iter().rposition(|byte| *byte != 0) {
            last = at.saturating_add(index as u64).saturating_add(1);
        }
        at = at.saturating_add(count);
    }
    Ok(last.saturating_sub(from))
}
