//! The hash over everything that happened, by which two runs are told to be the same.

use dirnode_routing::Timestamp;
use sha2::{Digest as _, Sha256};

/// Hashes events in order: time, kind, two nodes and one number each.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    hasher: Sha256,
    events: u64,
}

impl Trace {
    /// Takes one event.
    pub fn event(&mut self, at: Timestamp, kind: u8, to: u32, from: u32, detail: u64) {
        self.hasher.update(at.as_nanos().to_be_bytes());
        self.hasher.update([kind]);
        self.hasher.update(to.to_be_bytes());
        self.hasher.update(from.to_be_bytes());
        self.hasher.update(detail.to_be_bytes());
        self.events += 1;
    }

    /// How many there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash so far, in hexadecimal.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = self.hasher.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
