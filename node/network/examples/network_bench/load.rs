//! The load, and what it found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use dirnode_network::wire::kad::{Message, provider_key};
use dirnode_network::{AnnounceOutcome, Config, Limits, NetworkHandle, PeerId, Runtime};
use dirnode_record::RecordCid;
use serde_json::{Map, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Sizes;
use super::child::{Child, FLOOR, NODE, RESET};
use super::floor::Plain;
use super::node::{self, RECORD_BYTES, RECORDS};

/// Keys handed to one call that sends many; as the routing room does.
const SWEEP_BATCH: usize = 256;
/// Announcements that may be on their way, so that nobody has to drop any.
const WINDOW: u64 = 512;
/// Payload of an announcement: a CID, a time and a few labels.
const PAYLOAD_BYTES: usize = 320;
/// What a gossip frame adds: author, sequence number, topic, signature and lengths.
const GOSSIP_FRAME_BYTES: usize = PAYLOAD_BYTES + 150;
/// Announcements sent one by one to see how long a hop takes.
const HOPS: u64 = 500;
/// Calls in flight; a node serves eight of one peer at once.
const IN_FLIGHT: u32 = 8;
/// Single provides in flight, as the routing room has them.
const PROVIDES_IN_FLIGHT: u32 = 16;
/// Request of a pull, service and CID, about.
const PULL_BYTES: usize = 120;
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// The figures of one run, by name.
#[derive(Default)]
struct Figures(Map<String, Value>);

impl Figures {
    fn put(&mut self, name: &str, value: f64) {
        eprintln!("{name}: {value:.1}");
        self.0.insert(name.to_owned(), value.into());
    }

    fn rate(&mut self, name: &str, count: u32, took: Duration) {
        self.put(name, f64::from(count) / took.as_secs_f64());
    }
}

fn key(number: u32) -> Vec<u8> {
    provider_key(&RecordCid::of(&number.to_be_bytes())).to_vec()
}

fn wall_ns() -> i64 {
    (Runtime::system().clock)()
}

/// A node of ours that is connected to the one under test, with it in its table and on the topic.
async fn join(config: Config, child: &Child) -> Result<(NetworkHandle, PeerId)> {
    let (handle, mut events, _) = node::start(config, None).await?;
    let spawn = Runtime::system().spawn;
    spawn(
        "events",
        Box::pin(async move { while events.recv().await.is_some() {} }),
    );
    let peer = handle.connect(child.addr.clone()).await?;
    timeout(JOIN_LIMIT, async {
        loop {
            let status = handle.status().await?;
            if status.table > 0 && status.topic_peers > 0 && !status.external.is_empty() {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .context("the node under test did not get into the table")??;
    Ok((handle, peer))
}

/// Runs `one` for each number up to `count`, so many at once; how long all took.
async fn many<F>(
    count: u32,
    at_once: u32,
    one: impl Fn(u32) -> F + Clone + Send + 'static,
) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..at_once {
        let (next, one) = (Arc::clone(&next), one.clone());
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                one(number).await?;
            }
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    Ok(begun.elapsed())
}

/// Every measurement, once.
pub async fn measure(sizes: Sizes) -> Result<Value> {
    let mut figures = Figures::default();
    let mut child = Child::start(NODE)?;
    let mut floor = Child::start(FLOOR)?;
    let (handle, peer) = join(node::config()?, &child).await?;
    let plain = Arc::new(Plain::connect(&floor.addr).await?);

    providers(&mut figures, sizes, &mut child, &mut floor, &handle, peer, &plain).await?;
    gossip(&mut figures, sizes, &mut child, &mut floor, &handle, &plain).await?;
    pulls(&mut figures, sizes, &handle, peer, &plain).await?;
    // What the load above has freed would be taken for connections: they are counted in processes that have done nothing else.
    drop((handle, plain, child, floor));
    connections(&mut figures, sizes).await?;
    Ok(Value::Object(figures.0))
}

/// Provider records: many down one stream, which is how they come, and one by one with a lookup each.
async fn providers(
    figures: &mut Figures,
    sizes: Sizes,
    child: &mut Child,
    floor: &mut Child,
    handle: &NetworkHandle,
    peer: PeerId,
    plain: &Arc<Plain>,
) -> Result<()> {
    let frame = {
        let addrs = handle.status().await?.external;
        let addrs = addrs.iter().map(|addr| addr.to_vec()).collect();
        Message::add_provider(&RecordCid::of(b"any"), &handle.id(), addrs)
            .to_frame()
            .len()
    };
    let keys: Vec<Vec<u8>> = (0..sizes.records).map(key).collect();
    let before = child.memory().await?;
    let begun = Instant::now();
    let mut sent = 0;
    for batch in keys.chunks(SWEEP_BATCH) {
        sent += handle.provide_to(peer, batch).await?;
    }
    figures.rate("provides_sent", u32::try_from(sent)?, begun.elapsed());
    child.until("records", u64::from(sizes.records)).await?;
    figures.rate("provider_records_taken", sizes.records, begun.elapsed());
    let after = child.memory().await?;
    figures.put(
        "bytes_per_record",
        after.saturating_sub(before) as f64 / f64::from(sizes.records),
    );

    let frames_before = floor.number("frames")?;
    let begun = Instant::now();
    for batch in keys.chunks(SWEEP_BATCH) {
        plain.send(batch.len(), frame, SWEEP_BATCH).await?;
    }
    floor
        .until("frames", frames_before + u64::from(sizes.records))
        .await?;
    figures.rate("floor_record_frames", sizes.records, begun.elapsed());
    figures.put("record_frame_bytes", frame as f64);

    let node = handle.clone();
    let took = many(sizes.calls, PROVIDES_IN_FLIGHT, move |number| {
        let node = node.clone();
        async move { Ok(node.provide(key(sizes.records + number)).await?) }
    })
    .await?;
    child
        .until("records", u64::from(sizes.records + sizes.calls))
        .await?;
    figures.rate("provides_with_lookup", sizes.calls, took);
    let echo = Arc::clone(plain);
    let took = many(sizes.calls, PROVIDES_IN_FLIGHT, move |_| {
        let echo = Arc::clone(&echo);
        // A lookup is a question and an answer; the record that follows has none.
        async move { echo.echo(frame, frame).await }
    })
    .await?;
    figures.rate("floor_echoes_16", sizes.calls, took);
    Ok(())
}

/// Announces, again and again while there is no room.
async fn announce(handle: &NetworkHandle) -> Result<()> {
    let mut payload = wall_ns().to_be_bytes().to_vec();
    payload.resize(PAYLOAD_BYTES, b'x');
    let payload = Bytes::from(payload);
    while handle.announce(payload.clone()).await? != AnnounceOutcome::Sent {
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Announcements: signature checked, verdict given.
async fn gossip(
    figures: &mut Figures,
    sizes: Sizes,
    child: &mut Child,
    floor: &mut Child,
    handle: &NetworkHandle,
    plain: &Arc<Plain>,
) -> Result<()> {
    let first = child.number("announced")?;
    child.ask(RESET)?;
    for sent in 0..HOPS {
        announce(handle).await?;
        child.until("announced", first + sent + 1).await?;
    }
    figures.put("hop_p50_us", child.number("hop_p50_us")? as f64);
    figures.put("hop_p99_us", child.number("hop_p99_us")? as f64);

    let first = first + HOPS;
    let begun = Instant::now();
    for sent in 1..=u64::from(sizes.messages) {
        announce(handle).await?;
        if sent % (WINDOW / 4) == 0 && sent > WINDOW {
            child.until("announced", first + sent - WINDOW).await?;
        }
    }
    child
        .until("announced", first + u64::from(sizes.messages))
        .await?;
    figures.rate("gossip_validated", sizes.messages, begun.elapsed());

    let frames_before = floor.number("frames")?;
    let begun = Instant::now();
    let count = usize::try_from(sizes.messages)?;
    plain.send(count, GOSSIP_FRAME_BYTES, 1).await?;
    floor
        .until("frames", frames_before + u64::from(sizes.messages))
        .await?;
    figures.rate("floor_gossip_frames", sizes.messages, begun.elapsed());
    Ok(())
}

/// Pulls of records, a stream each.
async fn pulls(
    figures: &mut Figures,
    sizes: Sizes,
    handle: &NetworkHandle,
    peer: PeerId,
    plain: &Arc<Plain>,
) -> Result<()> {
    let cids: Arc<Vec<RecordCid>> = Arc::new(
        (0..RECORDS)
            .map(|number| RecordCid::of(&node::record(number)))
            .collect(),
    );
    for (at_once, name, floor_name) in [
        (1, "pulls_1", "floor_echoes_1"),
        (IN_FLIGHT, "pulls_8", "floor_echoes_8"),
    ] {
        let (node, wanted) = (handle.clone(), Arc::clone(&cids));
        let took = many(sizes.calls, at_once, move |number| {
            let (node, wanted) = (node.clone(), Arc::clone(&wanted));
            async move {
                let place = usize::try_from(number % RECORDS)?;
                let cid = *wanted.get(place).context("no such record")?;
                let pulled = node.pull(peer, cid).await?;
                ensure!(pulled.data.len() == RECORD_BYTES, "a record of another size");
                Ok(())
            }
        })
        .await?;
        figures.rate(name, sizes.calls, took);
        let echo = Arc::clone(plain);
        let took = many(sizes.calls, at_once, move |_| {
            let echo = Arc::clone(&echo);
            async move { echo.echo(PULL_BYTES, RECORD_BYTES).await }
        })
        .await?;
        figures.rate(floor_name, sizes.calls, took);
    }
    Ok(())
}

/// Memory that connections take at the side that was dialled.
async fn connections(figures: &mut Figures, sizes: Sizes) -> Result<()> {
    let (child, floor) = (&mut Child::start(NODE)?, &mut Child::start(FLOOR)?);
    let count = f64::from(sizes.connections);
    let before = child.memory().await?;
    let first = child.number("connections")?;
    let mut nodes = Vec::new();
    for _ in 0..sizes.connections {
        // They keep to one connection each: it is those of the node under test that are counted.
        let config = Config {
            refresh_interval: Duration::from_secs(3_600),
            limits: Limits {
                established_inbound: 1,
                established_outbound: 1,
                ..Limits::default()
            },
            ..node::config()?
        };
        nodes.push(join(config, child).await?);
    }
    child
        .until("connections", first + u64::from(sizes.connections))
        .await?;
    let open = child.number("connections")?.saturating_sub(first);
    let after = child.memory().await?;
    figures.put("connections", open as f64);
    figures.put(
        "bytes_per_connection",
        after.saturating_sub(before) as f64 / (open as f64).max(1.0),
    );
    drop(nodes);

    let before = floor.memory().await?;
    let first = floor.number("connections")?;
    let mut peers = Vec::new();
    for _ in 0..sizes.connections {
        peers.push(Plain::connect(&floor.addr).await?);
    }
    floor
        .until("connections", first + u64::from(sizes.connections))
        .await?;
    let after = floor.memory().await?;
    figures.put(
        "floor_bytes_per_connection",
        after.saturating_sub(before) as f64 / count,
    );
    drop(peers);
    Ok(())
}
