//! `cargo xtask bench bootstrap`: how small the bootstrap node is, on disk and in memory, with nobody there.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::machine;
use crate::{clock, shell};

const MIB: f64 = 1024.0 * 1024.0;
/// The binary of the profile `small`, stripped.
const MAX_BINARY_BYTES: u64 = 15 * 1024 * 1024;
/// Resident memory of a node that listens and has no peers.
const MAX_RESIDENT_BYTES: u64 = 20 * 1024 * 1024;
/// From the start of the process to its first open address.
const START_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail when the binary or its memory is larger than wanted
    #[arg(long)]
    check: bool,
}

/// Builds, starts, waits until it rests, measures.
///
/// # Errors
/// When it does not build or start, and with `--check` when it is too large.
pub fn run(args: &Args) -> anyhow::Result<()> {
    println!("building the bootstrap node with the profile `small`; the first time takes some minutes");
    let build = [
        "build",
        "--quiet",
        "--profile",
        "small",
        "--package",
        "dirnode-bootstrap",
    ];
    shell::run(shell::cargo().args(build))?;
    let binary = shell::target_dir()?.join("small/dirnode-bootstrap");
    let binary_bytes = std::fs::metadata(&binary)?.len();
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let mut node = Started(start(&binary, folder.path(), &log)?);
    let listens = clock::eventually(START_LIMIT, || {
        if let Some(status) = node.0.try_wait()? {
            bail!(
                "the bootstrap node ended at once, {status}: {}",
                std::fs::read_to_string(&log)?
            );
        }
        let text = std::fs::read_to_string(&log)?;
        Ok(text.contains("/quic-v1") && text.contains("/tcp/"))
    })?;
    if !listens {
        bail!(
            "the bootstrap node does not listen: {}",
            std::fs::read_to_string(&log)?
        );
    }
    machine::wait_until_quiet(node.0.id());
    let resident_bytes = machine::resident_bytes(node.0.id());
    println!("| what | measured | wanted |\n|---|---|---|");
    let mut missed = Vec::new();
    for (what, bytes, limit) in [
        (
            "binary of the profile `small`, stripped",
            binary_bytes,
            MAX_BINARY_BYTES,
        ),
        (
            "resident memory, listening on TCP and QUIC, no peers",
            resident_bytes,
            MAX_RESIDENT_BYTES,
        ),
    ] {
        println!("| {what} | {:.1} MiB | under {:.0} MiB |", mib(bytes), mib(limit));
        if bytes >= limit {
            missed.push(what);
        }
    }
    if args.check && !missed.is_empty() {
        bail!("larger than wanted: {}", missed.join(", "));
    }
    Ok(())
}

fn start(binary: &Path, folder: &Path, log: &Path) -> anyhow::Result<Child> {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DIRECTORY_") {
            command.env_remove(name);
        }
    }
    command
        .args([
            "run",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--listen",
            "/ip4/127.0.0.1/udp/0/quic-v1",
        ])
        .args([
            "--metrics-address",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--data-dir",
        ])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(File::create(log)?)
        .spawn()
        .with_context(|| format!("{} does not start", binary.display()))
}

#[expect(clippy::cast_precision_loss, reason = "sizes are printed with one decimal")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// Killed when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
