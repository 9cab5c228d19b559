//! Many nodes in one process over loopback TCP: join, provide, look up, announce; what it costs in messages.
//!
//! `cargo run --release -p dirnode-network --example many_nodes -- [nodes] [keys]`, 50 nodes and 200 keys by default.

#![expect(clippy::print_stdout, reason = "an example prints its findings")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dirnode_network::wire::kad::key_space_point;
use dirnode_network::{
    AnnounceOutcome, Config, Keypair, Network, NetworkEvent, NetworkHandle, PeerId, Runtime, Verdict,
};
use dirnode_record::RecordCid;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// All routing tables.
const FILLED_WITHIN: Duration = Duration::from_secs(240);

struct Node {
    handle: NetworkHandle,
    events: mpsc::Receiver<NetworkEvent>,
    registry: Registry,
}

async fn start(bootstrap: &[dirnode_network::Multiaddr]) -> Result<(Node, dirnode_network::Multiaddr)> {
    let mut registry = Registry::default();
    let config = Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        bootstrap: bootstrap.to_vec(),
        ..Config::default()
    };
    let network = Network::start(
        config,
        &Keypair::generate_ed25519(),
        None,
        &mut registry,
        Runtime::system(),
    )?;
    let spawn = Runtime::system().spawn;
    spawn("swarm", network.task);
    let mut events = network.events;
    loop {
        if let NetworkEvent::Listening { addr } = events.recv().await.context("network ended")? {
            let node = Node {
                handle: network.handle,
                events,
                registry,
            };
            return Ok((node, addr));
        }
    }
}

/// Sum of a counter's series over all nodes.
fn sum(nodes: &[Node], series: &str) -> Result<f64> {
    let mut total = 0.0;
    for node in nodes {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &node.registry)?;
        for line in text.lines() {
            if let Some(value) = line.strip_prefix(series).and_then(|rest| rest.strip_prefix(' ')) {
                total += value.parse::<f64>()?;
            }
        }
    }
    Ok(total)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = sorted.len().saturating_sub(1).saturating_mul(percent) / 100;
    sorted.get(at).copied().unwrap_or_default()
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let count: usize = args.next().map_or(Ok(50), |text| text.parse())?;
    let keys: u32 = args.next().map_or(Ok(200), |text| text.parse())?;
    ensure!(count >= 2, "two nodes at least");

    let mut nodes = join(count).await?;
    look_up(&nodes, keys).await?;
    println!("\nmessages by kind of query, all nodes together");
    println!("| query | queries | messages each |\n|---|---|---|");
    for kind in ["provide", "find_providers", "refresh"] {
        let (queries, messages) = asked(&nodes, kind)?;
        println!(
            "| {kind} | {queries} | {:.1} |",
            messages / f64::max(queries, 1.0)
        );
    }
    announce(&mut nodes).await
}

/// Starts nodes that join through the first one, and waits until every routing table is filled.
async fn join(count: usize) -> Result<Vec<Node>> {
    let began = Instant::now();
    let (first, entry) = start(&[]).await?;
    let mut nodes = vec![first];
    for _ in 1..count {
        nodes.push(start(std::slice::from_ref(&entry)).await?.0);
    }
    println!("{count} nodes started in {:.1} s", began.elapsed().as_secs_f64());
    // Twenty others at the least: the peers a record is provided to.
    let wanted = (count - 1).min(20);
    let mut tables = Vec::new();
    let mut said = 0;
    while tables.iter().filter(|size| **size >= wanted).count() < count {
        ensure!(began.elapsed() < FILLED_WITHIN, "tables did not fill: {tables:?}");
        sleep(Duration::from_millis(50)).await;
        tables.clear();
        for node in &nodes {
            tables.push(node.handle.status().await?.table);
        }
        let filled = tables.iter().filter(|size| **size >= wanted).count();
        if filled >= said + 10 {
            println!(
                "  {:5.1} s: {filled} tables filled",
                began.elapsed().as_secs_f64()
            );
            said = filled;
        }
    }
    tables.sort_unstable();
    println!(
        "all {count} routing tables filled after {:.1} s: {} to {} peers, {} in the middle",
        began.elapsed().as_secs_f64(),
        tables.first().copied().unwrap_or(0),
        tables.last().copied().unwrap_or(0),
        tables.get(count / 2).copied().unwrap_or(0),
    );
    Ok(nodes)
}

/// Each key is provided by one node and looked up by the node that is farthest from it in the key space.
async fn look_up(nodes: &[Node], keys: u32) -> Result<()> {
    let count = nodes.len();
    let key = |n: u32| RecordCid::of(&n.to_be_bytes()).multihash().to_vec();
    let provider = |n: u32| nodes.get(n as usize % count).context("node");
    let began = Instant::now();
    for n in 0..keys {
        provider(n)?.handle.provide(key(n)).await?;
    }
    let took = began.elapsed().as_secs_f64();
    println!("{keys} keys provided in {took:.1} s, one at a time");
    // The receivers do not answer; the last messages are still under way.
    sleep(Duration::from_millis(500)).await;

    let (_, before) = asked(nodes, "find_providers")?;
    let mut times = Vec::new();
    let mut found = 0usize;
    for n in 0..keys {
        let source = provider(n)?.handle.id();
        let seeker = farthest(nodes, &key(n), source).context("node")?;
        let began = Instant::now();
        let answer = seeker.handle.find_providers(key(n), 1).await?;
        times.push(began.elapsed());
        found += usize::from(
            answer
                .iter()
                .any(|one| one.peer == source && !one.addrs.is_empty()),
        );
    }
    let (_, after) = asked(nodes, "find_providers")?;
    times.sort_unstable();
    println!(
        "{found} of {keys} found with addresses from the farthest node; median {:?}, p99 {:?}, {:.1} messages each",
        percentile(&times, 50),
        percentile(&times, 99),
        (after - before) / f64::from(keys.max(1)),
    );
    Ok(())
}

/// The node farthest from a key, the provider left out.
fn farthest<'a>(nodes: &'a [Node], key: &[u8], provider: PeerId) -> Option<&'a Node> {
    let target = key_space_point(key);
    nodes
        .iter()
        .filter(|node| node.handle.id() != provider)
        .max_by_key(|node| {
            let mut distance = key_space_point(&node.handle.id().to_bytes());
            for (byte, other) in distance.iter_mut().zip(target) {
                *byte ^= other;
            }
            distance
        })
}

/// Queries of a kind that ended, and the messages they sent, at all nodes together.
fn asked(nodes: &[Node], kind: &str) -> Result<(f64, f64)> {
    let messages = sum(
        nodes,
        &format!("dirnode_network_query_requests_total{{kind=\"{kind}\"}}"),
    )?;
    let mut queries = 0.0;
    for result in ["ok", "nothing", "timeout"] {
        queries += sum(
            nodes,
            &format!("dirnode_network_queries_total{{kind=\"{kind}\",result=\"{result}\"}}"),
        )?;
    }
    Ok((queries, messages))
}

/// One announcement of the first node, followed through the network.
async fn announce(nodes: &mut [Node]) -> Result<()> {
    let count = nodes.len();
    let (publisher, others) = nodes.split_first_mut().context("node")?;
    let began = Instant::now();
    while publisher
        .handle
        .announce(b"announcement".as_slice().into())
        .await?
        != AnnounceOutcome::Sent
    {
        sleep(Duration::from_millis(50)).await;
    }
    let mut heard = 0usize;
    let mut waiting: Vec<&mut Node> = others.iter_mut().collect();
    while !waiting.is_empty() && began.elapsed() < Duration::from_secs(30) {
        let mut still = Vec::new();
        for node in waiting {
            let mut done = false;
            while let Ok(event) = node.events.try_recv() {
                if let NetworkEvent::Announced(announced) = event {
                    node.handle.report(announced.token, Verdict::Accept).await?;
                    done = true;
                }
            }
            if done {
                heard += 1;
            } else {
                still.push(node);
            }
        }
        waiting = still;
        sleep(Duration::from_millis(5)).await;
    }
    println!(
        "announcement reached {heard} of {} in {:.2} s",
        count - 1,
        began.elapsed().as_secs_f64()
    );
    let status = publisher.handle.status().await?;
    println!(
        "first node: {} peers, {} in its table, {} in its mesh",
        status.peers, status.table, status.mesh_peers
    );
    Ok(())
}
