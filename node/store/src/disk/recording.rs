//! A disk in memory that can lose power, run full, and fail a flush.
//!
//! It keeps apart what was written and what is durable, as POSIX promises and no more: bytes after `sync_data`,
//! names after `sync_dir`, everything after `sync_fs`. [`RecordingDisk::after_power_cut`] gives the disk that the
//! next start may find: of the bytes and names that were not durable, a seed decides which ones made it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, DiskFile, DiskLock, Listed};

/// What reaches the device as a whole.
const PAGE_BYTES: usize = 4096;

#[derive(Debug, Clone)]
enum Write {
    Bytes(u64, Vec<u8>),
    Len(u64),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
    modified_ns: i64,
}

#[derive(Debug, Clone)]
enum NameOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

#[derive(Debug, Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameOp>,
    ops: u64,
    /// After so many operations every further one fails: the power is gone.
    stop_after: Option<u64>,
    /// Bytes that may be held.
    capacity: Option<u64>,
    /// Flushes that fail from now on.
    failing_flushes: u64,
    locked: bool,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct RecordingDisk(Arc<Mutex<State>>);

/// A small generator of our own, so that a seed means the same in every build.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; zero if `end` is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(end).unwrap_or(0)
    }
}

fn apply(bytes: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Len(len) => bytes.resize(usize::try_from(*len).unwrap_or(0), 0),
        Write::Bytes(at, data) => {
            let at = usize::try_from(*at).unwrap_or(0);
            let end = at.saturating_add(data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            if let Some(place) = bytes.get_mut(at..end) {
                place.copy_from_slice(data);
            }
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, op: &NameOp) {
    match op {
        NameOp::Link(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameOp::Unlink(path) => {
            names.remove(path);
        }
        NameOp::Rename(from, to, inode) => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("power is gone")
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.ops = self.ops.saturating_add(1);
        match self.stop_after {
            Some(last) if self.ops > last => Err(power_is_gone()),
            _ => Ok(()),
        }
    }

    fn inode(&mut self, index: usize) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(index)
            .ok_or_else(|| io::Error::other("no such inode"))
    }

    fn name(&mut self, op: NameOp) {
        apply_name(&mut self.names, &op);
        self.pending_names.push(op);
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|index| self.inodes.get(*index))
            .map(|inode| inode.live.len() as u64)
            .sum()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.step()?;
        if self.failing_flushes > 0 {
            self.failing_flushes -= 1;
            return Err(io::Error::other("flush failed"));
        }
        Ok(())
    }
}

impl RecordingDisk {
    /// Operations so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.0.lock().ops
    }

    /// Lets the power go after `ops` more operations: all later ones fail.
    pub fn stop_after(&self, ops: u64) {
        let mut state = self.0.lock();
        state.stop_after = Some(state.ops.saturating_add(ops));
    }

    /// Bounds the bytes that the files may take; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Bytes that the files take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Makes the next `count` flushes fail.
    pub fn fail_flushes(&self, count: u64) {
        self.0.lock().failing_flushes = count;
    }

    /// The disk as a start after a power cut finds it. The old one goes on as it was.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> Self {
        let old = self.0.lock();
        let mut dice = Dice::new(seed);
        // Most file systems keep the order of names; the standard does not ask for it.
        let (ordered, mut left) = (dice.below(2) == 0, dice.below(old.pending_names.len() as u64 + 1));
        let mut names = old.durable_names.clone();
        for op in &old.pending_names {
            let reached = if ordered { left > 0 } else { dice.below(2) == 0 };
            left = left.saturating_sub(1);
            if reached {
                apply_name(&mut names, op);
            }
        }
        let mut inodes = Vec::with_capacity(old.inodes.len());
        for inode in &old.inodes {
            let mut bytes = inode.durable.clone();
            for write in &inode.pending {
                match write {
                    Write::Len(_) if dice.below(2) == 0 => apply(&mut bytes, write),
                    Write::Len(_) => {}
                    Write::Bytes(at, data) => torn(&mut bytes, *at, data, &mut dice),
                }
            }
            inodes.push(Inode {
                live: bytes.clone(),
                durable: bytes,
                pending: Vec::new(),
                ..inode.clone()
            });
        }
        Self(Arc::new(Mutex::new(State {
            inodes,
            names: names.clone(),
            durable_names: names,
            ..State::default()
        })))
    }
}

/// Applies any pages of a write; others are lost, and read as before or as zeros.
fn torn(bytes: &mut Vec<u8>, at: u64, data: &[u8], dice: &mut Dice) {
    let mut offset = at;
    let mut rest = data;
    while !rest.is_empty() {
        let page = PAGE_BYTES as u64;
        let room = page.saturating_sub(offset.checked_rem(page).unwrap_or(0));
        let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(PAGE_BYTES)));
        match dice.below(3) {
            0 => {}
            // The length reached the device, the bytes did not.
            1 if bytes.len() as u64 <= offset => apply(bytes, &Write::Bytes(offset, vec![0; now.len()])),
            _ => apply(bytes, &Write::Bytes(offset, now.to_vec())),
        }
        offset = offset.saturating_add(now.len() as u64);
        rest = later;
    }
}

struct RecordingFile {
    disk: RecordingDisk,
    inode: usize,
}

impl DiskFile for RecordingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let (used, capacity) = (state.used(), state.capacity);
        let stopped = state.step();
        let inode = state.inode(self.inode)?;
        let mut bytes = bytes;
        let mut result = Ok(());
        if let Err(error) = stopped {
            // The last write before the cut may have begun.
            result = Err(error);
            bytes = &[];
        } else if let Some(capacity) = capacity {
            let growth = offset
                .saturating_add(bytes.len() as u64)
                .saturating_sub(inode.live.len() as u64);
            if used.saturating_add(growth) > capacity {
                // As a file system does: a part is written, then there is no room.
                bytes = bytes.get(..bytes.len() / 2).unwrap_or_default();
                result = Err(io::Error::from(io::ErrorKind::StorageFull));
                let growth = offset
                    .saturating_add(bytes.len() as u64)
                    .saturating_sub(inode.live.len() as u64);
                if used.saturating_add(growth) > capacity {
                    bytes = &[];
                }
            }
        }
        if !bytes.is_empty() {
            let write = Write::Bytes(offset, bytes.to_vec());
            apply(&mut inode.live, &write);
            inode.pending.push(write);
        }
        result
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let inode = state.inode(self.inode)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.saturating_add(into.len());
        let bytes = inode
            .live
            .get(start..end)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.step()?;
        let inode = state.inode(self.inode)?;
        apply(&mut inode.live, &Write::Len(len));
        inode.pending.push(Write::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        state.flush()?;
        let inode = state.inode(self.inode)?;
        inode.pending.clear();
        inode.durable.clone_from(&inode.live);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.0.lock();
        Ok(state.inode(self.inode)?.live.len() as u64)
    }
}

struct RecordingLock(RecordingDisk);

impl DiskLock for RecordingLock {}

impl Drop for RecordingLock {
    fn drop(&mut self) {
        self.0.0.lock().locked = false;
    }
}

impl RecordingDisk {
    fn file(&self, inode: usize) -> Box<dyn DiskFile> {
        Box::new(RecordingFile {
            disk: self.clone(),
            inode,
        })
    }
}

impl Disk for RecordingDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        self.0.lock().step()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        let modified_ns = i64::try_from(state.ops).unwrap_or(0);
        let index = match state.names.get(path).copied() {
            Some(index) => {
                let inode = state.inode(index)?;
                inode.live.clear();
                inode.pending.push(Write::Len(0));
                index
            }
            None => {
                state.inodes.push(Inode {
                    modified_ns,
                    ..Inode::default()
                });
                let index = state.inodes.len().saturating_sub(1);
                state.name(NameOp::Link(path.to_owned(), index));
                index
            }
        };
        drop(state);
        Ok(self.file(index))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let index = self.0.lock().names.get(path).copied();
        index
            .map(|index| self.file(index))
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        let mut state = self.0.lock();
        match state.names.get(path).copied() {
            Some(index) => Ok(Some(state.inode(index)?.live.len() as u64)),
            None => Ok(None),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        let index = state
            .names
            .get(from)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        state.name(NameOp::Rename(from.to_owned(), to.to_owned(), index));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if state.names.contains_key(path) {
            state.name(NameOp::Unlink(path.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.flush()?;
        let mut rest = Vec::new();
        for op in std::mem::take(&mut state.pending_names) {
            let named = match &op {
                NameOp::Link(name, _) | NameOp::Unlink(name) | NameOp::Rename(_, name, _) => name,
            };
            if named.parent() == Some(path) {
                apply_name(&mut state.durable_names, &op);
            } else {
                rest.push(op);
            }
        }
        state.pending_names = rest;
        Ok(())
    }

    fn sync_fs(&self, _: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.flush()?;
        for inode in &mut state.inodes {
            inode.pending.clear();
            inode.durable.clone_from(&inode.live);
        }
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn list(&self, path: &Path, each: &mut dyn FnMut(Listed)) -> io::Result<()> {
        let mut found = Vec::new();
        {
            let state = self.0.lock();
            for (name, index) in &state.names {
                if name.parent() != Some(path) {
                    continue;
                }
                if let (Some(name), Some(inode)) = (name.file_name(), state.inodes.get(*index)) {
                    found.push(Listed {
                        name: name.to_string_lossy().into_owned(),
                        len: inode.live.len() as u64,
                        modified_ns: inode.modified_ns,
                    });
                }
            }
        }
        found.into_iter().for_each(each);
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Result<Box<dyn DiskLock>, String>> {
        let mut state = self.0.lock();
        if state.locked {
            return Ok(Err("unknown".to_owned()));
        }
        state.locked = true;
        drop(state);
        Ok(Ok(Box::new(RecordingLock(self.clone()))))
    }
}
