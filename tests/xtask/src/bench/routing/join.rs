//! A late joiner: how long it takes to know all labels that its only peer knows, and what that costs on the wire.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use dirnode_proto::routing::v1::GetProviderCountRequest;
use dirnode_proto::routing::v1::routing_service_client::RoutingServiceClient;
use serde::Deserialize;

use super::super::claim::{number, ratio};
use super::relay::Relay;
use super::spread::dial_address;
use super::{Programs, told};
use crate::clock;
use crate::process::{Join, Plan};

/// How long the joiner may take before it counts as never complete.
const LIMIT: Duration = Duration::from_secs(120);
const LABELS: &str = "dirnode_routing_remote_labels";

/// What the seeder wrote.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Seeded {
    pub rows: u64,
    pub labels: u64,
    /// Of the labels' texts.
    pub label_bytes: u64,
    /// Of the index in memory.
    pub index_bytes: u64,
    pub authors: u64,
    /// Some of the records.
    pub cids: Vec<String>,
}

/// What joining took.
#[derive(Debug, Default)]
pub struct Joined {
    pub seeded: Seeded,
    /// From the start of the process until it knew every label.
    pub seconds: f64,
    /// Both ways, with everything that two nodes say to each other.
    pub wire_bytes: u64,
}

impl Joined {
    /// Bytes on the wire for each byte of a label's text.
    pub fn wire_per_label_byte(&self) -> f64 {
        ratio(number(self.wire_bytes), number(self.seeded.label_bytes))
    }

    /// For the terminal.
    pub fn line(&self) -> String {
        format!(
            "late joiner: {} labels in {:.2} s after its start; {} bytes on the wire, {:.2} for each byte of the labels",
            self.seeded.labels,
            self.seconds,
            self.wire_bytes,
            self.wire_per_label_byte()
        )
    }
}

/// Writes labels of others into the data folder of a node that does not run.
pub fn seed(programs: &Programs, data_dir: &Path, labels: u64) -> anyhow::Result<Seeded> {
    let index: PathBuf = data_dir.join("network/labels");
    let mut command = Command::new(&programs.seeder);
    command.arg(&index).arg(labels.to_string());
    let seeded: Vec<Seeded> = told(&mut command)?;
    seeded.into_iter().next().context("the seeder says nothing")
}

fn tcp_of(address: &str) -> anyhow::Result<SocketAddr> {
    let mut parts = address.split('/').skip_while(|part| *part != "ip4").skip(1);
    let (ip, port) = (parts.next(), parts.nth(1));
    let (Some(ip), Some(port)) = (ip, port) else {
        return Err(anyhow!("{address} is no TCP address"));
    };
    Ok(SocketAddr::new(ip.parse()?, port.parse()?))
}

/// One node that knows so many labels, and one that comes.
pub async fn measure(programs: &Programs, dir: &Path, labels: u64) -> anyhow::Result<Joined> {
    let plan = |name: &str, bootstrap| Plan {
        binary: programs.node.clone(),
        data_dir: dir.join(name),
        log: dir.join(format!("{name}.log")),
        validation: "off",
        network: Some(Join { bootstrap }),
    };
    let first = plan("knows", Vec::new());
    let seeded = seed(programs, &first.data_dir, labels)?;
    let knows = first.start().await?;
    let held = knows.metric(LABELS).await?.context("no count of labels")?;
    ensure!(
        held >= number(seeded.labels),
        "the node read {held} labels of {}",
        seeded.labels
    );
    let address = dial_address(&knows).await?;
    let (_, peer) = address.split_once("/p2p/").context("an address without a peer")?;
    let relay = Relay::start(tcp_of(&address)?).await?;
    let through = format!("/ip4/127.0.0.1/tcp/{}/p2p/{peer}", relay.address.port());

    let begun = clock::moment();
    let second = plan("joins", vec![through]);
    let joins = second.start().await?;
    loop {
        let known = joins.metric(LABELS).await?.unwrap_or_default();
        if known >= number(seeded.labels) {
            break;
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "the joiner knows {known} labels of {} after {LIMIT:?}; its log ends:\n{}",
            seeded.labels,
            second.log_end()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (took, wire_bytes) = (begun.elapsed(), relay.bytes());
    let mut client = RoutingServiceClient::new(joins.connect().await?);
    for cid in &seeded.cids {
        let request = GetProviderCountRequest { cid: cid.clone() };
        let providers = client.get_provider_count(request).await?.into_inner().count;
        ensure!(providers > 0, "the joiner has the labels but not those of {cid}");
    }
    joins.stop()?;
    knows.stop()?;
    for plan in [first, second] {
        std::fs::remove_dir_all(&plan.data_dir)?;
    }
    Ok(Joined {
        seeded,
        seconds: took.as_secs_f64(),
        wire_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_a_multiaddr_is_read() {
        let found = tcp_of("/ip4/127.0.0.1/tcp/4242/p2p/12D3").unwrap();
        assert_eq!(found, SocketAddr::from(([127, 0, 0, 1], 4242)));
        assert!(tcp_of("/dns/example.org/tcp/1").is_err());
    }
}
