//! A Go peer of the network as a process: built once from `tests/interop/goplay`, started, spoken to in JSON lines.
//!
//! Never part of a node. State: the binary below the target folder, named after the content it was built from; the
//! process, which ends when its value is dropped. The protocol of the pipe is told in `tests/interop/goplay/README.md`.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::program::profile_dir;
use crate::repository;
use crate::wait::within;

/// What a command may take when it says nothing else.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The peer ends a command at its own limit; its answer gets this much longer to travel on a busy machine.
const GRACE: Duration = Duration::from_secs(10);
/// From the start of the process to its `ready`.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Events kept for a test to look back at.
const MAX_EVENTS: usize = 20_000;

/// The Go peer's program, or why there is none.
///
/// Where it cannot be had, a test says so and passes; with `DIRNODE_REQUIRE_GO=1` that is a failure.
///
/// # Panics
/// If it is required and cannot be had.
#[must_use]
pub fn available() -> Option<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(built) {
        Ok(program) => Some(program.clone()),
        Err(problem) if std::env::var_os("DIRNODE_REQUIRE_GO").is_some_and(|value| value == "1") => {
            panic!("the Go peer is required and cannot be had: {problem}")
        }
        Err(problem) => {
            println!("SKIPPED: the Go peer cannot be had here, nothing was tried: {problem}");
            None
        }
    }
}

fn built() -> Result<PathBuf, String> {
    let source = repository().join("tests/interop/goplay");
    let target = profile_dir();
    let program = target.join(format!("goplay-{}", content_name(&source)?));
    if program.is_file() {
        return Ok(program);
    }
    // Two test programs may build at once; each renames its own file into place.
    let fresh = target.join(format!("goplay-building-{}", std::process::id()));
    let output = Command::new("go")
        .args(["build", "-buildvcs=false", "-o"])
        .arg(&fresh)
        .arg(".")
        .current_dir(&source)
        .output()
        .map_err(|error| format!("go does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "go build fails: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    std::fs::rename(&fresh, &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}

/// A name for everything the build reads.
fn content_name(source: &Path) -> Result<String, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", source.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(source)
        .map_err(problem)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("go" | "mod" | "sum"))
        })
        .collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update([0]);
        hash.update(std::fs::read(&file).map_err(problem)?);
    }
    Ok(hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// How a peer is started. The default listens on a free TCP port of loopback, as a reference node does: TLS only, no
/// mDNS.
#[derive(Debug, Clone, Default)]
pub struct Options {
    args: Vec<String>,
}

impl Options {
    /// A fresh set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, flag: &str, value: &str) -> Self {
        self.args.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Listen here; may be said several times.
    #[must_use]
    pub fn listen(self, address: &str) -> Self {
        self.with("-listen", address)
    }

    /// Listen on a free QUIC port of loopback.
    #[must_use]
    pub fn quic(self) -> Self {
        self.listen("/ip4/127.0.0.1/udp/0/quic-v1")
    }

    /// `tls`, `noise` or `both`.
    #[must_use]
    pub fn security(self, security: &str) -> Self {
        self.with("-security", security)
    }

    /// Key file, PKCS#8 PEM; made if missing.
    #[must_use]
    pub fn key(self, file: &Path) -> Self {
        self.with("-key", &file.display().to_string())
    }

    /// Dial this at the start.
    #[must_use]
    pub fn bootstrap(self, address: &str) -> Self {
        self.with("-bootstrap", address)
    }

    /// Advertise a Directory endpoint.
    #[must_use]
    pub fn directory(self, endpoint: &str) -> Self {
        self.with("-dir-addr", endpoint)
    }

    /// Advertise an OCI repository.
    #[must_use]
    pub fn oci(self, repository: &str) -> Self {
        self.with("-oci-addr", repository)
    }

    /// Keep the labels of others, unchecked, as a reference node does; [`GoPeer::search`] looks there.
    #[must_use]
    pub fn cache(mut self) -> Self {
        self.args.push("-cache".to_owned());
        self
    }

    /// Leave `GossipSub` out.
    #[must_use]
    pub fn no_gossip(mut self) -> Self {
        self.args.push("-no-gossip".to_owned());
        self
    }
}

/// What the peer has said so far.
#[derive(Debug, Default)]
struct Said {
    answers: HashMap<u64, Json>,
    /// Without the events that came first, should there be too many.
    events: Vec<Json>,
    ended: bool,
    errors: Vec<String>,
}

/// A running Go peer.
pub struct GoPeer {
    child: Child,
    input: Mutex<ChildStdin>,
    said: Arc<Mutex<Said>>,
    next_tag: AtomicU64,
    id: String,
    dial: Vec<String>,
    gossips: bool,
}

/// A provider as the DHT gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Peer id.
    pub peer: String,
    /// Addresses in text form, private ones included.
    pub addrs: Vec<String>,
    /// Directory endpoint among them, decoded.
    pub directory: Option<String>,
    /// OCI repository among them, decoded.
    pub oci: Option<String>,
}

/// What came back on a raw stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawAnswer {
    /// Bytes read.
    pub data: Vec<u8>,
    /// How it ended.
    pub end: End,
}

/// How a raw stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Orderly, by the other side.
    Closed,
    /// Reset by the other side.
    Reset,
    /// Neither: nothing more came.
    Open,
    /// Something else, in the peer's words.
    Other(String),
}

/// What to write on a raw stream and how.
#[derive(Debug, Clone, Default)]
pub struct Raw<'a> {
    /// Protocol to agree on first; without one the data begin with the multistream header.
    pub protocol: Option<&'a str>,
    /// Bytes to write.
    pub data: &'a [u8],
    /// Close our side afterwards.
    pub half_close: bool,
    /// Reset the stream right after writing.
    pub reset: bool,
    /// Bytes per write; 0: all at once.
    pub chunk_bytes: usize,
    /// Give up after a pause of this length; default one second.
    pub quiet: Option<Duration>,
}

impl GoPeer {
    /// Starts a peer and waits until it is ready. `None` where there is no Go; that has been said aloud.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(options: Options) -> Option<Self> {
        let program = available()?;
        let mut child = Command::new(program)
            .args(&options.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the Go peer starts");
        let input = child.stdin.take().expect("standard input is a pipe");
        let output = child.stdout.take().expect("standard output is a pipe");
        let errors = child.stderr.take().expect("standard error is a pipe");
        let said = Arc::new(Mutex::new(Said::default()));
        let hearer = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                hear(&hearer, &line);
            }
            lock(&hearer).ended = true;
        });
        let hearer = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let mut said = lock(&hearer);
                if said.errors.len() < MAX_EVENTS {
                    said.errors.push(line);
                }
            }
        });
        let mut peer = Self {
            child,
            input: Mutex::new(input),
            said,
            next_tag: AtomicU64::new(1),
            id: String::new(),
            dial: Vec::new(),
            gossips: !options.args.iter().any(|arg| arg == "-no-gossip"),
        };
        let ready = peer
            .event_within("ready", READY_WITHIN, |event| Some(event.clone()))
            .await;
        peer.id = text(&ready, "peer");
        peer.dial = texts(&ready["dial"]);
        Some(peer)
    }

    /// Its peer id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its full addresses, with `/p2p/`.
    #[must_use]
    pub fn dial(&self) -> &[String] {
        &self.dial
    }

    /// The first full address.
    #[must_use]
    pub fn address(&self) -> &str {
        self.dial.first().expect("the peer listens")
    }

    /// One command. Commands of several tasks run beside one another.
    ///
    /// # Errors
    /// The peer's own words, or that it did not answer or has ended.
    pub async fn ask(&self, op: &str, fields: Json) -> Result<Json, String> {
        self.ask_within(op, fields, ANSWER_WITHIN).await
    }

    /// As [`GoPeer::ask`], with a limit of its own.
    ///
    /// # Errors
    /// As [`GoPeer::ask`].
    pub async fn ask_within(&self, op: &str, fields: Json, limit: Duration) -> Result<Json, String> {
        let tag = self.next_tag.fetch_add(1, Ordering::Relaxed);
        let mut command = fields;
        command["op"] = op.into();
        command["tag"] = tag.into();
        command["timeout_ms"] = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).into();
        let line = format!("{command}\n");
        self.input
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_all(line.as_bytes())
            .map_err(|error| format!("{op}: the Go peer does not read: {error}"))?;
        let answer = within(limit + GRACE, || {
            let mut said = lock(&self.said);
            let answer = match said.answers.remove(&tag) {
                Some(answer) => Ok(Ok(answer)),
                None if said.ended => Ok(Err(format!("{op}: the Go peer has ended: {:?}", said.errors))),
                None => Err(format!("{op}: the Go peer does not answer")),
            };
            std::future::ready(answer)
        })
        .await??;
        if answer["ok"] == true {
            Ok(answer)
        } else {
            Err(format!("{op}: {}", text(&answer, "error")))
        }
    }

    /// As [`GoPeer::ask`], where a refusal ends the test.
    ///
    /// # Panics
    /// If the peer refuses.
    pub async fn must(&self, op: &str, fields: Json) -> Json {
        self.ask(op, fields)
            .await
            .unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Events so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Json> {
        lock(&self.said).events.clone()
    }

    /// The first event of this name, past or to come, that `pick` takes.
    ///
    /// # Panics
    /// If there is none before the deadline.
    pub async fn event<T>(&self, name: &str, pick: impl Fn(&Json) -> Option<T>) -> T {
        self.event_within(name, Duration::from_secs(30), pick).await
    }

    /// As [`GoPeer::event`], with a deadline of its own.
    ///
    /// # Panics
    /// As [`GoPeer::event`].
    pub async fn event_within<T>(
        &self,
        name: &str,
        deadline: Duration,
        pick: impl Fn(&Json) -> Option<T>,
    ) -> T {
        let found = within(deadline, || {
            let said = lock(&self.said);
            let named = said.events.iter().filter(|event| event["event"] == name);
            let found = match named.clone().find_map(&pick) {
                Some(found) => Ok(Ok(found)),
                None if said.ended => Ok(Err(format!(
                    "no {name:?} from the Go peer, it has ended: {:?}; {:?}",
                    said.events.last(),
                    said.errors
                ))),
                None => Err(format!(
                    "no fitting {name:?} from the Go peer; of that name: {:?}",
                    named.collect::<Vec<_>>()
                )),
            };
            std::future::ready(found)
        })
        .await;
        match found {
            Ok(Ok(found)) => found,
            Ok(Err(problem)) | Err(problem) => panic!("not so after {deadline:?}: {problem}"),
        }
    }

    /// Dials a full address.
    ///
    /// # Errors
    /// As [`GoPeer::ask`].
    pub async fn connect(&self, address: &str) -> Result<(), String> {
        self.ask("connect", json!({ "addr": address })).await.map(drop)
    }

    /// Closes every connection to a peer.
    pub async fn disconnect(&self, peer: &str) {
        self.must("disconnect", json!({ "peer": peer })).await;
    }

    /// Peers it is connected to.
    pub async fn connected(&self) -> Vec<String> {
        let answer = self.must("peers", json!({})).await;
        let peers = answer["peers"].as_array().cloned().unwrap_or_default();
        peers.iter().map(|peer| text(peer, "peer")).collect()
    }

    /// Its DHT routing table.
    pub async fn routing_table(&self) -> Vec<String> {
        texts(&self.must("routing_table", json!({})).await["peers"])
    }

    /// Peers it knows on the label topic.
    pub async fn topic_peers(&self) -> Vec<String> {
        texts(&self.must("topic_peers", json!({})).await["peers"])
    }

    /// Announces a CID to the peers nearest to it.
    ///
    /// # Errors
    /// As [`GoPeer::ask`].
    pub async fn provide(&self, cid: &str) -> Result<(), String> {
        self.ask("provide", json!({ "cid": cid })).await.map(drop)
    }

    /// Asks the DHT who has a CID.
    ///
    /// # Errors
    /// As [`GoPeer::ask`].
    pub async fn find_providers(&self, cid: &str, limit: usize) -> Result<Vec<Provider>, String> {
        let answer = self
            .ask("find_providers", json!({ "cid": cid, "limit": limit }))
            .await?;
        let found = answer["providers"].as_array().cloned().unwrap_or_default();
        Ok(found.iter().map(provider).collect())
    }

    /// Announces labels by gossip, now. Gives the number of peers on the topic.
    ///
    /// # Errors
    /// As [`GoPeer::ask`].
    pub async fn announce(&self, cid: &str, labels: &[&str]) -> Result<u64, String> {
        let answer = self
            .ask("announce_labels", json!({ "cid": cid, "labels": labels }))
            .await?;
        Ok(answer["topic_peers"].as_u64().unwrap_or(0))
    }

    /// Searches the labels it keeps by one query, `type` (skill, domain, module, locator, or empty for all) and value;
    /// gives each record found with the peer that has it.
    ///
    /// # Errors
    /// As [`GoPeer::ask`]: among others, without [`Options::cache`].
    pub async fn search(&self, kind: &str, value: &str) -> Result<Vec<(String, String)>, String> {
        let queries = json!([{ "type": kind, "value": value }]);
        let answer = self.ask("search", json!({ "queries": queries })).await?;
        let found = answer["results"].as_array().cloned().unwrap_or_default();
        Ok(found
            .iter()
            .map(|found| (text(found, "cid"), text(found, "peer")))
            .collect())
    }

    /// Serves a record; gives its CID.
    pub async fn serve_record(&self, record: &Json, annotations: &Json) -> String {
        let fields = json!({ "json": record, "annotations": annotations });
        text(&self.must("serve_record", fields).await, "cid")
    }

    /// Attaches a referrer to a served record; gives the referrer's CID.
    pub async fn serve_referrer(&self, cid: &str, kind: &str, data: &Json) -> String {
        let fields = json!({ "cid": cid, "type": kind, "json": data });
        text(&self.must("serve_referrer", fields).await, "referrer_cid")
    }

    /// Whether it takes part in gossip.
    #[must_use]
    pub fn speaks_gossip(&self) -> bool {
        self.gossips
    }

    /// From now on takes streams of a protocol and never says anything on them.
    pub async fn stand_still_on(&self, protocol: &str) {
        let fields = json!({"protocol": protocol, "hang": true});
        self.must("handle_raw", fields).await;
    }

    /// Writes bytes on a fresh stream and gives back what came.
    ///
    /// # Errors
    /// As [`GoPeer::ask`]: among others, when no stream could be had.
    pub async fn raw(&self, peer: &str, raw: Raw<'_>) -> Result<RawAnswer, String> {
        let quiet = raw.quiet.unwrap_or(Duration::from_secs(1));
        let fields = json!({
            "peer": peer,
            "protocol": raw.protocol.unwrap_or_default(),
            "raw": raw.protocol.is_none(),
            "data_b64": BASE64.encode(raw.data),
            "half_close": raw.half_close,
            "reset": raw.reset,
            "chunk_bytes": raw.chunk_bytes,
            "quiet_ms": u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX),
        });
        let answer = self.ask("stream_raw", fields).await?;
        let data = BASE64
            .decode(text(&answer, "data_b64"))
            .map_err(|error| error.to_string())?;
        let end = match text(&answer, "end").as_str() {
            "closed by the peer" => End::Closed,
            "reset by the peer" => End::Reset,
            "still open, nothing more came" | "still open at the deadline" => End::Open,
            other => End::Other(other.to_owned()),
        };
        Ok(RawAnswer { data, end })
    }
}

impl Drop for GoPeer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(said: &Mutex<Said>) -> std::sync::MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Files one line: an answer by its tag, everything else as an event.
fn hear(said: &Mutex<Said>, line: &str) {
    let Ok(line) = serde_json::from_str::<Json>(line) else {
        return;
    };
    let mut said = lock(said);
    if let Some(tag) = line["tag"].as_u64() {
        said.answers.insert(tag, line);
    } else {
        if said.events.len() >= MAX_EVENTS {
            said.events.drain(..MAX_EVENTS / 2);
        }
        said.events.push(line);
    }
}

fn text(value: &Json, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Json) -> Vec<String> {
    let entries = value.as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| entry.as_str().map(str::to_owned))
        .collect()
}

fn provider(value: &Json) -> Provider {
    let endpoint = |key: &str| value[key].as_str().map(str::to_owned);
    Provider {
        peer: text(value, "peer"),
        addrs: texts(&value["addrs"]),
        directory: endpoint("dir"),
        oci: endpoint("oci"),
    }
}
