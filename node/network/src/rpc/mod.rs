//! Requests between two peers on a stream of their own: the record RPC of the network and our catch-up exchange.
//!
//! [`client`] runs in the caller's task, [`server`] in one task per stream. Both read incrementally under caps and
//! deadlines; neither judges what it carries (p2p-wire §5).

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod server;

#[cfg(test)]
mod script;
