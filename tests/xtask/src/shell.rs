//! Where the workspace lies, and how commands are run in it: shown before they start, named when they fail.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Set for the optimised copy of this program, so that it does not build again.
const BUILT: &str = "XTASK_BUILT";

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// The folder that cargo builds into.
pub fn target_dir() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("cannot tell where this program lies")?;
    let found = this.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(found.map_or_else(|| root().join("target"), Path::to_path_buf))
}

/// A folder for the data of one chore, made if need be.
pub fn work_dir(chore: &str) -> anyhow::Result<PathBuf> {
    let dir = target_dir()?.join("xtask").join(chore);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Cargo, as it called us.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(root());
    command
}

/// A command as it would be typed.
pub fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy();
    let mut line = program.into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        line.push(' ');
        if arg.contains([' ', '*', '"', '$']) || arg.is_empty() {
            line.push_str(&format!("'{arg}'"));
        } else {
            line.push_str(&arg);
        }
    }
    line
}

/// Shows a command, runs it with our own outputs, and fails when it does.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = line_of(command);
    println!("$ {line}");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{line}: {status}")
    }
}

/// Runs a command and returns its output; its errors are part of ours.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let line = line_of(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {line}"))?;
    if !output.status.success() {
        bail!(
            "{line}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds the node and gives the binary's path: optimised, or as tests run it.
///
/// An optimised run goes on in an optimised copy of this program, since it shares the machine with what it measures.
pub fn build_node(dev: bool) -> anyhow::Result<PathBuf> {
    if dev {
        run(cargo().args([
            "build",
            "--quiet",
            "--package",
            "dirnode-server",
            "--bin",
            "dirnode",
        ]))?;
        return Ok(target_dir()?.join("debug/dirnode"));
    }
    build_with(&[], &[])
}

/// Builds the node with optimisation, and beside it examples, by package and name, and the programs of more packages; gives
/// the path of the node. Goes on in an optimised copy of this program.
pub fn build_with(examples: &[(&str, &str)], packages: &[&str]) -> anyhow::Result<PathBuf> {
    let target = target_dir()?;
    if std::env::var_os(BUILT).is_none() {
        println!("building the node and this program with optimisation; the first time takes some minutes");
        // One command for all, so that cargo settles on one set of features and builds dependencies once.
        let mut build = cargo();
        build.args(["build", "--quiet", "--release", "--bins"]);
        for package in ["dirnode-server", "xtask"].iter().chain(packages) {
            build.args(["--package", *package]);
        }
        for (package, example) in examples {
            build.args(["--package", *package, "--example", *example]);
        }
        run(&mut build)?;
    }
    if cfg!(debug_assertions) {
        let mut copy = Command::new(target.join("release/xtask"));
        copy.args(std::env::args_os().skip(1)).env(BUILT, "1");
        return Err(copy.exec()).context("cannot start the optimised copy of this program");
    }
    Ok(target.join("release/dirnode"))
}

/// Whether a program is in the search path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}
