//! The commands about the peer-to-peer network: `id`, `status`, `peers`, `ping`, `find-providers`. They ask a running node
//! over its own service, `dirnode.node.v1.NodeService`.

pub(crate) mod id;
pub(crate) mod peers;
pub(crate) mod ping;
pub(crate) mod providers;
pub(crate) mod status;

use dirnode_proto::node::v1::node_service_client::NodeServiceClient;
use dirnode_proto::node::v1::{GetStatusRequest, GetStatusResponse};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::client::{Client, MAX_ANSWER_BYTES};
use super::output;

fn service(client: &Client) -> NodeServiceClient<Channel> {
    NodeServiceClient::new(client.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

async fn status_of(client: &Client) -> anyhow::Result<GetStatusResponse> {
    let mut service = service(client);
    let answer = client.within(service.get_status(GetStatusRequest {})).await?;
    Ok(answer.into_inner())
}

/// Every answer of a stream.
async fn all<T>(mut answers: Streaming<T>) -> Result<Vec<T>, Status> {
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.push(answer);
    }
    Ok(found)
}

/// A round trip time for people.
fn milliseconds(micros: u64) -> String {
    // Precise far beyond any round trip.
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    let milliseconds = micros as f64 / 1000.0;
    format!("{milliseconds:.2} ms")
}

/// Labelled lines with their values below one another; a label without a value is left out.
fn lines(facts: &[(&str, String)]) -> anyhow::Result<()> {
    let shown = facts.iter().filter(|(_, value)| !value.is_empty());
    let width = shown.clone().map(|(label, _)| label.len() + 1).max().unwrap_or(0);
    for (label, value) in shown {
        for (number, part) in value.lines().enumerate() {
            let label = if number == 0 {
                format!("{label}:")
            } else {
                String::new()
            };
            output::line(&format!("{label:width$} {part}"))?;
        }
    }
    Ok(())
}
