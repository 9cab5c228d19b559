//! Lists that grow by an eighth, slots that are used again, and what they weigh.

/// What an allocation costs beside its bytes, about.
pub(super) const ALLOCATION: u64 = 16;
/// No slot: ends chains, and stands for "nothing".
pub(super) const NONE: u32 = u32::MAX;

/// Makes room for one more.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(16));
    }
}

/// Makes room for one more where most lists are short.
pub(super) fn grow_tightly<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(1));
    }
}

/// Memory behind a list.
pub(super) fn bytes<T>(list: &Vec<T>) -> u64 {
    if list.capacity() == 0 {
        return 0;
    }
    (list.capacity() as u64)
        .saturating_mul(size_of::<T>() as u64)
        .saturating_add(ALLOCATION)
}

/// Values by number; a number is used again after its value has gone.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// One above the highest number that was ever used.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NONE)
    }

    /// Gives a value a number; [`NONE`] if there are four billion.
    pub(super) fn add(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(number as usize) {
                *slot = Some(value);
            }
            return number;
        }
        let number = self.end();
        if number != NONE {
            grow(&mut self.slots);
            self.slots.push(Some(value));
        }
        number
    }

    pub(super) fn take(&mut self, number: u32) -> Option<T> {
        let value = self.slots.get_mut(number as usize)?.take();
        if value.is_some() {
            grow(&mut self.free);
            self.free.push(number);
        }
        value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }

    pub(super) fn bytes(&self) -> u64 {
        bytes(&self.slots).saturating_add(bytes(&self.free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slots = Slots::default();
        assert_eq!((slots.add("a"), slots.add("b")), (0, 1));
        assert_eq!(slots.take(0), Some("a"));
        assert_eq!((slots.take(0), slots.get(0), slots.len()), (None, None, 1));
        assert_eq!((slots.add("c"), slots.end(), slots.len()), (0, 2, 2));
        assert_eq!(slots.iter().copied().collect::<Vec<_>>(), ["c", "b"]);
    }
}
