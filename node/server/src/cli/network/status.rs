//! `dirnode status`: the state of a node and of its place in the network.

use dirnode_proto::node::v1::{GetStatusResponse, Network, Reachability, Role};
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{lines, status_of};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    dirnode status\n  \
    dirnode status -o json | jq .network.peers\n  \
    dirnode status -o raw                         ready, not ready or network off")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let status = status_of(&client).await?;
    match args.output.or(Format::Human) {
        Format::Json => output::json(&as_json(&status)),
        Format::Jsonl => output::json_line(&as_json(&status)),
        Format::Raw => output::line(verdict(status.network.as_ref())),
        Format::Human => lines(&facts(&status)),
    }
}

fn verdict(network: Option<&Network>) -> &'static str {
    match network {
        None => "network off",
        Some(network) if network.missing.is_empty() => "ready",
        Some(_) => "not ready",
    }
}

fn role(network: &Network) -> &'static str {
    match network.role() {
        Role::Bootstrap => "bootstrap",
        Role::Member => "member",
        Role::Unspecified => "unknown",
    }
}

fn reachability(network: &Network) -> &'static str {
    match network.reachability() {
        Reachability::Public => "public",
        Reachability::Private => "private",
        Reachability::Unspecified => "unknown",
    }
}

fn facts(status: &GetStatusResponse) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Agent", status.agent.clone()),
        (
            "Records",
            format!("{}, {} published", status.records, status.published),
        ),
    ];
    if let Some(announcing) = &status.announcing {
        let mut words = format!("{} not announced yet", announcing.open);
        if announcing.waiting_for_peers {
            words.push_str(": no peers yet");
        }
        if announcing.overdue > 0 {
            words.push_str(&format!(", {} due again", announcing.overdue));
        }
        if announcing.copying > 0 {
            words.push_str(&format!(", {} being copied from peers", announcing.copying));
        }
        facts.push(("Outbox", words));
    }
    let Some(network) = &status.network else {
        facts.push(("Network", "off".to_owned()));
        return facts;
    };
    let mut words = verdict(Some(network)).to_owned();
    if !network.missing.is_empty() {
        words = format!("{words}: {}", network.missing.join(", "));
    }
    facts.extend([
        ("Network", words),
        ("Degraded", network.degraded.join(", ")),
        ("Peer id", network.peer_id.clone()),
        ("Role", role(network).to_owned()),
        ("Listening", network.listening.join("\n")),
        ("External", network.external.join("\n")),
        ("Reachability", reachability(network).to_owned()),
        (
            "Peers",
            format!("{} on {} connections", network.peers, network.connections),
        ),
        (
            "Topic",
            format!(
                "{} peers, {} in the mesh",
                network.topic_peers, network.mesh_peers
            ),
        ),
        (
            "DHT",
            format!(
                "{} peers in the table, {} provider records, {} queries running, {} waiting",
                network.routing_table,
                network.provider_records,
                network.queries_running,
                network.queries_waiting
            ),
        ),
    ]);
    facts
}

fn as_json(status: &GetStatusResponse) -> Value {
    let network = status.network.as_ref().map(|network| {
        json!({
            "ready": network.missing.is_empty(),
            "missing": network.missing,
            "degraded": network.degraded,
            "peer_id": network.peer_id,
            "role": role(network),
            "listening": network.listening,
            "external": network.external,
            "reachability": reachability(network),
            "bootstrapped": network.bootstrapped,
            "peers": network.peers,
            "connections": network.connections,
            "routing_table": network.routing_table,
            "topic_peers": network.topic_peers,
            "mesh_peers": network.mesh_peers,
            "provider_records": network.provider_records,
            "queries_running": network.queries_running,
            "queries_waiting": network.queries_waiting,
        })
    });
    let announcing = status.announcing.as_ref().map(|announcing| {
        json!({
            "open": announcing.open,
            "waiting_for_peers": announcing.waiting_for_peers,
            "overdue": announcing.overdue,
            "copying": announcing.copying,
        })
    });
    json!({
        "agent": status.agent,
        "records": status.records,
        "published": status.published,
        "network": network,
        "announcing": announcing,
    })
}
