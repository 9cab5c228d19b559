//! Connections: both transports, both ways, and what the peers then know of each other.

use std::time::Duration;

use dirnode_network::{Config, Direction, NetworkError, NetworkEvent, PeerId, Role, TransportKind};

use super::common::{Node, Way, config, eventually};

async fn two_find_each_other(way: Way, transport: TransportKind) {
    let mut first = Node::start(config(way, &[])).await;
    let second = Node::start(config(way, &[&first])).await;
    let (one, two) = (first.id(), second.id());
    first
        .event("the second node", |event| {
            (event == NetworkEvent::PeerConnected { peer: two }).then_some(())
        })
        .await;
    for (node, other, direction) in [
        (&first, two, Direction::Inbound),
        (&second, one, Direction::Outbound),
    ] {
        let view = eventually("identify and the table", || async {
            let views = node.handle.peers().await.unwrap();
            views
                .into_iter()
                .find(|view| view.peer == other && view.in_table && view.on_topic)
        })
        .await;
        assert!(view.agent.starts_with("dirnode/"), "{}", view.agent);
        assert!(view.protocols.iter().any(|name| name == "/dir/kad/1.0.0"));
        assert!(
            view.connections
                .iter()
                .any(|(_, dir, kind)| *dir == direction && *kind == transport)
        );
    }
    // The first refresh of the table starts half a second after its first entry.
    let status = eventually("the first refresh", || async {
        let status = second.handle.status().await.unwrap();
        status.bootstrapped.then_some(status)
    })
    .await;
    assert_eq!(status.table, 1);
    assert_eq!(status.external.len(), 1, "loopback, as there is nothing else");
    assert!(second.handle.ping(one).await.unwrap() < Duration::from_secs(20));
    assert!(first.handle.ping(two).await.unwrap() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_find_each_other_over_tcp() {
    two_find_each_other(Way::Tcp, TransportKind::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_find_each_other_over_quic() {
    two_find_each_other(Way::Quic, TransportKind::Quic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_says_who_is_there_or_why_nobody_is() {
    let first = Node::start(config(Way::Tcp, &[])).await;
    let second = Node::start(config(Way::Tcp, &[])).await;
    let mut bare = second.addr.clone();
    bare.pop();
    assert_eq!(first.handle.connect(bare.clone()).await.unwrap(), second.id());
    // Connected already: answered at once, under the full address too.
    assert_eq!(
        first.handle.connect(second.addr.clone()).await.unwrap(),
        second.id()
    );
    let wrong = bare.with_p2p(PeerId::random()).unwrap();
    let error = first.handle.connect(wrong).await.unwrap_err();
    assert!(
        matches!(&error, NetworkError::Dial { reason, .. } if reason.contains(&second.id().to_string())),
        "{error}"
    );
    let nobody = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
    let error = first.handle.connect(nobody).await.unwrap_err();
    assert!(matches!(error, NetworkError::Dial { .. }), "{error}");
    assert!(first.handle.disconnect(second.id()).await.unwrap());
    eventually("the connection to close", || async {
        first.handle.peers().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(!first.handle.disconnect(second.id()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_nobody_knows_is_unreachable() {
    let first = Node::start(config(Way::Tcp, &[])).await;
    let stranger = PeerId::random();
    let error = first.handle.ping(stranger).await.unwrap_err();
    assert!(
        matches!(&error, NetworkError::Unreachable { peer, .. } if *peer == stranger),
        "{error}"
    );
    assert_eq!(first.handle.find_peer(stranger).await, Err(NetworkError::NoPeers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_keeps_trying_until_its_bootstrap_peer_is_there() {
    let keypair = dirnode_network::Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen: dirnode_network::Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let member = Node::start(dirnode_network::Config {
        bootstrap: vec![listen.clone().with_p2p(id).unwrap()],
        ..config(Way::Tcp, &[])
    })
    .await;
    assert!(!member.handle.status().await.unwrap().bootstrapped);
    let mut registry = prometheus_client::registry::Registry::default();
    let late = dirnode_network::Network::start(
        dirnode_network::Config {
            listen: vec![listen],
            ..config(Way::Tcp, &[])
        },
        &keypair,
        None,
        &mut registry,
        dirnode_network::Runtime::system(),
    )
    .unwrap();
    tokio::spawn(late.task);
    eventually("the late bootstrap peer", || async {
        member.handle.status().await.unwrap().bootstrapped.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_peer_does_not_get_in() {
    let first = Node::start(config(Way::Tcp, &[])).await;
    let second = Node::start(config(Way::Tcp, &[])).await;
    assert!(first.handle.block(second.id(), true).await.unwrap());
    assert!(first.handle.connect(second.addr.clone()).await.is_err());
    // From the other side the connection opens and is closed at once.
    let _ = second.handle.connect(first.addr.clone()).await;
    eventually("the blocked peer to be out", || async {
        second.handle.peers().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert!(first.handle.block(second.id(), false).await.unwrap());
    assert_eq!(
        first.handle.connect(second.addr.clone()).await.unwrap(),
        second.id()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_of_a_peer_are_seen() {
    let first = Node::start(dirnode_network::Config {
        directory_api_address: Some("dir.example.com:443".to_owned()),
        directory_oci_address: Some("ghcr.io/org/repo".to_owned()),
        ..config(Way::Tcp, &[])
    })
    .await;
    let mut second = Node::start(config(Way::Tcp, &[&first])).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        let endpoint = second
            .event("an endpoint", |event| match event {
                NetworkEvent::EndpointSeen(seen) => Some(seen),
                _ => None,
            })
            .await;
        assert_eq!((endpoint.peer, endpoint.reporter), (first.id(), None));
        seen.insert(endpoint.value);
    }
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        ["dir.example.com:443", "ghcr.io/org/repo"]
    );
    let views = second.handle.peers().await.unwrap();
    assert_eq!(views[0].directory_api.as_deref(), Some("dir.example.com:443"));
    assert_eq!(views[0].oci.as_deref(), Some("ghcr.io/org/repo"));
    let broken = dirnode_network::Network::start(
        dirnode_network::Config {
            directory_api_address: Some("x".repeat(300)),
            ..config(Way::Tcp, &[])
        },
        &dirnode_network::Keypair::generate_ed25519(),
        None,
        &mut prometheus_client::registry::Registry::default(),
        dirnode_network::Runtime::system(),
    );
    assert!(matches!(broken, Err(NetworkError::Config { .. })));
}

/// One list of bootstrap peers for all nodes; each finds itself in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_list_names_only_itself_is_a_bootstrap_node_and_others_join_by_the_same_list() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let listen: dirnode_network::Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let keypair = dirnode_network::Keypair::generate_ed25519();
    let id = keypair.public().to_peer_id();
    let shared = vec![listen.clone().with_p2p(id).unwrap()];
    let first = dirnode_network::Network::start(
        Config {
            listen: vec![listen],
            bootstrap: shared.clone(),
            ..config(Way::Tcp, &[])
        },
        &keypair,
        None,
        &mut prometheus_client::registry::Registry::default(),
        dirnode_network::Runtime::system(),
    )
    .unwrap();
    tokio::spawn(first.task);
    assert_eq!(first.handle.role(), Role::Bootstrap);
    assert!(first.handle.bootstrap_peers().is_empty());
    let status = first.handle.status().await.unwrap();
    assert!(
        status.role == Role::Bootstrap && status.bootstrapped,
        "{status:?}"
    );
    let second = Node::start(Config {
        bootstrap: shared.clone(),
        ..config(Way::Tcp, &[])
    })
    .await;
    assert_eq!(
        (second.handle.role(), second.handle.bootstrap_peers()),
        (Role::Member, shared.as_slice())
    );
    eventually("the second node to have joined", || async {
        second.handle.status().await.unwrap().bootstrapped.then_some(())
    })
    .await;
}

/// The sockets of the swarm share their ports: without a look beforehand both would start and each get some of the peers.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_port_does_not_start() {
    for way in [Way::Tcp, Way::Quic] {
        let first = Node::start(config(way, &[])).await;
        let mut listen = first.addr.clone();
        listen.pop();
        let second = dirnode_network::Network::start(
            Config {
                listen: vec![listen.clone()],
                ..config(way, &[])
            },
            &dirnode_network::Keypair::generate_ed25519(),
            None,
            &mut prometheus_client::registry::Registry::default(),
            dirnode_network::Runtime::system(),
        );
        let text = second.unwrap_err().to_string();
        for part in [listen.to_string().as_str(), "in use", "stop what uses it"] {
            assert!(text.contains(part), "{part} missing in: {text}");
        }
    }
}
