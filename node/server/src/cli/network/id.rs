//! `dirnode id`: who a node is to the network, asked of the node or read from its key.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use dirnode_identity::{PeerId, from_path, peer_id_cid};
use dirnode_network::{Multiaddr, Scope, scope};
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
    dirnode id -o json | jq -r '.addresses[0]'                an address to join through\n\n\
    Addresses that are announced or that peers have confirmed come first, then those that the node listens on: public ones, \
    private\nones, those of the machine itself last."
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

async fn ask(server: &ServerArgs) -> anyhow::Result<(PeerId, Vec<String>)> {
    let client = Client::connect(server)
        .await
        .context("without a running node, name its key with --key FILE")?;
    let network = status_of(&client)
        .await?
        .network
        .ok_or_else(|| anyhow!("the network of this node is off (routing.enabled: false)"))?;
    let peer = dirnode_identity::parse_peer_id(&network.peer_id)?;
    let addresses = to_join_through(peer, &network.external, &network.listening);
    Ok((peer, addresses))
}

/// The addresses that others can join through, the likeliest to reach the node first, each once and with its peer id.
fn to_join_through(peer: PeerId, external: &[String], listening: &[String]) -> Vec<String> {
    let external = external.iter().map(|text| (true, text));
    let listening = listening.iter().map(|text| (false, text));
    let mut ranked: Vec<_> = external
        .chain(listening)
        .filter_map(|(external, text)| {
            let address: Multiaddr = text.parse().ok()?;
            let reach = scope(&address);
            // Peers of the same machine confirm its loopback too, which is of use to nobody else.
            let rank = match (external, reach) {
                (_, Scope::Loopback) => 2,
                (true, _) => 0,
                (false, _) => 1,
            };
            let address = address.with_p2p(peer).ok()?;
            Some((rank, Reverse(reach), address.to_string()))
        })
        .collect();
    ranked.sort_by_key(|(rank, reach, _)| (*rank, *reach));
    let mut seen = BTreeSet::new();
    ranked
        .into_iter()
        .map(|(_, _, address)| address)
        .filter(|address| seen.insert(address.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(external: &[&str], listening: &[&str], expected: &[&str]) {
        let peer = PeerId::random();
        let own = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| format!("{text}/p2p/{peer}")).collect()
        };
        // The node tells listen addresses with its id, and the others without.
        let external: Vec<String> = external.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(to_join_through(peer, &external, &own(listening)), own(expected));
    }

    #[test]
    fn what_reaches_farthest_comes_first_and_the_machine_itself_last() {
        check(
            &[],
            &[
                "/ip4/127.0.0.1/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip4/8.8.8.8/tcp/1",
                "/ip4/192.168.1.9/tcp/1",
            ],
            &[
                "/ip4/8.8.8.8/tcp/1",
                "/ip4/172.17.0.1/tcp/1",
                "/ip4/192.168.1.9/tcp/1",
                "/ip4/127.0.0.1/tcp/1",
            ],
        );
        check(
            &["/ip4/10.0.0.7/tcp/4001", "/dns4/dir.example.org/tcp/4001"],
            &["/ip4/127.0.0.1/tcp/1", "/ip4/8.8.8.8/tcp/1"],
            &[
                "/dns4/dir.example.org/tcp/4001",
                "/ip4/10.0.0.7/tcp/4001",
                "/ip4/8.8.8.8/tcp/1",
                "/ip4/127.0.0.1/tcp/1",
            ],
        );
    }

    #[test]
    fn an_address_is_told_once_and_loopback_is_no_better_for_being_confirmed() {
        check(
            &["/ip4/127.0.0.1/tcp/1"],
            &["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.9/tcp/1"],
            &["/ip4/192.168.1.9/tcp/1", "/ip4/127.0.0.1/tcp/1"],
        );
        check(&["/ip4/127.0.0.1/tcp/1"], &[], &["/ip4/127.0.0.1/tcp/1"]);
        // A laboratory may use addresses that are meant for books.
        check(
            &[],
            &["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.2/tcp/1"],
            &["/ip4/192.0.2.2/tcp/1", "/ip4/127.0.0.1/tcp/1"],
        );
        check(&["no address"], &[], &[]);
    }

    #[test]
    fn a_relay_names_itself_and_the_node_behind_it() {
        let relay = format!("/ip4/8.8.8.8/tcp/1/p2p/{}/p2p-circuit", PeerId::random());
        check(
            &[&relay],
            &["/ip4/192.168.1.9/tcp/1"],
            &[&relay, "/ip4/192.168.1.9/tcp/1"],
        );
        let peer = PeerId::random();
        let of_another = format!("/ip4/8.8.8.8/tcp/1/p2p/{}", PeerId::random());
        assert!(to_join_through(peer, &[of_another], &[]).is_empty());
    }
}
