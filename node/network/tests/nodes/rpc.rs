//! Requests between peers: all methods, and what happens when one side behaves badly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dirnode_network::{
    Config, Keypair, Limits, Network, NetworkError, PeerId, ReferrerDescriptor, RpcCode, Runtime,
};
use dirnode_record::{RecordCid, Referrer};
use prometheus_client::registry::Registry;

use super::common::{Node, Shelf, Way, config, eventually};

fn record(n: u8) -> (RecordCid, Vec<u8>) {
    let bytes = format!("{{\"name\":\"agent-{n}\"}}").into_bytes();
    (RecordCid::of(&bytes), bytes)
}

fn referrer(cid: RecordCid) -> (ReferrerDescriptor, Referrer) {
    let descriptor = ReferrerDescriptor {
        cid: record(200).0.to_string(),
        kind: "agntcy.dir.sign.v1.Signature".to_owned(),
    };
    let document = Referrer {
        kind: descriptor.kind.clone(),
        record_cid: Some(cid.to_string()),
        annotations: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        created_at: "2026-01-01T00:00:00Z".to_owned(),
        data: None,
        referrer_ref: Some(descriptor.cid.clone()),
    };
    (descriptor, document)
}

async fn shelf_and_reader(shelf: Shelf, limits: Limits, way: Way) -> (Node, Node) {
    let holder = Node::start_with(
        Config {
            limits,
            ..config(way, &[])
        },
        Some(Arc::new(shelf)),
    )
    .await;
    let reader = Node::start(config(way, &[])).await;
    reader.handle.connect(holder.addr.clone()).await.unwrap();
    (holder, reader)
}

fn shelf(records: impl IntoIterator<Item = (RecordCid, Vec<u8>)>) -> Shelf {
    Shelf {
        records: records.into_iter().collect(),
        ..Shelf::default()
    }
}

async fn all_methods(way: Way) {
    let (cid, bytes) = record(1);
    let (descriptor, document) = referrer(cid);
    let mut shelf = shelf([(cid, bytes.clone())]);
    shelf
        .referrers
        .insert(cid, vec![(descriptor.clone(), document.clone())]);
    let (holder, reader) = shelf_and_reader(shelf, Limits::default(), way).await;
    let (at, reader) = (holder.id(), &reader.handle);
    assert_eq!(reader.lookup(at, cid).await.unwrap()["name"], "agent");
    let pulled = reader.pull(at, cid).await.unwrap();
    assert_eq!(pulled.data, bytes);
    let list = reader.list_referrers(at, cid).await.unwrap();
    assert_eq!(list.referrers, std::slice::from_ref(&descriptor));
    assert!(!list.truncated);
    let found = reader.pull_referrer(at, cid, descriptor).await.unwrap();
    assert_eq!(found, document);
    let missing = reader.pull(at, record(9).0).await.unwrap_err();
    assert!(
        matches!(
            &missing,
            NetworkError::Remote {
                code: RpcCode::NotFound,
                ..
            }
        ),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_methods_answer_over_tcp() {
    all_methods(Way::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_methods_answer_over_quic() {
    all_methods(Way::Quic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_four_mebibytes_travels() {
    let bytes = vec![b'x'; 4 * 1024 * 1024];
    let cid = RecordCid::of(&bytes);
    for way in [Way::Tcp, Way::Quic] {
        let (holder, reader) = shelf_and_reader(shelf([(cid, bytes.clone())]), Limits::default(), way).await;
        let pulled = reader.handle.pull(holder.id(), cid).await.unwrap();
        assert_eq!(pulled.data.len(), bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_than_those_asked_for_are_not_believed() {
    let (cid, bytes) = record(1);
    let lying = Shelf {
        lying: Some(cid),
        ..shelf([(cid, bytes)])
    };
    let (holder, reader) = shelf_and_reader(lying, Limits::default(), Way::Tcp).await;
    let error = reader.handle.pull(holder.id(), cid).await.unwrap_err();
    assert!(matches!(error, NetworkError::BadReply { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_the_library_is_an_answer_and_costs_nobody_else() {
    let ((cid, bytes), (other, more)) = (record(1), record(2));
    let broken = Shelf {
        broken: Some(cid),
        ..shelf([(cid, bytes), (other, more)])
    };
    let (holder, reader) = shelf_and_reader(broken, Limits::default(), Way::Tcp).await;
    for _ in 0..20 {
        let error = reader.handle.pull(holder.id(), cid).await.unwrap_err();
        assert!(
            matches!(
                &error,
                NetworkError::Remote {
                    code: RpcCode::Internal,
                    ..
                }
            ),
            "{error}"
        );
    }
    reader.handle.pull(holder.id(), other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_too_many_calls_is_told_so_and_others_are_served() {
    let ((cid, bytes), (other, more)) = (record(1), record(2));
    let stuck = Shelf {
        stuck: Some(cid),
        ..shelf([(cid, bytes), (other, more)])
    };
    let limits = Limits {
        served_per_peer: 2,
        ..Limits::default()
    };
    let (holder, reader) = shelf_and_reader(stuck, limits, Way::Tcp).await;
    let at = holder.id();
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let handle = reader.handle.clone();
            // The question below takes a place too while it is asked, so one of these may have to come again.
            tokio::spawn(async move {
                while let Err(NetworkError::Remote {
                    code: RpcCode::ResourceExhausted,
                    ..
                }) = handle.pull(at, cid).await
                {}
            })
        })
        .collect();
    super::common::eventually("the two places to be taken", || async {
        let answer = reader.handle.pull(at, other).await;
        matches!(
            answer,
            Err(NetworkError::Remote {
                code: RpcCode::ResourceExhausted,
                ..
            })
        )
        .then_some(())
    })
    .await;
    let second = Node::start(config(Way::Tcp, &[])).await;
    second.handle.connect(holder.addr.clone()).await.unwrap();
    second.handle.pull(at, other).await.unwrap();
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_records_does_not_offer_them() {
    let bare = Node::start(config(Way::Tcp, &[])).await;
    let reader = Node::start(config(Way::Tcp, &[&bare])).await;
    let error = reader.handle.pull(bare.id(), record(1).0).await.unwrap_err();
    assert!(
        matches!(
            &error,
            NetworkError::NotSupported { .. } | NetworkError::Unreachable { .. }
        ),
        "{error}"
    );
    reader.handle.connect(bare.addr.clone()).await.unwrap();
    let error = reader.handle.pull(bare.id(), record(1).0).await.unwrap_err();
    assert!(matches!(error, NetworkError::NotSupported { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catch_up_exchange_carries_bytes_both_ways() {
    let (holder, reader) = shelf_and_reader(Shelf::default(), Limits::default(), Way::Quic).await;
    let request: Bytes = (0..100_000u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect::<Vec<u8>>()
        .into();
    let answer = reader
        .handle
        .catch_up(holder.id(), request.clone())
        .await
        .unwrap();
    let mut expected = request.to_vec();
    expected.reverse();
    assert_eq!(answer, expected);
    let error = holder.handle.catch_up(reader.id(), request).await.unwrap_err();
    assert!(matches!(error, NetworkError::NotSupported { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_never_answers_ends_in_an_answer() {
    let (cid, bytes) = record(1);
    let stuck = Shelf {
        stuck: Some(cid),
        ..shelf([(cid, bytes)])
    };
    let limits = Limits {
        serve_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (holder, reader) = shelf_and_reader(stuck, limits, Way::Tcp).await;
    let error = reader.handle.pull(holder.id(), cid).await.unwrap_err();
    assert!(
        matches!(
            &error,
            NetworkError::Remote {
                code: RpcCode::DeadlineExceeded,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_peer_ends_in_a_timeout() {
    let (cid, bytes) = record(1);
    let stuck = Shelf {
        stuck: Some(cid),
        ..shelf([(cid, bytes)])
    };
    let holder = Node::start_with(config(Way::Tcp, &[]), Some(Arc::new(stuck))).await;
    let reader = Node::start(Config {
        limits: Limits {
            call_timeout: Duration::from_millis(500),
            ..Limits::default()
        },
        ..config(Way::Tcp, &[])
    })
    .await;
    reader.handle.connect(holder.addr.clone()).await.unwrap();
    let error = reader.handle.pull(holder.id(), cid).await.unwrap_err();
    assert!(
        matches!(error, NetworkError::Timeout { what: "Pull", .. }),
        "{error}"
    );
}

/// A record may be known from somebody whom we have never met, and nobody told us where that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_which_no_address_is_known_is_looked_for_in_the_dht() {
    let hub = Node::start(config(Way::Tcp, &[])).await;
    // It listens nowhere, so that the holder cannot introduce itself.
    let seeking = Config {
        listen: Vec::new(),
        ..config(Way::Tcp, &[&hub])
    };
    let seeker = Network::start(
        seeking,
        &Keypair::generate_ed25519(),
        None,
        &mut Registry::default(),
        Runtime::system(),
    )
    .unwrap();
    tokio::spawn(seeker.task);
    let seeker = seeker.handle;
    let in_table = |peer: PeerId| {
        let hub = &hub;
        async move {
            let peers = hub.handle.peers().await.unwrap();
            peers
                .iter()
                .any(|view| view.peer == peer && view.in_table)
                .then_some(())
        }
    };
    eventually("the hub in the seeker's table", || async {
        (seeker.status().await.unwrap().table == 1).then_some(())
    })
    .await;
    let (cid, bytes) = record(1);
    let holder = config(Way::Tcp, &[&hub]);
    let holder = Node::start_with(holder, Some(Arc::new(shelf([(cid, bytes.clone())])))).await;
    eventually("the holder in the hub's table", || in_table(holder.id())).await;

    let pulled = seeker
        .seeking(holder.id(), || seeker.pull(holder.id(), cid))
        .await;
    assert_eq!(pulled.unwrap().data, bytes);

    let nobody = PeerId::random();
    let error = seeker.ping(nobody).await.unwrap_err();
    assert!(error.is_unknown_address(), "{error}");
    let error = seeker.seeking(nobody, || seeker.ping(nobody)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("peer {nobody} cannot be reached: no peer knows an address")
    );
}
