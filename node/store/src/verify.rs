//! Checks a store that nobody has open: journal checksums, the hash of every body, rows against bodies, referrers
//! against records, manifests against `index.json`, and files that belong to nothing.
//!
//! Without `repair` nothing is changed, apart from what every start does: replaying the journal and cutting its
//! torn tail. With it, damaged bodies go to quarantine, bodies that read as records or as referrers of held
//! records are adopted, and other files are removed.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::adopt::{Orphan, classify};
use crate::journal::entry::Change;
use crate::journal::reader::read_file;
use crate::journal::writer::AppendError;
use crate::journal::{entry, parse_name};
use crate::layout::manifest::{self, EMPTY_CONFIG};
use crate::layout::manifests::Manifests;
use crate::mover::Mover;
use crate::open::Opened;
use crate::rows::{self, Family, StoredReferrer};
use crate::state::Shared;
use crate::{Clock, RecordCid, StoreConfig, StoreError};

/// How far a check has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Blobs checked.
    pub checked: u64,
    /// Blobs in all.
    pub total: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Records held.
    pub records: u64,
    /// Referrers held.
    pub referrers: u64,
    /// Blobs whose bytes were hashed.
    pub blobs_hashed: u64,
    /// Journal files with damage before their end.
    pub damaged_files: u64,
    /// Bodies that do not hash to their name; moved to quarantine when repairing.
    pub damaged: Vec<RecordCid>,
    /// Records and referrers whose body is gone.
    pub missing: Vec<RecordCid>,
    /// Referrers whose record is gone.
    pub dangling: Vec<RecordCid>,
    /// Bodies without a row that read as records, or as referrers of held records.
    pub adoptable: Vec<RecordCid>,
    /// Blobs that belong to nothing.
    pub orphans: Vec<RecordCid>,
    /// Manifests of held records and referrers that `index.json` does not name yet, because a node was killed before it
    /// wrote it; the next start does.
    pub unlisted_manifests: u64,
    /// Manifests named in `index.json` that are not there.
    pub missing_manifests: u64,
    /// Whether what could be repaired was repaired.
    pub repaired: bool,
}

impl VerifyReport {
    /// True if nothing is wrong. Adoptable bodies, orphans and unlisted manifests take space only, and count
    /// as clean.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged_files == 0
            && self.damaged.is_empty()
            && self.missing.is_empty()
            && self.dangling.is_empty()
            && self.missing_manifests == 0
    }
}

/// Checks the store in `dir`. Takes its lock, and blocks for as long as reading every body takes.
///
/// # Errors
/// `Locked` while a node runs on it; `Io` or `Full` when files cannot be read or written.
pub fn verify(
    dir: &Path,
    repair: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, StoreError> {
    // Nothing is inserted as of now: adopted records keep the time of their file.
    verify_with(StoreConfig::new(dir), Arc::new(|| 0), repair, progress)
}

/// As [`verify`], with settings.
pub(crate) fn verify_with(
    config: StoreConfig,
    clock: Clock,
    repair: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, StoreError> {
    let damaged_files = check_journal(&config)?;
    let opened = crate::open::open(config, clock)?;
    let mut report = VerifyReport {
        damaged_files,
        ..VerifyReport::default()
    };
    // Bodies that are in the journal only go to their place first, so that one place is checked.
    let (queue, _commands) = tokio::sync::mpsc::channel(1);
    let shared = Arc::clone(&opened.shared);
    let mut mover = Mover {
        shared: Arc::clone(&shared),
        queue: queue.downgrade(),
        manifests: Manifests::default(),
        files: opened.files.clone(),
    };
    mover.round()?;
    mover.manifests.compare_only(&shared)?;
    let live = check_rows(&shared, &mut report)?;
    check_blobs(&shared, &live, &mover.manifests, &mut report, progress)?;
    if repair {
        repair_found(opened, &mut report)?;
        mover.round()?;
        mover.manifests.write(&shared)?;
        report.repaired = true;
    }
    Ok(report)
}

/// Journal files that hold damage, read under their own lock before anything is mended.
fn check_journal(config: &StoreConfig) -> Result<u64, StoreError> {
    let _lock = crate::open::lock(&*config.disk, &config.dir)?;
    let dir = config.dir.join("journal");
    let mut files = Vec::new();
    config
        .disk
        .list(&dir, &mut |file| {
            files.extend(parse_name(&file.name).map(|key| (key, file.name)))
        })
        .map_err(|error| StoreError::io("list", &dir, &error))?;
    files.sort();
    let last = files.last().map(|(key, _)| *key);
    let mut damaged: u64 = 0;
    for (key, name) in files {
        let end = read_file(&*config.disk, &dir.join(name), key.1, &mut |_, _| Ok(()))?;
        // The newest may end in a group that a stop cut short.
        if (end.torn_bytes > 0 || end.header_fault.is_some()) && Some(key) != last {
            damaged = damaged.saturating_add(1);
        }
    }
    Ok(damaged)
}

/// Every CID a row speaks of; notes referrers without a record.
fn check_rows(shared: &Shared, report: &mut VerifyReport) -> Result<HashSet<RecordCid>, StoreError> {
    let mut live: HashSet<RecordCid> = shared.index.read().records.cids().collect();
    report.records = live.len() as u64;
    let records = live.clone();
    shared.with_rows(|rows| {
        rows.scan(Family::Members, &[], &mut |key, _| {
            if let (Some(record), Some(referrer)) = (rows::cid_of(key), rows::last_cid_of(key)) {
                report.referrers = report.referrers.saturating_add(1);
                if !records.contains(&record) {
                    report.dangling.push(referrer);
                }
                live.insert(referrer);
            }
            ControlFlow::Continue(())
        })
    })?;
    Ok(live)
}

fn check_blobs(
    shared: &Shared,
    live: &HashSet<RecordCid>,
    manifests: &Manifests,
    report: &mut VerifyReport,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let blobs = shared.layout.blobs()?;
    let total = blobs.len() as u64;
    let mut named = manifests.digests();
    let mut missing = live.clone();
    for (checked, (cid, file)) in (1..).zip(blobs) {
        missing.remove(&cid);
        let ours = live.contains(&cid) || named.remove(&cid) || cid == RecordCid::of(EMPTY_CONFIG);
        let body = shared.layout.peek(&cid)?;
        report.blobs_hashed = report.blobs_hashed.saturating_add(1);
        match body {
            None => {}
            Some(body) if RecordCid::of(&body) != cid => report.damaged.push(cid),
            Some(_) if ours => {}
            Some(body) => match classify(&shared.config, &body, file.modified_ns)? {
                Orphan::Record(_) => report.adoptable.push(cid),
                Orphan::Referrer(head) if shared.index.read().records.contains(&head.record) => {
                    report.adoptable.push(cid);
                }
                _ if manifest::tag(&body)
                    .is_some_and(|tag| live.contains(&tag) && !manifests.names(&tag)) =>
                {
                    report.unlisted_manifests = report.unlisted_manifests.saturating_add(1);
                }
                _ => report.orphans.push(cid),
            },
        }
        progress(Progress { checked, total });
    }
    report.missing = missing.into_iter().collect();
    report.missing.sort_unstable();
    report.missing_manifests = named.len() as u64;
    Ok(())
}

/// Carries the repairs out, through the journal where rows change.
fn repair_found(opened: Opened, report: &mut VerifyReport) -> Result<(), StoreError> {
    let Opened {
        shared,
        mut writer,
        mut next_seq,
        mut last_inserted_ns,
        ..
    } = opened;
    for cid in &report.damaged {
        shared.layout.set_aside(cid)?;
    }
    shared.layout.apply(&[], &report.orphans)?;
    let mut commit = |change: Change| -> Result<(), StoreError> {
        let mut group = Vec::new();
        entry::encode(next_seq, &change, &mut group)?;
        writer.append(&mut group).map_err(|error| match error {
            AppendError::Refused(error) | AppendError::Poisoned(error) => error,
        })?;
        shared.apply(next_seq, change, None, false)?;
        shared.overlay.applied(next_seq);
        next_seq = next_seq.saturating_add(1);
        Ok(())
    };
    let mut referrers = Vec::new();
    for cid in &report.adoptable {
        let Some(body) = shared.layout.peek(cid)? else {
            continue;
        };
        match classify(&shared.config, &body, last_inserted_ns.saturating_add(1))? {
            Orphan::Record(row) => {
                last_inserted_ns = row.inserted_at_ns;
                commit(Change::Record {
                    cid: *cid,
                    row: *row,
                    body: None,
                })?;
            }
            Orphan::Referrer(head) => referrers.push((*cid, head, body.len() as u64)),
            Orphan::Other => {}
        }
    }
    for (place, (cid, head, size_bytes)) in (0u64..).zip(referrers) {
        let row = StoredReferrer {
            cid,
            kind: head.kind,
            size_bytes,
        };
        // After every position that was given out: the order among the lost is not known.
        let position = u64::MAX.wrapping_div(2).saturating_add(place);
        commit(Change::Referrer {
            record: head.record,
            position,
            row,
            body: None,
        })?;
    }
    Ok(())
}
