//! From a record's number to the numbers of its texts and rows, in one buffer.

/// Entries lost to removed records before the buffer is written anew, if they are also more than half of it.
const DEAD_WORDS: usize = 1 << 20;

/// For each record a list of numbers: how many follow, then the numbers.
#[derive(Default)]
pub(super) struct Forward {
    /// Where a record's list begins, plus one; zero for none.
    starts: Vec<u32>,
    words: Vec<u32>,
    dead: usize,
}

impl Forward {
    pub(super) fn set(&mut self, id: u32, list: &[u32]) {
        self.clear(id);
        let at = id as usize;
        if self.starts.len() <= at {
            self.starts.resize(at.saturating_add(1), 0);
        }
        let start = u32::try_from(self.words.len().saturating_add(1)).unwrap_or(0);
        self.words.push(u32::try_from(list.len()).unwrap_or(0));
        self.words.extend_from_slice(list);
        if let Some(place) = self.starts.get_mut(at) {
            *place = start;
        }
    }

    /// The list of a record; `None` if it has none.
    pub(super) fn get(&self, id: u32) -> Option<&[u32]> {
        let start = self.starts.get(id as usize)?.checked_sub(1)? as usize;
        let len = *self.words.get(start)? as usize;
        let from = start.checked_add(1)?;
        self.words.get(from..from.checked_add(len)?)
    }

    pub(super) fn clear(&mut self, id: u32) {
        let Some(len) = self.get(id).map(<[u32]>::len) else {
            return;
        };
        self.dead = self.dead.saturating_add(len).saturating_add(1);
        if let Some(start) = self.starts.get_mut(id as usize) {
            *start = 0;
        }
        if self.dead < DEAD_WORDS || self.dead < self.words.len() / 2 {
            return;
        }
        let old = std::mem::take(self);
        for id in 0..u32::try_from(old.starts.len()).unwrap_or(u32::MAX) {
            if let Some(list) = old.get(id) {
                self.set(id, list);
            }
        }
    }

    pub(super) fn settle(&mut self) {
        self.words.shrink_to_fit();
        self.starts.shrink_to_fit();
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.starts.capacity() as u64)
            .saturating_add(self.words.capacity() as u64)
            .saturating_mul(4)
    }
}
