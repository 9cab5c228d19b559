//! Black-box tests, one binary: vectors over gRPC, the command line, crashes, clients of others, house checks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test: what does not hold ends it"
)]

mod announce;
mod autosync;
mod cli;
mod cli_routing;
mod common;
mod durable;
mod hostile;
mod house;
mod interop;
mod interop_bootstrap;
mod interop_go;
mod interop_hostile;
mod interop_live;
mod interop_node;
mod interop_routing;
mod interop_vectors;
mod interop_vectors_rpc;
mod late;
mod metrics;
mod network;
mod observe;
mod publish;
mod replay;
mod restarts;
mod sdk;
mod search;
mod vectors_api;
mod vectors_cid;
mod vectors_p2p;
mod vectors_routing;
mod vectors_search;
