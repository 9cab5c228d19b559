//! The measurements of `bench search`: a node is filled over gRPC and asked at three sizes, beside an empty echo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use dirnode_generator::{Generator, Random};
use dirnode_proto::Value;
use dirnode_proto::search::v1::{CountRecordsRequest, RecordQuery, RecordQueryType, SearchCiDsRequest};
use prost::Message as _;
use tokio::task::JoinSet;

use super::SearchArgs;
use super::echo::{self, EchoServer};
use super::load::{Rate, channels, send_all};
use super::search_report::{Asked, Beside, Level, Rebuilt, Report};
use super::{Scratch, machine};
use crate::clock;
use crate::grpc::call;
use crate::process::{Node, Plan};

const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
const SEARCH: &str = "/agntcy.dir.search.v1.SearchService/SearchCIDs";
const COUNT: &str = "/agntcy.dir.search.v1.SearchService/CountRecords";

/// Calls in flight of the busy runs.
const BUSY: usize = 64;
/// Pushes in flight beside them.
const PUSHING: usize = 16;
/// Pushes of one run beside searches, and of the run alone, at most; a fifth of what is stored where that is less.
const PUSHES: u64 = 20_000;
/// Streams that fill the store, and pushes that are prepared at once.
const FILLING: usize = 64;
const FILL: u64 = 10_000;
/// Different questions of each kind.
const QUESTIONS: usize = 512;
/// Results asked for.
const LIMIT: u32 = 20;
const WARMING: Duration = Duration::from_millis(300);

/// A kind of question with its encoded messages.
struct Kind {
    name: &'static str,
    method: &'static str,
    messages: Arc<Vec<Bytes>>,
}

/// Names and skills of records that are stored, to ask for.
struct Known<'a> {
    generator: &'a Generator,
    stored: u64,
    skills: Vec<String>,
    random: Random,
}

impl<'a> Known<'a> {
    fn of(generator: &'a Generator, stored: u64) -> Self {
        let mut random = Random::of(9, stored);
        let skills = (0..QUESTIONS).filter_map(|_| first_skill(generator, random.below(stored)));
        Self {
            skills: skills.collect(),
            generator,
            stored,
            random,
        }
    }

    fn name(&mut self) -> String {
        self.generator.name(self.random.below(self.stored))
    }

    /// The path above the leaf of a skill, with all that is below.
    fn ancestor(&mut self) -> String {
        let leaf = self.random.pick(&self.skills).map_or("", String::as_str);
        let above = leaf.rsplit_once('/').map_or(leaf, |(above, _)| above);
        format!("{above}/*")
    }

    fn letter(&mut self) -> char {
        char::from(b'a' + u8::try_from(self.random.below(26)).unwrap_or(0))
    }

    /// Five letters in the middle of a name.
    fn piece(&mut self) -> String {
        let name = self.name();
        let end = name.len().saturating_sub(3);
        name.get(end.saturating_sub(5)..end)
            .unwrap_or_default()
            .to_owned()
    }

    fn search(&mut self, offset: u64, mut ask: impl FnMut(&mut Self) -> Vec<RecordQuery>) -> Arc<Vec<Bytes>> {
        let requests = (0..QUESTIONS).map(|_| SearchCiDsRequest {
            queries: ask(self),
            limit: Some(LIMIT),
            offset: Some(u32::try_from(offset).unwrap_or(u32::MAX)),
            sort_mode: 0,
        });
        Arc::new(requests.map(|request| request.encode_to_vec().into()).collect())
    }

    fn count(&mut self, mut ask: impl FnMut(&mut Self) -> Vec<RecordQuery>) -> Arc<Vec<Bytes>> {
        let requests = (0..QUESTIONS).map(|_| CountRecordsRequest { queries: ask(self) });
        Arc::new(requests.map(|request| request.encode_to_vec().into()).collect())
    }

    fn kinds(&mut self) -> Vec<Kind> {
        use RecordQueryType::{Author, Name, SkillName, Version};
        let search = |name, messages| Kind {
            name,
            method: SEARCH,
            messages,
        };
        let count = |name, messages| Kind {
            name,
            method: COUNT,
            messages,
        };
        let deep = self.stored / 2;
        vec![
            search("exact name", self.search(0, |k| vec![query(Name, k.name())])),
            search(
                "skill by ancestor",
                self.search(0, |k| vec![query(SkillName, k.ancestor())]),
            ),
            search(
                "two kinds, AND",
                self.search(0, |k| {
                    vec![query(SkillName, k.ancestor()), query(Author, "Granite".into())]
                }),
            ),
            search(
                "name prefix `a*`",
                self.search(0, |k| {
                    vec![query(Name, format!("example.org/agents/{}*", k.letter()))]
                }),
            ),
            search(
                "name middle `*b*`, five letters",
                self.search(0, |k| vec![query(Name, format!("*{}*", k.piece()))]),
            ),
            search(
                "negate",
                self.search(0, |k| {
                    let mut not = query(SkillName, k.ancestor());
                    not.negate = true;
                    vec![not, query(Version, "v2*".into())]
                }),
            ),
            search("everything, deep offset", self.search(deep, |_| Vec::new())),
            search(
                "skill by ancestor, deep offset",
                self.search(deep / 50, |k| vec![query(SkillName, k.ancestor())]),
            ),
            count(
                "count, ancestor",
                self.count(|k| vec![query(SkillName, k.ancestor())]),
            ),
            count(
                "count, name middle `*b*`",
                self.count(|k| vec![query(Name, format!("*{}*", k.piece()))]),
            ),
        ]
    }
}

fn first_skill(generator: &Generator, number: u64) -> Option<String> {
    let record = generator.record(number);
    let Some(Value::List(skills)) = record.fields.get("skills") else {
        return None;
    };
    match skills.first()? {
        Value::Object(skill) => skill.get("name")?.as_str().map(str::to_owned),
        _ => None,
    }
}

fn query(kind: RecordQueryType, value: String) -> RecordQuery {
    RecordQuery {
        r#type: kind.into(),
        value,
        negate: false,
    }
}

/// Asks random ones of `messages`, a call each, with so many in flight, until `done`. Answers come with their number.
pub async fn ask(
    address: std::net::SocketAddr,
    method: &'static str,
    callers: usize,
    messages: &Arc<Vec<Bytes>>,
    done: impl Fn() -> bool + Clone + Send + 'static,
) -> anyhow::Result<Asked> {
    let mut tasks = JoinSet::new();
    let answers = Arc::new(AtomicU64::new(0));
    let begun = clock::moment();
    for (place, channel) in channels(address, callers).await?.into_iter().enumerate() {
        let (messages, answers, done) = (Arc::clone(messages), Arc::clone(&answers), done.clone());
        tasks.spawn(async move {
            let mut random = Random::of(begun.elapsed().subsec_nanos().into(), place as u64);
            let mut times = Vec::new();
            while !done() {
                let message = random.pick(&messages).context("nothing to ask")?.clone();
                let asked = clock::moment();
                let count = call(channel.clone(), method, message)
                    .await
                    .map_err(|status| anyhow!("{method}: {:?}: {}", status.code(), status.message()))?;
                times.push(u32::try_from(asked.elapsed().as_micros()).unwrap_or(u32::MAX));
                answers.fetch_add(count, Ordering::Relaxed);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    for part in tasks.join_all().await {
        times.extend(part?);
    }
    let calls = times.len() as u64;
    Ok(Asked {
        rate: Rate::new(times, begun.elapsed()),
        answers: answers.load(Ordering::Relaxed).checked_div(calls).unwrap_or(0),
    })
}

pub fn for_a_while(duration: Duration) -> impl Fn() -> bool + Clone + Send + 'static {
    let begun = clock::moment();
    move || begun.elapsed() >= duration
}

/// A node that is filled step by step.
struct Subject<'a> {
    plan: &'a Plan,
    node: Node,
    generator: &'a Generator,
    stored: u64,
    duration: Duration,
}

impl Subject<'_> {
    fn messages(&mut self, count: u64) -> Vec<Bytes> {
        let first = self.stored;
        self.stored += count;
        let numbers = first..first + count;
        numbers
            .map(|number| self.generator.make(number).message.into())
            .collect()
    }

    /// Fills the store; says how many records a second, with what follows a push.
    async fn fill(&mut self, until: u64) -> anyhow::Result<f64> {
        let (before, mut time) = (self.stored, Duration::ZERO);
        while self.stored < until {
            let messages = self.messages((until - self.stored).min(FILL));
            let begun = clock::moment();
            send_all(self.node.address(), PUSH, FILLING, messages).await?;
            time += begun.elapsed();
        }
        time += machine::wait_until_quiet(self.node.id());
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        Ok((self.stored - before) as f64 / time.as_secs_f64())
    }

    /// Stops the node, makes its index by the command for that, and starts it again.
    async fn rebuild(self) -> anyhow::Result<(Self, Rebuilt)> {
        let Self { plan, node, .. } = self;
        node.stop()?;
        let output = Command::new(&plan.binary)
            .args(["index", "rebuild", "--output", "json", "--data-dir"])
            .arg(&plan.data_dir)
            .output()?;
        ensure!(
            output.status.success(),
            "the index was not rebuilt: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let number = |key: &str| told.get(key).and_then(serde_json::Value::as_f64);
        let rebuilt = Rebuilt {
            seconds: number("seconds").context("no time is told")?,
            bytes_per_record: number("bytes_per_record").context("no size is told")?,
        };
        let node = plan.start().await?;
        let again = Self { node, ..self };
        again.wait_until_searchable().await?;
        Ok((again, rebuilt))
    }

    async fn wait_until_searchable(&self) -> anyhow::Result<()> {
        let begun = clock::moment();
        loop {
            let channel = self.node.connect().await?;
            match call(channel, COUNT, Bytes::new()).await {
                Ok(_) => return Ok(()),
                Err(status) if begun.elapsed() > Duration::from_secs(300) => {
                    return Err(anyhow!("the node does not search: {}", status.message()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Questions of every kind, one caller and many, the echo in turn with them.
    async fn questions(&self, echo: &EchoServer) -> anyhow::Result<Vec<(String, Asked, Asked)>> {
        let mut kinds = Known::of(self.generator, self.stored).kinds();
        kinds.insert(
            0,
            Kind {
                name: "empty echo",
                method: echo::EMPTY,
                messages: Arc::new(vec![Bytes::new()]),
            },
        );
        let mut asked = Vec::new();
        for kind in &kinds {
            let address = if kind.method == echo::EMPTY {
                echo.address
            } else {
                self.node.address()
            };
            ask(address, kind.method, 1, &kind.messages, for_a_while(WARMING)).await?;
            let one = ask(
                address,
                kind.method,
                1,
                &kind.messages,
                for_a_while(self.duration),
            )
            .await?;
            let many = ask(
                address,
                kind.method,
                BUSY,
                &kind.messages,
                for_a_while(self.duration),
            )
            .await?;
            println!(
                "  {}: 1 caller p50 {} us, p99 {} us; {BUSY} callers {:.0}/s, p50 {} us, p99 {} us; {} answers",
                kind.name,
                one.rate.p50_us,
                one.rate.p99_us,
                many.rate.per_second,
                many.rate.p50_us,
                many.rate.p99_us,
                one.answers
            );
            asked.push((kind.name.to_owned(), one, many));
        }
        Ok(asked)
    }

    /// Pushes alone, then beside searches of all kinds.
    async fn beside(&mut self) -> anyhow::Result<Beside> {
        let kinds = Known::of(self.generator, self.stored).kinds();
        let mixed: Vec<Bytes> = kinds
            .iter()
            .filter(|kind| kind.method == SEARCH)
            .flat_map(|kind| kind.messages.iter().cloned())
            .collect();
        let mixed = Arc::new(mixed);
        let pushes = PUSHES.min(self.stored / 5);
        let (first, second) = (self.messages(pushes), self.messages(pushes));
        let address = self.node.address();
        machine::wait_until_quiet(self.node.id());
        let alone = send_all(address, PUSH, PUSHING, first).await?;
        machine::wait_until_quiet(self.node.id());
        let pushed = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&pushed);
        let searching = ask(address, SEARCH, BUSY, &mixed, move || {
            done.load(Ordering::Relaxed)
        });
        let pushing = async {
            let rate = send_all(address, PUSH, PUSHING, second).await;
            pushed.store(true, Ordering::Relaxed);
            rate
        };
        let (searches, together) = tokio::join!(searching, pushing);
        Ok(Beside {
            alone,
            together: together?,
            searches: searches?.rate,
        })
    }
}

/// Makes every measurement.
pub async fn measure(args: &SearchArgs, binary: &Path, dir: &Path) -> anyhow::Result<Report> {
    let scratch = Scratch::new(dir)?;
    let mut report = Report::new(machine::describe(dir), args.records);
    println!("{}", report.machine);
    println!("load average before: {}", machine::load_average());
    let generator = Generator::new(1);
    let plan = Plan {
        binary: PathBuf::from(binary),
        data_dir: scratch.path().join("node"),
        log: scratch.path().join("node.log"),
        validation: "off",
        network: None,
    };
    let echo = EchoServer::start()?;
    let mut subject = Subject {
        node: plan.start().await?,
        plan: &plan,
        generator: &generator,
        stored: 0,
        duration: Duration::from_secs(args.seconds),
    };
    for level in [args.records / 100, args.records / 10, args.records] {
        let filled = subject.fill(level).await?;
        let stored = subject.stored;
        println!("{stored} records, filled at {filled:.0}/s");
        let (again, rebuilt) = subject.rebuild().await?;
        subject = again;
        println!(
            "  index: {:.0} bytes a record, made in {:.2} s",
            rebuilt.bytes_per_record, rebuilt.seconds
        );
        let questions = subject
            .questions(&echo)
            .await
            .with_context(|| format!("the node's log ends:\n{}", plan.log_end()))?;
        let beside = subject.beside().await?;
        println!("  {}", beside.line());
        report.levels.push(Level {
            stored,
            filled,
            rebuilt,
            resident_bytes: machine::resident_bytes(subject.node.id()),
            questions,
            beside,
        });
    }
    subject.node.stop()?;
    report.load_average = machine::load_average();
    Ok(report)
}
