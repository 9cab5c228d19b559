//! The command line. Answers go to standard output, everything else to standard error; exit code 0 for success, 1 for
//! any error (operations §7.2).

mod client;
mod delete;
mod events;
mod filters;
mod index;
mod info;
mod inputs;
mod json;
mod network;
mod output;
mod pull;
mod push;
mod resolve;
mod routing;
mod run;
mod search;
mod store;
mod validate;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::output::Format;

/// A peer-to-peer Agent Directory node, and the commands that talk to one.
#[derive(Debug, Parser)]
#[command(
    name = "dirnode",
    version,
    about,
    arg_required_else_help = true,
    propagate_version = true
)]
#[command(after_help = "Examples:\n  \
    dirnode run                          start a node with its data in the default place\n  \
    dirnode push agent.json              store a record, print its CID\n  \
    dirnode pull CID > agent.json        read it back\n  \
    dirnode resolve example.org/agent    find records by name\n  \
    dirnode publish CID --wait           announce it to the network\n  \
    dirnode find --skill NAME            find what other nodes announce\n\n\
    Client commands talk to --server-addr, else DIRECTORY_CLIENT_SERVER_ADDRESS, else localhost:8888.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a directory node until it is stopped
    Run(run::Args),
    /// Store records; prints the CID of each
    Push(push::Args),
    /// Read a record by CID or name
    Pull(pull::Args),
    /// Show what is known about a record without its body
    Info(info::Args),
    /// Remove records and everything that hangs on them
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Follow what happens on a node
    Events(events::Args),
    /// Find records by name, latest stored first
    Resolve(resolve::Args),
    /// Find stored records by what they say
    #[command(disable_version_flag = true)]
    Search(search::SearchArgs),
    /// Count stored records by what they say
    #[command(disable_version_flag = true)]
    Count(search::CountArgs),
    /// List the records that the node announces
    List(search::ListArgs),
    /// Announce records to the network
    Publish(routing::publish::Args),
    /// Take records back from the network; they stay stored
    Unpublish(routing::unpublish::Args),
    /// Find records that other nodes announce
    Find(routing::find::Args),
    /// Show how far the news of records has come
    ProvideStatus(routing::provided::Args),
    /// The commands about the network's records under the names of the network's own command line
    #[command(subcommand)]
    Routing(routing::Command),
    /// Show who a node is to the network
    Id(network::id::Args),
    /// Show the state of a node and of its place in the network
    Status(network::status::Args),
    /// List the peers that a node is connected to
    Peers(network::peers::Args),
    /// Measure the round trip from a node to a peer
    Ping(network::ping::Args),
    /// Find out who provides a record, by the DHT
    FindProviders(network::providers::Args),
    /// Check records against the built-in OASF schemas, without a node
    Validate(validate::Args),
    /// Look after the data of a stopped node
    Store(store::Args),
    /// Look at the search index of a stopped node
    Index(index::Args),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  dirnode completions bash > /etc/bash_completion.d/dirnode")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Options of every command that talks to a node.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// Address of the node's gRPC API, host:port
    #[arg(
        long,
        visible_alias = "server-address",
        env = "DIRECTORY_CLIENT_SERVER_ADDRESS",
        default_value = "localhost:8888",
        value_name = "HOST:PORT"
    )]
    server_addr: String,
    /// Give up when the node has not answered for this many seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout: u64,
}

/// How the answer is printed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

impl OutputArgs {
    fn or(self, default: Format) -> Format {
        self.output.unwrap_or(default)
    }
}

/// Reads the arguments, does what they ask, says what went wrong.
#[must_use]
pub fn main() -> ExitCode {
    // A shell that asks for completions gets them and nothing else.
    clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            let _ = error.print();
            return if asked {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            };
        }
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// A reader that went away, such as `| head`, is no error of ours.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Push(args) => block_on(push::run(args)),
        Command::Pull(args) => block_on(pull::run(args)),
        Command::Info(args) => block_on(info::run(args)),
        Command::Delete(args) => block_on(delete::run(args)),
        Command::Events(args) => block_on(events::run(args)),
        Command::Resolve(args) => block_on(resolve::run(args)),
        Command::Search(args) => block_on(search::search(args)),
        Command::Count(args) => block_on(search::count(args)),
        Command::List(args) => block_on(search::list(args)),
        Command::Publish(args) => block_on(routing::publish::run(args)),
        Command::Unpublish(args) => block_on(routing::unpublish::run(args)),
        Command::Find(args) => block_on(routing::find::run(args)),
        Command::ProvideStatus(args) => block_on(routing::provided::run(args)),
        Command::Routing(command) => block_on(routing::run(command)),
        Command::Id(args) => block_on(network::id::run(args)),
        Command::Status(args) => block_on(network::status::run(args)),
        Command::Peers(args) => block_on(network::peers::run(args)),
        Command::Ping(args) => block_on(network::ping::run(args)),
        Command::FindProviders(args) => block_on(network::providers::run(args)),
        Command::Validate(args) => validate::run(&args),
        Command::Index(args) => block_on(index::run(args)),
        Command::Store(args) => store::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            let shells = clap_complete::env::Shells::builtins();
            let completer = shells
                .completer(&shell.to_string())
                .ok_or_else(|| anyhow::anyhow!("no completion script for {shell}"))?;
            completer.write_registration("COMPLETE", "dirnode", "dirnode", "dirnode", &mut script)?;
            std::io::stdout().write_all(&script)?;
            Ok(())
        }
    }
}

/// Client commands need no more than one thread.
fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            let has_example = |command: &clap::Command| {
                command
                    .get_after_help()
                    .is_some_and(|help| help.to_string().contains("Example"))
            };
            assert!(
                has_example(command) || command.get_subcommands().all(has_example),
                "{}",
                command.get_name()
            );
        }
    }
}
