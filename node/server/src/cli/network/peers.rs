//! `dirnode peers`: whom a node is connected to.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use dirnode_proto::node::v1::{Connection, Direction, ListPeersRequest, Peer};
use serde_json::{Value, json};

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{all, milliseconds, service};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "WAY is who dialled, and over what. IN says where the peer counts: in the DHT's table, on the topic of \
    labels, in the mesh of that topic.\n\n\
    Examples:\n  \
    dirnode peers\n  \
    dirnode peers -o raw | wc -l\n  \
    dirnode peers -o jsonl | jq -r 'select(.in_mesh) | .agent'"
)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::connect(&args.server).await?;
    let mut service = service(&client);
    let answer = async { all(service.list_peers(ListPeersRequest {}).await?.into_inner()).await };
    let peers = client.within(answer).await?;
    match args.output.or(Format::Human) {
        Format::Json => output::json(&peers.iter().map(as_json).collect()),
        Format::Jsonl => peers
            .iter()
            .try_for_each(|peer| output::json_line(&as_json(peer))),
        Format::Raw => peers.iter().try_for_each(|peer| output::line(&peer.peer_id)),
        Format::Human if peers.is_empty() => output::line("No peers found"),
        Format::Human => table(&peers),
    }
}

fn direction(connection: &Connection) -> &'static str {
    match connection.direction() {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
        Direction::Unspecified => "unknown",
    }
}

fn table(peers: &[Peer]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["PEER", "WAY", "RTT", "IN", "ADDRESS", "AGENT"]);
    for peer in peers {
        let each = |fact: &dyn Fn(&Connection) -> String| {
            peer.connections.iter().map(fact).collect::<Vec<_>>().join("\n")
        };
        let places = [
            (peer.in_routing_table, "table"),
            (peer.on_topic, "topic"),
            (peer.in_mesh, "mesh"),
        ];
        let places: Vec<&str> = places
            .iter()
            .filter_map(|(is, name)| is.then_some(*name))
            .collect();
        table.add_row([
            peer.peer_id.clone(),
            each(&|connection| format!("{} {}", direction(connection), connection.transport)),
            peer.rtt_microseconds.map_or_else(|| "-".to_owned(), milliseconds),
            places.join(" "),
            // The id stands at the beginning of the line already.
            each(&|connection| {
                let address = connection.address.split("/p2p/").next();
                let relayed = connection.transport == "relay";
                address
                    .filter(|_| !relayed)
                    .unwrap_or(&connection.address)
                    .to_owned()
            }),
            peer.agent.clone(),
        ]);
    }
    // An id that is broken over two lines is of no use to anybody.
    if let Some(ids) = table.column_mut(0) {
        ids.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
        .to_string()
        .lines()
        .try_for_each(|line| output::line(line.trim_end()))
}

fn as_json(peer: &Peer) -> Value {
    let connections: Vec<Value> = peer
        .connections
        .iter()
        .map(|connection| {
            json!({
                "address": connection.address,
                "direction": direction(connection),
                "transport": connection.transport,
            })
        })
        .collect();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "peer_id": peer.peer_id,
        "connections": connections,
        "addresses": peer.addresses,
        "protocols": peer.protocols,
        "agent": peer.agent,
        "rtt_microseconds": peer.rtt_microseconds,
        "directory_api_address": given(&peer.directory_api_address),
        "directory_oci_address": given(&peer.directory_oci_address),
        "in_routing_table": peer.in_routing_table,
        "on_topic": peer.on_topic,
        "in_mesh": peer.in_mesh,
        "score": peer.score,
    })
}
