//! The hash of the tables: fast, and seeded at random once a process, since texts come from strangers.
//!
//! One seed for all tables lets a text be hashed before the index is locked. The hash tells nobody its seed: no order of a
//! table shows in an answer.

use std::hash::{BuildHasher, Hash};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// The hash of a folded text, a CID, or a pair of numbers.
pub(super) fn hash(key: &(impl Hash + ?Sized)) -> u64 {
    SEED.hash_one(key)
}
