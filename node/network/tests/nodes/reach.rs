//! Being reachable: through a relay, and within one process.

use dirnode_network::{Config, NetworkEvent, Reachability, TransportKind};

use super::common::{Node, Way, config, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_private_node_is_reached_through_its_relay() {
    let relay = Node::start(Config {
        relay_service: true,
        reachability: Reachability::Public,
        ..config(Way::Tcp, &[])
    })
    .await;
    let mut hidden = Node::start(Config {
        reachability: Reachability::Private,
        static_relays: vec![relay.addr.clone()],
        ..config(Way::Tcp, &[])
    })
    .await;
    let circuit = hidden
        .event("the reservation", |event| match event {
            NetworkEvent::Listening { addr } if TransportKind::of(&addr) == TransportKind::Relay => {
                Some(addr)
            }
            _ => None,
        })
        .await;
    let caller = Node::start(config(Way::Tcp, &[])).await;
    assert_eq!(caller.handle.connect(circuit).await.unwrap(), hidden.id());
    caller.handle.ping(hidden.id()).await.unwrap();
    let external = hidden.handle.status().await.unwrap().external;
    assert!(
        external
            .iter()
            .any(|addr| TransportKind::of(addr) == TransportKind::Relay),
        "{external:?}"
    );
}

/// The reservation goes with the relay; another one is held as soon as the relay is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reservation_is_noticed() {
    let relay = Node::start(Config {
        relay_service: true,
        reachability: Reachability::Public,
        ..config(Way::Tcp, &[])
    })
    .await;
    let mut hidden = Node::start(Config {
        reachability: Reachability::Private,
        static_relays: vec![relay.addr.clone()],
        ..config(Way::Tcp, &[])
    })
    .await;
    let relayed = |addr: &dirnode_network::Multiaddr| TransportKind::of(addr) == TransportKind::Relay;
    hidden
        .event("the reservation", |event| match event {
            NetworkEvent::Listening { addr } if relayed(&addr) => Some(()),
            _ => None,
        })
        .await;
    relay.handle.shutdown();
    hidden
        .event("its loss", |event| match event {
            NetworkEvent::ListenerGone { addr } if relayed(&addr) => Some(()),
            _ => None,
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_process_talk_over_memory() {
    let memory = |bootstrap: Vec<_>| Config {
        listen: vec!["/memory/0".parse().unwrap()],
        bootstrap,
        memory_transport: true,
        ..Config::default()
    };
    let first = Node::start(memory(Vec::new())).await;
    let second = Node::start(memory(vec![first.addr.clone()])).await;
    eventually("the table", || async {
        (second.handle.status().await.unwrap().table == 1).then_some(())
    })
    .await;
    let views = second.handle.peers().await.unwrap();
    assert_eq!(views[0].connections[0].2, TransportKind::Memory);
}
