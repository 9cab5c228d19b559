//! The real binary, as a server that can be killed and as a client command.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use crate::grpc::Client;
use crate::node::wait_serving;
use crate::wait::{eventually, within};

/// The `dirnode` binary beside the test, built from what is checked out.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("dirnode-server", "dirnode"))
}

/// The `dirnode-bootstrap` binary beside the test, built from what is checked out.
pub fn bootstrap_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("dirnode-bootstrap", "dirnode-bootstrap"))
}

/// The folder of the profile that the tests were built in, below the target folder.
#[must_use]
pub fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test knows itself");
    test.parent()
        .and_then(Path::parent)
        .expect("tests lie in target/PROFILE/deps")
        .to_owned()
}

fn built(package: &str, name: &str) -> PathBuf {
    let profile_dir = profile_dir();
    let target = profile_dir.parent().expect("a profile lies in the target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args([
            "build",
            "--quiet",
            "--package",
            package,
            "--bin",
            name,
            "--target-dir",
        ])
        .arg(target);
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    let status = build
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the binary does not build");
    profile_dir.join(name)
}

/// A command of the binary that knows nothing of the caller's settings.
#[must_use]
pub fn command() -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("DIRECTORY_") || name.starts_with("DIRNODE_"))
        {
            command.env_remove(name);
        }
    }
    command
}

/// What a client command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("output is text"),
            err: String::from_utf8(output.stderr).expect("errors are text"),
        }
    }
}

/// Runs a command with `stdin` as its standard input.
pub fn run(args: &[&str], stdin: &[u8], env: &[(&str, &str)]) -> Answer {
    let mut child = command()
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    let stdin = stdin.to_owned();
    // A command that does not read shall not hold the test up.
    let feeder = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let output = child.wait_with_output().expect("the binary ends");
    feeder.join().expect("the feeder ends");
    output.into()
}

/// A server in a process of its own.
pub struct Program {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Program {
    /// Starts `dirnode run` on `dir`: loopback, a network of its own, no metrics, no start-up record, JSON logs; `env` may say otherwise.
    pub fn start(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = command()
            .args(["run", "--log-format", "json", "--data-dir"])
            .arg(dir)
            .args(args)
            .env("DIRECTORY_SERVER_LISTEN_ADDRESS", "127.0.0.1:0")
            .env("DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS", "/ip4/127.0.0.1/tcp/0")
            .env("DIRECTORY_SERVER_METRICS_ENABLED", "false")
            .env("DIRECTORY_SERVER_STARTUP_RECORD_ENABLED", "false")
            .env("DIRECTORY_SERVER_STORE_ROW_CACHE_BYTES", "8388608")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        for pipe in [
            child
                .stdout
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
            child
                .stderr
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>),
        ] {
            let (pipe, lines) = (pipe.expect("output is a pipe"), Arc::clone(&lines));
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    lines.lock().expect("no reader panicked").push(line);
                }
            });
        }
        Self { child, lines }
    }

    /// Everything it has written so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lines.lock().expect("no reader panicked").clone()
    }

    /// Log events, each a JSON object.
    #[must_use]
    pub fn events(&self) -> Vec<Json> {
        self.log()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Where a component listens, once it does.
    pub async fn listening(&mut self, component: &str) -> String {
        let lines = Arc::clone(&self.lines);
        let found = within(Duration::from_secs(30), || {
            let lines = lines.lock().expect("no reader panicked").clone();
            let ended = self.child.try_wait().ok().flatten();
            async move {
                let address = lines
                    .iter()
                    .filter_map(|line| serde_json::from_str::<Json>(line).ok())
                    .find_map(|event| {
                        let is_it = event["message"] == "listening" && event["component"] == component;
                        is_it
                            .then(|| event["address"].as_str().map(str::to_owned))
                            .flatten()
                    });
                address
                    .ok_or_else(|| format!("{component} does not listen (ended: {ended:?}); log: {lines:#?}"))
            }
        });
        found.await.unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// A connection, once it serves.
    pub async fn client(&mut self) -> Client {
        let address = self.listening("grpc").await;
        let client = Client::connect(&address)
            .await
            .expect("the node takes connections");
        wait_serving(&client).await;
        client
    }

    /// The end of the world: no chance to write anything more.
    pub async fn kill(mut self) {
        self.child.kill().expect("the process is ours");
        self.ended(Duration::from_secs(10)).await;
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a process id is positive"))
            .expect("and not zero");
        kill_process(pid, Signal::TERM).expect("the process is ours");
    }

    /// Waits for its end.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let child = &mut self.child;
        eventually(deadline, || {
            let ended = child.try_wait().expect("the process is ours");
            async move { ended.ok_or_else(|| "the process runs".to_owned()) }
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
