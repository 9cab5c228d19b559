//! The measurements of `bench store`, in the order in which they are made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use dirnode_generator::Generator;
use dirnode_proto::core::v1::RecordRef;
use prost::Message as _;

use super::StoreArgs;
use super::echo::{self, EchoServer};
use super::load::{Calls, Rate, ask_for, send_all};
use super::report::{Level, Reads, Report};
use super::{Scratch, machine};
use crate::clock;
use crate::process::{Node, Plan};

const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
const PULL: &str = "/agntcy.dir.store.v1.StoreService/Pull";
const LOOKUP: &str = "/agntcy.dir.store.v1.StoreService/Lookup";

/// Calls in flight of the concurrent runs.
pub const STREAMS: usize = 64;
/// Bodies of one run of the floor, and pushes of one run on one stream.
const SINGLE: u64 = 1000;
/// Pushes of one run on [`STREAMS`] streams.
const MANY: u64 = 4000;
/// Pushes between two looks at the store while it is filled.
const FILL: u64 = 10_000;
/// How long reads are asked for.
const READING: Duration = Duration::from_secs(3);
const WARMING: Duration = Duration::from_millis(500);

/// A node and the records that it was given.
struct Subject<'a> {
    node: Node,
    generator: &'a Generator,
    floor_dir: PathBuf,
    /// References of what is stored, encoded.
    references: Vec<Bytes>,
    stored_bytes: u64,
    next: &'a mut u64,
}

impl Subject<'_> {
    /// The next records, encoded, and their bodies.
    fn make(&mut self, count: u64) -> (Vec<Bytes>, Vec<Vec<u8>>) {
        let first = *self.next;
        *self.next += count;
        let made = (first..first + count).map(|number| self.generator.make(number));
        made.map(|made| {
            let reference = RecordRef {
                cid: made.cid.to_string(),
            };
            self.references.push(Bytes::from(reference.encode_to_vec()));
            self.stored_bytes += made.canonical.len() as u64;
            (Bytes::from(made.message), made.canonical)
        })
        .unzip()
    }

    async fn push(&mut self, streams: usize, count: u64) -> anyhow::Result<Rate> {
        let (messages, _) = self.make(count);
        send_all(self.node.address(), PUSH, streams, messages).await
    }

    fn settle(&self) -> Duration {
        machine::wait_until_quiet(self.node.id())
    }

    /// One run of each measurement, the node quiet before each.
    async fn one_run(&mut self) -> anyhow::Result<[Rate; 3]> {
        let (messages, bodies) = self.make(SINGLE);
        self.settle();
        let floor = machine::floor(&self.floor_dir, &bodies)?;
        let one = send_all(self.node.address(), PUSH, 1, messages).await?;
        self.settle();
        let many = self.push(STREAMS, MANY).await?;
        self.settle();
        Ok([floor, one, many])
    }

    /// Fills the store; gives the rate with everything that follows a push counted in.
    async fn fill(&mut self, until: u64) -> anyhow::Result<Option<f64>> {
        let (mut pushed, mut time) = (0, Duration::ZERO);
        while (self.references.len() as u64) < until {
            let count = (until - self.references.len() as u64).min(FILL);
            let (messages, _) = self.make(count);
            let begun = clock::moment();
            send_all(self.node.address(), PUSH, STREAMS, messages).await?;
            time += begun.elapsed();
            pushed += count;
        }
        time += self.settle();
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        Ok((pushed > 0).then(|| pushed as f64 / time.as_secs_f64()))
    }
}

/// Makes every measurement.
pub async fn measure(args: &StoreArgs, binary: &Path, dir: &Path) -> anyhow::Result<Report> {
    let scratch = Scratch::new(dir)?;
    let mut report = Report::new(machine::describe(dir), args.records, args.runs);
    println!("{}", report.machine);
    println!("load average before: {}", machine::load_average());

    let generator = Generator::new(1);
    let mut next = 0;
    let plan = |name: &str, validation| Plan {
        binary: binary.to_path_buf(),
        data_dir: scratch.path().join(name),
        log: scratch.path().join("node.log"),
        validation,
        network: None,
    };
    let floor_dir = scratch.path().join("floor");

    for validation in if args.reads_only {
        &[][..]
    } else {
        &["builtin", "off"]
    } {
        let mut runs = Vec::new();
        for run in 0..args.runs {
            let plan = plan(&format!("empty-{validation}-{run}"), validation);
            let node = plan.start().await?;
            let floor_dir = floor_dir.clone();
            let mut subject = Subject {
                node,
                generator: &generator,
                floor_dir,
                references: Vec::new(),
                stored_bytes: 0,
                next: &mut next,
            };
            runs.push(subject.one_run().await?);
            subject.node.stop()?;
            std::fs::remove_dir_all(&plan.data_dir)?;
        }
        let level = Level::new(0, None, runs);
        println!("empty store, validation {validation}: {}", level.line());
        if *validation == "off" {
            report.levels.push(level);
        } else {
            report.builtin = Some(level);
        }
    }

    let plan = plan("growing", "off");
    let node = plan.start().await?;
    let mut subject = Subject {
        node,
        generator: &generator,
        floor_dir,
        references: Vec::new(),
        stored_bytes: 0,
        next: &mut next,
    };
    if args.reads_only {
        subject.fill(args.records).await?;
        subject.settle();
    }
    let levels = [args.records / 10, args.records * 3 / 10, args.records];
    for level in if args.reads_only { &[][..] } else { &levels } {
        let filled = subject.fill(*level).await?;
        let stored = subject.references.len() as u64;
        let mut runs = Vec::new();
        for _ in 0..args.runs {
            runs.push(subject.one_run().await?);
        }
        let level = Level::new(stored, filled, runs);
        println!("{stored} records: {}", level.line());
        report.levels.push(level);
    }

    let reads = read(&subject, args.runs).await;
    (report.reads, report.fresh_reads) =
        reads.with_context(|| format!("the node's log ends:\n{}", plan.log_end()))?;
    println!("reads on long streams: {}", report.reads.line());
    println!("reads, a call each: {}", report.fresh_reads.line());
    subject.settle();
    report.stored = subject.references.len() as u64;
    report.stored_bytes = subject.stored_bytes;
    report.resident_bytes = machine::resident_bytes(subject.node.id());
    report.disk_bytes = machine::disk_bytes(&plan.data_dir)?;
    subject.node.stop()?;
    let node = plan.start().await?;
    report.restart = node.start_time;
    node.stop()?;
    report.load_average = machine::load_average();
    Ok(report)
}

async fn read(subject: &Subject<'_>, runs: u64) -> anyhow::Result<(Reads, Reads)> {
    let references = Arc::new(subject.references.clone());
    let empty = Arc::new(vec![Bytes::new()]);
    let echo = EchoServer::start()?;
    let node = subject.node.address();
    let runs_of = [
        (echo.address, echo::EMPTY, &empty),
        (echo.address, echo::RECORD, &references),
        (node, PULL, &references),
        (node, LOOKUP, &references),
    ];
    let mut reads = Vec::new();
    for calls in [Calls::Long, Calls::Fresh] {
        let mut rates: [Vec<Rate>; 4] = Default::default();
        // Memory and caches are warm before anything counts.
        for (address, method, messages) in runs_of {
            ask_for(address, method, calls, STREAMS, messages, WARMING).await?;
        }
        for _ in 0..runs {
            for ((address, method, messages), rates) in runs_of.into_iter().zip(&mut rates) {
                rates.push(ask_for(address, method, calls, STREAMS, messages, READING).await?);
            }
        }
        let [empty, record, pull, lookup] = rates.map(Rate::median);
        reads.push(Reads {
            empty,
            record,
            pull,
            lookup,
        });
    }
    let mut reads = reads.into_iter();
    Ok((reads.next().unwrap_or_default(), reads.next().unwrap_or_default()))
}
