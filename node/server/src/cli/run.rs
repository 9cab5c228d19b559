//! `dirnode run`: a node, until it is told to stop.

use std::path::PathBuf;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Layers, Remarks};
use crate::node::Node;
use crate::runtime;
use crate::telemetry::logs;

/// Where a configuration is looked for when none is named.
const DEFAULT_CONFIG: &str = "/etc/agntcy/dir/server.config.yml";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every key of the file can be set by a variable DIRECTORY_SERVER_<KEY>, dots as underscores; \
    flags win over variables, variables over the file.\n\n\
    Examples:\n  \
    dirnode run\n  \
    dirnode run --data-dir /srv/dirnode --listen-address 0.0.0.0:8888 --log-format json\n  \
    dirnode run --config server.config.yml\n  \
    dirnode run --bootstrap-peer /dns/bootstrap.example.org/tcp/8999/p2p/12D3KooW…\n  \
    DIRECTORY_SERVER_METRICS_ENABLED=false dirnode run"
)]
pub(crate) struct Args {
    /// Configuration file (YAML); without it /etc/agntcy/dir/server.config.yml is read if it is there
    #[arg(long, env = "DIRNODE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for everything the node keeps [default: $XDG_DATA_HOME/dirnode or ~/.local/share/dirnode]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address of the gRPC API [default: 0.0.0.0:8888]
    #[arg(long, value_name = "HOST:PORT")]
    listen_address: Option<String>,
    /// Where peers are taken in, a multiaddr, or several with commas [default: /ip4/0.0.0.0/tcp/8999]
    #[arg(long, value_name = "MULTIADDR")]
    peer_address: Option<String>,
    /// Join the network through this peer; may be given several times. Without any the node is a bootstrap node
    #[arg(long, value_name = "MULTIADDR/p2p/ID")]
    bootstrap_peer: Vec<String>,
    /// debug, info, warn, error, or a filter
    #[arg(long, env = "DIRECTORY_LOGGER_LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json
    #[arg(long, env = "DIRECTORY_LOGGER_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Append logs to this file rather than standard output
    #[arg(long, env = "DIRECTORY_LOGGER_LOG_FILE", value_name = "FILE")]
    log_file: Option<String>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (config, remarks, file) = read_config(&args)?;
    logs::start(&logs::Settings {
        level: args.log_level,
        format: args.log_format,
        file: args.log_file,
    });
    match file {
        Some(file) => tracing::info!(component = "config", file = %file.display(), "configuration read"),
        None => tracing::info!(component = "config", "no configuration file, defaults are used"),
    }
    if !remarks.without_effect.is_empty() {
        let keys = remarks.without_effect.join(", ");
        tracing::info!(component = "config", %keys, "keys that have no effect in this release");
    }
    for warning in &remarks.warnings {
        tracing::warn!(component = "config", "{warning}");
    }
    if !remarks.unknown.is_empty() {
        let keys = remarks.unknown.join(", ");
        tracing::warn!(component = "config", %keys, "unknown configuration keys are ignored");
    }
    tokio::runtime::Builder::new_multi_thread()
        // File reads run there; more threads than this only wait for the same disk.
        .max_blocking_threads(64)
        .enable_all()
        .build()?
        .block_on(async {
            let ended = serve(config).await;
            logs::flush();
            ended
        })
}

fn read_config(args: &Args) -> anyhow::Result<(Config, Remarks, Option<PathBuf>)> {
    let file = match &args.config {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.exists()),
    };
    let mut layers = Layers::default();
    if let Some(file) = &file {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the configuration {}", file.display()))?;
        layers = layers
            .file(&file.display().to_string(), &text)
            .map_err(anyhow::Error::msg)?;
    }
    let layers = layers
        .env(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
        .flag("data_dir", args.data_dir.clone())
        .flag("listen_address", args.listen_address.clone())
        .flag("routing.listen_address", args.peer_address.clone())
        .flag(
            "routing.bootstrap_peers",
            (!args.bootstrap_peer.is_empty()).then(|| args.bootstrap_peer.join(",")),
        );
    let (config, remarks) = Config::read(&layers)?;
    Ok((config, remarks, file))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let begun = runtime::moment();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut node = Node::start(config).await?;
    for address in node.addresses() {
        tracing::info!(component = "grpc", %address, start_ms = begun.elapsed().as_secs_f64() * 1000.0, "listening");
    }
    if let Some(address) = node.metrics_address() {
        tracing::info!(component = "metrics", %address, "listening");
    }
    let stopped_by = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        part = node.ended() => {
            // What was accepted is on disk; what can still be done in order is.
            let stopped = node.stop().await;
            tracing::error!(component = "node", part, clean = stopped.is_ok(), "a part of the node ended by itself");
            anyhow::bail!("the {part} ended by itself; the log says why");
        }
    };
    tracing::info!(component = "node", signal = stopped_by, "stopping");
    node.stop().await?;
    tracing::info!(component = "node", "stopped");
    Ok(())
}
