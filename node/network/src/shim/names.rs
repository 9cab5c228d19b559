//! Which protocol names are called differently inside the process and on the wire.
//!
//! Pure; holds no state beyond its table. Follows p2p-wire §2.1 and §3.2: the mapping is one-to-one, so an inside
//! name that arrives from the wire is turned into [`REFUSED`], which nobody supports and everybody refuses.

use super::ShimError;

/// The network's Kademlia name as it stands on the wire, without a leading slash.
pub const KAD_WIRE: &str = "dir/kad/1.0.0";
/// What the same protocol is called inside the process, where a name must begin with a slash.
pub const KAD_INSIDE: &str = "/dir/kad/1.0.0";
/// Stands in for an inside name that a peer wrote on the wire. Never registered as a protocol.
pub const REFUSED: &str = "/refused";

/// A table is written by hand and compared on each negotiation; it is not meant to grow.
pub const MAX_RENAMES: usize = 16;
/// Longest name in the table, in bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Pairs of (inside name, wire name), matched exactly and as a whole.
#[derive(Debug, Clone, Default)]
pub struct Renames {
    pairs: Vec<(String, String)>,
}

impl Renames {
    /// Checks and keeps the pairs, each (inside name, wire name).
    ///
    /// # Errors
    /// [`ShimError::Name`] for a name that is empty, too long or holds a line feed, an inside name without leading
    /// slash, a name that stands in two places, or too many pairs.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ShimError> {
        let mut kept: Vec<(String, String)> = Vec::new();
        for (inside, wire) in pairs {
            let fault = |reason| ShimError::Name {
                name: inside.to_owned(),
                reason,
            };
            if !inside.starts_with('/') {
                return Err(fault("an inside name begins with a slash"));
            }
            for name in [inside, wire] {
                if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\n') {
                    return Err(fault("a name is one line of 1 to 256 bytes"));
                }
                if name == REFUSED || kept.iter().any(|(a, b)| a == name || b == name) {
                    return Err(fault("a name stands in one place only"));
                }
            }
            if inside == wire {
                return Err(fault("a name stands in one place only"));
            }
            if kept.len() >= MAX_RENAMES {
                return Err(fault("the table is full"));
            }
            kept.push((inside.to_owned(), wire.to_owned()));
        }
        Ok(Self { pairs: kept })
    }

    /// The one renamed protocol of the network, its Kademlia.
    #[must_use]
    pub fn network() -> Self {
        Self {
            pairs: vec![(KAD_INSIDE.to_owned(), KAD_WIRE.to_owned())],
        }
    }

    /// What a name written inside is called on the wire.
    pub(super) fn to_wire<'a>(&'a self, name: &'a [u8]) -> &'a [u8] {
        self.pairs
            .iter()
            .find(|(inside, _)| inside.as_bytes() == name)
            .map_or(name, |(_, wire)| wire.as_bytes())
    }

    /// What a name read from the wire is called inside; an inside name becomes [`REFUSED`].
    pub(super) fn to_inside<'a>(&'a self, name: &'a [u8]) -> &'a [u8] {
        for (inside, wire) in &self.pairs {
            if wire.as_bytes() == name {
                return inside.as_bytes();
            }
            if inside.as_bytes() == name {
                return REFUSED.as_bytes();
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_is_one_to_one() {
        let renames = Renames::network();
        assert_eq!(renames.to_wire(b"/dir/kad/1.0.0"), b"dir/kad/1.0.0");
        assert_eq!(renames.to_inside(b"dir/kad/1.0.0"), b"/dir/kad/1.0.0");
        assert_eq!(renames.to_inside(b"/dir/kad/1.0.0"), REFUSED.as_bytes());
        for same in [&b"/dir/rpc/1.0.0"[..], b"/dir/kad/1.0.0/x", b"dir/kad/1.0", b""] {
            assert_eq!(renames.to_wire(same), same);
            assert_eq!(renames.to_inside(same), same);
        }
    }

    #[test]
    fn ambiguous_tables_are_refused() {
        for pairs in [
            vec![("a", "/b")],
            vec![("/a", "/a")],
            vec![("/a", "")],
            vec![("/a", "x\ny")],
            vec![("/a", "x"), ("/b", "x")],
            vec![("/a", "x"), ("/a", "y")],
            vec![("/a", "x"), ("/b", "/a")],
            vec![("/a", REFUSED)],
        ] {
            assert!(Renames::new(pairs.clone()).is_err(), "{pairs:?}");
        }
        Renames::new([(KAD_INSIDE, KAD_WIRE), ("/x", "x")]).unwrap();
    }
}
