//! The chores of this workspace, one command each: `cargo xtask CHORE`. CI runs the same commands.
//!
//! They ask for a Rust toolchain and nothing else; what a chore needs besides, it fetches itself or says that it cannot
//! be had. Every chore ends with a non-zero exit code when something is wrong. Holds no state between runs besides
//! what lies under `target/xtask` and `target/tools`.

mod bench;
mod clock;
mod crash;
mod demo;
mod grpc;
mod lint;
mod process;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The chores of this workspace"
)]
#[command(arg_required_else_help = true)]
#[command(after_help = "Examples:\n  \
    cargo xtask test\n  \
    cargo xtask lint\n  \
    cargo xtask crash 20\n  \
    cargo xtask bench store --write-doc\n  \
    cargo xtask bench routing --check\n  \
    cargo xtask demo")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Run every test of the workspace
    Test(test::Args),
    /// Check format, lints, docs, licences and sources
    Lint(lint::Args),
    /// Kill a node under load, over and over, and look for what it lost
    Crash(crash::Args),
    /// Measure a node beside the floor of this machine
    Bench(bench::Args),
    /// Show a node at work: push, read, search by name, crash, read again
    Demo(demo::Args),
    /// A server that answers every empty message with one
    #[command(hide = true)]
    EchoServer(bench::echo::Args),
    /// The writer of the power-cut control
    #[command(hide = true)]
    SledWriter(crash::control::WriterArgs),
    /// The reader of the power-cut control
    #[command(hide = true)]
    SledReader(crash::control::ReaderArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().chore {
        Chore::Test(args) => test::run(&args),
        Chore::Lint(args) => lint::run(&args),
        Chore::Crash(args) => crash::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Demo(args) => demo::run(&args),
        Chore::EchoServer(args) => bench::echo::serve(&args),
        Chore::SledWriter(args) => crash::control::write(&args),
        Chore::SledReader(args) => crash::control::read(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_chore_is_sound_and_shows_examples() {
        Cli::command().debug_assert();
        let cli = Cli::command();
        for chore in cli.get_subcommands().filter(|chore| !chore.is_hide_set()) {
            let has_example = |command: &clap::Command| {
                command
                    .get_after_help()
                    .is_some_and(|help| help.to_string().contains("Example"))
            };
            assert!(
                has_example(chore) || chore.get_subcommands().all(has_example),
                "{}",
                chore.get_name()
            );
        }
    }
}
