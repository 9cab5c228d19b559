//! The processes under test, as the load sees them: one line in, one JSON object out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dirnode_network::Multiaddr;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Arguments that make this program one of the processes under test.
pub const NODE: &str = "node";
pub const FLOOR: &str = "floor";

/// Questions.
pub const STATUS: &str = "status";
pub const RESET: &str = "reset";

/// How long a process may take to stop changing its memory.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A process under test; killed when dropped.
pub struct Child {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where it listens, with its peer id.
    pub addr: Multiaddr,
}

impl Child {
    /// Starts one and waits for its address.
    pub fn start(kind: &str) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("the {kind} does not start"))?;
        let input = process.stdin.take().context("no standard input")?;
        let mut output = BufReader::new(process.stdout.take().context("no standard output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let addr = line
            .trim()
            .parse()
            .with_context(|| format!("the {kind} says {line:?}"))?;
        Ok(Self {
            process,
            input,
            output,
            addr,
        })
    }

    /// Asks one thing. It answers within a turn of its loop, so waiting in place is fine.
    pub fn ask(&mut self, question: &str) -> Result<Value> {
        writeln!(self.input, "{question}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the process under test has ended");
        serde_json::from_str(&line).with_context(|| format!("answered {line:?}"))
    }

    /// One number of its status.
    pub fn number(&mut self, name: &str) -> Result<u64> {
        let status = self.ask(STATUS)?;
        status
            .get(name)
            .and_then(Value::as_u64)
            .with_context(|| format!("{name} is not in {status}"))
    }

    /// Waits until a number of its status has grown to `wanted`; fails when it does not grow for ten seconds.
    pub async fn until(&mut self, name: &str, wanted: u64) -> Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = self.number(name)?;
            if now >= wanted {
                return Ok(());
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(10) {
                bail!("{name} stays at {now}, wanted {wanted}: {}", self.ask(STATUS)?);
            }
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Anonymous memory of the process in bytes, once it no longer changes by more than a part in a hundred.
    pub async fn memory(&self) -> Result<u64> {
        let begun = Instant::now();
        let mut last = self.memory_now()?;
        loop {
            sleep(Duration::from_secs(1)).await;
            let now = self.memory_now()?;
            if now.abs_diff(last) <= last / 100 || begun.elapsed() > SETTLE_LIMIT {
                return Ok(now);
            }
            last = now;
        }
    }

    fn memory_now(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: u64 = line
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .with_context(|| format!("{path} has no RssAnon"))?;
        Ok(kib * 1024)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers questions from standard input until it ends.
pub async fn answer(mut reply: impl AsyncFnMut(&str) -> Result<Value>) -> Result<()> {
    let (lines, mut asked) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = asked.recv().await {
        println!("{}", reply(line.trim()).await?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
