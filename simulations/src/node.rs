//! One simulated node: a production brain, and the world's account of what is around it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dirnode_record::RecordCid;
use dirnode_routing::{Brain, PeerId, Point, Ticket, Timestamp};
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::disk::Disk;
use crate::kad::{Lookup, Table};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its peer id.
    pub peer: PeerId,
    /// Where it is in the key space.
    pub point: Point,
    /// What thinks; nothing while the node is down.
    pub brain: Option<Brain>,
    /// Grows with each start and stop, so that what was meant for an earlier life is recognised.
    pub epoch: u32,
    /// When it first was there.
    pub joined_at: Timestamp,
    /// When it last started.
    pub up_since: Timestamp,
    /// Whether it will never come back.
    pub dead: bool,
    /// Whether it speaks the catch-up protocol.
    pub catchup: bool,
    /// What it keeps.
    pub disk: Disk,
    /// When the disk has written everything asked for so far.
    pub disk_free_at: Timestamp,
    /// Records it serves.
    pub serving: BTreeSet<RecordCid>,
    /// What it knows of others; addresses outlive a restart.
    pub table: Table,
    /// Its links of the mesh, which are also its connections.
    pub mesh: BTreeSet<u32>,
    /// Table and mesh sizes that the brain was last told.
    pub told: (usize, usize),
    /// Gossip messages it has seen, one bit each.
    seen: Vec<u64>,
    /// Gossip messages of the last seconds.
    pub recent: VecDeque<(u32, Timestamp)>,
    /// Whether a heartbeat is on its way.
    pub beating: bool,
    /// Whether a look after the mesh is on its way.
    pub maintaining: bool,
    /// Provider records it keeps for others.
    pub providers: BTreeMap<RecordCid, BTreeSet<u32>>,
    /// Its lookups.
    pub lookups: BTreeMap<u64, Lookup>,
    /// Provider records on their way that others have to confirm.
    pub sends: BTreeSet<Ticket>,
    /// When the brain is to be woken.
    pub wake_at: Option<Timestamp>,
    /// Randomness of its brain.
    pub rng: ChaCha8Rng,
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(mut rng: ChaCha8Rng, catchup: bool, now: Timestamp) -> Self {
        // As an ed25519 peer id begins.
        let mut id = [0_u8, 0x24, 0x08, 0x01, 0x12, 0x20].to_vec();
        let mut key = [0_u8; 32];
        rng.fill_bytes(&mut key);
        id.extend_from_slice(&key);
        let peer = PeerId::from_bytes(&id).unwrap_or_else(|| unreachable!("38 bytes are a peer id"));
        let point = Point::of_peer(&peer);
        Self {
            peer,
            point,
            brain: None,
            epoch: 0,
            joined_at: now,
            up_since: now,
            dead: false,
            catchup,
            disk: Disk::default(),
            disk_free_at: now,
            serving: BTreeSet::new(),
            table: Table::new(point),
            mesh: BTreeSet::new(),
            told: (0, 0),
            seen: Vec::new(),
            recent: VecDeque::new(),
            beating: false,
            maintaining: false,
            providers: BTreeMap::new(),
            lookups: BTreeMap::new(),
            sends: BTreeSet::new(),
            wake_at: None,
            rng,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.brain.is_some()
    }

    /// Whether a gossip message was seen.
    #[must_use]
    pub fn has_seen(&self, gossip: u32) -> bool {
        let word = usize::try_from(gossip / 64).unwrap_or(usize::MAX);
        self.seen
            .get(word)
            .is_some_and(|word| word >> (gossip % 64) & 1 == 1)
    }

    /// Marks a gossip message as seen.
    pub fn see(&mut self, gossip: u32) {
        let place = usize::try_from(gossip / 64).unwrap_or(0);
        if self.seen.len() <= place {
            self.seen.resize(place + 1, 0);
        }
        if let Some(word) = self.seen.get_mut(place) {
            *word |= 1 << (gossip % 64);
        }
    }

    /// Everything that a kill takes away but for the disk.
    pub fn forget(&mut self) {
        self.brain = None;
        self.epoch += 1;
        self.serving.clear();
        self.mesh.clear();
        self.told = (0, 0);
        self.seen.clear();
        self.recent.clear();
        self.beating = false;
        self.maintaining = false;
        self.lookups.clear();
        self.sends.clear();
        self.wake_at = None;
    }
}
