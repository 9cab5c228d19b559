//! The `dirnode-bootstrap` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    dirnode_bootstrap::cli::main()
}
