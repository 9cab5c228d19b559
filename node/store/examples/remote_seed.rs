//! Writes a remote label index as a node would have it after hearing a network, for measurements of that node.
//!
//! `cargo run --release -p dirnode-store --example remote_seed -- DIR LABELS`
//!
//! `DIR` is the folder of the index (`routing/labels` in a node's data folder), of a node that does not run. Prints one
//! JSON object: rows and labels put, bytes of their texts, bytes of memory of the index, and some CIDs.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a tool for benchmarks, over data of its own making"
)]

mod remote_rows;

use std::time::{SystemTime, UNIX_EPOCH};

use dirnode_record::Label;
use dirnode_store::remote::{Change, Limits, RemoteIndex};
use remote_rows::{AUTHORS, row};

// The node's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 256;
/// CIDs that are printed, to ask the node for.
const SAMPLES: u64 = 200;

#[expect(clippy::disallowed_methods, reason = "rows of a real node have real times")]
fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, labels] = arguments.as_slice() else {
        eprintln!("usage: remote_seed DIR LABELS");
        std::process::exit(2);
    };
    let wanted: usize = labels.parse().unwrap();
    let now_ns = now_ns();
    std::fs::create_dir_all(dir).unwrap();
    let index = RemoteIndex::open(dir, Limits::default(), now_ns).unwrap();
    assert_eq!(index.size().all_rows(), 0, "{dir} holds rows already");
    let (mut number, mut label_bytes) = (0, 0);
    while index.size().labels < wanted {
        let rows: Vec<_> = (number..number + BATCH)
            .map(|number| row(number, false, now_ns))
            .collect();
        number += BATCH;
        let labels = rows.iter().flat_map(|row| &row.labels);
        label_bytes += labels.map(|label: &Label| label.as_str().len()).sum::<usize>();
        let changes: Vec<Change> = rows.into_iter().map(Change::Put).collect();
        assert!(index.apply(&changes).refused.is_empty());
    }
    index.flush().unwrap();
    let (size, bytes) = (index.size(), index.bytes());
    let cids: Vec<String> = (0..SAMPLES)
        .map(|sample| row(sample * number / SAMPLES, false, now_ns).cid.to_string())
        .collect();
    index.close().unwrap();
    let told = serde_json::json!({
        "rows": size.all_rows(),
        "labels": size.labels,
        "label_bytes": label_bytes,
        "index_bytes": bytes.total(),
        "authors": AUTHORS,
        "cids": cids,
    });
    println!("{told}");
}
