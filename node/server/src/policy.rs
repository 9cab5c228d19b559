//! Who may do what: pure rules from a caller and an action to a [`Permit`], without sockets and clocks.
//!
//! Without authentication every caller of the API is anonymous and may do everything, as the contract says (grpc-api §5).
//! A peer is known by its key, and may read and nothing else (p2p-wire §5.3). The rooms ask for a permit all the same, so
//! that a rule added here holds everywhere.

use std::fmt;

use dirnode_identity::PeerId;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular: authentication is off.
    Anonymous,
    /// The node itself.
    Node,
    /// A peer of the network, known by its key.
    Peer(PeerId),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Node => f.write_str("node"),
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Store a record.
    Push,
    /// Read a record.
    Pull,
    /// Read a record's metadata.
    Lookup,
    /// Remove a record.
    Delete,
    /// Hang a referrer on a record.
    PushReferrer,
    /// Read referrers.
    PullReferrer,
    /// Remove referrers.
    DeleteReferrer,
    /// Hear events.
    Listen,
    /// Find records by name.
    Resolve,
    /// Find records by what they say, and what is published.
    Search,
    /// Put records into the published set.
    Publish,
    /// Take records out of it.
    Unpublish,
    /// See the state of the node.
    Status,
    /// See whom the node is connected to.
    ListPeers,
    /// Make the node dial a peer.
    Ping,
    /// Make the node ask the DHT.
    FindProviders,
}

/// Proof that the rules were asked and agreed; only [`Policy::permit`] makes one.
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    action: Action,
}

impl Permit {
    /// Who was permitted.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether this permit is for `action`; a room checks it at its door.
    #[must_use]
    pub fn is_for(&self, action: Action) -> bool {
        self.action == action
    }
}

/// The rules said no.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{caller} is not allowed to {action:?}")]
pub struct Denied {
    /// Who asked.
    pub caller: Caller,
    /// For what.
    pub action: Action,
}

/// The rules.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Callers of the API may do everything; peers may read records and what refers to them.
    #[default]
    Open,
}

impl Policy {
    /// Asks the rules.
    ///
    /// # Errors
    /// [`Denied`] when no rule allows it.
    pub fn permit(&self, caller: Caller, action: Action) -> Result<Permit, Denied> {
        let Self::Open = self;
        let reads = matches!(action, Action::Pull | Action::Lookup | Action::PullReferrer);
        match caller {
            Caller::Peer(_) if !reads => Err(Denied { caller, action }),
            _ => Ok(Permit { caller, action }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_reads_and_does_nothing_else() {
        let policy = Policy::default();
        let peer = Caller::Peer(PeerId::random());
        for action in [Action::Pull, Action::Lookup, Action::PullReferrer] {
            assert!(policy.permit(peer.clone(), action).unwrap().is_for(action));
        }
        for action in [Action::Push, Action::Delete, Action::Publish, Action::Ping] {
            let denied = policy.permit(peer.clone(), action).unwrap_err();
            assert!(denied.to_string().starts_with("peer "), "{denied}");
            assert!(policy.permit(Caller::Anonymous, action).is_ok());
        }
    }
}
