//! The search index alone, over generated records: what it takes to build, what it weighs, how fast it answers.
//!
//! `cargo run --release -p dirnode-store --example index_bench -- 10000 100000 1000000`
//!
//! Rows are encoded in memory as a row store would hold them, and decoded while the index is filled in the order of the
//! digests. Queries with parameters take new ones each time.

#![expect(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark over data of its own making"
)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dirnode_generator::{Generator, Random};
use dirnode_store::index::{Prepared, RecordIndex, Source, count, search};
use dirnode_store::{Budget, Plan, Query, QueryKind, RecordCid, Sort, StoreConfig, StoreError, Summary};

// The node's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SAMPLES: u64 = 2000;
const THREADS: u64 = 2;
/// Records inserted one by one after the build, as pushes are.
const LATE: u64 = 10_000;

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

/// Time this thread was on a processor: what a build costs on a machine with other work.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = text.split_whitespace().next();
    Duration::from_nanos(first.and_then(|number| number.parse().ok()).unwrap_or(0))
}

struct World {
    index: RecordIndex,
    rows: HashMap<RecordCid, Box<[u8]>>,
}

impl Source for World {
    fn with_index<T>(&self, with: impl FnOnce(&RecordIndex) -> T) -> T {
        with(&self.index)
    }

    fn description(&self, cid: &RecordCid) -> Result<Option<String>, StoreError> {
        let row = self.rows.get(cid);
        Ok(row.and_then(|row| Some(postcard::from_bytes::<Summary>(row).ok()?.description)))
    }
}

fn generate(records: u64) -> Vec<(RecordCid, Box<[u8]>)> {
    let mut parts: Vec<Vec<(RecordCid, Box<[u8]>)>> = Vec::new();
    std::thread::scope(|scope| {
        let part = |thread: u64| {
            move || {
                let generator = Generator::new(1);
                let summarise = StoreConfig::new("unused").summarise;
                let from = records * thread / THREADS;
                let to = records * (thread + 1) / THREADS;
                (from..to)
                    .filter_map(|number| {
                        let made = generator.make(number);
                        let summary = summarise(&made.canonical)?;
                        let row = postcard::to_extend(&summary, Vec::new()).ok()?;
                        Some((made.cid, row.into_boxed_slice()))
                    })
                    .collect()
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(part(thread))).collect();
        parts.extend(threads.into_iter().filter_map(|thread| thread.join().ok()));
    });
    parts.into_iter().flatten().collect()
}

fn query(kind: QueryKind, value: impl Into<String>) -> Query {
    Query {
        kind,
        value: value.into(),
        negate: false,
    }
}

#[derive(Clone, Copy)]
enum Ask {
    Find { offset: u32 },
    FindPopular,
    Count,
}

type Make<'a> = Box<dyn Fn(&mut Random) -> Vec<Query> + 'a>;

fn cases<'a>(records: u64, names: &'a [String], skills: &'a [String]) -> Vec<(&'static str, Ask, Make<'a>)> {
    let find = Ask::Find { offset: 0 };
    let name = move |random: &mut Random| names[random.place(names.len())].clone();
    let skill = move |random: &mut Random| skills[random.place(skills.len())].clone();
    let parent = move |random: &mut Random| {
        let leaf = skill(random);
        leaf.rsplit_once('/')
            .map_or(leaf.clone(), |(above, _)| above.to_owned())
    };
    let deep = u32::try_from(records / 2).unwrap_or(u32::MAX);
    let letter = |random: &mut Random| char::from(b'a' + u8::try_from(random.below(26)).unwrap_or(0));
    let plain = |kind, value: String| vec![query(kind, value)];
    vec![
        (
            "exact name",
            find,
            Box::new(move |r| plain(QueryKind::Name, name(r))),
        ),
        (
            "skill, exact",
            find,
            Box::new(move |r| plain(QueryKind::SkillName, skill(r))),
        ),
        (
            "skill by ancestor",
            find,
            Box::new(move |r| plain(QueryKind::SkillName, parent(r) + "/*")),
        ),
        (
            "two kinds, both popular",
            find,
            Box::new(move |r| {
                vec![
                    query(QueryKind::SkillName, parent(r) + "/*"),
                    query(QueryKind::Author, "Labs"),
                ]
            }),
        ),
        (
            "two kinds, with a leaf",
            find,
            Box::new(move |r| {
                vec![
                    query(QueryKind::SkillName, skill(r)),
                    query(QueryKind::Version, "v1.*"),
                ]
            }),
        ),
        (
            "name prefix, popular",
            find,
            Box::new(move |r| plain(QueryKind::Name, format!("example.org/agents/{}*", letter(r)))),
        ),
        (
            "name prefix, rare",
            find,
            Box::new(move |r| {
                let name = name(r);
                plain(QueryKind::Name, name[..name.len() - 1].to_owned() + "*")
            }),
        ),
        (
            "name *b*, one letter",
            find,
            Box::new(move |r| plain(QueryKind::Name, format!("*{}*", letter(r)))),
        ),
        (
            "name *b*, five letters",
            find,
            Box::new(move |r| {
                let name = name(r);
                let at = name.len() - 8;
                plain(QueryKind::Name, format!("*{}*", &name[at..at + 5]))
            }),
        ),
        (
            "url *b*, six letters",
            find,
            Box::new(move |r| {
                let name = name(r);
                plain(QueryKind::Locator, format!("*{}*", &name[name.len() - 6..]))
            }),
        ),
        (
            "description *word*",
            find,
            Box::new(move |r| {
                let words = ["invoices", "forecast", "citations", "gentl", "tax forms"];
                plain(
                    QueryKind::Description,
                    format!("*{}*", words[r.place(words.len())]),
                )
            }),
        ),
        (
            "created at, range",
            find,
            Box::new(move |r| {
                vec![
                    query(QueryKind::CreatedAt, format!(">=2024-{:02}", 1 + r.below(6))),
                    query(QueryKind::CreatedAt, format!("<2025-{:02}", 1 + r.below(6))),
                ]
            }),
        ),
        (
            "negate",
            find,
            Box::new(move |r| {
                let mut not = query(QueryKind::SkillName, parent(r) + "/*");
                not.negate = true;
                vec![not, query(QueryKind::Version, "v2*")]
            }),
        ),
        ("everything", find, Box::new(|_| Vec::new())),
        (
            "everything, deep offset",
            Ask::Find { offset: deep },
            Box::new(|_| Vec::new()),
        ),
        (
            "ancestor, deep offset",
            Ask::Find { offset: deep / 50 },
            Box::new(move |r| plain(QueryKind::SkillName, parent(r) + "/*")),
        ),
        (
            "by popularity",
            Ask::FindPopular,
            Box::new(move |r| plain(QueryKind::SkillName, skill(r))),
        ),
        (
            "count, ancestor",
            Ask::Count,
            Box::new(move |r| plain(QueryKind::SkillName, parent(r) + "/*")),
        ),
        (
            "count, two kinds",
            Ask::Count,
            Box::new(move |r| {
                vec![
                    query(QueryKind::SkillName, skill(r)),
                    query(QueryKind::Author, "Granite"),
                ]
            }),
        ),
        (
            "count, name *b* of five",
            Ask::Count,
            Box::new(move |r| {
                let name = name(r);
                let at = name.len() - 8;
                plain(QueryKind::Name, format!("*{}*", &name[at..at + 5]))
            }),
        ),
    ]
}

/// What the insertion of one record costs an index that is in use.
fn insert_late(index: &mut RecordIndex, late: &[(RecordCid, Box<[u8]>)]) -> Result<(), postcard::Error> {
    let mut times = Vec::with_capacity(late.len());
    let first = index.newest_ns();
    for (at, (cid, row)) in (1..).zip(late) {
        let summary: Summary = postcard::from_bytes(row)?;
        let start = now();
        index.insert(*cid, first + at, row.len() as u64, &summary);
        times.push(now() - start);
    }
    let total: Duration = times.iter().sum();
    times.sort_unstable();
    let at = |place: usize| times[place.min(times.len() - 1)].as_secs_f64() * 1e6;
    println!(
        "insert one of {} more: {:.1} us on average, p50 {:.1}, p99 {:.1}, max {:.1}",
        late.len(),
        total.as_secs_f64() * 1e6 / late.len() as f64,
        at(times.len() / 2),
        at(times.len() * 99 / 100),
        at(times.len())
    );
    Ok(())
}

fn run(records: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut rows = generate(records + LATE);
    let late = rows.split_off(usize::try_from(records)?);
    let mut random = Random::of(2, 0);
    let mut names = Vec::new();
    let mut skills = Vec::new();
    for _ in 0..SAMPLES {
        let summary: Summary = postcard::from_bytes(&rows[random.place(rows.len())].1)?;
        names.push(summary.name);
        skills.extend(summary.skills.into_iter().map(|(name, _)| name).next());
    }
    let mut shuffled: Vec<usize> = (0..rows.len()).collect();
    shuffled.sort_unstable_by_key(|at| rows[*at].0);

    let memory = resident();
    let start = now();
    let mut busied = Duration::ZERO;
    let mut index = RecordIndex::waiting();
    for (at, (cid, row)) in (0..).zip(&rows) {
        index.insert_waiting(*cid, at, row.len() as u64);
    }
    index.begin();
    // As the store does: one thread reads rows and takes them apart, one fills the index.
    let (batches, arriving) = std::sync::mpsc::sync_channel::<Vec<(RecordCid, Prepared)>>(8);
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let batches = batches;
            for part in shuffled.chunks(256) {
                let batch = part.iter().filter_map(|at| {
                    let (cid, row) = &rows[*at];
                    Some((*cid, Prepared::new(postcard::from_bytes(row).ok()?)))
                });
                if batches.send(batch.collect()).is_err() {
                    break;
                }
            }
            busy()
        });
        let before = busy();
        for batch in arriving {
            for (cid, record) in &batch {
                index.fill(cid, record);
            }
        }
        let finishing = now();
        let mut longest = Duration::ZERO;
        loop {
            let begun = now();
            let more = index.finish_part();
            longest = longest.max(now() - begun);
            if !more {
                break;
            }
        }
        busied = busy().saturating_sub(before);
        (reader.join().unwrap_or_default(), now() - finishing, longest)
    });
    let built = now() - start;
    let grown = resident().saturating_sub(memory);
    let bytes = index.bytes();
    println!("\n{records} records");
    println!(
        "build {:.2} s: {:.2} s of work to read rows, {:.2} s to index them, the last {:.2} s in steps of at most {:.2} s; \
         {} bytes a record counted, {} by growth of anonymous memory",
        built.as_secs_f64(),
        read.0.as_secs_f64(),
        busied.as_secs_f64(),
        read.1.as_secs_f64(),
        read.2.as_secs_f64(),
        bytes.total() / records,
        grown / records
    );
    println!("{bytes:?}");
    insert_late(&mut index, &late)?;
    // One record in a hundred is used, some more than others.
    for number in 0..records / 100 {
        let (cid, _) = &rows[random.place(rows.len())];
        index.set_usage(cid, 1 + number % 50);
    }
    let world = World {
        index,
        rows: rows.into_iter().chain(late).collect(),
    };
    let budget = Budget::default();
    println!(
        "{:<26} {:>9} {:>9} {:>9}  results",
        "query", "p50 us", "p99 us", "max us"
    );
    for (name, ask, make) in cases(records, &names, &skills) {
        let mut times = Vec::new();
        let mut results = 0u64;
        for _ in 0..SAMPLES {
            let queries = make(&mut random);
            let start = now();
            let plan = Plan::parse(&queries)?;
            let (sort, offset) = match ask {
                Ask::Count => {
                    results += count(&world, &plan, &budget)?;
                    times.push(now() - start);
                    continue;
                }
                Ask::Find { offset } => (Sort::Recency, offset),
                Ask::FindPopular => (Sort::Popularity, 0),
            };
            let mut found = search(&world, &plan, sort, 20, offset, &budget)?;
            while let Some(page) = found.next_page(&world, 20)? {
                results += page.len() as u64;
            }
            times.push(now() - start);
        }
        times.sort_unstable();
        let at = |place: usize| times[place.min(times.len() - 1)].as_secs_f64() * 1e6;
        println!(
            "{name:<26} {:>9.1} {:>9.1} {:>9.1}  {:.1}",
            at(times.len() / 2),
            at(times.len() * 99 / 100),
            at(times.len()),
            results as f64 / SAMPLES as f64
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sizes: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|size| size.parse().ok())
        .collect();
    for size in if sizes.is_empty() {
        vec![10_000, 100_000]
    } else {
        sizes
    } {
        run(size)?;
    }
    Ok(())
}
