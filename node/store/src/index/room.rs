//! Lists that grow with the records by an eighth at a time: an index of a million records that doubled its lists would keep
//! as much memory idle as it uses.

/// Makes room for one more.
pub(super) fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(16));
    }
}

/// Adds an entry.
pub(super) fn push<T>(list: &mut Vec<T>, entry: T) {
    grow(list);
    list.push(entry);
}

/// Fills up a list so that it has a place `at`.
pub(super) fn reach<T: Clone>(list: &mut Vec<T>, at: usize, filler: T) {
    let Some(missing) = at.checked_add(1).and_then(|len| len.checked_sub(list.len())) else {
        return;
    };
    if list.capacity().saturating_sub(list.len()) < missing {
        list.reserve_exact((list.len() / 8).max(16).max(missing));
    }
    list.resize(list.len().saturating_add(missing), filler);
}
