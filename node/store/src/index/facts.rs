//! What is known of records that is not in them: name verification, trust, scans. Whoever finds it out tells it here;
//! it goes with the record.

use std::collections::HashMap;

use roaring::RoaringBitmap;
use serde::{Deserialize, Serialize};

/// How bad the worst finding of a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the severity of the API of the same name")]
pub enum Severity {
    None,
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    const ALL: [Self; 6] = [
        Self::None,
        Self::Info,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    /// The severity with this name, in any letter case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        const NAMES: [&str; 6] = ["NONE", "INFO", "LOW", "MEDIUM", "HIGH", "CRITICAL"];
        let at = NAMES.iter().position(|held| held.eq_ignore_ascii_case(name))?;
        Self::ALL.get(at).copied()
    }
}

/// What one scanner found in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Which kind of scanner; a record has at most one scan of each.
    pub scanner: String,
    /// `None` when the report does not say; such a scan is at or above nothing.
    pub severity: Option<Severity>,
    /// The scanner's verdict.
    pub safe: bool,
}

/// Facts by record number.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) verified: RoaringBitmap,
    pub(super) trusted: RoaringBitmap,
    scans: HashMap<u32, Vec<Scan>>,
    /// Records with a scan, with one of each severity, with an unsafe one.
    scanned: RoaringBitmap,
    severities: [RoaringBitmap; 6],
    harmful: RoaringBitmap,
}

impl Facts {
    pub(super) fn set_scan(&mut self, id: u32, scan: Scan) {
        let scans = self.scans.entry(id).or_default();
        match scans.iter_mut().find(|held| held.scanner == scan.scanner) {
            Some(held) => *held = scan,
            None => scans.push(scan),
        }
        self.derive(id);
    }

    pub(super) fn clear_scans(&mut self, id: u32) {
        self.scans.remove(&id);
        self.derive(id);
    }

    pub(super) fn scans(&self, id: u32) -> &[Scan] {
        self.scans.get(&id).map_or(&[], Vec::as_slice)
    }

    fn derive(&mut self, id: u32) {
        let scans = self.scans.get(&id).map_or(&[][..], Vec::as_slice);
        let note = |set: &mut RoaringBitmap, holds: bool| {
            if holds {
                set.insert(id);
            } else {
                set.remove(id);
            }
        };
        note(&mut self.scanned, !scans.is_empty());
        note(&mut self.harmful, scans.iter().any(|scan| !scan.safe));
        for (severity, set) in Severity::ALL.into_iter().zip(&mut self.severities) {
            note(set, scans.iter().any(|scan| scan.severity == Some(severity)));
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.verified.remove(id);
        self.trusted.remove(id);
        self.clear_scans(id);
    }

    /// Records whose scans are all safe, or with one that is not.
    pub(super) fn safe(&self, safe: bool) -> RoaringBitmap {
        if safe {
            &self.scanned - &self.harmful
        } else {
            self.harmful.clone()
        }
    }

    /// Records with a scan at or above `severity`.
    pub(super) fn at_least(&self, severity: Severity) -> RoaringBitmap {
        let mut found = RoaringBitmap::new();
        for (held, set) in Severity::ALL.into_iter().zip(&self.severities) {
            if held >= severity {
                found |= set;
            }
        }
        found
    }
}
