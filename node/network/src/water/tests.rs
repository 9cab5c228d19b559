use proptest::prelude::*;

use super::*;

const LATER: Duration = Duration::from_secs(1000);

fn id(of: usize) -> ConnectionId {
    ConnectionId::new_unchecked(of)
}

fn address(of: u8) -> Option<IpAddr> {
    Some(IpAddr::from([9, 9, 9, of]))
}

fn small() -> WaterConfig {
    WaterConfig {
        low: 3,
        high: 6,
        hard: 10,
        max_per_address: 2,
        max_per_tick: 2,
        ..WaterConfig::default()
    }
}

/// `count` connections to as many peers, each a second after the other, from addresses of their own.
fn full(count: usize) -> (Water, Vec<PeerId>) {
    let mut water = Water::new(small());
    let peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
    for (at, peer) in peers.iter().enumerate() {
        let close = water.on_connected(
            id(at),
            *peer,
            address(u8::try_from(at).unwrap()),
            Duration::from_secs(at as u64),
        );
        assert_eq!(close, None);
    }
    (water, peers)
}

/// Ticks until nothing more is to be closed; the peers in the order they went.
fn ebb(water: &mut Water, now: Duration) -> Vec<(PeerId, CloseReason)> {
    let mut gone = Vec::new();
    loop {
        let closes = water.tick(now);
        assert!(closes.len() <= 2, "a few at a time");
        if closes.is_empty() {
            return gone;
        }
        for close in closes {
            gone.push((close.peer, close.reason));
            water.on_disconnected(close.connection);
        }
    }
}

#[test]
fn nothing_goes_up_to_the_high_mark_and_then_down_to_the_low_one() {
    let (mut water, _) = full(6);
    assert!(water.tick(LATER).is_empty());
    let (mut water, peers) = full(7);
    let gone = ebb(&mut water, LATER);
    assert_eq!(water.connections(), 3);
    let youngest: Vec<PeerId> = peers.iter().rev().take(4).copied().collect();
    assert_eq!(gone.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), youngest);
    assert!(gone.iter().all(|(_, reason)| *reason == CloseReason::HighWater));
}

#[test]
fn a_connection_is_not_named_twice_while_it_closes() {
    let (mut water, _) = full(7);
    let first = water.tick(LATER);
    let second = water.tick(LATER);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.iter().all(|close| !second.contains(close)));
    assert!(water.tick(LATER).is_empty(), "three will be left");
}

#[test]
fn the_least_valued_go_first_and_protected_ones_not_at_all() {
    let (mut water, peers) = full(7);
    for peer in &peers {
        water.tag(peer, "routing", 5);
    }
    water.tag(&peers[2], "mesh", 50);
    water.tag(&peers[6], "mesh", 60);
    water.untag(&peers[0], "routing");
    for peer in &peers[3..6] {
        assert!(water.protect(*peer, MESH));
    }
    let gone: Vec<PeerId> = ebb(&mut water, LATER).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(gone, [peers[0], peers[1], peers[2], peers[6]]);
}

#[test]
fn young_connections_are_left_alone() {
    let (mut water, peers) = full(7);
    let now = Duration::from_secs(121);
    let gone: Vec<PeerId> = ebb(&mut water, now).into_iter().map(|(peer, _)| peer).collect();
    assert_eq!(
        gone,
        [peers[1], peers[0]],
        "the others have been here for less than two minutes"
    );
}

#[test]
fn the_hard_limit_helps_itself_to_the_young_and_then_to_the_protected() {
    let (mut water, peers) = full(12);
    for peer in &peers[..11] {
        water.protect(*peer, BOOTSTRAP);
    }
    let gone = ebb(&mut water, Duration::from_secs(20));
    assert_eq!(
        gone,
        [
            (peers[11], CloseReason::HardLimit),
            (peers[10], CloseReason::HardLimit)
        ]
    );
    assert_eq!(water.connections(), 10);
}

#[test]
fn a_second_connection_goes_before_the_only_one_of_another_peer() {
    let (mut water, peers) = full(6);
    let close = water.on_connected(id(6), peers[0], address(50), Duration::ZERO);
    assert_eq!(close, None);
    let closes = water.tick(LATER);
    assert_eq!(closes[0].peer, peers[0]);
}

#[test]
fn an_address_holds_so_many_and_not_one_more() {
    let mut water = Water::new(small());
    let connect = |water: &mut Water, at: usize, address: &str| {
        water
            .on_connected(
                id(at),
                PeerId::random(),
                Some(address.parse().unwrap()),
                Duration::ZERO,
            )
            .map(|close| (close.connection, close.reason))
    };
    assert_eq!(connect(&mut water, 1, "9.9.9.9"), None);
    assert_eq!(connect(&mut water, 2, "::ffff:9.9.9.9"), None);
    assert_eq!(
        connect(&mut water, 3, "9.9.9.9"),
        Some((id(3), CloseReason::Address))
    );
    water.on_disconnected(id(3));
    water.on_disconnected(id(1));
    assert_eq!(connect(&mut water, 4, "9.9.9.9"), None);
    assert_eq!(connect(&mut water, 5, "2001:db8::1"), None);
    assert_eq!(connect(&mut water, 6, "2001:db8::2"), None);
    assert_eq!(
        connect(&mut water, 7, "2001:db8::3"),
        Some((id(7), CloseReason::Address))
    );
    assert_eq!(connect(&mut water, 8, "2001:db8:0:1::3"), None);
    for (at, local) in [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "::1",
        "fe80::1",
        "fd00::1",
    ]
    .iter()
    .enumerate()
    {
        for again in 0..4 {
            assert_eq!(connect(&mut water, 100 + at * 10 + again, local), None);
        }
    }
    let protected = PeerId::random();
    water.protect(protected, BOOTSTRAP);
    assert_eq!(
        water.on_connected(
            id(99),
            protected,
            Some("9.9.9.9".parse().unwrap()),
            Duration::ZERO
        ),
        None
    );
}

#[test]
fn protection_outlives_the_connection_and_value_does_not() {
    let (mut water, peers) = full(1);
    water.tag(&peers[0], "routing", 5);
    water.protect(peers[0], BOOTSTRAP);
    water.protect(peers[0], MESH);
    water.on_disconnected(id(0));
    assert!(water.is_protected(&peers[0]));
    assert!(water.peers[&peers[0]].tags.is_empty());
    water.protect_only(MESH, []);
    assert!(water.is_protected(&peers[0]));
    water.unprotect(&peers[0], BOOTSTRAP);
    assert!(water.peers.is_empty());
    water.tag(&peers[0], "routing", 5);
    assert!(water.peers.is_empty());
    for _ in 0..MAX_MARKED_PEERS {
        assert!(water.protect(PeerId::random(), MESH));
    }
    assert!(!water.protect(peers[0], MESH));
    assert_eq!(water.marks_refused(), 1);
    water.protect_only(MESH, [peers[0]]);
    assert_eq!(water.peers.len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Connect { peer: usize, address: Option<u8> },
    Leave(usize),
    Protect(usize),
    Unprotect(usize),
    Tag(usize, i32),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..20, proptest::option::of(0u8..6))
            .prop_map(|(peer, address)| Step::Connect { peer, address }),
        2 => (0usize..200).prop_map(Step::Leave),
        1 => (0usize..20).prop_map(Step::Protect),
        1 => (0usize..20).prop_map(Step::Unprotect),
        1 => (0usize..20, -10i32..10).prop_map(|(peer, value)| Step::Tag(peer, value)),
        3 => (0u64..100).prop_map(Step::Tick),
    ]
}

proptest! {
    #[test]
    fn what_is_closed_may_be_closed(steps in proptest::collection::vec(step(), 1..300)) {
        let mut water = Water::new(small());
        let peers: Vec<PeerId> = (0..20).map(|_| PeerId::random()).collect();
        let mut now = Duration::ZERO;
        let mut open: BTreeMap<ConnectionId, (PeerId, Duration)> = BTreeMap::new();
        let mut closing: BTreeSet<ConnectionId> = BTreeSet::new();
        let mut protected: BTreeSet<PeerId> = BTreeSet::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Connect { peer, address: from } => {
                    open.insert(id(at), (peers[peer], now));
                    if let Some(close) = water.on_connected(id(at), peers[peer], from.and_then(address), now) {
                        prop_assert_eq!(close.reason, CloseReason::Address);
                        prop_assert!(!protected.contains(&close.peer));
                        closing.insert(close.connection);
                    }
                }
                Step::Leave(which) => {
                    water.on_disconnected(id(which));
                    open.remove(&id(which));
                    closing.remove(&id(which));
                }
                Step::Protect(peer) => {
                    water.protect(peers[peer], MESH);
                    protected.insert(peers[peer]);
                }
                Step::Unprotect(peer) => {
                    water.unprotect(&peers[peer], MESH);
                    protected.remove(&peers[peer]);
                }
                Step::Tag(peer, value) => water.tag(&peers[peer], "routing", value),
                Step::Tick(secs) => {
                    now += Duration::from_secs(secs);
                    let before = open.len() - closing.len();
                    let closes = water.tick(now);
                    prop_assert!(closes.len() <= 2);
                    for close in &closes {
                        let (peer, since) = open[&close.connection];
                        prop_assert_eq!(peer, close.peer);
                        prop_assert!(closing.insert(close.connection), "named once");
                        let spared = protected.contains(&peer) || now - since < Duration::from_secs(120);
                        prop_assert!(!spared || (before > 10 && close.reason == CloseReason::HardLimit));
                    }
                    let after = open.len() - closing.len();
                    prop_assert!(closes.is_empty() || after >= 3);
                    if before > 10 {
                        prop_assert!(!closes.is_empty(), "above the hard limit something always goes");
                    }
                }
            }
            prop_assert_eq!(water.connections(), open.len());
            prop_assert_eq!(water.closing, closing.len());
            let connected: BTreeSet<PeerId> = open.values().map(|(peer, _)| *peer).collect();
            prop_assert!(water.peers.keys().all(|peer| connected.contains(peer) || protected.contains(peer)));
            prop_assert!(water.per_address.len() <= open.len());
        }
    }
}
