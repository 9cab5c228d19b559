//! `cargo xtask demo`: the walk of the README with a node of its own. Every command is shown with its real output.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dirnode_generator::Generator;

use crate::process::Plan;
use crate::{clock, shell};

/// Lines of an output that are shown.
const SHOWN_LINES: usize = 16;
/// How long the events of the demo may take to arrive.
const EVENTS_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask demo\n  \
    cargo xtask demo --release\n  \
    cargo xtask demo --keep")]
pub struct Args {
    /// Use the optimised build
    #[arg(long)]
    release: bool,
    /// Leave the data folder behind and say where it is
    #[arg(long)]
    keep: bool,
}

/// Client commands against one node.
struct Client {
    binary: PathBuf,
    server: String,
}

impl Client {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("DIRECTORY_CLIENT_SERVER_ADDRESS", &self.server)
            .current_dir(shell::root());
        command
    }

    /// Shows a command and what it answers; gives the answer.
    fn show(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(args);
        println!("\n$ {}", shell::line_of(&command));
        let answer = shell::output(&mut command)?;
        let lines: Vec<&str> = answer.trim_end().lines().collect();
        for line in lines.iter().take(SHOWN_LINES) {
            println!("{line}");
        }
        if lines.len() > SHOWN_LINES {
            println!("… {} more lines", lines.len() - SHOWN_LINES);
        }
        Ok(answer)
    }

    /// Starts `dirnode events` and waits until it listens, which an event of its own tells.
    fn listen(&self) -> anyhow::Result<Listener> {
        let args = [
            "events",
            "--types",
            "RECORD_PUSHED,RECORD_DELETED",
            "-o",
            "jsonl",
            "--count",
            "2",
        ];
        let mut command = self.command(&args);
        println!("\n$ {} &", shell::line_of(&command));
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        Ok(Listener(child))
    }
}

/// A listener to events; killed when dropped.
struct Listener(Child);

impl Listener {
    /// Waits for the end of it and shows what it heard.
    fn show(mut self) -> anyhow::Result<()> {
        let output = self.0.stdout.take().context("the listener has no output")?;
        let ended = clock::eventually(EVENTS_LIMIT, || Ok(self.0.try_wait()?.is_some()))?;
        if !ended {
            bail!("the events of the demo did not arrive within {EVENTS_LIMIT:?}");
        }
        println!("\nwhat `dirnode events` heard:");
        for line in BufReader::new(output).lines() {
            println!("{}", line?);
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let binary = shell::build_node(!args.release)?;
    let work = tempfile::Builder::new().prefix("dirnode-demo-").tempdir()?;
    let samples = samples(work.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let plan = Plan {
        binary: binary.clone(),
        data_dir: work.path().join("data"),
        log: work.path().join("node.log"),
        validation: "builtin",
        network: None,
    };
    let start = || -> anyhow::Result<_> {
        println!("\n$ dirnode run --data-dir {} &", plan.data_dir.display());
        let node = runtime.block_on(plan.start())?;
        println!(
            "serving at {} after {:.0} ms",
            node.address(),
            node.start_time.as_secs_f64() * 1000.0
        );
        let client = Client {
            binary: binary.clone(),
            server: node.address().to_string(),
        };
        Ok((node, client))
    };

    println!("\n== a node, and records in it");
    let (node, client) = start()?;
    let paths: Vec<String> = samples.iter().map(|path| path.display().to_string()).collect();
    let push: Vec<&str> = ["push"]
        .into_iter()
        .chain(paths.iter().map(String::as_str))
        .collect();
    client.show(&push)?;
    let one = [push.get(..2).unwrap_or_default(), &["-o", "raw"]].concat();
    let pushed = client.show(&one)?;
    let cid = pushed
        .lines()
        .next()
        .context("push printed no CID")?
        .trim()
        .to_owned();
    client.show(&["info", &cid])?;
    let before = client.show(&["pull", &cid])?;
    let name = serde_json::from_str::<serde_json::Value>(&before)?
        .get("name")
        .and_then(|name| name.as_str().map(str::to_owned))
        .context("the sample has no name")?;
    client.show(&["resolve", &name])?;

    println!("\n== events");
    let listener = client.listen()?;
    let other = work.path().join("short-lived.json");
    std::fs::write(&other, Generator::new(8).make(8).canonical)?;
    let other = other.display().to_string();
    wait_for_subscriber(&listener)?;
    let short_lived = client.show(&["push", &other, "-o", "raw"])?;
    client.show(&["delete", short_lived.trim()])?;
    listener.show()?;

    println!("\n== kill -9, and everything is there");
    println!("\n$ kill -9 {}", node.id());
    node.kill()?;
    let (node, client) = start()?;
    if client.show(&["pull", &cid])? != before {
        bail!("{cid} changed over the crash");
    }
    println!("\nthe same record, byte for byte");
    let status = node.stop()?;
    println!("\n$ kill -TERM: the node stopped with {status}");
    client_less_verify(&binary, &plan.data_dir)?;
    if args.keep {
        println!("\nthe data stay in {}", work.keep().display());
    }
    Ok(())
}

/// The listener is subscribed when its process sleeps in the runtime's wait, which it reaches after the call was
/// answered. The node answers the call before it waits for events, so a moment without activity is proof enough.
fn wait_for_subscriber(listener: &Listener) -> anyhow::Result<()> {
    let stat = PathBuf::from(format!("/proc/{}/stat", listener.0.id()));
    let mut last = (String::new(), clock::moment());
    clock::eventually(Duration::from_secs(10), || {
        let now = std::fs::read_to_string(&stat).unwrap_or_default();
        if now != last.0 {
            last = (now, clock::moment());
        }
        Ok(last.1.elapsed() > Duration::from_millis(400))
    })?;
    Ok(())
}

fn client_less_verify(binary: &Path, data_dir: &Path) -> anyhow::Result<()> {
    println!();
    shell::run(
        Command::new(binary)
            .args(["store", "verify", "--data-dir"])
            .arg(data_dir),
    )
}

/// The sample records of the repository that are valid; a made one where there are none.
fn samples(work: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let root = shell::root();
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(root.join("tests/records"))
        .into_iter()
        .flatten()
    {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // Folders of samples may hold invalid ones on purpose.
        let valid = dirnode_record::Validator::builtin().validate_text(&std::fs::read(&path)?, None);
        if valid.is_ok_and(|report| report.is_valid()) {
            samples.push(path.strip_prefix(&root).map_or(path.clone(), Path::to_path_buf));
        }
    }
    samples.sort();
    if samples.is_empty() {
        let made = work.join("agent.json");
        std::fs::write(&made, Generator::new(1).make(3).canonical)?;
        samples.push(made);
    }
    Ok(samples)
}
