//! The settings of a bootstrap node: the reference's `routing.*` keys, the HTTP listener, and where things are kept.
//!
//! Never opens a port or a file. Every fault is reported at once with path, value, source and remedy. Follows operations
//! §1.2; defaults that differ from a full node's are told in `docs/bootstrap.md`.

mod layers;

use std::path::PathBuf;

use dirnode_network::{Config, Multiaddr, Reachability};

pub use layers::{ENV_PREFIX, Fault, Faults, Layers, MAX_FILE_BYTES, Reader, Remarks};

/// Keys of a full node. A file written for one starts a bootstrap node too; these change nothing here.
const ACCEPTED: &[&str] = &[
    "authn",
    "authz",
    "connection",
    "database",
    "events",
    "extractor",
    "federation",
    "http_gateway",
    "listen_address",
    "logging",
    "naming",
    "oasf_api_validation",
    "publication",
    "ratelimit",
    "routing.autosync",
    "routing.directory_api_address",
    "routing.directory_oci_address",
    "routing.republish_interval",
    "startup_record",
    "store",
    "sync",
];

/// Everything `dirnode-bootstrap run` needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the network is told.
    pub network: Config,
    /// `routing.key_path`, else `identity.pem` in the data folder.
    pub key_path: PathBuf,
    /// Folder of the key and of the provider records; made when it is missing.
    pub data_dir: PathBuf,
    /// `metrics.address`, unless `metrics.enabled` is false: metrics, liveness and readiness over HTTP.
    pub metrics_address: Option<String>,
    /// `healthcheck_address`: liveness and readiness once more, on an address of their own.
    pub health_address: Option<String>,
}

impl Settings {
    /// Reads all layers. `default_data_dir` is taken when no layer names a folder.
    ///
    /// # Errors
    /// Every fault of every key, together.
    pub fn read(layers: &Layers, default_data_dir: PathBuf) -> Result<(Self, Remarks), Faults> {
        let mut keys = Reader::new(layers);
        let data_dir = path(&mut keys, "data_dir").unwrap_or(default_data_dir);
        let key_path = path(&mut keys, "routing.key_path").unwrap_or_else(|| data_dir.join("identity.pem"));
        let network = network(&mut keys, &data_dir);

        let metrics_enabled = keys.flag("metrics.enabled", true);
        let metrics_address = address(&mut keys, "metrics.address", ":9090");
        let health_address = address(&mut keys, "healthcheck_address", "");
        let settings = Self {
            network,
            key_path,
            data_dir,
            metrics_address: metrics_address.filter(|_| metrics_enabled),
            health_address,
        };
        let remarks = keys.finish(ACCEPTED)?;
        Ok((settings, remarks))
    }
}

fn network(keys: &mut Reader<'_>, data_dir: &std::path::Path) -> Config {
    let defaults = Config {
        relay_service: true,
        ..Config::default()
    };
    let mut config = Config {
        listen: keys.list("routing.listen_address", defaults.listen.clone(), multiaddr),
        announce: keys.list("routing.announce_addresses", Vec::new(), multiaddr),
        bootstrap: keys.list("routing.bootstrap_peers", Vec::new(), peer_address),
        static_relays: keys.list("routing.static_relays", Vec::new(), peer_address),
        reachability: reachability(keys),
        relay_service: keys.flag("routing.relay_service", true),
        gossip: keys.flag("routing.gossipsub.enabled", true),
        // Zero is unset, as in a full node.
        refresh_interval: match keys.duration("routing.refresh_interval", std::time::Duration::ZERO) {
            std::time::Duration::ZERO => defaults.refresh_interval,
            interval => interval,
        },
        low_water: keys.number("routing.connections.low_water", defaults.low_water),
        high_water: keys.number("routing.connections.high_water", defaults.high_water),
        agent_version: concat!("dirnode-bootstrap/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..defaults
    };
    let persistent = path(keys, "routing.datastore_dir").unwrap_or_else(|| data_dir.to_owned());
    config.providers_path = Some(persistent.join("providers.log"));
    if config.listen.is_empty() {
        keys.fault(
            "routing.listen_address",
            "empty, so nobody could join through this node; remove the key for /ip4/0.0.0.0/tcp/8999"
                .to_owned(),
        );
    }
    if config.low_water > config.high_water {
        let problem = format!(
            "{} is above routing.connections.high_water, {}; lower it or raise the other",
            config.low_water, config.high_water
        );
        keys.fault("routing.connections.low_water", problem);
    }
    if config.refresh_interval < std::time::Duration::from_secs(1) {
        let problem = format!(
            "{:?} is too short; a bare number is nanoseconds, write 30s or 5m",
            config.refresh_interval
        );
        keys.fault("routing.refresh_interval", problem);
    }
    config
}

/// A bootstrap node is public unless told otherwise: its addresses are in everybody's configuration.
fn reachability(keys: &mut Reader<'_>) -> Reachability {
    const PUBLIC: &str = "routing.force_reachability_public";
    const PRIVATE: &str = "routing.force_reachability_private";
    let stated = keys.find(PUBLIC).is_some();
    let private = keys.flag(PRIVATE, false);
    let public = keys.flag(PUBLIC, !private);
    match (public, private) {
        // The reference takes both for public, and so does a full node.
        (true, _) => Reachability::Public,
        (false, true) => Reachability::Private,
        (false, false) => {
            debug_assert!(stated, "the default is one of the two");
            Reachability::Auto
        }
    }
}

fn path(keys: &mut Reader<'_>, key: &str) -> Option<PathBuf> {
    Some(keys.text(key, ""))
        .filter(|text| !text.is_empty())
        .map(PathBuf::from)
}

/// `host:port`, `:port` for every interface, or nothing.
fn address(keys: &mut Reader<'_>, key: &str, default: &str) -> Option<String> {
    let address = keys.text(key, default);
    if address.is_empty() {
        return None;
    }
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() {
        let problem = format!("{address:?} is not host:port; write it like 0.0.0.0:9090 or localhost:9090");
        keys.fault(key, problem);
        return None;
    }
    Some(address)
}

fn multiaddr(text: &str) -> Result<Multiaddr, String> {
    text.parse()
        .map_err(|error| format!("not a multiaddr ({error}); write it like /ip4/0.0.0.0/tcp/8999"))
}

fn peer_address(text: &str) -> Result<Multiaddr, String> {
    let address = multiaddr(text)?;
    if dirnode_network::config::peer_of(&address).is_none() {
        return Err("no peer id; end it with /p2p/<peer id>".to_owned());
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str, env: &[(&str, &str)]) -> Result<(Settings, Remarks), Faults> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let layers = Layers::default().file("test.yml", yaml).unwrap().env(env);
        Settings::read(&layers, PathBuf::from("/data"))
    }

    #[test]
    fn nothing_set_makes_a_public_relaying_bootstrap_node() {
        let (settings, remarks) = read("", &[]).unwrap();
        assert_eq!(settings.network.reachability, Reachability::Public);
        assert!(settings.network.relay_service && settings.network.gossip);
        assert_eq!(settings.network.listen[0].to_string(), "/ip4/0.0.0.0/tcp/8999");
        assert_eq!(settings.network.role(), dirnode_network::Role::Bootstrap);
        assert_eq!(settings.key_path, PathBuf::from("/data/identity.pem"));
        assert_eq!(
            settings.network.providers_path,
            Some(PathBuf::from("/data/providers.log"))
        );
        assert_eq!(settings.metrics_address.as_deref(), Some(":9090"));
        assert_eq!(remarks, Remarks::default());
        settings.network.check().unwrap();
    }

    #[test]
    fn a_file_of_a_full_node_starts_a_bootstrap_node() {
        let yaml = "listen_address: 0.0.0.0:8888\nauthz: {enabled: \"true\"}\n\
            routing: {listen_address: /ip4/0.0.0.0/tcp/5555, key_path: /k, relay_service: \"false\",\n  \
            directory_api_address: dir.example.com:443, refresh_interval: 1m}\nfoo: 1";
        let (settings, remarks) = read(yaml, &[("DIRECTORY_SERVER_METRICS_ENABLED", "false")]).unwrap();
        assert_eq!(settings.network.listen[0].to_string(), "/ip4/0.0.0.0/tcp/5555");
        assert_eq!(settings.key_path, PathBuf::from("/k"));
        assert!(!settings.network.relay_service);
        assert_eq!(settings.network.refresh_interval.as_secs(), 60);
        assert_eq!(settings.metrics_address, None);
        assert_eq!(remarks.unknown, ["foo"]);
        assert_eq!(remarks.without_effect.len(), 3, "{remarks:?}");
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let yaml = "routing:\n  listen_address: 0.0.0.0:8999\n  bootstrap_peers: [/ip4/1.2.3.4/tcp/1]\n  \
            relay_service: perhaps\n  refresh_interval: 30\nmetrics: {address: nine}";
        let faults = read(yaml, &[]).unwrap_err();
        let paths: Vec<&str> = faults.0.iter().map(|fault| fault.path.as_str()).collect();
        for path in [
            "routing.listen_address",
            "routing.bootstrap_peers",
            "routing.relay_service",
            "routing.refresh_interval",
            "metrics.address",
        ] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
        assert!(faults.to_string().contains("test.yml"));
    }

    #[test]
    fn reachability_is_stated_once() {
        let forced = |yaml: &str| read(yaml, &[]).map(|(settings, _)| settings.network.reachability);
        assert_eq!(
            forced("routing: {force_reachability_private: true}").unwrap(),
            Reachability::Private
        );
        assert_eq!(
            forced("routing: {force_reachability_public: false}").unwrap(),
            Reachability::Auto
        );
        let both = "routing: {force_reachability_public: true, force_reachability_private: true}";
        assert_eq!(forced(both).unwrap(), Reachability::Public);
    }
}
