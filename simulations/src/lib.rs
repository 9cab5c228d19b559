//! Seeded runs of the production routing brain over one event queue with virtual time.
//!
//! Hundreds to thousands of [`Brain`](dirnode_routing::Brain)s, the ones that run in `dirnode`, exchange messages over
//! links with latency, loss and partitions; nodes die, come back, join late. Everything follows from the seed: the same
//! scenario, seed and number of nodes give the same events in the same order, which the trace hash shows. What is modelled
//! and what is not is told in `docs/simulations.md`. Holds no state outside a run, reads no clock, does no I/O.

pub mod disk;
pub mod kad;
pub mod link;
pub mod message;
pub mod node;
pub mod report;
pub mod run;
pub mod scenario;
pub mod sweep;
pub mod trace;
pub mod world;

pub use report::Report;
pub use run::run;
pub use scenario::{File, Scenario};
