//! stub
#[derive(Debug, clap::Args)]
pub struct Args {}
pub fn serve(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
