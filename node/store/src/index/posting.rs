//! For each value of a column the ids that have it: one id in place, a few in a list, more in a bitmap. Most values are
//! rare, and a bitmap takes about 80 bytes for each stretch of 65,536 ids it touches.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use super::room;

/// Ids are below this; the bit tells a slot from an id.
pub(super) const ID_LIMIT: u32 = 1 << 31;
const EMPTY: u32 = u32::MAX;
/// The longest list.
const FEW: usize = 64;

/// Pairs that wait at most in a build.
const MAX_PENDING: usize = 1 << 19;

/// Sets of ids by value.
#[derive(Debug, Default)]
pub(super) struct Postings {
    /// An id, or `ID_LIMIT` plus a place in `sets`, or `EMPTY`.
    heads: Vec<u32>,
    sets: Vec<Set>,
    free: Vec<u32>,
    /// In a build, where ids come in no order: value and id of what is not in place yet, as one number each, which
    /// sorts faster than a pair.
    pending: Option<Vec<u64>>,
}

#[derive(Debug)]
enum Set {
    /// In order, at least two.
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

/// The ids of one value.
pub(super) enum Ids<'a> {
    None,
    One(u32),
    Few(&'a [u32]),
    Many(&'a RoaringBitmap),
}

impl<'a> Ids<'a> {
    /// As a bitmap.
    pub(super) fn to_set(&self) -> Cow<'a, RoaringBitmap> {
        match self {
            Ids::None => Cow::Owned(RoaringBitmap::new()),
            Ids::One(id) => Cow::Owned(RoaringBitmap::from_iter([*id])),
            Ids::Few(ids) => Cow::Owned(ids.iter().copied().collect()),
            Ids::Many(set) => Cow::Borrowed(set),
        }
    }
}

impl Postings {
    pub(super) fn get(&self, value: u32) -> Ids<'_> {
        match self.heads.get(value as usize).copied() {
            None | Some(EMPTY) => Ids::None,
            Some(id) if id < ID_LIMIT => Ids::One(id),
            Some(slot) => match self.sets.get((slot & !ID_LIMIT) as usize) {
                Some(Set::Few(ids)) => Ids::Few(ids),
                Some(Set::Many(set)) => Ids::Many(set),
                None => Ids::None,
            },
        }
    }

    /// Adds `id`, below [`ID_LIMIT`], to the ids of `value`.
    pub(super) fn add(&mut self, value: u32, id: u32) {
        if let Some(pending) = &mut self.pending {
            pending.push((u64::from(value) << 32) | u64::from(id));
            if pending.len() >= MAX_PENDING {
                self.flush();
            }
            return;
        }
        self.place(value, id);
    }

    /// From now on many ids are added, and nothing is asked until [`Postings::settle`].
    pub(super) fn collect(&mut self) {
        self.pending.get_or_insert_default();
    }

    /// Puts what waits in its place: in order, so that each set is visited once.
    pub(super) fn flush(&mut self) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        pending.sort_unstable();
        pending.dedup();
        for group in pending.chunk_by(|one, other| one >> 32 == other >> 32) {
            let Some(value) = group.first().map(|packed| high(*packed)) else {
                continue;
            };
            let slot = self
                .heads
                .get(value as usize)
                .copied()
                .filter(|head| *head != EMPTY);
            if let Some(slot) = slot.filter(|slot| *slot >= ID_LIMIT)
                && let Some(Set::Many(set)) = self.sets.get_mut((slot & !ID_LIMIT) as usize)
                && let Ok(more) = RoaringBitmap::from_sorted_iter(group.iter().map(|packed| low(*packed)))
            {
                **set |= more;
                continue;
            }
            for packed in group {
                self.place(value, low(*packed));
            }
        }
        pending.clear();
        self.pending = Some(pending);
    }

    fn place(&mut self, value: u32, id: u32) {
        let at = value as usize;
        room::reach(&mut self.heads, at, EMPTY);
        let Some(head) = self.heads.get_mut(at) else {
            return;
        };
        match *head {
            EMPTY => *head = id,
            held if held == id => {}
            held if held < ID_LIMIT => {
                let set = Set::Few(vec![held.min(id), held.max(id)]);
                let slot = match self.free.pop() {
                    Some(slot) => {
                        if let Some(place) = self.sets.get_mut(slot as usize) {
                            *place = set;
                        }
                        slot
                    }
                    None => {
                        room::push(&mut self.sets, set);
                        u32::try_from(self.sets.len().saturating_sub(1)).unwrap_or(ID_LIMIT - 2)
                    }
                };
                *head = slot | ID_LIMIT;
            }
            slot => {
                if let Some(set) = self.sets.get_mut((slot & !ID_LIMIT) as usize) {
                    set.add(id);
                }
            }
        }
    }

    /// Takes `id` from the ids of `value`; true if none is left.
    pub(super) fn remove(&mut self, value: u32, id: u32) -> bool {
        if self.pending.as_ref().is_some_and(|pending| !pending.is_empty()) {
            self.flush();
        }
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
                if let Some(last) = set.remove(id) {
                    *head = last;
                    *set = Set::Few(Vec::new());
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
            Ids::Few(ids) => ids.binary_search(&id).is_ok(),
            Ids::Many(set) => set.contains(id),
        }
    }

    /// Number of ids of `value`.
    pub(super) fn len(&self, value: u32) -> u64 {
        match self.get(value) {
            Ids::None => 0,
            Ids::One(_) => 1,
            Ids::Few(ids) => ids.len() as u64,
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
                Ids::Few(ids) => singles.extend_from_slice(ids),
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
        self.flush();
        self.pending = None;
        for set in &mut self.sets {
            match set {
                Set::Few(ids) => ids.shrink_to_fit(),
                Set::Many(set) => {
                    compact(set);
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let heads = self.heads.capacity().saturating_mul(4) as u64;
        let places = self.sets.capacity().saturating_mul(size_of::<Set>()) as u64;
        self.sets
            .iter()
            .map(|set| match set {
                Set::Few(ids) => (ids.capacity() as u64).saturating_mul(4).saturating_add(8),
                Set::Many(set) => set_bytes(set),
            })
            .fold(heads.saturating_add(places), u64::saturating_add)
    }
}

impl Set {
    fn add(&mut self, id: u32) {
        match self {
            Self::Few(ids) => {
                if let Err(at) = ids.binary_search(&id) {
                    if ids.len() == ids.capacity() {
                        ids.reserve_exact(ids.len() / 2);
                    }
                    ids.insert(at.min(ids.len()), id);
                }
                if ids.len() > FEW {
                    *self = Self::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            Self::Many(set) => insert(set, id),
        }
    }

    /// Takes an id out; the only one left, if it is only one.
    fn remove(&mut self, id: u32) -> Option<u32> {
        match self {
            Self::Few(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
                match ids.as_slice() {
                    [last] => Some(*last),
                    _ => None,
                }
            }
            Self::Many(set) => {
                set.remove(id);
                if set.len() <= FEW as u64 / 2 {
                    *self = Self::Few(set.iter().collect());
                }
                None
            }
        }
    }
}

fn high(packed: u64) -> u32 {
    u32::try_from(packed >> 32).unwrap_or(u32::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low(packed: u64) -> u32 {
    packed as u32
}

/// Adds an id. Not by `push`, which looks for the largest id in place first, slowly so in dense stretches.
pub(super) fn insert(set: &mut RoaringBitmap, id: u32) {
    set.insert(id);
}

/// Gives back the room a set keeps for more.
pub(super) fn compact(set: &mut RoaringBitmap) {
    set.optimize();
    // A copy has no room to spare.
    *set = set.clone();
}

/// About the memory a set takes.
pub(super) fn set_bytes(set: &RoaringBitmap) -> u64 {
    let parts = set.statistics();
    let containers = u64::from(parts.n_containers).saturating_mul(40);
    containers
        // The library counts four bytes for each value in an array; they take two.
        .saturating_add(parts.n_bytes_array_containers / 2)
        .saturating_add(parts.n_bytes_run_containers)
        // And for a bitmap the number of its bits.
        .saturating_add(parts.n_bytes_bitset_containers / 8)
        .saturating_add(24)
}
