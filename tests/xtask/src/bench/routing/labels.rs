//! Searches over labels of others, by gRPC, at several sizes of the index, beside an empty echo.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use dirnode_generator::Random;
use dirnode_proto::routing::v1::{RecordQuery, RecordQueryType, SearchRequest};
use prost::Message as _;

use super::super::claim::{number, ratio};
use super::super::echo::{self, EchoServer};
use super::super::machine;
use super::super::search::{ask, for_a_while};
use super::super::search_report::Asked;
use super::Programs;
use super::join::{Seeded, seed};
use super::spread::SEARCH;
use crate::process::{Join, Plan};

/// Name of the first kind, which is the floor of the others.
pub const ECHO: &str = "empty echo";
/// Results asked for.
const LIMIT: u32 = 20;
/// Different questions of each kind.
const QUESTIONS: usize = 512;
/// Callers of the busy runs.
const BUSY: usize = 64;
const WARMING: Duration = Duration::from_millis(300);

/// One size of the index.
#[derive(Debug)]
pub struct Level {
    pub seeded: Seeded,
    /// From the start of the process until it served, the index read.
    pub start_seconds: f64,
    /// Of the whole node, once it rests.
    pub resident_bytes: u64,
    /// By kind: one caller, many callers. The echo comes first.
    pub questions: Vec<(&'static str, Asked, Asked)>,
}

impl Level {
    /// Bytes of index memory for each label.
    pub fn bytes_per_label(&self) -> f64 {
        ratio(number(self.seeded.index_bytes), number(self.seeded.labels))
    }

    /// For the terminal.
    pub fn line(&self) -> String {
        let slowest = self.kinds().max_by_key(|(_, one, _)| one.rate.p99_us);
        let (name, p99) = slowest.map_or(("none", 0), |(name, one, _)| (*name, one.rate.p99_us));
        format!(
            "{} labels in {} rows: {:.0} bytes of index a label, {} MB resident; slowest p99 {p99} us ({name})",
            self.seeded.labels,
            self.seeded.rows,
            self.bytes_per_label(),
            self.resident_bytes / 1_000_000
        )
    }

    /// The kinds without the echo.
    pub fn kinds(&self) -> impl Iterator<Item = &(&'static str, Asked, Asked)> {
        self.questions.iter().filter(|(name, _, _)| *name != ECHO)
    }
}

/// A class as the seeder draws them.
fn class(random: &mut Random) -> String {
    let (top, leaf) = (
        random.below(15).min(random.below(15)),
        random.below(30).min(random.below(30)),
    );
    format!("category_{top}/class_{top}_{leaf}")
}

fn query(kind: RecordQueryType, value: impl Into<String>) -> RecordQuery {
    RecordQuery {
        r#type: kind.into(),
        value: value.into(),
    }
}

type Make = fn(&mut Random) -> (Vec<RecordQuery>, u32);

/// What is asked, and how many of the queries a record has to meet.
fn kinds() -> [(&'static str, Make); 8] {
    use RecordQueryType::{Domain, Locator, Module, Skill, Unspecified};
    [
        ("skill, exact", |random| (vec![query(Skill, class(random))], 1)),
        ("skill by ancestor", |random| {
            let class = class(random);
            let above = class.split_once('/').map_or(class.as_str(), |(above, _)| above);
            (vec![query(Skill, above)], 1)
        }),
        ("a label of a third of the rows", |_| {
            (vec![query(Locator, "docker_image")], 1)
        }),
        ("every row", |_| (vec![query(Unspecified, "")], 1)),
        ("two skills, either", |random| {
            (vec![query(Skill, class(random)), query(Skill, class(random))], 1)
        }),
        ("common and a third, both", |_| {
            (vec![query(Skill, "very/common"), query(Locator, "helm_chart")], 2)
        }),
        ("five of all kinds, two of them", |random| {
            let mut queries = vec![query(Skill, class(random)), query(Skill, class(random))];
            queries.push(query(Skill, "very"));
            queries.push(query(Domain, class(random)));
            queries.push(query(Module, "module_3"));
            (queries, 2)
        }),
        ("nothing", |random| {
            (vec![query(Skill, format!("none/{}", random.next()))], 1)
        }),
    ]
}

fn messages(make: Make) -> Arc<Vec<Bytes>> {
    let mut random = Random::new(3);
    let requests = (0..QUESTIONS).map(|_| {
        let (queries, least) = make(&mut random);
        SearchRequest {
            queries,
            min_match_score: Some(least),
            limit: Some(LIMIT),
        }
    });
    Arc::new(requests.map(|request| request.encode_to_vec().into()).collect())
}

/// A node with so many labels of others, asked for everything in turn.
pub async fn measure(
    programs: &Programs,
    dir: &Path,
    labels: u64,
    duration: Duration,
) -> anyhow::Result<Level> {
    let plan = Plan {
        binary: programs.node.clone(),
        data_dir: dir.join("searched"),
        log: dir.join("searched.log"),
        validation: "off",
        network: Some(Join::default()),
    };
    let seeded = seed(programs, &plan.data_dir, labels)?;
    let node = plan.start().await?;
    machine::wait_until_quiet(node.id());
    let resident_bytes = machine::resident_bytes(node.id());
    let echo = EchoServer::start()?;
    let mut subjects = vec![(ECHO, echo.address, echo::EMPTY, Arc::new(vec![Bytes::new()]))];
    for (name, make) in kinds() {
        subjects.push((name, node.address(), SEARCH, messages(make)));
    }
    let mut questions = Vec::new();
    for (name, address, method, messages) in subjects {
        let asked = async {
            ask(address, method, 1, &messages, for_a_while(WARMING)).await?;
            let one = ask(address, method, 1, &messages, for_a_while(duration)).await?;
            let many = ask(address, method, BUSY, &messages, for_a_while(duration)).await?;
            anyhow::Ok((one, many))
        };
        let (one, many) = asked
            .await
            .with_context(|| format!("{name}; the node's log ends:\n{}", plan.log_end()))?;
        questions.push((name, one, many));
    }
    let start_seconds = node.start_time.as_secs_f64();
    node.stop()?;
    std::fs::remove_dir_all(&plan.data_dir)?;
    Ok(Level {
        seeded,
        start_seconds,
        resident_bytes,
        questions,
    })
}
