//! stub
pub mod echo;
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  cargo xtask demo")]
pub struct Args {}
pub fn run(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
