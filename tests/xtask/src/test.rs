//! `cargo xtask test`: every test of the workspace, and the second backend of the store.

use std::process::Command;

use anyhow::bail;

use crate::{clock, shell};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    cargo xtask test\n  \
    cargo xtask test -- canonical          only tests whose name has this\n  \
    cargo xtask test --release")]
pub struct Args {
    /// Test the optimised build
    #[arg(long)]
    release: bool,
    /// Handed to every test program
    #[arg(last = true, value_name = "ARGS")]
    rest: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let begun = clock::moment();
    // Black-box tests start the binary itself.
    let plans: [(&str, &[&str]); 3] = [
        (
            "build of the binary",
            &["build", "--package", "dirnode-server", "--bin", "dirnode"],
        ),
        ("tests of the workspace", &["test", "--workspace"]),
        (
            "tests of the store with fjall",
            &["test", "--package", "dirnode-store", "--features", "fjall"],
        ),
    ];
    let mut summary = Vec::new();
    let mut failed = false;
    for (name, plan) in plans {
        let begun = clock::moment();
        let outcome = shell::run(&mut command(args, plan));
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => summary.push(format!("  passed  {name} ({seconds:.0} s)")),
            Err(error) => {
                failed = true;
                summary.push(format!("  FAILED  {name} ({seconds:.0} s): {error:#}"));
                // Without a binary the rest says nothing new.
                if plan.first() == Some(&"build") {
                    break;
                }
            }
        }
    }
    println!(
        "\nsummary, {:.0} s:\n{}",
        begun.elapsed().as_secs_f64(),
        summary.join("\n")
    );
    if failed {
        bail!("not every test passed")
    } else {
        Ok(())
    }
}

fn command(args: &Args, plan: &[&str]) -> Command {
    let mut command = shell::cargo();
    command.args(plan);
    if args.release {
        command.arg("--release");
    }
    if plan.first() == Some(&"test") {
        // A failing crate does not hide what the others say.
        command.arg("--no-fail-fast");
        if !args.rest.is_empty() {
            command.arg("--").args(&args.rest);
        }
    }
    command
}
