//! Who may do what: pure rules from a caller and an action to a [`Permit`], without sockets and clocks.
//!
//! Without authentication every caller is anonymous and may do everything, as the contract says (grpc-api §5); the
//! rooms ask for a permit all the same, so that a rule added here holds everywhere.

use std::fmt;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular: authentication is off.
    Anonymous,
    /// The node itself.
    Node,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "anonymous",
            Self::Node => "node",
        })
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
    /// Everyone may do everything.
    #[default]
    Open,
}

impl Policy {
    /// Asks the rules.
    ///
    /// # Errors
    /// [`Denied`] when no rule allows it.
    pub fn permit(&self, caller: Caller, action: Action) -> Result<Permit, Denied> {
        match self {
            Self::Open => Ok(Permit { caller, action }),
        }
    }
}
