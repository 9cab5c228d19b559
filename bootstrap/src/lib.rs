//! `dirnode-bootstrap`: a node that holds nothing but the network together.
//!
//! Others join through it: it serves the DHT, passes announcements on, relays for nodes behind a NAT and answers their
//! question whether they can be reached. It keeps no records and offers no API; `network` and `identity` are all that it
//! is made of. State: the key file (ground), provider records of others (soft). For operators: `docs/bootstrap.md`.

pub mod cli;
pub mod clock;
pub mod http;
pub mod judge;
pub mod listing;
pub mod logs;
pub mod serve;
pub mod settings;
