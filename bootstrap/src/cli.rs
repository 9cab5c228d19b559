//! The command line: `run`, `keygen` and `id`, with the same flags for each.
//!
//! Gathers the layers of settings and hands them on. Answers go to standard output, problems to standard error; exit code
//! 0 is success and 1 any error.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use dirnode_identity::Loaded;

use crate::listing::{self, Listing};
use crate::settings::{Layers, MAX_FILE_BYTES, Remarks, Settings};
use crate::{logs, serve};

/// Where a configuration is looked for when none is named.
const DEFAULT_CONFIG: &str = "/etc/dirnode/bootstrap.yml";
/// Workers of the runtime: handshakes of newcomers go beside the routing of the others.
const WORKERS: usize = 2;
/// File writes and name lookups; both are rare.
const BLOCKING_THREADS: usize = 4;

#[derive(Debug, Parser)]
#[command(
    name = "dirnode-bootstrap",
    version,
    about = "A node of the Agent Directory network that others join through"
)]
#[command(
    after_help = "Every key of the file can be set by a variable DIRECTORY_SERVER_<KEY>, dots as underscores; \
    flags win over variables, variables over the file.\n\n\
    Examples:\n  \
    dirnode-bootstrap keygen /srv/bootstrap/identity.pem\n  \
    dirnode-bootstrap --data-dir /srv/bootstrap --announce /ip4/203.0.113.7/tcp/8999\n  \
    dirnode-bootstrap id --data-dir /srv/bootstrap --announce /dns4/boot.example.org/tcp/8999 --domain example.org\n  \
    dirnode-bootstrap run --listen /ip4/0.0.0.0/tcp/8999 --listen /ip4/0.0.0.0/udp/8999/quic-v1 --log-format json"
)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a bootstrap node until told to stop (also without any command)
    #[command(after_help = "Examples:\n  \
        dirnode-bootstrap run --data-dir /srv/bootstrap --announce /ip4/203.0.113.7/tcp/8999\n  \
        dirnode-bootstrap run --config bootstrap.yml --log-format json")]
    Run,
    /// Make the key, which is the node's identity, and print the peer id
    #[command(after_help = "An existing file is left alone, and that is an error.\n\n\
        Examples:\n  \
        dirnode-bootstrap keygen\n  \
        dirnode-bootstrap keygen /srv/bootstrap/identity.pem")]
    Keygen {
        /// The file [default: the key path of the settings]
        file: Option<PathBuf>,
    },
    /// Print the peer id, the addresses to join through and the DNS records for them
    #[command(after_help = "Examples:\n  \
        dirnode-bootstrap id --data-dir /srv/bootstrap --announce /ip4/203.0.113.7/tcp/8999\n  \
        dirnode-bootstrap id --key identity.pem --announce /dns4/boot.example.org/tcp/8999 --domain example.org\n  \
        dirnode-bootstrap id --listen /ip4/127.0.0.1/tcp/8999 -o json | jq -r '.addresses[0]'")]
    Id {
        /// How to print it
        #[arg(short, long, default_value = "human", value_name = "FORMAT")]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Lines to read and to paste
    Human,
    /// One JSON object: `peer_id`, `addresses`, `dns_records`
    Json,
}

#[derive(Debug, clap::Args)]
struct Flags {
    /// Configuration file (YAML); without it /etc/dirnode/bootstrap.yml is read if it is there
    #[arg(long, global = true, env = "DIRNODE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the key and the provider records
    /// [default: $XDG_DATA_HOME/dirnode-bootstrap or ~/.local/share/dirnode-bootstrap]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Key file, PKCS#8 or OpenSSH [default: identity.pem in the data folder]
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<String>,
    /// Address to listen on; may be repeated [default: /ip4/0.0.0.0/tcp/8999]
    #[arg(long, global = true, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Address that others dial, if it is another one; may be repeated
    #[arg(long, global = true, value_name = "MULTIADDR")]
    announce: Vec<String>,
    /// Other bootstrap node to stay connected to, ending in `/p2p/<id>`; may be repeated
    #[arg(long, global = true, value_name = "MULTIADDR")]
    bootstrap_peer: Vec<String>,
    /// Address of the metrics and health pages [default: :9090]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    metrics_address: Option<String>,
    /// Domain for the printed DNS records
    #[arg(long, global = true, value_parser = listing::parse_domain)]
    domain: Option<String>,
    /// debug, info, warn, error, or a filter
    #[arg(
        long,
        global = true,
        env = "DIRECTORY_LOGGER_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    log_level: String,
    /// text or json
    #[arg(
        long,
        global = true,
        env = "DIRECTORY_LOGGER_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        ignore_case = true
    )]
    log_format: logs::Format,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        None | Some(Command::Run) => run(&cli.flags),
        Some(Command::Keygen { file }) => keygen(&cli.flags, file.as_deref()),
        Some(Command::Id { output }) => id(&cli.flags, *output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let (settings, remarks, file) = settings(flags)?;
    logs::start(&flags.log_level, flags.log_format);
    match file {
        Some(file) => tracing::info!(component = "config", file = %file.display(), "configuration read"),
        None => tracing::info!(component = "config", "no configuration file, defaults are used"),
    }
    if !remarks.without_effect.is_empty() {
        let keys = remarks.without_effect.join(", ");
        tracing::info!(component = "config", %keys, "keys of a full node that have no effect here");
    }
    if !remarks.unknown.is_empty() {
        let keys = remarks.unknown.join(", ");
        tracing::warn!(component = "config", %keys, "unknown configuration keys are ignored");
    }
    let key = prepare_key(&settings)?;
    let print = (flags.log_format == logs::Format::Text).then(|| flags.domain.clone());
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?
        .block_on(serve::run(settings, key, print))
}

fn keygen(flags: &Flags, file: Option<&Path>) -> anyhow::Result<()> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => settings(flags)?.0.key_path,
    };
    make_folder_of(&path)?;
    let loaded = dirnode_identity::load_or_create(&path)?;
    let peer = loaded.key.public().to_peer_id();
    if !loaded.created {
        bail!(
            "{} holds a key already, that of {peer}; it was left alone",
            path.display()
        );
    }
    println!("{peer}");
    eprintln!("key written to {}", path.display());
    Ok(())
}

fn id(flags: &Flags, output: Output) -> anyhow::Result<()> {
    let (settings, ..) = settings(flags)?;
    if !settings.key_path.exists() {
        bail!(
            "there is no key at {}; make one with dirnode-bootstrap keygen, or name it with --key",
            settings.key_path.display()
        );
    }
    let peer = dirnode_identity::from_path(&settings.key_path)?
        .key
        .public()
        .to_peer_id();
    let network = &settings.network;
    let listing = Listing::new(peer, &network.announce, &network.listen, flags.domain.clone());
    match output {
        Output::Human => print!("{listing}"),
        Output::Json => println!("{:#}", listing.to_json()),
    }
    Ok(())
}

fn settings(flags: &Flags) -> anyhow::Result<(Settings, Remarks, Option<PathBuf>)> {
    let file = match &flags.config {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_CONFIG)).filter(|file| file.exists()),
    };
    let mut layers = Layers::default();
    if let Some(file) = &file {
        layers = layers
            .file(&file.display().to_string(), &read_bounded(file)?)
            .map_err(anyhow::Error::msg)?;
    }
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let layers = layers
        .env(variables)
        .flag("data_dir", flags.data_dir.clone())
        .flag("routing.key_path", flags.key.clone())
        .flags("routing.listen_address", flags.listen.clone())
        .flags("routing.announce_addresses", flags.announce.clone())
        .flags("routing.bootstrap_peers", flags.bootstrap_peer.clone())
        .flag("metrics.address", flags.metrics_address.clone());
    let (settings, remarks) = Settings::read(&layers, default_data_dir(|name| std::env::var(name).ok()))?;
    Ok((settings, remarks, file))
}

fn read_bounded(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read the configuration {}", file.display()))?;
    if read as u64 > MAX_FILE_BYTES {
        bail!(
            "the configuration {} is larger than {MAX_FILE_BYTES} bytes",
            file.display()
        );
    }
    Ok(text)
}

/// `$XDG_DATA_HOME/dirnode-bootstrap`, else `~/.local/share/dirnode-bootstrap`, else `./dirnode-bootstrap-data`.
fn default_data_dir(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    set("XDG_DATA_HOME")
        .map(|base| PathBuf::from(base).join("dirnode-bootstrap"))
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/share/dirnode-bootstrap")))
        .unwrap_or_else(|| PathBuf::from("dirnode-bootstrap-data"))
}

/// The node's key, made on the first start: an identity that changes at each start would break everybody's settings.
fn prepare_key(settings: &Settings) -> anyhow::Result<Loaded> {
    make_folder(&settings.data_dir)?;
    if let Some(providers) = &settings.network.providers_path {
        make_folder_of(providers)?;
    }
    make_folder_of(&settings.key_path)?;
    let path = settings.key_path.display();
    let loaded = dirnode_identity::load_or_create(&settings.key_path)?;
    if loaded.created {
        tracing::info!(component = "identity", file = %path, "key made; keep a copy, peers know this node by it");
    }
    if let Some(mode) = loaded.exposed_mode {
        tracing::warn!(component = "identity", file = %path, mode = format!("{mode:o}"), "others may read the key; set mode 600");
    }
    Ok(loaded)
}

fn make_folder_of(file: &Path) -> anyhow::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => make_folder(folder),
        _ => Ok(()),
    }
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_is_sound_and_shows_examples() {
        Cli::command().debug_assert();
        let cli = Cli::command();
        for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(help.contains("Examples"), "{}", command.get_name());
        }
    }

    #[test]
    fn flags_stand_before_or_behind_the_command() {
        for args in [
            &["dirnode-bootstrap", "--key", "k", "id"][..],
            &["dirnode-bootstrap", "id", "--key", "k"],
        ] {
            assert_eq!(Cli::parse_from(args).flags.key.as_deref(), Some("k"));
        }
        assert!(Cli::parse_from(["dirnode-bootstrap"]).command.is_none());
    }
}
