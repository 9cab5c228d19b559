//! Points and prefixes of the DHT's key space (p2p-wire §2.2): sha2-256 of a peer id or of a record's multihash,
//! distance by exclusive or.
//!
//! Holds no state. Everything here is pure arithmetic on 256-bit strings.

use std::fmt;

use dirnode_record::RecordCid;
use sha2::{Digest as _, Sha256};

use crate::peer::PeerId;

/// A place in the key space. Order is that of the bits, so that a prefix is a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point([u8; 32]);

impl Point {
    /// Bits of a point.
    pub const BITS: u16 = 256;

    /// The point of any key, by its wire bytes.
    #[must_use]
    pub fn of_key(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// The point of a record: of its 34 multihash bytes.
    #[must_use]
    pub fn of_cid(cid: &RecordCid) -> Self {
        Self::of_key(&cid.multihash())
    }

    /// The point of a peer.
    #[must_use]
    pub fn of_peer(peer: &PeerId) -> Self {
        Self::of_key(peer.as_bytes())
    }

    /// The point with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// How far away `other` is; compares as a big-endian number.
    #[must_use]
    pub fn distance(&self, other: &Self) -> [u8; 32] {
        let mut distance = self.0;
        for (byte, theirs) in distance.iter_mut().zip(&other.0) {
            *byte ^= theirs;
        }
        distance
    }

    /// Leading bits that both have in common, 256 when they are the same.
    #[must_use]
    pub fn common_bits(&self, other: &Self) -> u16 {
        let mut bits = 0_u16;
        for (mine, theirs) in self.0.iter().zip(&other.0) {
            let differing = mine ^ theirs;
            bits += u16::try_from(differing.leading_zeros()).unwrap_or(8);
            if differing != 0 {
                break;
            }
        }
        bits
    }

    /// The first `bits` bits as a prefix.
    #[must_use]
    pub fn prefix(&self, bits: u16) -> Prefix {
        let bits = bits.min(Self::BITS);
        let mut first = self.0;
        for (place, byte) in (0_u16..).zip(first.iter_mut()) {
            let kept = bits.saturating_sub(place * 8).min(8);
            *byte &= !0xff_u8.checked_shr(kept.into()).unwrap_or(0);
        }
        Prefix {
            first: Self(first),
            bits,
        }
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.iter().take(4) {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..")
    }
}

/// All points that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    first: Point,
    bits: u16,
}

impl Prefix {
    /// The prefix of no bits: every point.
    pub const ALL: Self = Self {
        first: Point([0; 32]),
        bits: 0,
    };

    /// How many bits.
    #[must_use]
    pub const fn bits(&self) -> u16 {
        self.bits
    }

    /// The lowest point.
    #[must_use]
    pub const fn first(&self) -> Point {
        self.first
    }

    /// The highest point.
    #[must_use]
    pub fn last(&self) -> Point {
        let mut last = self.first.0;
        for (place, byte) in (0_u16..).zip(last.iter_mut()) {
            let kept = self.bits.saturating_sub(place * 8).min(8);
            *byte |= 0xff_u8.checked_shr(kept.into()).unwrap_or(0);
        }
        Point(last)
    }

    /// Whether `point` begins with it.
    #[must_use]
    pub fn contains(&self, point: &Point) -> bool {
        self.first.common_bits(point) >= self.bits
    }

    /// Whether every point of `other` is one of these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(&other.first)
    }

    /// One bit shorter; `None` for the prefix of no bits.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        Some(self.first.prefix(self.bits.checked_sub(1)?))
    }

    /// The same with the last bit turned over; `None` for the prefix of no bits.
    #[must_use]
    pub fn sibling(&self) -> Option<Self> {
        let place = self.bits.checked_sub(1)?;
        let mut first = self.first.0;
        if let Some(byte) = first.get_mut(usize::from(place / 8)) {
            *byte ^= 0x80 >> (place % 8);
        }
        Some(Self {
            first: Point(first),
            bits: self.bits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_prefix_is_everything() {
        assert_eq!(Prefix::ALL.last(), Point([0xff; 32]));
        assert!(Prefix::ALL.contains(&Point([7; 32])));
        assert_eq!(Prefix::ALL.parent(), None);
        assert_eq!(Prefix::ALL.sibling(), None);
    }

    proptest! {
        #[test]
        fn a_prefix_is_the_range_between_its_ends(a: [u8; 32], b: [u8; 32], bits in 0_u16..=256) {
            let (a, b) = (Point(a), Point(b));
            let prefix = a.prefix(bits);
            prop_assert!(prefix.contains(&a));
            prop_assert_eq!(prefix.contains(&b), prefix.first() <= b && b <= prefix.last());
            prop_assert_eq!(prefix.contains(&b), a.common_bits(&b) >= bits);
        }

        #[test]
        fn siblings_make_up_their_parent(a: [u8; 32], b: [u8; 32], bits in 1_u16..=256) {
            let prefix = Point(a).prefix(bits);
            let (sibling, parent) = (prefix.sibling().unwrap(), prefix.parent().unwrap());
            let b = Point(b);
            prop_assert_eq!(parent.contains(&b), prefix.contains(&b) || sibling.contains(&b));
            prop_assert!(parent.covers(&prefix) && parent.covers(&sibling) && !prefix.covers(&sibling));
            prop_assert_eq!(sibling.sibling().unwrap(), prefix);
        }

        #[test]
        fn nearer_means_more_bits_in_common(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
            let (a, b, c) = (Point(a), Point(b), Point(c));
            if a.common_bits(&b) > a.common_bits(&c) {
                prop_assert!(a.distance(&b) < a.distance(&c));
            }
            prop_assert_eq!(a.distance(&b), b.distance(&a));
        }
    }
}
