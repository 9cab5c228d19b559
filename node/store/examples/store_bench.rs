//! Durable puts per second beside what the device gives: `cargo run --release -p dirnode-store --example store_bench`.
//!
//! The floor is one thread that writes new files of the same size with one `fdatasync` each.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dirnode_store::{Clock, NewRecord, RecordCid, Store, StoreConfig, Summary};

const BODY_BYTES: usize = 4096;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn body(n: u64) -> Vec<u8> {
    let mut text = format!(r#"{{"name":"bench/{n}","schema_version":"1.0.0","pad":""#).into_bytes();
    text.resize(BODY_BYTES - 2, b'x');
    text.extend_from_slice(b"\"}");
    text
}

fn record(n: u64) -> NewRecord {
    let body = body(n);
    let summary = Summary {
        name: format!("bench/{n}"),
        version: "v1".into(),
        schema_version: "1.0.0".into(),
        ..Summary::default()
    };
    NewRecord {
        cid: RecordCid::of(&body),
        body: body.into(),
        summary,
    }
}

fn floor(dir: &Path, span: Duration) -> std::io::Result<f64> {
    std::fs::create_dir_all(dir)?;
    let start = now();
    let mut count = 0u32;
    while now() - start < span {
        let mut file = std::fs::File::create(dir.join(count.to_string()))?;
        file.write_all(&body(u64::from(count)))?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / (now() - start).as_secs_f64())
}

async fn puts(store: &Store, next: &Arc<AtomicU64>, callers: usize, span: Duration) -> f64 {
    let start = now();
    let before = next.load(Ordering::Relaxed);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (store, next) = (store.clone(), Arc::clone(next));
        tasks.spawn(async move {
            while now() - start < span {
                let put = store
                    .put_record(record(next.fetch_add(1, Ordering::Relaxed)))
                    .await;
                if let Err(error) = put {
                    println!("put failed: {error}");
                    return;
                }
            }
        });
    }
    tasks.join_all().await;
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let count = (next.load(Ordering::Relaxed) - before) as f64;
    count / (now() - start).as_secs_f64()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let preload: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let span = Duration::from_secs(seconds);
    let dir = tempfile::tempdir_in(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let clock: Clock = Arc::new(|| i64::try_from(now().as_nanos()).unwrap_or(0));
    let next = Arc::new(AtomicU64::new(0));
    let config = StoreConfig::new(dir.path().join("store"));
    let (store, _) = Store::open(config.clone(), clock.clone())?;
    runtime.block_on(async {
        for round in 0..3 {
            let floor = floor(&dir.path().join(format!("floor-{round}")), span);
            let one = puts(&store, &next, 1, span).await;
            let many = puts(&store, &next, 64, span).await;
            let floor = floor.unwrap_or(0.0);
            println!(
                "{:>7} records held: floor {floor:.0}/s, 1 caller {one:.0}/s ({:.2} of the floor), 64 callers {many:.0}/s ({:.1} of 1 caller)",
                store.records_len(),
                one / floor,
                many / one
            );
            let stats = store.stats();
            println!("        entries per flush {:.1}, waiting {} bodies", stats.entries as f64 / stats.groups as f64, stats.overlay_bodies);
            if round == 1 {
                let start = now();
                while store.records_len() < preload {
                    puts(&store, &next, 256, Duration::from_secs(1)).await;
                }
                println!("        filled to {} in {:.1} s", store.records_len(), (now() - start).as_secs_f64());
            }
        }
        let start = now();
        let closed = store.close().await;
        println!("close took {:.2} s: {closed:?}", (now() - start).as_secs_f64());
    });
    drop(store);
    let start = now();
    let (store, report) = Store::open(config, clock)?;
    println!(
        "open took {:.2} s: {report:?}, {:?}",
        (now() - start).as_secs_f64(),
        store.stats()
    );
    Ok(())
}
