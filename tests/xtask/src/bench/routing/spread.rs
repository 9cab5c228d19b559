//! How news spreads: one node publishes, the others are asked until they find it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use dirnode_generator::Generator;
use dirnode_proto::Value;
use dirnode_proto::core::v1::{Record, RecordRef};
use dirnode_proto::node::v1::node_service_client::NodeServiceClient;
use dirnode_proto::node::v1::{GetStatusRequest, Network};
use dirnode_proto::routing::v1::publish_request::Request as What;
use dirnode_proto::routing::v1::{PublishRequest, RecordQuery, RecordQueryType, RecordRefs, SearchRequest};
use dirnode_record::{RecordCid, to_canonical};
use prost::Message as _;
use serde::Deserialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::super::load::{Rate, send_all};
use super::{Programs, told};
use crate::clock;
use crate::grpc::call;
use crate::process::{Join, Node, Plan};

const PUSH: &str = "/agntcy.dir.store.v1.StoreService/Push";
const PUBLISH: &str = "/agntcy.dir.routing.v1.RoutingService/Publish";
pub const SEARCH: &str = "/agntcy.dir.routing.v1.RoutingService/Search";

/// How long the nodes may take to find each other.
const MEET_LIMIT: Duration = Duration::from_secs(120);
/// How long a record may take to be found everywhere before it counts as not found.
const FIND_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two questions, so that asking does not take the cores from those who are asked.
const ASK_PAUSE: Duration = Duration::from_millis(1);
/// Links that a node wants in its mesh.
const MESH: u32 = 6;

/// How far and how fast news came on real nodes.
#[derive(Debug, Default)]
pub struct Spread {
    pub nodes: u32,
    pub publishes: u32,
    /// Publishes that every other node found.
    pub found_by_all: u32,
    /// From the call of Publish to its answer.
    pub acknowledged: Rate,
    /// From the call of Publish until another node found the record, of every other node.
    pub searchable: Rate,
    /// The same for the last node of each publish.
    pub everywhere: Rate,
    /// One search that finds nothing, alone: what asking adds.
    pub asking: Rate,
    /// Announcement to event between two bare swarms.
    pub hop: Hop,
}

/// One hop of an announcement between two swarms of the network room, nothing above them.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Hop {
    #[serde(rename = "hop_p50_us")]
    pub p50_us: f64,
    #[serde(rename = "hop_p99_us")]
    pub p99_us: f64,
}

impl Spread {
    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "{} nodes: {} of {} publishes found on all; searchable after p50 {} us, p99 {} us; everywhere after p50 {} us, \
             p99 {} us; a bare hop {:.0}, {:.0} us",
            self.nodes,
            self.found_by_all,
            self.publishes,
            self.searchable.p50_us,
            self.searchable.p99_us,
            self.everywhere.p50_us,
            self.everywhere.p99_us,
            self.hop.p50_us,
            self.hop.p99_us
        )
    }
}

/// The same in a simulation whose links have delays.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Delayed {
    pub found: Times,
    pub floor: Times,
    pub nodes: u32,
}

/// Times in seconds.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Times {
    pub wanted: u64,
    pub there: u64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Delayed {
    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "simulated over delayed links, {} nodes: {} of {} found after p50 {:.3} s, p99 {:.3} s; the delays alone {:.3}, \
             {:.3} s",
            self.nodes,
            self.found.there,
            self.found.wanted,
            self.found.p50,
            self.found.p99,
            self.floor.p50,
            self.floor.p99
        )
    }
}

/// Runs the scenario of ten nodes over delayed links: the run of the four seeds whose p99 is the largest.
pub fn delayed(programs: &Programs, nodes: u32) -> anyhow::Result<Delayed> {
    let scenario = crate::shell::root().join("simulations/scenarios/ten-nodes.toml");
    let mut command = Command::new(&programs.simulator);
    command
        .args(["run", "--json", "--nodes", &nodes.to_string()])
        .arg(scenario);
    let runs: Vec<Delayed> = told(&mut command)?;
    runs.into_iter()
        .max_by(|one, other| one.found.p99.total_cmp(&other.found.p99))
        .context("the simulation ran no seed")
}

/// What a node says about its place in the network.
pub async fn status(node: &Node) -> anyhow::Result<Network> {
    let mut client = NodeServiceClient::new(node.connect().await?);
    let status = client.get_status(GetStatusRequest {}).await?.into_inner();
    status.network.context("the node is in no network")
}

/// Where a node can be dialled.
pub async fn dial_address(node: &Node) -> anyhow::Result<String> {
    let network = status(node).await?;
    let found = network
        .listening
        .into_iter()
        .find(|address| address.contains("/tcp/"));
    let address = found.context("the node listens nowhere")?;
    Ok(if address.contains("/p2p/") {
        address
    } else {
        format!("{address}/p2p/{}", network.peer_id)
    })
}

/// Records that each have a label of their own.
struct Subject {
    push: Bytes,
    publish: Bytes,
    search: Bytes,
}

fn subject(generator: &Generator, number: u32) -> anyhow::Result<Subject> {
    let mut record = generator.record(number.into());
    let name = format!("bench/announced-{number}");
    let module = Value::Object([("name".to_owned(), Value::String(name.clone()))].into());
    match record.fields.get_mut("modules") {
        Some(Value::List(modules)) => modules.push(module),
        _ => bail!("record {number} has no modules"),
    }
    let canonical = to_canonical(&record).map_err(|error| anyhow!("record {number}: {error}"))?;
    let refs = vec![RecordRef {
        cid: RecordCid::of(&canonical).to_string(),
    }];
    let query = RecordQuery {
        r#type: RecordQueryType::Module.into(),
        value: name,
    };
    Ok(Subject {
        push: Record::from(record).encode_to_vec().into(),
        publish: PublishRequest {
            request: Some(What::RecordRefs(RecordRefs { refs })),
        }
        .encode_to_vec()
        .into(),
        search: SearchRequest {
            queries: vec![query],
            min_match_score: None,
            limit: Some(1),
        }
        .encode_to_vec()
        .into(),
    })
}

async fn start(programs: &Programs, dir: &Path, nodes: u32) -> anyhow::Result<Vec<Node>> {
    let mut started: Vec<Node> = Vec::new();
    for number in 0..nodes {
        let bootstrap = match started.first() {
            Some(first) => vec![dial_address(first).await?],
            None => Vec::new(),
        };
        let plan = Plan {
            binary: programs.node.clone(),
            data_dir: dir.join(format!("node-{number}")),
            log: dir.join(format!("node-{number}.log")),
            validation: "off",
            network: Some(Join { bootstrap }),
        };
        started.push(plan.start().await?);
    }
    let begun = clock::moment();
    let wanted = (nodes - 1).min(MESH);
    for node in &started {
        loop {
            let network = status(node).await?;
            if network.topic_peers >= wanted && network.routing_table >= wanted {
                break;
            }
            ensure!(
                begun.elapsed() < MEET_LIMIT,
                "a node has {} peers on the topic and {} in its table after {MEET_LIMIT:?}, wanted {wanted}",
                network.topic_peers,
                network.routing_table
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(started)
}

fn micros(begun: std::time::Instant) -> u32 {
    u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX)
}

/// Asks until the record is found; `None` when it is not found in time.
async fn find(channel: Channel, search: Bytes, begun: std::time::Instant) -> anyhow::Result<Option<u32>> {
    while begun.elapsed() < FIND_LIMIT {
        let found = call(channel.clone(), SEARCH, search.clone()).await;
        if found.map_err(|status| anyhow!("{SEARCH}: {status}"))? > 0 {
            return Ok(Some(micros(begun)));
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Ok(None)
}

/// Publishes one record after the other, each on the next node.
pub async fn measure(programs: &Programs, dir: &Path, nodes: u32, publishes: u32) -> anyhow::Result<Spread> {
    let started = start(programs, dir, nodes).await?;
    println!("{nodes} nodes have met");
    let mut channels = Vec::new();
    for node in &started {
        channels.push(node.connect().await?);
    }
    let generator = Generator::new(5);
    let (mut acknowledged, mut searchable, mut everywhere, mut asking) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut found_by_all = 0;
    let all = clock::moment();
    for number in 0..publishes {
        let publisher = usize::try_from(number % nodes)?;
        let subject = subject(&generator, number)?;
        let node = started.get(publisher).context("no such node")?;
        send_all(node.address(), PUSH, 1, vec![subject.push]).await?;
        let mut others = Vec::new();
        for (place, channel) in channels.iter().enumerate() {
            let begun = clock::moment();
            let nothing = call(channel.clone(), SEARCH, subject.search.clone()).await;
            ensure!(
                nothing.map_err(|status| anyhow!("{SEARCH}: {status}"))? == 0,
                "a record is found that is not published"
            );
            asking.push(micros(begun));
            others.extend((place != publisher).then(|| channel.clone()));
        }
        let begun = clock::moment();
        let mut finding = JoinSet::new();
        for channel in others {
            finding.spawn(find(channel, subject.search.clone(), begun));
        }
        let channel = channels.get(publisher).context("no such node")?.clone();
        publish(channel, subject.publish).await.context(PUBLISH)?;
        acknowledged.push(micros(begun));
        let mut times = Vec::new();
        for found in finding.join_all().await {
            times.extend(found?);
        }
        if times.len() + 1 == started.len() {
            found_by_all += 1;
            everywhere.extend(times.iter().max());
        }
        searchable.extend(times);
    }
    let took = all.elapsed();
    for node in started {
        node.stop()?;
    }
    let hops: Vec<Hop> = told(Command::new(&programs.network).args([
        "--records",
        "100",
        "--messages",
        "100",
        "--connections",
        "1",
        "--calls",
        "10",
    ]))?;
    Ok(Spread {
        nodes,
        publishes,
        found_by_all,
        acknowledged: Rate::new(acknowledged, took),
        searchable: Rate::new(searchable, took),
        everywhere: Rate::new(everywhere, took),
        asking: Rate::new(asking, took),
        hop: hops.into_iter().next().context("the bare hop was not measured")?,
    })
}

async fn publish(channel: Channel, request: Bytes) -> anyhow::Result<()> {
    // A unary answer reads like a stream of one.
    let answers = call(channel, PUBLISH, request)
        .await
        .map_err(|status| anyhow!("{:?}: {}", status.code(), status.message()))?;
    ensure!(answers == 1, "{answers} answers");
    Ok(())
}
