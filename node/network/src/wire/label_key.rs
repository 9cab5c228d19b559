//! The keys under which reference nodes keep labels, and which values their DHT would take under them.
//!
//! This node has typed keys of its own and takes no values; the rules are here to know what other nodes keep. Pure.
//! Follows p2p-wire §2.5 and §6.2.

use dirnode_record::decode_any;
use dirnode_record::labels::clean_path;

/// Fewest parts of a key that is split at its slashes: nothing, namespace, one step, CID, peer.
const MIN_PARTS: usize = 5;
/// Longest key that is judged, in bytes.
const MAX_KEY_BYTES: usize = 16 * 1024;

/// The key before cleaning: label, CID and peer with slashes between.
#[must_use]
pub fn join(label: &str, cid: &str, peer: &str) -> String {
    format!("{label}/{cid}/{peer}")
}

/// The key as a reference node stores it: absolute, doubled slashes and path steps resolved.
#[must_use]
pub fn stored(label: &str, cid: &str, peer: &str) -> String {
    clean_path(&join(label, cid, peer))
}

/// What a stored key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelKey {
    /// Everything before the CID.
    pub label: String,
    /// The last part but one; not checked.
    pub cid: String,
    /// The last part; not checked.
    pub peer: String,
}

impl LabelKey {
    /// Takes a key apart; `None` when it has too few parts.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        if key.split('/').count() < MIN_PARTS {
            return None;
        }
        let (rest, peer) = key.rsplit_once('/')?;
        let (label, cid) = rest.rsplit_once('/')?;
        Some(Self {
            label: label.to_owned(),
            cid: cid.to_owned(),
            peer: peer.to_owned(),
        })
    }
}

/// Whether a path, cleaned, lies in one of the four label namespaces.
#[must_use]
pub fn in_namespace(key: &str) -> bool {
    dirnode_record::Label::parse(&clean_path(key)).is_some()
}

/// Why a reference node refuses a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueRefused {
    /// No namespace, or one without a rule. That of locators has none.
    #[error("key is in no namespace for values")]
    Namespace,
    /// Too few parts, or too long.
    #[error("key is not /<namespace>/<path>/<cid>/<peer>")]
    Shape,
    /// The last part is missing or is a CID.
    #[error("peer in the key is missing, or is a cid")]
    Peer,
    /// The last part but one is not a CID.
    #[error("cid in the key is not one")]
    Cid,
    /// A skill with an empty step.
    #[error("a step of the path is empty")]
    EmptyStep,
    /// The value is neither empty nor a CID.
    #[error("value is not a cid")]
    Value,
}

/// The verdict of a reference node on a value under a key.
///
/// # Errors
/// [`ValueRefused`].
pub fn check_value(key: &str, value: &[u8]) -> Result<(), ValueRefused> {
    if key.len() > MAX_KEY_BYTES {
        return Err(ValueRefused::Shape);
    }
    let (namespace, _) = key
        .strip_prefix('/')
        .and_then(|rest| rest.split_once('/'))
        .ok_or(ValueRefused::Namespace)?;
    if !matches!(namespace, "skills" | "domains" | "modules") {
        return Err(ValueRefused::Namespace);
    }
    let parts: Vec<&str> = key.split('/').collect();
    let [_, _, path @ .., cid, peer] = parts.as_slice() else {
        return Err(ValueRefused::Shape);
    };
    if path.is_empty() {
        return Err(ValueRefused::Shape);
    }
    if peer.is_empty() || decode_any(peer).is_ok() {
        return Err(ValueRefused::Peer);
    }
    if decode_any(cid).is_err() {
        return Err(ValueRefused::Cid);
    }
    if namespace == "skills" && path.contains(&"") {
        return Err(ValueRefused::EmptyStep);
    }
    let is_cid = || std::str::from_utf8(value).is_ok_and(|text| decode_any(text).is_ok());
    if !value.is_empty() && !is_cid() {
        return Err(ValueRefused::Value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn clean_labels_come_back_from_their_keys(label in "/skills(/[a-z]{1,8}){1,4}", cid in "[a-z0-9]{1,59}", peer in "[A-Za-z0-9]{1,52}") {
            let key = stored(&label, &cid, &peer);
            prop_assert!(in_namespace(&key));
            prop_assert_eq!(LabelKey::parse(&key), Some(LabelKey { label, cid, peer }));
        }

        #[test]
        fn any_key_is_judged_without_panic(key: String, slashed in "(/[a-z.]{0,3}){0,8}", value: Vec<u8>) {
            for key in [key, slashed] {
                let _ = (check_value(&key, &value), LabelKey::parse(&key), stored(&key, &key, &key));
            }
        }
    }
}
