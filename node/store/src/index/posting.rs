//! For each value of a column the ids that have it: one id in place, more in a bitmap.

use roaring::RoaringBitmap;

/// Ids are below this; the bit tells a slot from an id.
pub(super) const ID_LIMIT: u32 = 1 << 31;
const EMPTY: u32 = u32::MAX;

/// Sets of ids by value.
#[derive(Debug, Default)]
pub(super) struct Postings {
    /// An id, or `ID_LIMIT` plus a place in `sets`, or `EMPTY`.
    heads: Vec<u32>,
    sets: Vec<RoaringBitmap>,
    free: Vec<u32>,
}

/// The ids of one value.
pub(super) enum Ids<'a> {
    None,
    One(u32),
    Many(&'a RoaringBitmap),
}

impl Postings {
    pub(super) fn get(&self, value: u32) -> Ids<'_> {
        match self.heads.get(value as usize).copied() {
            None | Some(EMPTY) => Ids::None,
            Some(id) if id < ID_LIMIT => Ids::One(id),
            Some(slot) => match self.sets.get((slot & !ID_LIMIT) as usize) {
                Some(set) => Ids::Many(set),
                None => Ids::None,
            },
        }
    }

    /// Adds `id`, below [`ID_LIMIT`], to the ids of `value`.
    pub(super) fn add(&mut self, value: u32, id: u32) {
        let at = value as usize;
        if self.heads.len() <= at {
            self.heads.resize(at.saturating_add(1), EMPTY);
        }
        let Some(head) = self.heads.get_mut(at) else {
            return;
        };
        match *head {
            EMPTY => *head = id,
            held if held == id => {}
            held if held < ID_LIMIT => {
                let set = RoaringBitmap::from_iter([held, id]);
                let slot = match self.free.pop() {
                    Some(slot) => {
                        if let Some(place) = self.sets.get_mut(slot as usize) {
                            *place = set;
                        }
                        slot
                    }
                    None => {
                        self.sets.push(set);
                        u32::try_from(self.sets.len().saturating_sub(1)).unwrap_or(ID_LIMIT - 2)
                    }
                };
                *head = slot | ID_LIMIT;
            }
            slot => {
                if let Some(set) = self.sets.get_mut((slot & !ID_LIMIT) as usize) {
                    insert(set, id);
                }
            }
        }
    }

    /// Takes `id` from the ids of `value`; true if none is left.
    pub(super) fn remove(&mut self, value: u32, id: u32) -> bool {
        let Some(head) = self.heads.get_mut(value as usize) else {
            return true;
        };
        match *head {
            EMPTY => true,
            held if held < ID_LIMIT => {
                if held == id {
                    *head = EMPTY;
                }
                held == id
            }
            slot => {
                let slot = slot & !ID_LIMIT;
                let Some(set) = self.sets.get_mut(slot as usize) else {
                    return true;
                };
                set.remove(id);
                if set.len() == 1 {
                    *head = set.min().unwrap_or(EMPTY);
                    *set = RoaringBitmap::new();
                    self.free.push(slot);
                }
                false
            }
        }
    }

    /// True if `id` is one of the ids of `value`.
    pub(super) fn contains(&self, value: u32, id: u32) -> bool {
        match self.get(value) {
            Ids::None => false,
            Ids::One(held) => held == id,
            Ids::Many(set) => set.contains(id),
        }
    }

    /// Number of ids of `value`.
    pub(super) fn len(&self, value: u32) -> u64 {
        match self.get(value) {
            Ids::None => 0,
            Ids::One(_) => 1,
            Ids::Many(set) => set.len(),
        }
    }

    /// The ids of all of `values` together.
    pub(super) fn union(&self, values: impl Iterator<Item = u32>) -> RoaringBitmap {
        let mut singles = Vec::new();
        let mut all = RoaringBitmap::new();
        for value in values {
            match self.get(value) {
                Ids::None => {}
                Ids::One(id) => singles.push(id),
                Ids::Many(set) => all |= set,
            }
        }
        singles.sort_unstable();
        singles.dedup();
        if let Ok(singles) = RoaringBitmap::from_sorted_iter(singles) {
            all |= singles;
        }
        all
    }

    /// Gives back room, after a build.
    pub(super) fn settle(&mut self) {
        self.heads.shrink_to_fit();
        for set in &mut self.sets {
            set.optimize();
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let heads = self.heads.capacity().saturating_mul(4) as u64;
        self.sets.iter().map(set_bytes).fold(heads, u64::saturating_add)
    }
}

/// Adds an id, the fast way if it is the largest.
pub(super) fn insert(set: &mut RoaringBitmap, id: u32) {
    if set.try_push(id).is_err() {
        set.insert(id);
    }
}

/// About the memory a set takes.
pub(super) fn set_bytes(set: &RoaringBitmap) -> u64 {
    let parts = set.statistics();
    let containers = u64::from(parts.n_containers).saturating_mul(40);
    containers
        .saturating_add(parts.n_bytes_array_containers)
        .saturating_add(parts.n_bytes_run_containers)
        .saturating_add(parts.n_bytes_bitset_containers)
        .saturating_add(24)
}
