//! Start: lock, rows, replay, adoption. Ends with a store whose rows, overlay and index agree with the journal,
//! whatever the last stop left behind.

use std::collections::BTreeMap;
use std::fs;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::disk::{Disk, DiskLock};
use crate::journal::checkpoint::{self, Checkpoint};
use crate::journal::entry::Change;
use crate::journal::reader::{FileEnd, read_file};
use crate::journal::writer::Writer;
use crate::journal::{FileKind, file_name, parse_name};
use crate::layout::Layout;
use crate::mover::CondensedFiles;
use crate::overlay::{Overlay, Place};
use crate::rows::{self, Family, Op, Rows, Ticket};
use crate::state::{Counters, Index, MoverState, Shared};
use crate::types::{OpenReport, UsageRow};
use crate::{Clock, RowsBackend, StoreConfig, StoreError};

/// The row store is copied into a new one when it takes more than this times what is live, and more than the floor.
const COMPACT_FACTOR: u64 = 4;
const COMPACT_FLOOR_BYTES: u64 = 64 << 20;
const GENERATION_KEY: &[u8] = b"generation";

/// What the threads start with.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) next_seq: u64,
    pub(crate) last_inserted_ns: i64,
    pub(crate) files: CondensedFiles,
    pub(crate) report: OpenReport,
}

/// Takes the lock of a data directory.
pub(crate) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, StoreError> {
    disk.create_dir_all(dir)
        .map_err(|error| StoreError::io("create", dir, &error))?;
    let path = dir.join("LOCK");
    match disk
        .lock(&path)
        .map_err(|error| StoreError::io("lock", path, &error))?
    {
        Ok(lock) => Ok(lock),
        Err(pid) => Err(StoreError::Locked {
            dir: dir.to_owned(),
            pid,
        }),
    }
}

/// Opens the row engine; a folder that fails or panics is moved aside and a new one made. Returns why.
fn open_rows(config: &StoreConfig, dir: &Path) -> Result<(Arc<dyn Rows>, Option<String>), StoreError> {
    let attempt = || {
        catch_unwind(AssertUnwindSafe(|| {
            rows::open(config.rows, dir, config.rows_cache_bytes)
        }))
        .unwrap_or_else(|_| Err(StoreError::Rows("panicked while opening".to_owned())))
    };
    let first = match attempt() {
        Ok(rows) => return Ok((rows, None)),
        Err(error) => error,
    };
    tracing::error!(%first, "row store does not open, it is rebuilt from the journal");
    if dir.exists() {
        set_aside(dir)?;
    }
    Ok((attempt()?, Some(first.to_string())))
}

/// Renames a row store that cannot be used, for whoever looks into it.
fn set_aside(dir: &Path) -> Result<(), StoreError> {
    let free = (1..10_000u32)
        .map(|n| dir.with_extension(format!("broken-{n}")))
        .find(|path| !path.exists());
    let aside = free.ok_or_else(|| StoreError::Rows("too many broken row stores are kept".to_owned()))?;
    tracing::warn!(aside = %aside.display(), "row store moved aside");
    fs::rename(dir, &aside).map_err(|error| StoreError::io("rename", dir, &error))
}

fn generation_of(rows: &dyn Rows) -> Result<Option<u64>, StoreError> {
    Ok(rows
        .get(Family::Meta, GENERATION_KEY)?
        .as_deref()
        .and_then(rows::number_of))
}

/// Opens the store in `config.dir`.
pub(crate) fn open(config: StoreConfig, clock: Clock) -> Result<Opened, StoreError> {
    let disk = Arc::clone(&config.disk);
    let lock = lock(&*disk, &config.dir)?;
    let layout = Layout::open(Arc::clone(&disk), &config.dir)?;
    let journal_dir = config.dir.join("journal");
    disk.create_dir_all(&journal_dir)
        .map_err(|error| StoreError::io("create", &journal_dir, &error))?;
    let rows_dir = config.dir.join("rows");
    let persistent = config.rows != RowsBackend::Memory;
    if persistent {
        // A copy that was not finished; the original is in place.
        for left in ["rows.new", "rows.old"] {
            let _ = fs::remove_dir_all(config.dir.join(left));
        }
    }
    let files = list_files(&*disk, &journal_dir)?;
    let checkpoint = checkpoint::read(&*disk, &journal_dir)?;
    let mut report = OpenReport {
        quarantined: layout.quarantined()?,
        ..OpenReport::default()
    };

    let existed = rows_dir.exists();
    let (mut rows, broken) = open_rows(&config, &rows_dir)?;
    let held = generation_of(&*rows)?;
    let journal_gone = files.is_empty() && checkpoint.is_none();
    let same = held.is_some() && held == checkpoint.map(|checkpoint| checkpoint.generation);
    let trusted = same || (journal_gone && held.is_some());
    if !trusted && existed && persistent && broken.is_none() {
        // Damaged so that it opens empty, or of another life: it may hold what the journal has since dropped.
        drop(rows);
        if checkpoint.is_some() {
            set_aside(&rows_dir)?;
        } else {
            // The first start was cut short; there is nothing to look into.
            fs::remove_dir_all(&rows_dir).map_err(|error| StoreError::io("remove", &rows_dir, &error))?;
        }
        rows = open_rows(&config, &rows_dir)?.0;
    }
    let generation = if trusted {
        held.unwrap_or(0)
    } else {
        new_generation(&clock)
    };
    if !trusted {
        rows.write(&[Op::Put(
            Family::Meta,
            GENERATION_KEY.to_vec(),
            generation.to_be_bytes().to_vec(),
        )])?;
        let reason = broken.unwrap_or_else(|| "no row store that belongs to the journal".to_owned());
        report.rebuilt = (!journal_gone).then_some(reason);
    }
    let overlay = Overlay::new(config.overlay_bytes);
    let shared = Arc::new(Shared {
        config,
        clock,
        journal_dir,
        rows_dir,
        layout,
        rows: RwLock::new(Some(rows)),
        generation: generation.into(),
        index: RwLock::new(Index::default()),
        overlay,
        counters: Counters::default(),
        mover: Mutex::new(MoverState::default()),
        mover_wake: Condvar::new(),
        mover_done: Condvar::new(),
        closed_logs: Mutex::new(Vec::new()),
        poison: Mutex::new(None),
        closed: false.into(),
        lock: Mutex::new(Some(lock)),
        filling: Mutex::new(()),
    });
    if trusted {
        load_index(&shared)?;
    }
    let moved_to = checkpoint.map_or(0, |checkpoint| checkpoint.seq);
    let from = if trusted { moved_to } else { 0 };
    let mut replay = Replay {
        shared: &shared,
        moved_to,
        from,
        last_seq: moved_to,
        report: &mut report,
    };
    let (condensed, next_number) = replay.all(files)?;
    let mut last_seq = replay.last_seq;
    if journal_gone {
        crate::adopt::adopt(&shared, &mut report)?;
        // Adopted rows need a sequence number after the zero that stands for "nothing yet".
        last_seq = last_seq.max(u64::from(trusted || report.adopted > 0));
    }
    shared.overlay.applied(last_seq);
    let next_seq = last_seq.saturating_add(1);
    let limit = shared.config.segment_bytes;
    let mut condensed = condensed;
    let mut number = next_number;
    if journal_gone && (trusted || report.adopted > 0) {
        // What was adopted is ground state now.
        let disk = &*shared.config.disk;
        let len = shared.with_rows(|rows| {
            crate::journal::condense::snapshot(disk, &shared.journal_dir, rows, number, last_seq)
        })?;
        condensed.snap = Some((number, len));
        number = number.saturating_add(1);
    }
    let writer = Writer::create(disk, &shared.journal_dir, number, next_seq, limit)?;
    if !trusted || journal_gone {
        shared.with_rows(|rows| rows.durable(Ticket::latest()))?;
        // Bodies are in place up to where they were before; the rows now are as well.
        let seq = moved_to;
        checkpoint::write(
            &*shared.config.disk,
            &shared.journal_dir,
            Checkpoint { seq, generation },
        )?;
    }
    shared.counters.checkpoint_seq.store(moved_to, Ordering::Relaxed);
    shared.index.write().dirty_manifests.clear();
    if persistent {
        let stats = shared.with_rows(|rows| Ok(rows.stats()))?;
        if worth_compacting(stats.disk_bytes, stats.live_bytes) {
            report.rows_compacted = compact_rows(&shared)?;
        }
    }
    let last_inserted_ns = {
        let index = shared.index.read();
        report.records = index.records.len() as u64;
        index.records.newest_ns()
    };
    Ok(Opened {
        shared,
        writer,
        next_seq,
        last_inserted_ns,
        files: condensed,
        report,
    })
}

/// Tells row stores of different lives apart: the same number twice would take a stale one for the right one.
///
/// A number that only has to be new; nothing else depends on it, so it comes from the seed of the standard hasher
/// and not from an injected source.
fn new_generation(clock: &Clock) -> u64 {
    std::collections::hash_map::RandomState::new().hash_one(clock())
}

/// Every journal file with its length; leftovers of unfinished replacements are removed.
fn list_files(disk: &dyn Disk, dir: &Path) -> Result<BTreeMap<(u64, FileKind), u64>, StoreError> {
    let mut files = BTreeMap::new();
    let mut left = Vec::new();
    disk.list(dir, &mut |file| match parse_name(&file.name) {
        Some(key) => {
            files.insert(key, file.len);
        }
        None if file.name.ends_with(".tmp") => left.push(file.name),
        None => {}
    })
    .map_err(|error| StoreError::io("list", dir, &error))?;
    for name in left {
        let path = dir.join(name);
        disk.remove(&path)
            .map_err(|error| StoreError::io("remove", path, &error))?;
    }
    Ok(files)
}

/// The head of a record row, without the summary.
#[derive(serde::Deserialize)]
struct RecordHead {
    inserted_at_ns: i64,
    size_bytes: u64,
}

/// Fills what must be known from the start from rows that are trusted; the search index follows, see `fill`.
fn load_index(shared: &Shared) -> Result<(), StoreError> {
    let mut index = shared.index.write();
    let mut fault = Ok(());
    shared.with_rows(|rows| {
        rows.scan(Family::Records, &[], &mut |key, value| {
            match (rows::cid_of(key), rows::decode::<RecordHead>("record", value)) {
                (Some(cid), Ok(head)) => {
                    index
                        .records
                        .insert_waiting(cid, head.inserted_at_ns, head.size_bytes);
                }
                (_, Err(error)) => fault = Err(error),
                (None, _) => {}
            }
            ControlFlow::Continue(())
        })?;
        rows.scan(Family::Members, &[], &mut |key, _| {
            if let Some(cid) = rows::last_cid_of(key) {
                let count = index.owners.entry(cid).or_insert(0);
                *count = count.saturating_add(1);
            }
            ControlFlow::Continue(())
        })?;
        rows.scan(Family::Usage, &[], &mut |key, value| {
            match (rows::cid_of(key), rows::decode::<UsageRow>("usage", value)) {
                (Some(cid), Ok(row)) => {
                    index.usage.insert(cid, row);
                }
                (_, Err(error)) => fault = Err(error),
                (None, _) => {}
            }
            ControlFlow::Continue(())
        })
    })?;
    fault
}

struct Replay<'a> {
    shared: &'a Arc<Shared>,
    /// Bodies up to here are in the layout.
    moved_to: u64,
    /// Entries up to here are in the rows.
    from: u64,
    last_seq: u64,
    report: &'a mut OpenReport,
}

impl Replay<'_> {
    /// Applies all files in order. Returns the condensed ones and the number of the next log.
    fn all(&mut self, files: BTreeMap<(u64, FileKind), u64>) -> Result<(CondensedFiles, u64), StoreError> {
        let mut condensed = CondensedFiles::default();
        let next_number = files
            .keys()
            .map(|(number, _)| *number)
            .max()
            .unwrap_or(0)
            .saturating_add(1);
        let snap = files
            .keys()
            .filter(|(_, kind)| *kind == FileKind::Snap)
            .map(|(number, _)| *number)
            .max();
        let last_log = files
            .keys()
            .filter(|(_, kind)| *kind == FileKind::Log)
            .map(|(number, _)| *number)
            .max();
        for ((number, kind), len) in &files {
            let (number, kind, len) = (*number, *kind, *len);
            let path = self.shared.journal_dir.join(file_name(number, kind));
            // Left by a stop between a replacement and the removal of what it replaced.
            let replaced = match kind {
                FileKind::Snap => Some(number) < snap,
                FileKind::Rows => Some(number) <= snap,
                FileKind::Log => Some(number) <= snap || files.contains_key(&(number, FileKind::Rows)),
            };
            if replaced {
                self.remove(&path)?;
                continue;
            }
            let end = self.file(&path, kind)?;
            match kind {
                FileKind::Snap => condensed.snap = Some((number, len)),
                FileKind::Rows => condensed.rows.push((number, len)),
                FileKind::Log => self.end_log(&path, number, &end, len, Some(number) == last_log)?,
            }
            if kind != FileKind::Log {
                self.last_seq = self.last_seq.max(end.header_seq);
                if end.torn_bytes > 0 || end.header_fault.is_some() {
                    self.damaged(&path, end.header_fault.as_deref());
                }
            }
        }
        Ok((condensed, next_number))
    }

    fn file(&mut self, path: &Path, kind: FileKind) -> Result<FileEnd, StoreError> {
        let disk = Arc::clone(&self.shared.config.disk);
        let (from, moved_to) = (self.from, self.moved_to);
        let mut applied: u64 = 0;
        let end = read_file(&*disk, path, kind, &mut |read, file| {
            if read.seq <= from {
                return Ok(());
            }
            let moved = kind != FileKind::Log || read.seq <= moved_to;
            let len = read.change.body_len() as u64;
            let has_body = matches!(
                &read.change,
                Change::Record { body: Some(_), .. } | Change::Referrer { body: Some(_), .. }
            );
            let place = has_body.then(|| Place {
                file: Arc::clone(file),
                at: read.body_at,
                len,
            });
            applied = applied.saturating_add(1);
            self.shared.apply(read.seq, read.change, place, moved)
        })?;
        self.report.replayed_entries = self.report.replayed_entries.saturating_add(applied);
        self.last_seq = self.last_seq.max(end.last_seq);
        Ok(end)
    }

    /// Sees to the tail of a log, and notes the log for condensing.
    fn end_log(
        &mut self,
        path: &Path,
        number: u64,
        end: &FileEnd,
        len: u64,
        last: bool,
    ) -> Result<(), StoreError> {
        let disk = &self.shared.config.disk;
        if let Some(fault) = &end.header_fault {
            if last {
                // It was being made; nothing in it was acknowledged.
                self.report.cut_bytes = self.report.cut_bytes.saturating_add(end.torn_bytes);
                return self.remove(path);
            }
            self.damaged(path, Some(fault));
            return Ok(());
        }
        if end.torn_bytes > 0 && !last {
            self.damaged(path, None);
        }
        if end.torn_bytes > 0 && last {
            self.report.cut_bytes = self.report.cut_bytes.saturating_add(end.torn_bytes);
        }
        if len > end.good_len && (last || end.torn_bytes == 0) {
            // The zeros, and what a group left that was not finished.
            disk.open(path)
                .and_then(|file| {
                    file.set_len(end.good_len)?;
                    file.sync_data()
                })
                .map_err(|error| StoreError::io("cut", path, &error))?;
        }
        if end.entries == 0 {
            return self.remove(path);
        }
        let counter = &self.shared.counters.journal_bytes;
        counter.fetch_add(end.good_len, Ordering::Relaxed);
        self.shared.closed_logs.lock().push((number, end.last_seq));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        let disk = &self.shared.config.disk;
        disk.remove(path)
            .and_then(|()| disk.sync_dir(&self.shared.journal_dir))
            .map_err(|error| StoreError::io("remove", path, &error))
    }

    /// Damage before the tail: what follows it is lost to a rebuild. A copy is kept for whoever looks into it.
    fn damaged(&mut self, path: &Path, fault: Option<&str>) {
        self.report.damaged_files = self.report.damaged_files.saturating_add(1);
        let fault = fault.unwrap_or("an entry does not check");
        tracing::error!(path = %path.display(), fault, "journal file is damaged");
        let mut kept = path.as_os_str().to_owned();
        kept.push(".damaged");
        let disk = &self.shared.config.disk;
        let copied = disk.read(path, u64::MAX).and_then(|bytes| match bytes {
            Some(bytes) => disk.replace(&PathBuf::from(kept), &bytes),
            None => Ok(()),
        });
        if let Err(error) = copied {
            tracing::warn!(%error, "damaged journal file was not copied");
        }
    }
}

/// True when the row store holds so much dead weight that copying the live part pays.
pub(crate) fn worth_compacting(disk_bytes: u64, live_bytes: u64) -> bool {
    disk_bytes > COMPACT_FLOOR_BYTES && disk_bytes / COMPACT_FACTOR > live_bytes
}

/// Copies the live rows into a new folder and puts it in place of the old one. Only the thread that writes rows may
/// call this. The rows can be rebuilt, so a stop at any point costs time and nothing else.
pub(crate) fn compact_rows(shared: &Shared) -> Result<bool, StoreError> {
    let config = &shared.config;
    if config.rows == RowsBackend::Memory {
        return Ok(false);
    }
    let (new_dir, old_dir) = (config.dir.join("rows.new"), config.dir.join("rows.old"));
    let failed = |what, path: &Path, error: &std::io::Error| StoreError::io(what, path, error);
    for left in [&new_dir, &old_dir] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(|error| failed("remove", left, &error))?;
        }
    }
    {
        let copy = rows::open(config.rows, &new_dir, config.rows_cache_bytes / 4)?;
        shared.with_rows(|rows| {
            for family in Family::ALL {
                let mut batch = Vec::new();
                let mut fault = Ok(());
                rows.scan(family, &[], &mut |key, value| {
                    batch.push(Op::Put(family, key.to_vec(), value.to_vec()));
                    if batch.len() >= 1000 {
                        fault = copy.write(&std::mem::take(&mut batch)).map(|_| ());
                    }
                    if fault.is_ok() {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })?;
                fault?;
                copy.write(&batch)?;
            }
            Ok(())
        })?;
        copy.durable(Ticket::latest())?;
    }
    let mut place = shared.rows.write();
    // The engine holds its folder until it is dropped; nobody else can have it while we hold the lock.
    *place = None;
    fs::rename(&shared.rows_dir, &old_dir).map_err(|error| failed("rename", &old_dir, &error))?;
    fs::rename(&new_dir, &shared.rows_dir).map_err(|error| failed("rename", &new_dir, &error))?;
    config
        .disk
        .sync_dir(&config.dir)
        .map_err(|error| failed("flush", &config.dir, &error))?;
    *place = Some(rows::open(
        config.rows,
        &shared.rows_dir,
        config.rows_cache_bytes,
    )?);
    drop(place);
    let _ = fs::remove_dir_all(&old_dir);
    Ok(true)
}
