//! `dirnode ping`: how far a peer is from a node.

use std::time::Duration;

use anyhow::bail;
use dirnode_proto::node::v1::PingRequest;
use serde_json::json;

use super::super::client::Client;
use super::super::output::{self, Format};
use super::super::{OutputArgs, ServerArgs};
use super::{milliseconds, service};

/// Between two pings.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The node dials the peer when they are not connected, and asks the DHT where it is when it does not know.\nExit code 1 when no ping is answered.\n\n\
    Examples:\n  \
    dirnode ping 12D3KooW…\n  \
    dirnode ping /dns/bootstrap.example.org/tcp/8999/p2p/12D3KooW…\n  \
    dirnode ping 12D3KooW… --count 10 -o jsonl | jq .rtt_microseconds"
)]
pub(crate) struct Args {
    /// Peer id, or an address with a peer id at its end
    #[arg(value_name = "PEER")]
    peer: String,
    /// How many times, a second apart
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let format = args.output.or(Format::Human);
    let client = Client::connect(&args.server).await?;
    let mut service = service(&client);
    let (mut answered, mut values) = (0_u32, Vec::new());
    for number in 0..args.count {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let request = client.request(PingRequest {
            peer: args.peer.clone(),
        });
        let pong = match client.within(service.ping(request)).await {
            Ok(pong) => pong.into_inner(),
            // One lost ping of many is an answer too; a single one is the command's own failure.
            Err(error) if args.count > 1 => {
                output::remark(format, &format!("{}: {error:#}", args.peer))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        answered += 1;
        let value = json!({ "peer_id": pong.peer_id, "rtt_microseconds": pong.rtt_microseconds });
        match format {
            Format::Human => output::line(&format!(
                "{}: {}",
                pong.peer_id,
                milliseconds(pong.rtt_microseconds)
            ))?,
            Format::Jsonl => output::json_line(&value)?,
            Format::Raw => output::line(&pong.rtt_microseconds.to_string())?,
            Format::Json => values.push(value),
        }
    }
    match (format, values.as_slice()) {
        (Format::Json, [one]) if args.count == 1 => output::json(one)?,
        (Format::Json, many) => output::json(&many.into())?,
        _ => {}
    }
    if answered == 0 {
        bail!("none of {} pings was answered", args.count);
    }
    Ok(())
}
