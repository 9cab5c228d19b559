//! `dirnode id`: who a node is to the network, asked of the node or read from its key.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use dirnode_identity::{from_path, peer_id_cid};
use serde_json::json;

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{lines, status_of};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "A node without routing.key_path keeps its key in its data folder, as identity.pem.\n\n\
    Examples:\n  \
    dirnode id\n  \
    dirnode id -o raw\n  \
    dirnode id --key ~/.local/share/dirnode/identity.pem      without a running node\n  \
    dirnode id -o json | jq -r '.addresses[0]'                an address to join through"
)]
pub(crate) struct Args {
    /// Read this key file rather than ask a node
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (peer, addresses) = match &args.key {
        Some(file) => (from_path(file)?.key.public().to_peer_id(), Vec::new()),
        None => ask(&args.server).await?,
    };
    let value = json!({
        "peer_id": peer.to_base58(),
        "cid": peer_id_cid(&peer),
        "addresses": addresses,
    });
    match args.output.or(Format::Human) {
        Format::Json => output::json(&value),
        Format::Jsonl => output::json_line(&value),
        Format::Raw => output::line(&peer.to_base58()),
        Format::Human => lines(&[("Peer id", peer.to_base58()), ("Addresses", addresses.join("\n"))]),
    }
}

async fn ask(server: &ServerArgs) -> anyhow::Result<(dirnode_identity::PeerId, Vec<String>)> {
    let client = Client::connect(server)
        .await
        .context("without a running node, name its key with --key FILE")?;
    let network = status_of(&client)
        .await?
        .network
        .ok_or_else(|| anyhow!("the network of this node is off (routing.enabled: false)"))?;
    let peer = dirnode_identity::parse_peer_id(&network.peer_id)?;
    Ok((peer, network.listening))
}
