//! What was sent to the node and what it acknowledged. Ground truth of a crash run; lives in memory only.

use std::collections::BTreeMap;

use dirnode_generator::{Generator, Made, Random};
use dirnode_proto::{Struct, Value};
use dirnode_record::{RecordCid, Referrer, referrer};

/// What is known about a record on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// A push was sent and not answered: there or not, but never half.
    Pushing,
    /// Acknowledged: must be there.
    Stored,
    /// A delete was sent and not answered: there in full or gone in full.
    Deleting,
    /// The delete was acknowledged: must be gone.
    Deleted,
}

/// A referrer of a record.
#[derive(Debug, Clone, Copy)]
pub struct HeldReferrer {
    /// Its CID.
    pub cid: RecordCid,
    /// Whether the node said that it is stored.
    pub acknowledged: bool,
}

/// A record that was sent at least once.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its CID.
    pub cid: RecordCid,
    /// What is known about it.
    pub state: State,
    /// The round in which something was last sent for it.
    pub round: u32,
    /// What hangs on it; empty after an acknowledged delete.
    pub referrers: Vec<HeldReferrer>,
}

/// The records of one stream. No other stream touches them, so that their order of events is known.
#[derive(Debug)]
pub struct Ledger {
    lane: u64,
    lanes: u64,
    /// In order of their first push.
    pub records: Vec<Held>,
    /// Pushes acknowledged, those of stored records included.
    pub pushes: u64,
    /// Deletes acknowledged.
    pub deletes: u64,
    /// Referrers acknowledged.
    pub referrers: u64,
}

impl Ledger {
    /// Lane `lane` of `lanes`.
    pub fn new(lane: u64, lanes: u64) -> Self {
        Self {
            lane,
            lanes,
            records: Vec::new(),
            pushes: 0,
            deletes: 0,
            referrers: 0,
        }
    }

    /// The generator's number of the record at a place.
    pub fn number(&self, place: usize) -> u64 {
        self.lane + place as u64 * self.lanes
    }

    /// A random record in a state, if one is found with a few tries.
    pub fn find(&self, state: State, random: &mut Random) -> Option<usize> {
        (0..4).find_map(|_| {
            let place = random.place(self.records.len());
            self.records
                .get(place)
                .filter(|held| held.state == state)
                .map(|_| place)
        })
    }

    /// The next record nobody has seen.
    pub fn fresh(&mut self, generator: &Generator, round: u32) -> (usize, Made) {
        let place = self.records.len();
        let made = generator.make(self.number(place));
        self.records.push(Held {
            cid: made.cid,
            state: State::Pushing,
            round,
            referrers: Vec::new(),
        });
        (place, made)
    }
}

/// The next referrer of a record. Serial numbers make the documents differ.
pub fn make_referrer(record: RecordCid, serial: usize) -> Referrer {
    let text = |value: String| Value::String(value);
    Referrer {
        kind: referrer::SIGNATURE.to_owned(),
        record_cid: Some(record.to_string()),
        annotations: BTreeMap::from([("serial".to_owned(), serial.to_string())]),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        data: Some(Struct {
            fields: BTreeMap::from([
                ("algorithm".to_owned(), text("ecdsa-p256-sha256".to_owned())),
                (
                    "signature".to_owned(),
                    text(format!("{}{serial}", record.digest_hex())),
                ),
            ]),
        }),
        referrer_ref: None,
    }
}
