//! The settings of a node: what each room wants, gathered from one YAML file, the environment and the flags.
//!
//! Key names, types and defaults: operations §1. Every key has a default of its own, whatever its siblings say. All
//! faults are reported at once, each with path, value, source and remedy, before any port opens.

mod duration;
mod keys;
mod routing;
mod source;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use routing::Routing;
pub use source::{Fault, Faults, Layers, Remarks};

/// Everything `dirnode run` needs to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `listen_address`: host and port of the gRPC API.
    pub listen_address: String,
    /// `data_dir`, else `store.oci.local_dir`: the folder that holds everything the node keeps. The OCI layout is its
    /// `oci` folder.
    pub data_dir: PathBuf,
    /// `store.row_cache_bytes`: memory the row store may use for its cache.
    pub row_cache_bytes: u64,
    /// `oasf_api_validation`: how records are checked on push.
    pub validation: Validation,
    /// `connection`: limits of one connection and one message.
    pub connection: Connection,
    /// `ratelimit`: calls per second.
    pub rate_limit: RateLimit,
    /// `metrics.address`, unless `metrics.enabled` is false.
    pub metrics_address: Option<String>,
    /// `healthcheck_address`: HTTP liveness and readiness, as older releases had it.
    pub health_address: Option<String>,
    /// `events`: buffers of subscribers.
    pub events: Events,
    /// `routing`: the node's part in the network.
    pub routing: Routing,
    /// `startup_record.enabled`: whether the node describes itself in its own directory.
    pub startup_record: bool,
}

/// How records are checked on push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// With the schemas in the binary; no network.
    Builtin,
    /// By a schema server, one request a push.
    Remote {
        /// Its base URL, with scheme.
        url: String,
    },
    /// Only what the record model itself asks.
    Off,
}

/// Limits of one connection and one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Calls at once on one connection.
    pub max_concurrent_streams: u32,
    /// Largest message taken in.
    pub max_recv_msg_size_bytes: usize,
    /// Largest message sent.
    pub max_send_msg_size_bytes: usize,
    /// Oldest a connection may get before it is asked to reconnect.
    pub max_connection_age: Duration,
    /// Time for calls to end after that.
    pub max_connection_age_grace: Duration,
    /// Pause after which the server asks whether a silent client lives.
    pub keepalive_time: Duration,
    /// How long it waits for the answer.
    pub keepalive_timeout: Duration,
}

/// Calls per second; a rate of zero is no limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RateLimit {
    /// Whether any of it holds.
    pub enabled: bool,
    /// All callers together.
    pub global: Rate,
    /// Each caller.
    pub per_client: Rate,
    /// Each caller on one method, by full method name; wins over the others.
    pub methods: Vec<(String, Rate)>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rate {
    /// Tokens per second; zero means no limit.
    pub per_second: f64,
    /// Size of the bucket; zero with a rate rejects everything.
    pub burst: u32,
}

/// Buffers of event subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// Events that wait for one subscriber; beyond it they are dropped for that subscriber.
    pub subscriber_buffer_size: usize,
    /// Log a warning when that happens.
    pub log_slow_consumers: bool,
    /// Log every event.
    pub log_published_events: bool,
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// Every fault of every key, together.
    pub fn read(layers: &Layers) -> Result<(Self, Remarks), Faults> {
        keys::read(layers)
    }
}

/// Where data goes when nothing says otherwise: `$XDG_DATA_HOME/dirnode`, else `~/.local/share/dirnode`, else
/// `./dirnode-data`.
#[must_use]
pub fn default_data_dir(env: impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    set("XDG_DATA_HOME")
        .map(|base| PathBuf::from(base).join("dirnode"))
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share/dirnode")))
        .unwrap_or_else(|| PathBuf::from("dirnode-data"))
}

/// Resolves `host:port` to every address it names. `localhost` is loopback, an empty host every interface.
///
/// # Errors
/// A sentence naming the value when it has no port or does not resolve.
pub async fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let full = if address.starts_with(':') {
        format!("0.0.0.0{address}")
    } else {
        address.to_owned()
    };
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host(full.as_str())
        .await
        .map_err(|error| {
            format!("cannot resolve {address:?}: {error}; give host:port, such as 127.0.0.1:8888")
        })?
        .collect();
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(format!("{address:?} names no address"));
    }
    Ok(found)
}
