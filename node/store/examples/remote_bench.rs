//! The remote label index alone: what a label weighs, how fast rows come in, how fast searches are, what a restart takes.
//!
//! `cargo run --release -p dirnode-store --example remote_bench -- 100000 1000000`
//!
//! The numbers are of labels; `remote_rows` says what the rows are. `--distinct` gives each row one label more that no other
//! row has.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a benchmark over data of its own making"
)]

mod remote_rows;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dirnode_generator::Random;
use dirnode_record::Namespace;
use dirnode_store::remote::{
    Change, Limits, RemoteIndex, RemoteQuery, RemoteQueryKind, RemoteSearch, Standing,
};
use remote_rows::{HOUR, author, class, row};

// The node's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: usize = 3_000;
const BATCH: usize = 256;
/// The time of the rows; any will do.
const NOW: i64 = 2 * HOUR;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Anonymous memory of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

fn percentiles(mut times: Vec<u64>) -> (f64, f64, f64) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    (at(0.5), at(0.99), at(1.0))
}

fn in_skills(value: &str) -> RemoteQuery {
    query(Namespace::Skills, value)
}

fn query(namespace: Namespace, value: &str) -> RemoteQuery {
    RemoteQuery {
        kind: RemoteQueryKind::In(namespace),
        value: value.to_owned(),
    }
}

type Make = fn(&mut Random) -> (Vec<RemoteQuery>, u32);

fn cases() -> Vec<(&'static str, Make)> {
    fn leaf(random: &mut Random) -> RemoteQuery {
        in_skills(&class(random))
    }
    vec![
        ("skill, exact", |random| (vec![leaf(random)], 1)),
        ("skill by ancestor", |random| {
            let class = class(random);
            (vec![in_skills(class.split_once('/').unwrap().0)], 1)
        }),
        ("a label of 10 % of the rows", |_| {
            (vec![in_skills("very/common")], 1)
        }),
        ("a label of a third of the rows", |_| {
            (vec![query(Namespace::Locators, "docker_image")], 1)
        }),
        ("every row", |_| {
            let kind = RemoteQueryKind::Any;
            let value = String::new();
            (vec![RemoteQuery { kind, value }], 1)
        }),
        ("two skills, either", |random| {
            (vec![leaf(random), leaf(random)], 1)
        }),
        ("common and a third, both", |_| {
            (
                vec![in_skills("very/common"), query(Namespace::Locators, "helm_chart")],
                2,
            )
        }),
        ("five of all kinds, two of them", |random| {
            let mut queries = vec![leaf(random), leaf(random), in_skills("very")];
            queries.push(query(Namespace::Domains, &class(random)));
            queries.push(query(Namespace::Modules, "module_3"));
            (queries, 2)
        }),
        ("never both: two locators", |_| {
            let of = |value| query(Namespace::Locators, value);
            (vec![of("docker_image"), of("helm_chart")], 2)
        }),
        ("nothing", |random| {
            (vec![in_skills(&format!("none/{}", random.next()))], 1)
        }),
    ]
}

fn searches(index: &RemoteIndex) {
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>6}  (limit 20, us)",
        "search", "p50", "p99", "max", "hits"
    );
    for (name, make) in cases() {
        let mut random = Random::new(3);
        let (mut times, mut hits, mut cut) = (Vec::with_capacity(SAMPLES), 0, 0);
        for _ in 0..SAMPLES {
            let (queries, min_score) = make(&mut random);
            let mut search = RemoteSearch::new(queries);
            (search.min_score, search.limit, search.exclude) = (min_score, 20, Some(author(1)));
            let start = now();
            let found = index.search(&search).unwrap();
            times.push((now() - start).as_nanos() as u64);
            hits += found.hits.len();
            cut += usize::from(found.cut);
        }
        let (p50, p99, max) = percentiles(times);
        let hits = hits as f64 / SAMPLES as f64;
        println!("{name:<34} {p50:>9.1} {p99:>9.1} {max:>9.1} {hits:>6.1}");
        assert_eq!(cut, 0, "{name} passed its budget");
    }
}

fn run(labels: u64, distinct: bool) {
    let per_row = if distinct { 4 } else { 3 };
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_text_bytes: 1 << 30,
        ..Limits::default()
    };
    let before = resident();
    let index = RemoteIndex::open(folder.path(), limits.clone(), 0).unwrap();
    let start = now();
    let mut number = 0;
    while (index.size().labels as u64) < labels {
        let batch: Vec<Change> = (0..BATCH)
            .map(|_| {
                number += 1;
                Change::Put(row(number, distinct, NOW))
            })
            .collect();
        let applied = index.apply(&batch);
        assert!(applied.refused.is_empty());
    }
    let filled = now() - start;
    index.flush().unwrap();
    let flushed = now() - start;
    let (size, bytes) = (index.size(), index.bytes());
    let held = resident().saturating_sub(before);
    println!(
        "\n{} labels in {} rows, about {per_row} each",
        size.labels,
        size.all_rows()
    );
    println!("{size:?}\n{bytes:?}");
    let each = |bytes: u64| bytes as f64 / size.labels as f64;
    println!(
        "{:.1} bytes a label counted ({:.1} by RSS), {:.0} a row",
        each(bytes.total()),
        each(held),
        bytes.total() as f64 / size.all_rows() as f64
    );
    println!(
        "filled in {:.2} s ({:.1} us a row, made and put), on disk after {:.2} s; {:?}",
        filled.as_secs_f64(),
        filled.as_secs_f64() * 1e6 / size.all_rows() as f64,
        flushed.as_secs_f64(),
        index.counters(),
    );
    searches(&index);

    let mut times = Vec::new();
    for at in (1..number).step_by((number as usize / 5_000).max(1)) {
        let row = row(at, distinct, NOW);
        let refresh = Change::Refresh {
            cid: row.cid,
            peer: row.peer,
            timestamp_ns: row.timestamp_ns + 1,
            last_seen_ns: row.last_seen_ns + 2 * HOUR,
            expires_at_ns: row.expires_at_ns + 2 * HOUR,
            standing: Standing::Verified,
        };
        let start = now();
        index.apply(std::slice::from_ref(&refresh));
        times.push((now() - start).as_nanos() as u64);
    }
    let (p50, p99, max) = percentiles(times);
    println!("refresh to verified: p50 {p50:.1} us, p99 {p99:.1} us, max {max:.1} us");

    index.close().unwrap();
    drop(index);
    let start = now();
    let index = RemoteIndex::open(folder.path(), limits, 0).unwrap();
    println!(
        "opened again in {:.2} s with {} rows, {} bytes damaged",
        (now() - start).as_secs_f64(),
        index.size().all_rows(),
        index.counters().damaged_bytes
    );
    let start = now();
    let (mut rounds, mut ended, mut longest) = (0, 0, Duration::ZERO);
    loop {
        let round = now();
        let expired = index.expire(100 * HOUR, 1_000);
        longest = longest.max(now() - round);
        (rounds, ended) = (rounds + 1, ended + expired.ended);
        if !expired.more {
            break;
        }
    }
    println!(
        "{ended} rows ended in {:.2} s, {rounds} rounds of at most 1,000, the longest {:.1} ms; left: {:?}",
        (now() - start).as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        index.bytes().total()
    );
    index.close().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let distinct = arguments.iter().any(|argument| argument == "--distinct");
    let sizes: Vec<u64> = arguments
        .iter()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    for labels in if sizes.is_empty() {
        vec![100_000, 1_000_000]
    } else {
        sizes
    } {
        run(labels, distinct);
    }
}
