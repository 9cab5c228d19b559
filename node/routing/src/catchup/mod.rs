//! `/dirnode/catchup/1`: how a node that was away learns what it missed (p2p-wire §7-19).
//!
//! A protocol of ours, spoken between nodes that both list it; with others nothing is asked and nothing is offered. One
//! stream carries one [`Request`] and one [`Reply`]. [`message`] holds the types, [`codec`] their bytes.
//!
//! # What is exchanged
//!
//! First a *summary*: for each author, how many of its rows the other knows, the newest announcement time, and a digest
//! over all of them. Equal digests need no more words. For the others, *rows* in order of announcement time, from where
//! the last complete reading ended; so an exchange that breaks off goes on where it stopped, with whomever.
//!
//! # What it is worth
//!
//! A row told by its own author counts as the author's claim: the connection proves who speaks. A row told by anybody
//! else is *hearsay*. It could have carried the author's signed message as a proof; that costs each node some 400 bytes a
//! row, for all rows and for ever, to shorten the short time until a fetch of the record proves more than the signature
//! would. So hearsay goes without proof, and is worth accordingly: it ranks last, its time ends when the author's own
//! words would end, each relaying peer has a quota, and a look at the record itself, or the author's next announcement,
//! takes its place. Hearsay of a *withdrawal* removes hearsay only; of a row that we have first-hand it is a reason to ask
//! the author, who either still serves the record or does not.

pub(crate) mod answer;
pub mod codec;
pub(crate) mod exchange;
pub mod message;

pub use message::{AuthorSummary, CatchupError, Cursor, Reply, Request, Row, Section};

/// Name of the protocol.
pub const PROTOCOL: &str = "/dirnode/catchup/1";
