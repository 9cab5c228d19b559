//! The `dirnode` binary: a directory node and the commands that talk to one.

use std::process::ExitCode;

fn main() -> ExitCode {
    dirnode_server::cli::main()
}
