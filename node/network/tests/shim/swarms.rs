//! Two swarms with the shim as the last step of their transports: Kademlia under the network's name, identify, and
//! endpoints in both, over a real security and muxer upgrade.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::shim::{EndpointSource, KAD_INSIDE, OwnEndpoints, Renames, Shim, ShimConfig, Taps};
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::kad::{self, store::MemoryStore};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, Transport, identify, noise, yamux};

const DIR: &[u8] = b"\xff\xff\x03\x04a:81";
const OCI: &[u8] = b"\xfe\xff\x03\x01x";

#[derive(NetworkBehaviour)]
struct Behaviour {
    kad: kad::Behaviour<MemoryStore>,
    identify: identify::Behaviour,
}

fn node(endpoint: &'static [u8]) -> (Swarm<Behaviour>, Taps) {
    let key = Keypair::generate_ed25519();
    let peer = key.public().to_peer_id();
    let own = OwnEndpoints::default();
    own.set(vec![Bytes::from_static(endpoint)]).unwrap();
    let (shim, taps) = Shim::new(ShimConfig {
        local_peer: peer,
        renames: Renames::network(),
        own,
        book: None,
        clock: Arc::new(|| 1_000),
        deadlines: None,
    });
    let transport = MemoryTransport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .boxed();
    let transport = Transport::map(transport, move |(peer, muxer), _| (peer, shim.wrap(peer, muxer))).boxed();
    let mut kad = kad::Behaviour::with_config(
        peer,
        MemoryStore::new(peer),
        kad::Config::new(StreamProtocol::new(KAD_INSIDE)),
    );
    kad.set_mode(Some(kad::Mode::Server));
    let behaviour = Behaviour {
        kad,
        identify: identify::Behaviour::new(identify::Config::new("/test/1".to_owned(), key.public())),
    };
    let config =
        libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
    (Swarm::new(transport, behaviour, peer, config), taps)
}

#[tokio::test]
async fn two_nodes_share_a_dht_and_learn_endpoints() {
    let (mut one, mut taps_one) = node(DIR);
    let (mut two, mut taps_two) = node(OCI);
    let (peer_one, peer_two) = (*one.local_peer_id(), *two.local_peer_id());
    one.listen_on("/memory/0".parse().unwrap()).unwrap();
    let address: Multiaddr = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = one.select_next_some().await {
            break address;
        }
    };
    one.add_external_address(address.clone());
    two.add_external_address("/memory/77".parse().unwrap());
    two.dial(address).unwrap();

    let key = kad::RecordKey::new(&[7u8; 34]);
    let (mut routed, mut listed, mut found) = (false, false, false);
    let mut seen: Vec<(PeerId, EndpointSource, Bytes)> = Vec::new();
    let wanted = [
        (peer_one, EndpointSource::Identify, Bytes::from_static(DIR)),
        (peer_two, EndpointSource::Identify, Bytes::from_static(OCI)),
        (peer_two, EndpointSource::Announcement, Bytes::from_static(OCI)),
        (
            peer_two,
            EndpointSource::Answer { reporter: peer_one },
            Bytes::from_static(OCI),
        ),
    ];
    let talk = async {
        let mut asked = false;
        loop {
            tokio::select! {
                event = one.select_next_some() => {
                    if let SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) = event {
                        listed |= info.protocols.iter().any(|name| name.as_ref() == KAD_INSIDE);
                    }
                }
                event = two.select_next_some() => match event {
                    SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::RoutingUpdated { peer, .. })) => {
                        routed |= peer == peer_one;
                        two.behaviour_mut().kad.start_providing(key.clone()).unwrap();
                    }
                    SwarmEvent::Behaviour(BehaviourEvent::Kad(kad::Event::OutboundQueryProgressed {
                        result: kad::QueryResult::GetProviders(Ok(kad::GetProvidersOk::FoundProviders { providers, .. })),
                        ..
                    })) => found |= providers.contains(&peer_two),
                    _ => {}
                },
                Some(report) = taps_one.recv() => seen.push((report.peer, report.source, report.endpoint)),
                Some(report) = taps_two.recv() => seen.push((report.peer, report.source, report.endpoint)),
            }
            // An announcement was heard, so a lookup over the wire can be answered.
            if seen.contains(&wanted[2]) && !asked {
                asked = true;
                two.behaviour_mut().kad.get_providers(key.clone());
            }
            // The answer leaves us out towards ourselves; the others are enough.
            if routed && listed && found && wanted[..3].iter().all(|one| seen.contains(one)) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), talk).await.unwrap();
    assert!(!seen.contains(&wanted[3]), "nobody tells us of ourselves");
}
