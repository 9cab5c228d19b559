//! Several nodes as processes that know one another, each of which can be killed and started again on its data.
//!
//! State: a temporary folder a node, the processes, and the connection to each. A node keeps its key, so its peer id, and
//! from its first start on its port, so that the others find it where it was.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::grpc::Client;
use crate::program::Program;
use crate::wait::eventually;

const STATUS: &str = "/dirnode.node.v1.NodeService/GetStatus";
/// From the start of a process to its place in the network, on a machine that does other things as well.
const UP_WITHIN: Duration = Duration::from_secs(60);

/// One node of a cluster.
pub struct Member {
    dir: TempDir,
    id: String,
    address: String,
    running: Mutex<Option<(Program, Client)>>,
}

impl Member {
    async fn start(dir: TempDir, bootstrap: &[String]) -> Self {
        let (program, client) = run(dir.path(), "/ip4/127.0.0.1/tcp/0", bootstrap).await;
        let (id, address) = eventually(UP_WITHIN, || async {
            let status = client.ask(STATUS, &[json!({})]).await;
            let status = status.map_err(|(_, text)| text)?;
            let network = &status[0]["network"];
            match (network["peer_id"].as_str(), network["listening"][0].as_str()) {
                (Some(id), Some(address)) => Ok((id.to_owned(), address.to_owned())),
                _ => Err(format!("it does not listen for peers: {network}")),
            }
        })
        .await;
        Self {
            dir,
            id,
            address,
            running: Mutex::new(Some((program, client))),
        }
    }

    /// Its peer id, the same over restarts.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where peers dial it, the same over restarts; the peer id stands at the end.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A connection; `None` while it is down.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(|(_, client)| client.clone())
    }

    /// One question, as a client asks that does not give up: again while the node is down or its answer is lost.
    ///
    /// # Panics
    /// If there is no answer before the deadline.
    pub async fn insist(&self, path: &str, body: &Json, deadline: Duration) -> Vec<Json> {
        eventually(deadline, || async {
            let client = self.client().ok_or_else(|| format!("{} is down", self.id))?;
            let answers = client.ask(path, std::slice::from_ref(body)).await;
            answers.map_err(|(code, text)| format!("{path} on {}: {code:?} {text}", self.id))
        })
        .await
    }

    /// Ends it without a chance to write anything more, and waits until the process is gone.
    pub async fn kill(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((program, _)) = running {
            program.kill().await;
        }
    }
}

/// Nodes that know one another.
pub struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    /// Starts so many nodes; the first is there for the others to join through.
    pub async fn start(count: usize) -> Self {
        let mut members: Vec<Member> = Vec::new();
        for _ in 0..count {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let known: Vec<String> = members
                .first()
                .map(|first| first.address.clone())
                .into_iter()
                .collect();
            members.push(Member::start(dir, &known).await);
        }
        Self { members }
    }

    /// Its nodes.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Starts a killed node again where it was; it joins through any of the others.
    pub async fn restart(&self, place: usize) {
        let member = &self.members[place];
        let others: Vec<String> = self
            .members
            .iter()
            .filter(|other| other.id != member.id)
            .map(|other| other.address.clone())
            .collect();
        let listen = member.address.split("/p2p/").next().unwrap_or_default();
        let started = run(member.dir.path(), listen, &others).await;
        *member.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(started);
    }

    /// The last lines that each running node has logged, for the text of a failure.
    #[must_use]
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for member in &self.members {
            let running = member.running.lock().unwrap_or_else(PoisonError::into_inner);
            let log = running
                .as_ref()
                .map(|(program, _)| program.log())
                .unwrap_or_default();
            let from = log.len().saturating_sub(lines);
            let _ = write!(text, "\n{}:\n{}", member.id, log[from..].join("\n"));
        }
        text
    }
}

async fn run(dir: &Path, listen: &str, bootstrap: &[String]) -> (Program, Client) {
    let bootstrap = bootstrap.join(",");
    let mut program = Program::start(
        dir,
        &[],
        &[
            ("DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS", listen),
            ("DIRECTORY_SERVER_ROUTING_BOOTSTRAP_PEERS", &bootstrap),
        ],
    );
    let client = program.client().await;
    (program, client)
}
