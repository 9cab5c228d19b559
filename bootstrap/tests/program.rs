//! The binary from outside: keys, listings, a run with its pages, and the end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: what does not hold ends it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dirnode-bootstrap"));
    command.args(args).env_remove("DIRNODE_CONFIG");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DIRECTORY_")) {
        command.env_remove(name);
    }
    command
}

fn run(args: &[&str]) -> Output {
    command(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_key_is_made_once_and_its_id_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let missing = run(&["id", "--data-dir", dir]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("keygen"), "{missing:?}");

    let made = run(&["keygen", "--data-dir", dir]);
    assert!(made.status.success(), "{made:?}");
    let peer = text(&made.stdout).trim().to_owned();
    let again = run(&["keygen", "--data-dir", dir]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains(&peer),
        "the error names whose key it is: {again:?}"
    );

    let announce = "/dns4/boot.example.org/tcp/8999";
    let listed = run(&[
        "id",
        "--data-dir",
        dir,
        "--announce",
        announce,
        "--domain",
        "example.org",
    ]);
    let listed = text(&listed.stdout);
    assert!(listed.contains(&format!("peer id: {peer}\n")), "{listed}");
    let record = format!("_dnsaddr.example.org. TXT \"dnsaddr={announce}/p2p/{peer}\"\n");
    assert!(listed.contains(&record), "{listed}");
}

#[test]
fn faults_are_reported_together_and_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let output = run(&[
        "--data-dir",
        dir.to_str().unwrap(),
        "--listen",
        "0.0.0.0:8999",
        "--bootstrap-peer",
        "/ip4/203.0.113.7/tcp/8999",
        "--metrics-address",
        "nine",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    for key in [
        "routing.listen_address",
        "routing.bootstrap_peers",
        "metrics.address",
    ] {
        assert!(told.contains(key), "{key} in {told}");
    }
    assert!(!dir.exists(), "nothing was made");
}

/// A running node and what it writes.
struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<serde_json::Value>,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let listen = [
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--listen",
            "/ip4/127.0.0.1/udp/0/quic-v1",
        ];
        Self::start_with(dir, &listen)
    }

    fn start_with(dir: &Path, more: &[&str]) -> Self {
        let dir = dir.to_str().unwrap();
        let mut args = vec![
            "run",
            "--data-dir",
            dir,
            "--metrics-address",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ];
        args.extend_from_slice(more);
        let mut child = command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        let (tell, lines) = sync_channel(4096);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The first log line with this message that `pick` takes.
    fn line<T>(&mut self, message: &str, pick: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        let fits = |line: &serde_json::Value| (line["message"] == message).then(|| pick(line)).flatten();
        if let Some(found) = self.seen.iter().find_map(fits) {
            return found;
        }
        loop {
            let Ok(line) = self.lines.recv_timeout(SOON) else {
                panic!("no {message:?} in {:#?}", self.seen);
            };
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            let found = fits(&line);
            self.seen.push(line);
            if let Some(found) = found {
                return found;
            }
        }
    }
}

impl Running {
    /// Where the pages are.
    fn pages(&mut self) -> String {
        self.line("listening", |line| {
            (line["component"] == "metrics").then(|| line["address"].as_str().unwrap().to_owned())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_node_listens_answers_its_pages_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Running::start(folder.path());
    let peer = node.line("starting", |line| line["peer"].as_str().map(str::to_owned));
    for transport in ["/tcp/", "/quic-v1"] {
        node.line("listening", |line| {
            let address = line["multiaddr"].as_str()?;
            (address.contains(transport) && address.ends_with(&peer)).then_some(())
        });
    }
    let pages = node.pages();
    assert!(get(&pages, "/healthz/live").starts_with("HTTP/1.1 200"));
    assert!(get(&pages, "/healthz/ready").starts_with("HTTP/1.1 200"));
    let metrics = get(&pages, "/metrics");
    assert!(
        metrics.contains("dirnode_bootstrap_announcements_total{reason=\"accepted\"} 0"),
        "{metrics}"
    );
    let terminated = Command::new("kill")
        .args(["-TERM", &node.child.id().to_string()])
        .status()
        .unwrap();
    assert!(terminated.success());
    node.line("stopped", |_| Some(()));
    assert_eq!(node.child.wait().unwrap().code(), Some(0));

    // The same key makes the same node.
    let mut again = Running::start(folder.path());
    let same = again.line("starting", |line| line["peer"].as_str().map(str::to_owned));
    assert_eq!(same, peer);
}

/// An address with a free port for the node whose key is in `dir`.
fn address(dir: &Path) -> (String, String) {
    let made = run(&["keygen", "--data-dir", dir.to_str().unwrap()]);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("/ip4/127.0.0.1/tcp/{}", free.local_addr().unwrap().port());
    let named = format!("{listen}/p2p/{}", text(&made.stdout).trim());
    (listen, named)
}

/// One list of bootstrap nodes for all of them, each being in it itself.
#[test]
fn two_nodes_that_name_each_other_are_ready_whoever_comes_first() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = [address(folders[0].path()), address(folders[1].path())];
    let flags = |listen| {
        [
            "--listen",
            listen,
            "--bootstrap-peer",
            &one.1,
            "--bootstrap-peer",
            &two.1,
        ]
    };
    let mut first = Running::start_with(folders[0].path(), &flags(&one.0));
    first.line("starting", |line| (line["role"] == "member").then_some(()));
    first.line("listening", |line| {
        (line["multiaddr"] == one.1.as_str()).then_some(())
    });
    let pages = first.pages();
    let alone = get(&pages, "/healthz/ready");
    assert!(alone.starts_with("HTTP/1.1 200"), "{alone}");
    assert!(
        alone.ends_with(&format!("ready\nnot connected: {}\n", two.1)),
        "{alone}"
    );

    let mut second = Running::start_with(folders[1].path(), &flags(&two.0));
    for pages in [pages, second.pages()] {
        let (mut page, mut waited) = (String::new(), Duration::ZERO);
        while !page.ends_with("\r\nready\n") {
            assert!(waited < SOON, "{page}");
            std::thread::sleep(PAUSE);
            waited += PAUSE;
            page = get(&pages, "/healthz/ready");
            assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        }
    }
}

#[test]
fn a_node_whose_list_has_nobody_but_itself_is_a_bootstrap_node() {
    let folder = tempfile::tempdir().unwrap();
    let (listen, named) = address(folder.path());
    let flags = ["--listen", &listen, "--bootstrap-peer", &named];
    let mut node = Running::start_with(folder.path(), &flags);
    node.line("starting", |line| (line["role"] == "bootstrap").then_some(()));
    node.line("listening", |line| {
        (line["multiaddr"] == named.as_str()).then_some(())
    });
    let page = get(&node.pages(), "/healthz/ready");
    assert!(page.ends_with("\r\nready\n"), "{page}");
}
