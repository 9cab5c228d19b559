//! A node as a child process: started on a free port, waited for, stopped in every way there is.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{clock, grpc};

/// How long a start may take. A node that replays a long journal on a slow disk needs seconds, not minutes.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long an orderly stop may take; a node drains for 10 s at most.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long a page of metrics may take.
const PAGE_LIMIT: Duration = Duration::from_secs(10);

/// What to start, and where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The `dirnode` binary.
    pub binary: PathBuf,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// File for its log; every start begins it anew. Not on the disk under test.
    pub log: PathBuf,
    /// `oasf_api_validation.mode`.
    pub validation: &'static str,
    /// Its part in a network on loopback; `None` is a node by itself.
    pub network: Option<Join>,
}

/// A node's part in a network on loopback: it takes peers in at a free port.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// Peers to join through; with none it is a bootstrap node.
    pub bootstrap: Vec<String>,
}

/// A running node; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: SocketAddr,
    /// Where its metrics are, for a node of a network.
    metrics: Option<SocketAddr>,
    /// From the start of the process until it served, by its own health service.
    pub start_time: Duration,
}

impl Plan {
    /// Starts the node on a free port and waits until it serves.
    ///
    /// # Errors
    /// When it ends or does not serve in time, with the end of its log.
    pub async fn start(&self) -> anyhow::Result<Node> {
        let begun = clock::moment();
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DIRECTORY_") {
                command.env_remove(name);
            }
        }
        match &self.network {
            None => command
                .env("DIRECTORY_SERVER_METRICS_ENABLED", "false")
                .env("DIRECTORY_SERVER_ROUTING_ENABLED", "false"),
            Some(join) => command
                .env("DIRECTORY_SERVER_METRICS_ADDRESS", "127.0.0.1:0")
                .env("DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS", "/ip4/127.0.0.1/tcp/0")
                .env(
                    "DIRECTORY_SERVER_ROUTING_BOOTSTRAP_PEERS",
                    join.bootstrap.join(","),
                ),
        };
        let child = command
            .args([
                "run",
                "--listen-address",
                "127.0.0.1:0",
                "--log-format",
                "json",
                "--data-dir",
            ])
            .arg(&self.data_dir)
            .env_remove("DIRNODE_CONFIG")
            .env("DIRECTORY_SERVER_STARTUP_RECORD_ENABLED", "false")
            .env("DIRECTORY_SERVER_OASF_API_VALIDATION_MODE", self.validation)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node = Node {
            child,
            address,
            metrics: None,
            start_time: Duration::ZERO,
        };
        node.address = self.wait_for_address(&mut node, "grpc")?;
        if self.network.is_some() {
            node.metrics = Some(self.wait_for_address(&mut node, "metrics")?);
        }
        self.wait_until_serving(&mut node).await?;
        node.start_time = begun.elapsed();
        Ok(node)
    }

    fn wait_for_address(&self, node: &mut Node, component: &str) -> anyhow::Result<SocketAddr> {
        let mut address = None;
        clock::eventually(START_LIMIT, || {
            self.check_alive(node)?;
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            address = listening_address(&log, component);
            Ok(address.is_some())
        })?;
        address.with_context(|| {
            format!(
                "the node does not listen after {START_LIMIT:?}; its log ends:\n{}",
                self.log_end()
            )
        })
    }

    async fn wait_until_serving(&self, node: &mut Node) -> anyhow::Result<()> {
        let begun = clock::moment();
        loop {
            self.check_alive(node)?;
            if node.is_serving().await {
                return Ok(());
            }
            if begun.elapsed() > START_LIMIT {
                bail!(
                    "the node is not ready after {START_LIMIT:?}; its log ends:\n{}",
                    self.log_end()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn check_alive(&self, node: &mut Node) -> anyhow::Result<()> {
        match node.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "the node ended at its start ({status}); its log ends:\n{}",
                self.log_end()
            ),
        }
    }

    /// The last lines of its log, indented.
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default();
        tail.iter().map(|line| format!("  {line}\n")).collect()
    }
}

/// The address in the log line of a component that tells of it.
fn listening_address(log: &str, component: &str) -> Option<SocketAddr> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|line| {
            let says =
                |key: &str, value: &str| line.get(key).and_then(serde_json::Value::as_str) == Some(value);
            if !(says("component", component) && (says("msg", "listening") || says("message", "listening"))) {
                return None;
            }
            line.get("address")?.as_str()?.parse().ok()
        })
}

/// The sum of the series of a metric on a page.
fn metric_of(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') {
            rest.split_once('}')?.1
        } else {
            rest
        };
        rest.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    values.reduce(|sum, value| sum + value)
}

impl Node {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// One of its metrics, the sum over the series that have labels; `None` if it has none of that name.
    ///
    /// # Errors
    /// When it serves no metrics, or does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let address = self.metrics.context("this node serves no metrics")?;
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut page = Vec::new();
        tokio::time::timeout(PAGE_LIMIT, stream.read_to_end(&mut page)).await??;
        Ok(metric_of(&String::from_utf8_lossy(&page), name))
    }

    /// A connection of its own.
    pub async fn connect(&self) -> anyhow::Result<Channel> {
        grpc::connect(self.address).await
    }

    async fn is_serving(&self) -> bool {
        let Ok(channel) = self.connect().await else {
            return false;
        };
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest {
                service: String::new(),
            })
            .await;
        answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let id = i32::try_from(self.child.id())?;
        Pid::from_raw(id).context("the child has no process id")
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops every thread of it where it stands.
    pub fn pause(&self) -> anyhow::Result<()> {
        pause(self.id())
    }

    /// Asks it to stop and waits.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        kill_process(self.pid()?, Signal::TERM)?;
        let mut ended = None;
        clock::eventually(STOP_LIMIT, || {
            ended = self.child.try_wait()?;
            Ok(ended.is_some())
        })?;
        ended.with_context(|| format!("the node did not stop within {STOP_LIMIT:?}"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGSTOP, and waits until no thread runs any more.
pub fn pause(id: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(id)?).context("no process id")?;
    kill_process(pid, Signal::STOP)?;
    let tasks = PathBuf::from(format!("/proc/{id}/task"));
    let still = clock::eventually(Duration::from_secs(10), || {
        for task in std::fs::read_dir(&tasks)? {
            // Threads that wait for the disk stop when it has answered.
            if !matches!(state_of(&task?.path()).as_deref(), Some("T" | "t" | "Z") | None) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    if still {
        Ok(())
    } else {
        bail!("process {id} does not stop")
    }
}

/// The third field of `stat`; the second, the name, may hold anything but ends with the last parenthesis.
fn state_of(task: &Path) -> Option<String> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .next()
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log() {
        let log = "no json\n{\"component\":\"metrics\",\"msg\":\"listening\",\"address\":\"127.0.0.1:1\"}\n\
                   {\"component\":\"grpc\",\"msg\":\"listening\",\"address\":\"127.0.0.1:4242\"}\n{\"component\":";
        let port = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(listening_address(log, "grpc"), port(4242));
        assert_eq!(listening_address(log, "metrics"), port(1));
        assert_eq!(listening_address("", "grpc"), None);
    }
    #[test]
    fn a_metric_is_the_sum_of_its_series() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP rows Rows.\nrows{kind=\"a\"} 3\nrows{kind=\"b c\"} 4\nrows_all 9\n";
        assert_eq!(metric_of(page, "rows"), Some(7.0));
        assert_eq!(metric_of(page, "rows_all"), Some(9.0));
        assert_eq!(metric_of(page, "row"), None);
    }
}
