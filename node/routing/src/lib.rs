//! Publish, announcements, sweep, catch-up and expiry: a state machine without sockets, clocks or random source.
//!
//! [`Brain::on`] takes one [`Input`] and gives back [`Action`]s; a driver carries them out. The room decides what is
//! announced and when, which announcements of others are believed and for how long, and what is fetched to find out.
//! Never does I/O, never admits content to the store, never judges who may speak (the driver asks policy and says so).
//! Ground state it asks for: outbox rows and due times. Everything about others is soft state, refreshed or expired.
//! Follows p2p-wire §2, §4, §6 and the list of §7.

pub mod action;
mod announce;
mod autosync;
pub mod brain;
pub mod catchup;
pub mod chunk;
mod claims;
pub mod config;
pub mod counters;
mod coverage;
mod cx;
mod fetch;
mod hear;
pub mod input;
mod outbox;
pub mod peer;
pub mod point;
mod provide;
mod sweep;
pub mod time;

pub use action::{
    Action, Change, DueRow, ExchangeId, Fault, IndexChange, Kind, OutboxRow, Refused, RequestId, Standing,
    Ticket, Token, Verdict,
};
pub use brain::{Brain, Restored, RestoredClaim, RestoredTomb, Status};
pub use config::Config;
pub use counters::{Counters, Freshness};
pub use input::{Announcement, Failure, Input, SyncOutcome};
pub use outbox::{News, Progress};
pub use peer::PeerId;
pub use point::{Point, Prefix};
pub use time::Timestamp;
