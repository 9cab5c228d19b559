//! The node under test: the room as a server runs it, with records out of memory and a verdict for every announcement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use dirnode_network::{
    Config, Keypair, Library, LibraryError, Network, NetworkEvent, NetworkHandle, PeerId, Pulled,
    ReferrerDescriptor, ReferrerList, RpcCode, Runtime, Verdict,
};
use dirnode_record::{RecordCid, Referrer};
use futures_util::future::{BoxFuture, ready};
use libp2p::metrics::Registry;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::child;

/// Records that can be pulled.
pub const RECORDS: u32 = 64;
/// Size of each, about what records of a directory have.
pub const RECORD_BYTES: usize = 6_000;
/// Hop times kept.
const MAX_TIMES: usize = 100_000;

/// Bytes of record `number`: JSON, since that is what records are.
pub fn record(number: u32) -> Vec<u8> {
    let fixed = format!("{{\"name\":\"example.org/{number:08}\",\"text\":\"\"}}").len();
    let text = "x".repeat(RECORD_BYTES.saturating_sub(fixed));
    format!("{{\"name\":\"example.org/{number:08}\",\"text\":\"{text}\"}}").into_bytes()
}

struct Records(BTreeMap<RecordCid, Bytes>);

fn absent<T: Send + 'static>() -> BoxFuture<'static, Result<T, LibraryError>> {
    Box::pin(ready(Err(LibraryError::new(RpcCode::NotFound, "not here"))))
}

impl Library for Records {
    fn lookup(
        &self,
        _: PeerId,
        _: RecordCid,
    ) -> BoxFuture<'static, Result<BTreeMap<String, String>, LibraryError>> {
        absent()
    }

    fn pull(&self, _: PeerId, cid: RecordCid) -> BoxFuture<'static, Result<Pulled, LibraryError>> {
        match self.0.get(&cid).cloned() {
            Some(data) => Box::pin(ready(Ok(Pulled {
                data,
                ..Pulled::default()
            }))),
            None => absent(),
        }
    }

    fn list_referrers(
        &self,
        _: PeerId,
        _: RecordCid,
    ) -> BoxFuture<'static, Result<ReferrerList, LibraryError>> {
        absent()
    }

    fn pull_referrer(
        &self,
        _: PeerId,
        _: RecordCid,
        _: ReferrerDescriptor,
    ) -> BoxFuture<'static, Result<Referrer, LibraryError>> {
        absent()
    }
}

#[derive(Default)]
struct Seen {
    announced: AtomicU64,
    provided: AtomicU64,
    /// From the moment an announcement says it was sent to the moment it was taken in, in microseconds.
    hops: Mutex<Vec<u64>>,
}

/// Gives every announcement its verdict, and counts.
async fn read(handle: NetworkHandle, mut events: mpsc::Receiver<NetworkEvent>, seen: Arc<Seen>) {
    while let Some(event) = events.recv().await {
        match event {
            NetworkEvent::Announced(announced) => {
                let sent = announced
                    .data
                    .first_chunk()
                    .map(|bytes| i64::from_be_bytes(*bytes));
                // A network that is gone needs no verdict.
                let _ = handle.report(announced.token, Verdict::Accept).await;
                seen.announced.fetch_add(1, Ordering::Relaxed);
                let took = sent.map(|sent| announced.received_at.saturating_sub(sent) / 1_000);
                let mut hops = seen.hops.lock();
                if hops.len() < MAX_TIMES {
                    hops.extend(took.and_then(|took| u64::try_from(took).ok()));
                }
            }
            NetworkEvent::Provided { .. } => {
                seen.provided.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }
}

/// Starts a node as configured; gives its handle, its events and where it listens.
pub async fn start(
    config: Config,
    library: Option<Arc<dyn Library>>,
) -> Result<(
    NetworkHandle,
    mpsc::Receiver<NetworkEvent>,
    dirnode_network::Multiaddr,
)> {
    let network = Network::start(
        config,
        &Keypair::generate_ed25519(),
        library,
        &mut Registry::default(),
        Runtime::system(),
    )?;
    let spawn = Runtime::system().spawn;
    spawn("swarm", network.task);
    let mut events = network.events;
    loop {
        if let NetworkEvent::Listening { addr } = events.recv().await.context("the network ended")? {
            return Ok((network.handle, events, addr));
        }
    }
}

/// Settings for loopback.
pub fn config() -> Result<Config> {
    Ok(Config {
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        ..Config::default()
    })
}

/// Runs the node until its input ends.
pub async fn serve() -> Result<()> {
    let records = (0..RECORDS).map(|number| {
        let data = record(number);
        (RecordCid::of(&data), Bytes::from(data))
    });
    let library = Arc::new(Records(records.collect()));
    let (handle, events, addr) = start(config()?, Some(library)).await?;
    println!("{addr}");
    let seen = Arc::new(Seen::default());
    let spawn = Runtime::system().spawn;
    spawn(
        "events",
        Box::pin(read(handle.clone(), events, Arc::clone(&seen))),
    );
    child::answer(async |question| {
        if question == child::RESET {
            seen.hops.lock().clear();
        }
        let status = handle.status().await?;
        let mut hops = seen.hops.lock().clone();
        hops.sort_unstable();
        let at = |part: usize| hops.get(hops.len() * part / 100).copied().unwrap_or_default();
        let told: Value = json!({
            "records": status.provider_records,
            "connections": status.connections,
            "table": status.table,
            "topic_peers": status.topic_peers,
            "announced": seen.announced.load(Ordering::Relaxed),
            "provided": seen.provided.load(Ordering::Relaxed),
            "hops": hops.len(),
            "hop_p50_us": at(50),
            "hop_p99_us": at(99),
        });
        Ok(told)
    })
    .await
}
