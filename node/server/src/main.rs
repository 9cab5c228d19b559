//! The `dirnode` binary: a directory node and the commands that talk to one.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dirnode_server::cli::main()
}
