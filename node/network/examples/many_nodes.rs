//! Many nodes in one process over loopback TCP: join, provide, look up, announce; what it costs in messages.
//!
//! `cargo run --release -p dirnode-network --example many_nodes -- [nodes] [keys]`, 50 nodes and 200 keys by default.

#![expect(clippy::print_stdout, reason = "an example prints its findings")]

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dirnode_network::{
    AnnounceOutcome, Config, Keypair, Network, NetworkEvent, NetworkHandle, Runtime, Verdict,
};
use dirnode_record::RecordCid;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

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

    let began = Instant::now();
    let (first, entry) = start(&[]).await?;
    let mut nodes = vec![first];
    for _ in 1..count {
        nodes.push(start(std::slice::from_ref(&entry)).await?.0);
    }
    let wanted = (count - 1).min(20);
    for node in &nodes {
        timeout(Duration::from_secs(300), async {
            while node
                .handle
                .status()
                .await
                .is_ok_and(|status| status.table < wanted)
            {
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .context("a table did not fill")?;
    }
    println!("{count} nodes joined in {:.1} s", began.elapsed().as_secs_f64());

    let key = |n: u32| RecordCid::of(&n.to_be_bytes()).multihash().to_vec();
    let at = |n: u32, shift: usize| (n as usize + shift) % count;
    let began = Instant::now();
    for n in 0..keys {
        let node = nodes.get(at(n, 0)).context("node")?;
        node.handle.provide(key(n)).await?;
    }
    println!(
        "{keys} keys provided in {:.1} s, one at a time",
        began.elapsed().as_secs_f64()
    );
    // The receivers do not answer; the last messages are still under way.
    sleep(Duration::from_millis(500)).await;

    let mut times = Vec::new();
    let mut found = 0usize;
    for n in 0..keys {
        let seeker = nodes.get(at(n, count / 2)).context("node")?;
        let provider = nodes.get(at(n, 0)).context("node")?.handle.id();
        let began = Instant::now();
        let answer = seeker.handle.find_providers(key(n), 1).await?;
        times.push(began.elapsed());
        found += usize::from(
            answer
                .iter()
                .any(|one| one.peer == provider && !one.addrs.is_empty()),
        );
    }
    times.sort_unstable();
    println!(
        "{found} of {keys} found with addresses; lookup median {:?}, p99 {:?}",
        percentile(&times, 50),
        percentile(&times, 99),
    );
    for kind in ["provide", "find_providers", "refresh"] {
        let messages = sum(
            &nodes,
            &format!("dirnode_network_query_requests_total{{kind=\"{kind}\"}}"),
        )?;
        let mut queries = 0.0;
        for result in ["ok", "nothing", "timeout"] {
            queries += sum(
                &nodes,
                &format!("dirnode_network_queries_total{{kind=\"{kind}\",result=\"{result}\"}}"),
            )?;
        }
        println!(
            "{kind}: {queries} queries, {:.1} messages each",
            messages / f64::max(queries, 1.0)
        );
    }

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
