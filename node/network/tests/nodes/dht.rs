//! The DHT: keys provided are found from anywhere, one by one and by the sweep.

use std::time::Duration;

use dirnode_network::{Config, NetworkError, NetworkEvent};
use dirnode_record::RecordCid;

use super::common::{Frozen, Node, Way, config, eventually, joined};

fn key(n: u32) -> Vec<u8> {
    RecordCid::of(&n.to_be_bytes()).multihash().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_provided_at_one_end_is_found_at_the_other_with_addresses() {
    let nodes = joined(8, Way::Tcp).await;
    let (provider, seeker) = (&nodes[1], &nodes[7]);
    provider.handle.provide(key(1)).await.unwrap();
    let found = eventually("the provider", || async {
        let found = seeker.handle.find_providers(key(1), 1).await.unwrap();
        found.into_iter().find(|found| found.peer == provider.id())
    })
    .await;
    let mut bare = provider.addr.clone();
    bare.pop();
    assert_eq!(found.addrs, [bare]);
    assert_eq!(seeker.handle.find_providers(key(2), 1).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_are_told_about_a_provided_key() {
    let mut nodes = joined(2, Way::Quic).await;
    let provider = nodes.pop().unwrap();
    provider.handle.provide(key(1)).await.unwrap();
    let (peer, addrs) = nodes[0]
        .event("the notice", |event| match event {
            NetworkEvent::Provided {
                peer,
                key: told,
                addrs,
                ..
            } if told == key(1) => Some((peer, addrs)),
            _ => None,
        })
        .await;
    assert_eq!(peer, provider.id());
    assert!(!addrs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_puts_many_keys_at_a_peer_down_one_stream() {
    let nodes = joined(3, Way::Tcp).await;
    let keys: Vec<Vec<u8>> = (100..400).map(key).collect();
    let sent = nodes[1].handle.provide_to(nodes[0].id(), &keys).await.unwrap();
    assert_eq!(sent, keys.len());
    for wanted in [100, 250, 399] {
        let found = eventually("a swept key", || async {
            let found = nodes[2].handle.find_providers(key(wanted), 1).await.unwrap();
            (!found.is_empty()).then_some(found)
        })
        .await;
        assert_eq!(found[0].peer, nodes[1].id());
        assert!(!found[0].addrs.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_found_by_id_and_by_nearness() {
    let nodes = joined(5, Way::Tcp).await;
    let wanted = &nodes[4];
    let mut bare = wanted.addr.clone();
    bare.pop();
    assert_eq!(nodes[1].handle.find_peer(wanted.id()).await.unwrap(), [bare]);
    let closest = nodes[1].handle.closest(wanted.id().to_bytes()).await.unwrap();
    assert_eq!(closest[0].peer, wanted.id());
    assert!(!closest[0].addrs.is_empty());
}

/// A query waits for every peer it has asked; one of them may hang, and a caller may have less time than that. Once what
/// had been found in the first moment was lost with the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_in_a_hurry_is_told_who_was_found_while_another_peer_hangs() {
    let nodes = joined(2, Way::Tcp).await;
    let (seeker, provider) = (&nodes[0], &nodes[1]);
    provider.handle.provide(key(1)).await.unwrap();
    let frozen = Frozen::beside(seeker).await;
    let patience = Duration::from_secs(2);
    let found = eventually("the provider", || async {
        let found = seeker.handle.find_providers_within(key(1), 20, patience).await;
        found.ok()
    })
    .await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].peer, provider.id());
    assert!(!found[0].addrs.is_empty());
    // Cut short, as the frozen peer had not answered.
    let cut = "dirnode_network_queries_total{kind=\"find_providers\",result=\"cut_short\"}";
    seeker.counted(cut, 1).await;

    // Nobody known by then is no answer: there may be somebody.
    let nobody = seeker
        .handle
        .find_providers_within(key(2), 20, Duration::ZERO)
        .await;
    assert_eq!(
        nobody,
        Err(NetworkError::Timeout {
            what: "find providers",
            after: Duration::ZERO
        })
    );
    drop(frozen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lonely_node_says_that_it_is_alone() {
    let node = Node::start(config(Way::Tcp, &[])).await;
    assert_eq!(node.handle.provide(key(1)).await, Err(NetworkError::NoPeers));
    assert_eq!(node.handle.closest(key(1)).await, Err(NetworkError::NoPeers));
    assert_eq!(
        node.handle.find_providers(key(1), 1).await,
        Err(NetworkError::NoPeers)
    );
    let long = vec![0u8; 81];
    assert!(matches!(
        node.handle.provide(long).await,
        Err(NetworkError::TooLarge { .. })
    ));
    for addr in node.handle.status().await.unwrap().external {
        node.handle.remove_external_address(addr).await.unwrap();
    }
    assert_eq!(
        node.handle.provide(key(1)).await,
        Err(NetworkError::NoExternalAddress)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_records_of_others_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let persistent = |bootstrap: &[&Node]| dirnode_network::Config {
        providers_path: Some(folder.path().join("providers")),
        ..config(Way::Tcp, bootstrap)
    };
    let keeper = Node::start(persistent(&[])).await;
    let provider = Node::start(config(Way::Tcp, &[&keeper])).await;
    eventually("the table", || async {
        provider.handle.provide(key(7)).await.ok()
    })
    .await;
    eventually("the record", || async {
        (keeper.handle.status().await.unwrap().provider_records == 1).then_some(())
    })
    .await;
    keeper.handle.shutdown();
    keeper.task.await.unwrap();
    let again = Node::start(persistent(&[])).await;
    // Nobody is connected: the answer comes from what was kept.
    let found = again.handle.find_providers(key(7), 1).await.unwrap();
    assert_eq!(found[0].peer, provider.id());
    assert!(!found[0].addrs.is_empty());
}

/// What a provider says of itself reaches whoever asks a third node about the key, and says who told it.
#[tokio::test(flavor = "multi_thread")]
async fn answers_about_a_provider_carry_the_endpoints_it_told_us() {
    let asked = Node::start(config(Way::Tcp, &[])).await;
    let provider = Node::start(Config {
        directory_api_address: Some("dir.example.com:443".to_owned()),
        directory_oci_address: Some("ghcr.io/org/repo".to_owned()),
        ..config(Way::Tcp, &[&asked])
    })
    .await;
    eventually("the provider to know whom to tell", || async {
        (provider.handle.status().await.unwrap().table > 0).then_some(())
    })
    .await;
    provider.handle.provide(key(1)).await.unwrap();
    asked.counted("dirnode_network_endpoint_peers", 1).await;
    eventually("the record", || async {
        (asked.handle.status().await.unwrap().provider_records > 0).then_some(())
    })
    .await;
    // The one who asks knows the one in the middle only.
    let id = provider.id();
    provider.handle.shutdown();
    eventually("the provider to be gone", || async {
        asked.handle.peers().await.unwrap().is_empty().then_some(())
    })
    .await;
    let mut seeker = Node::start(config(Way::Tcp, &[&asked])).await;
    eventually("the table", || async {
        (seeker.handle.status().await.unwrap().table > 0).then_some(())
    })
    .await;
    let found = seeker.handle.find_providers(key(1), 1).await.unwrap();
    assert_eq!(found[0].peer, id);
    let mut told = Vec::new();
    while told.len() < 2 {
        let seen = seeker
            .event("an endpoint", |event| match event {
                NetworkEvent::EndpointSeen(seen) => Some(seen),
                _ => None,
            })
            .await;
        assert_eq!((seen.peer, seen.reporter), (id, Some(asked.id())));
        told.push(seen.value);
    }
    told.sort();
    assert_eq!(told, ["dir.example.com:443", "ghcr.io/org/repo"]);
    // Hearsay is not handed on: nobody told the seeker of itself.
    assert_eq!(seeker.figure("dirnode_network_endpoint_peers"), 0);
}
