//! `routing.*`: how this node takes part in the peer-to-peer network. Operations §1.2; p2p-wire §1.
//!
//! What is right and wrong about a value is the network room's to say; this reads the keys and passes on its objections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use dirnode_identity::parse_peer_id;
use dirnode_network::{Multiaddr, Reachability};
use dirnode_routing::PeerId as RoomPeer;
use dirnode_routing::config::REPROVIDE_INTERVAL;
use serde_json::Value;

use super::source::Reader;

/// Where the reference listens; one TCP port on every interface.
const DEFAULT_LISTEN: &str = "/ip4/0.0.0.0/tcp/8999";
/// File of the node's own key below the data folder, when no key is configured.
const OWN_KEY: &str = "identity.pem";
/// Folder of the provider records below the data folder, when no other is configured.
const OWN_DATASTORE: &str = "network";
/// File of the provider records in that folder.
const PROVIDERS: &str = "providers.log";
/// Providing everything more often than this would be all that a node does.
const SHORTEST_REPUBLISH: Duration = Duration::from_secs(60);

/// The node's part in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// `routing.enabled`: whether there is any network.
    pub enabled: bool,
    /// `routing.listen_address`: where peers are taken in; empty for a node that only dials.
    pub listen: Vec<Multiaddr>,
    /// `routing.announce_addresses`: what is told to peers instead of what we find out ourselves.
    pub announce: Vec<Multiaddr>,
    /// `routing.bootstrap_peers`: whom to join through; empty, or naming nobody but the node itself, makes this a
    /// bootstrap node.
    pub bootstrap: Vec<Multiaddr>,
    /// `routing.key_path`: the key behind our peer id; without it the node keeps one of its own.
    pub key_path: Option<PathBuf>,
    /// `routing.datastore_dir`: folder for what the network keeps over a restart.
    pub datastore_dir: Option<PathBuf>,
    /// `routing.refresh_interval`: how often the routing table is refreshed.
    pub refresh_interval: Duration,
    /// `routing.gossipsub.enabled`: whether labels are announced and heard by gossip.
    pub gossip: bool,
    /// `routing.force_reachability_public`, `…_private`.
    pub reachability: Reachability,
    /// `routing.relay_service`: carry connections of peers that cannot be dialled.
    pub relay_service: bool,
    /// `routing.static_relays`: relays to use when we cannot be dialled; empty takes those that peers offer.
    pub static_relays: Vec<Multiaddr>,
    /// `routing.mdns`: look for peers on the local network.
    pub mdns: bool,
    /// `routing.upnp`: ask the gateway for a port.
    pub upnp: bool,
    /// `routing.directory_api_address`: our gRPC API, as peers are told.
    pub directory_api_address: Option<String>,
    /// `routing.directory_oci_address`: our registry, as peers are told.
    pub directory_oci_address: Option<String>,
    /// `routing.serve_unpublished`: give peers every stored record rather than the published ones.
    pub serve_unpublished: bool,
    /// `routing.republish_interval`: longest time between two provides of a record.
    pub republish_interval: Duration,
    /// `routing.autosync.peerlist`, empty unless `routing.autosync.enabled`: whose announced records are copied here.
    pub autosync: Vec<RoomPeer>,
}

impl Routing {
    /// The key file to use, and whether it is made when it is missing.
    #[must_use]
    pub fn key_file(&self, data_dir: &Path) -> (PathBuf, bool) {
        match &self.key_path {
            Some(path) => (path.clone(), false),
            None => (data_dir.join(OWN_KEY), true),
        }
    }

    /// The folder for what the network keeps.
    #[must_use]
    pub fn datastore(&self, data_dir: &Path) -> PathBuf {
        self.datastore_dir
            .clone()
            .unwrap_or_else(|| data_dir.join(OWN_DATASTORE))
    }

    /// The settings as the routing room takes them.
    #[must_use]
    pub fn brain(&self) -> dirnode_routing::Config {
        dirnode_routing::Config {
            reprovide_interval: self.republish_interval,
            sync_from: self.autosync.iter().cloned().collect(),
            ..dirnode_routing::Config::default()
        }
    }

    /// The settings as the network room takes them.
    #[must_use]
    pub fn network(&self, data_dir: &Path) -> dirnode_network::Config {
        dirnode_network::Config {
            listen: self.listen.clone(),
            announce: self.announce.clone(),
            bootstrap: self.bootstrap.clone(),
            reachability: self.reachability,
            relay_service: self.relay_service,
            static_relays: self.static_relays.clone(),
            gossip: self.gossip,
            mdns: self.mdns,
            upnp: self.upnp,
            directory_api_address: self.directory_api_address.clone(),
            directory_oci_address: self.directory_oci_address.clone(),
            refresh_interval: self.refresh_interval,
            providers_path: Some(self.datastore(data_dir).join(PROVIDERS)),
            ..dirnode_network::Config::default()
        }
    }
}

/// Reads the keys. A network that is off is still checked: whoever turns it on later learns of faults now.
pub(super) fn read(keys: &mut Reader<'_>, data_dir: &Path) -> Routing {
    let defaults = dirnode_network::Config::default();
    let listen = addresses(keys, "routing.listen_address", DEFAULT_LISTEN);
    let reachability = reachability(keys);
    let given = |keys: &mut Reader<'_>, path: &str| Some(keys.text(path, "")).filter(|text| !text.is_empty());
    let refresh_interval = match keys.duration("routing.refresh_interval", Duration::ZERO) {
        Duration::ZERO => defaults.refresh_interval,
        interval => interval,
    };
    let routing = Routing {
        enabled: keys.flag("routing.enabled", true),
        listen,
        announce: addresses(keys, "routing.announce_addresses", ""),
        bootstrap: addresses(keys, "routing.bootstrap_peers", ""),
        key_path: keys.path("routing.key_path"),
        datastore_dir: keys.path("routing.datastore_dir"),
        refresh_interval,
        gossip: keys.flag("routing.gossipsub.enabled", defaults.gossip),
        reachability,
        relay_service: keys.flag("routing.relay_service", defaults.relay_service),
        static_relays: addresses(keys, "routing.static_relays", ""),
        mdns: keys.flag("routing.mdns", defaults.mdns),
        upnp: keys.flag("routing.upnp", defaults.upnp),
        directory_api_address: given(keys, "routing.directory_api_address"),
        directory_oci_address: given(keys, "routing.directory_oci_address"),
        serve_unpublished: keys.flag("routing.serve_unpublished", false),
        republish_interval: republish_interval(keys),
        autosync: autosync(keys),
    };
    if let Err(dirnode_network::NetworkError::Config { faults }) = routing.network(data_dir).check() {
        for fault in faults {
            let (key, problem) = fault.split_once(": ").unwrap_or(("", fault.as_str()));
            let path = format!("routing.{key}");
            let source = keys.source_of(&path);
            keys.fault(&path, &source, problem.to_owned());
        }
    }
    // Nobody could ever meet such a node.
    if routing.enabled
        && routing.listen.is_empty()
        && routing.bootstrap.is_empty()
        && routing.static_relays.is_empty()
        && !routing.mdns
    {
        let source = keys.source_of("routing.listen_address");
        let problem =
            "empty, and there are no bootstrap_peers to dial; set one of the two, or routing.enabled: false";
        keys.fault("routing.listen_address", &source, problem.to_owned());
    }
    routing
}

/// The reference takes both for public, so a file that says both starts here as well, and the log says what won.
fn reachability(keys: &mut Reader<'_>) -> Reachability {
    let public = keys.flag("routing.force_reachability_public", false);
    let private = keys.flag("routing.force_reachability_private", false);
    if public && private {
        keys.warn(
            "routing.force_reachability_public and routing.force_reachability_private are both true; public wins, remove \
             one of them",
        );
    }
    match (public, private) {
        (true, _) => Reachability::Public,
        (false, true) => Reachability::Private,
        (false, false) => Reachability::Auto,
    }
}

/// Zero is unset, as in the reference. Its own default of 36 h outlives the addresses that its nodes keep of a provider, so
/// that nobody could fetch: what is longer is shortened, and said.
fn republish_interval(keys: &mut Reader<'_>) -> Duration {
    let wanted = keys.duration("routing.republish_interval", Duration::ZERO);
    if wanted.is_zero() {
        return REPROVIDE_INTERVAL;
    }
    let used = wanted.clamp(SHORTEST_REPUBLISH, REPROVIDE_INTERVAL);
    if used != wanted {
        keys.warn(&format!(
            "routing.republish_interval is {wanted:?}, {used:?} is used: peers forget where a provider is after 24 h, and \
             less than a minute leaves no time for anything else"
        ));
    }
    used
}

/// The peers to copy from. Nobody, unless both the switch and the list say so.
fn autosync(keys: &mut Reader<'_>) -> Vec<RoomPeer> {
    const PATH: &str = "routing.autosync.peerlist";
    let enabled = keys.flag("routing.autosync.enabled", false);
    let source = keys.source_of(PATH);
    let value = keys.find(PATH).map(|found| found.value);
    if !enabled {
        return Vec::new();
    }
    let items = match value {
        None => Vec::new(),
        Some(Value::Array(items)) => items,
        // A variable can say no list of mappings; it says the ids.
        Some(Value::String(text)) => {
            let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
            ids.map(Value::from).collect()
        }
        Some(other) => {
            keys.fault(PATH, &source, format!("{other} is not a list of {{peer: ID}}"));
            Vec::new()
        }
    };
    if items.is_empty() {
        keys.warn(
            "routing.autosync.enabled is true and routing.autosync.peerlist is empty: nothing is copied",
        );
    }
    let mut peers = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let text = match item {
            Value::String(text) => Some(text),
            Value::Object(members) => members.iter().find_map(|(key, value)| match value {
                Value::String(text) if key.eq_ignore_ascii_case("peer") => Some(text),
                _ => None,
            }),
            _ => None,
        };
        let Some(text) = text else {
            keys.fault(
                &format!("{PATH}[{place}]"),
                &source,
                format!("{item} is not {{peer: ID}}"),
            );
            continue;
        };
        let known = parse_peer_id(text.trim()).map_err(|error| error.to_string());
        let known = known.and_then(|peer| {
            let no_key = || "no ed25519 key has this id".to_owned();
            RoomPeer::from_bytes(&peer.to_bytes()).ok_or_else(no_key)
        });
        match known {
            Ok(peer) => peers.push(peer),
            Err(why) => {
                let problem = format!("{text:?} is no peer id ({why}); write it as `dirnode id` shows it");
                keys.fault(&format!("{PATH}[{place}].peer"), &source, problem);
            }
        }
    }
    peers
}

fn addresses(keys: &mut Reader<'_>, path: &str, default: &str) -> Vec<Multiaddr> {
    let mut found = Vec::new();
    for text in keys.list(path, default) {
        match text.parse::<Multiaddr>() {
            Ok(address) if !address.is_empty() => found.push(address),
            Ok(_) => not_an_address(keys, path, &text, "it is empty"),
            Err(error) => not_an_address(keys, path, &text, &error.to_string()),
        }
    }
    found
}

fn not_an_address(keys: &mut Reader<'_>, path: &str, text: &str, why: &str) {
    let source = keys.source_of(path);
    let problem = format!(
        "{text:?} is no multiaddr ({why}); write it like /ip4/192.0.2.1/tcp/8999 or /dns/dir.example.org/tcp/8999"
    );
    keys.fault(path, &source, problem);
}
