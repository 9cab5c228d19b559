//! How much one node of this room takes and gives over loopback, beside plain streams of the same transport.
//!
//! `cargo run --release -p dirnode-network --example network_bench -- [--records N] [--messages N] [--connections N]`
//!
//! Prints one JSON object of figures; progress goes to standard error. The node under test and the floor run in processes
//! of their own, started by this one, so that their memory is theirs alone; the load runs here. Every rate is that of what
//! arrived and was taken, not of what was sent. The floor is a libp2p swarm that has TCP, TLS, yamux and nothing else.
//! `cargo xtask bench network` runs this several times and writes the page.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example prints its findings"
)]

mod child;
mod floor;
mod load;
mod node;

use anyhow::{Context as _, Result, bail, ensure};

// The node's allocator, so that memory is what the node's would be.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How much to measure with.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Provider records of one peer.
    pub records: u32,
    /// Announcements.
    pub messages: u32,
    /// Connections, each of a peer of its own.
    pub connections: u32,
    /// Single provides, and calls of one kind.
    pub calls: u32,
}

fn sizes(args: &[String]) -> Result<Sizes> {
    let mut sizes = Sizes {
        records: 100_000,
        messages: 20_000,
        connections: 100,
        calls: 5_000,
    };
    for pair in args.chunks(2) {
        let [name, value] = pair else {
            bail!("{pair:?}: an option needs a value");
        };
        let value: u32 = value.parse().with_context(|| format!("{name} {value}"))?;
        ensure!(value > 0, "{name}: nothing to measure with");
        match name.as_str() {
            "--records" => sizes.records = value,
            "--messages" => sizes.messages = value,
            "--connections" => sizes.connections = value,
            "--calls" => sizes.calls = value,
            _ => bail!("unknown option {name}"),
        }
    }
    // Bounds of a node on one peer's records and on inbound connections.
    ensure!(sizes.records <= 200_000, "--records: at most 200000");
    ensure!(sizes.connections <= 300, "--connections: at most 300");
    Ok(sizes)
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some(child::NODE) => node::serve().await,
        Some(child::FLOOR) => floor::serve().await,
        _ => {
            println!("{}", load::measure(sizes(&args)?).await?);
            Ok(())
        }
    }
}
