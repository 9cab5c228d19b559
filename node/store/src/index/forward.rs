//! From a record's number to the numbers of its texts and rows, in segments that never move.

use super::room;

/// Numbers of a segment. A longer list has a segment of its own.
const SEGMENT_WORDS: usize = 1 << OFFSET_BITS;
/// Numbers of the first segment.
const FIRST_WORDS: usize = 1 << 8;
/// Bits of a start: below them the place in the segment, above the segment plus one.
const OFFSET_BITS: u32 = 16;
/// Entries lost to removed records before the lists are written anew, if they are also as many as those that live.
const DEAD_WORDS: usize = 1 << 20;

/// For each record a list of numbers: how many follow, then the numbers.
#[derive(Default)]
pub(super) struct Forward {
    /// Where a record's list begins; zero for none.
    starts: Vec<u32>,
    segments: Vec<Vec<u32>>,
    live: usize,
    dead: usize,
}

impl Forward {
    pub(super) fn set(&mut self, id: u32, list: &[u32]) {
        self.clear(id);
        let size = list.len().saturating_add(1);
        let room = |segment: &Vec<u32>| segment.capacity().saturating_sub(segment.len());
        if self.segments.last().is_none_or(|last| room(last) < size) {
            // The first ones are small, so that a small index takes little.
            let usual = self
                .live
                .saturating_add(self.dead)
                .clamp(FIRST_WORDS, SEGMENT_WORDS);
            self.segments.push(Vec::with_capacity(size.max(usual)));
        }
        let number = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        let Some(segment) = self.segments.last_mut() else {
            return;
        };
        let place = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        // The directory gives no number that the segments would not reach; a record past them would be found by no list.
        let Some(start) = number.checked_mul(1 << OFFSET_BITS).map(|base| base | place) else {
            tracing::error!("index has no room for the texts of a record");
            return;
        };
        segment.push(u32::try_from(list.len()).unwrap_or(0));
        segment.extend_from_slice(list);
        self.live = self.live.saturating_add(size);
        let at = id as usize;
        room::reach(&mut self.starts, at, 0);
        if let Some(place) = self.starts.get_mut(at) {
            *place = start;
        }
    }

    /// The list of a record; `None` if it has none.
    pub(super) fn get(&self, id: u32) -> Option<&[u32]> {
        let start = *self.starts.get(id as usize)?;
        let segment = self
            .segments
            .get((start >> OFFSET_BITS).checked_sub(1)? as usize)?;
        let place = (start & ((1 << OFFSET_BITS) - 1)) as usize;
        let len = *segment.get(place)? as usize;
        let from = place.checked_add(1)?;
        segment.get(from..from.checked_add(len)?)
    }

    pub(super) fn clear(&mut self, id: u32) {
        let Some(len) = self.get(id).map(<[u32]>::len) else {
            return;
        };
        self.dead = self.dead.saturating_add(len).saturating_add(1);
        self.live = self.live.saturating_sub(len).saturating_sub(1);
        if let Some(start) = self.starts.get_mut(id as usize) {
            *start = 0;
        }
        if self.dead < DEAD_WORDS || self.dead < self.live {
            return;
        }
        let old = std::mem::take(self);
        self.starts.reserve_exact(old.starts.len());
        for id in 0..u32::try_from(old.starts.len()).unwrap_or(u32::MAX) {
            if let Some(list) = old.get(id) {
                self.set(id, list);
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| (segment.capacity() as u64).saturating_mul(4).saturating_add(24))
            .fold(
                (self.starts.capacity() as u64).saturating_mul(4),
                u64::saturating_add,
            )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_every_length_are_found_again_and_room_is_given_back() {
        let list = |id: u32| {
            let len = match id % 100 {
                0 => 70_000,
                1 => 0,
                short => short * 40,
            };
            (id..id.saturating_add(len)).collect::<Vec<u32>>()
        };
        let mut forward = Forward::default();
        for id in 0..2000 {
            forward.set(id, &list(id));
        }
        forward.set(7, &[1, 2]);
        let held = forward.bytes();
        for id in (0..2000).filter(|id| id % 4 != 3) {
            forward.clear(id);
        }
        for id in 0..2000 {
            let expected = match id {
                7 => Some(vec![1, 2]),
                id if id % 4 == 3 => Some(list(id)),
                _ => None,
            };
            assert!(
                forward.get(id).map(<[u32]>::to_vec) == expected,
                "list {id} is another"
            );
        }
        assert!(
            forward.bytes() < held * 2 / 3,
            "{} of {held} bytes are kept",
            forward.bytes()
        );
    }
}
