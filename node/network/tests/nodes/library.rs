//! What keeps a part of the library from being used, as a measurement to repeat when the library is updated.

use std::time::Duration;

use dirnode_network::Keypair;
use futures_util::{AsyncWriteExt as _, StreamExt as _};
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{StreamProtocol, Swarm, Transport as _, autonat, noise, yamux};

use super::common::wait;

const DIAL_BACK: StreamProtocol = StreamProtocol::new("/libp2p/autonat/2/dial-back");

fn swarm<B: NetworkBehaviour>(behaviour: B) -> Swarm<B> {
    let key = Keypair::generate_ed25519();
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let config =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

/// Processor time of this process so far, in hundredths of a second.
fn ticks() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    let figures: Vec<u64> = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|text| text.parse().unwrap())
        .collect();
    figures.iter().sum()
}

/// A stream for a dial-back that is closed without a word: the client of AutoNAT v2 reads its end again and again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the library, not this crate; docs/network.md has the figure"]
async fn what_a_silent_dial_back_costs_the_client_of_autonat_v2() {
    let mut client = swarm(autonat::v2::client::Behaviour::default());
    let id = *client.local_peer_id();
    client.listen_on("/memory/0".parse().unwrap()).unwrap();
    let addr = wait("the address", async {
        loop {
            if let SwarmEvent::NewListenAddr { address, .. } = client.select_next_some().await {
                return address;
            }
        }
    })
    .await;
    tokio::spawn(async move {
        loop {
            client.select_next_some().await;
        }
    });
    let streams = libp2p_stream::Behaviour::new();
    let mut control = streams.new_control();
    let mut other = swarm(streams);
    other.dial(addr).unwrap();
    tokio::spawn(async move {
        loop {
            other.select_next_some().await;
        }
    });
    let mut stream = wait("the stream", async {
        loop {
            if let Ok(stream) = control.open_stream(id, DIAL_BACK).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let before = ticks();
    stream.close().await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    println!("processor time in 4 s: {} ms", (ticks() - before) * 10);
}
