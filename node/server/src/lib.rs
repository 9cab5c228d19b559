//! The `dirnode` server room: gRPC services, policy, the write door, configuration, telemetry, the composition root and
//! the client commands.
//!
//! Inside, arrows point one way: `cli` and `node` know everything, `api` knows the rooms it calls, `ingest` knows the
//! store, `policy`, `events`, `config` and `runtime` know nobody here. `tests/` checks it.

pub mod api;
pub mod cli;
pub mod config;
pub mod events;
pub mod ingest;
pub mod library;
pub mod membership;
pub mod node;
pub mod policy;
pub mod publications;
pub mod queries;
pub mod remote_schema;
pub mod routing;
pub mod runtime;
pub mod shards;
pub mod startup_record;
pub mod telemetry;
mod turns;
