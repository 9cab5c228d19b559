//! The table of keys: path, type, default, meaning. Operations §1.2 and §1.4.

use std::time::Duration;

use serde_json::Value;

use super::source::{Faults, Layers, Reader, Remarks};
use super::{Config, Connection, Events, Rate, RateLimit, Validation, default_data_dir};

/// Keys of the reference that a file written for it may hold and that have no effect here (yet). They are accepted and
/// listed at start; a key in neither list is named in one warning.
const ACCEPTED: &[&str] = &[
    "authn",
    "authz",
    "connection.connection_timeout",
    "connection.keepalive.max_connection_idle",
    "connection.keepalive.min_time",
    "connection.keepalive.permit_without_stream",
    "database",
    "extractor",
    "federation",
    "http_gateway",
    "logging",
    "naming",
    "publication",
    "store.oci.advertised_insecure",
    "store.oci.advertised_registry_address",
    "store.oci.auth_config",
    "store.oci.cache_dir",
    "store.oci.registry_address",
    "store.oci.repository_name",
    "store.verification",
    "sync",
];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn read(layers: &Layers) -> Result<(Config, Remarks), Faults> {
    let mut keys = Reader::new(layers);
    let listen_address = keys.text("listen_address", "0.0.0.0:8888");
    check_address(&mut keys, "listen_address", &listen_address);

    let provider = keys.text("store.provider", "oci");
    let legacy_provider = keys.text("provider", &provider);
    if !["oci", "localfs", ""].contains(&legacy_provider.as_str()) {
        keys.fault(
            "store.provider",
            "the configuration",
            format!("{legacy_provider:?} is not a known store; remove the key or write oci"),
        );
    }

    // Where the reference keeps a layout on disk, this node keeps all that it has.
    let own = keys.path("data_dir");
    let layouts = ["store.oci.local_dir", "oci.local_dir", "localfs.dir"].map(|path| keys.path(path));
    let data_dir = own
        .or_else(|| layouts.into_iter().flatten().next())
        .unwrap_or_else(|| default_data_dir(|name| std::env::var(name).ok()));

    let metrics_enabled = keys.flag("metrics.enabled", true);
    let metrics_address = keys.text("metrics.address", ":9090");
    if metrics_enabled {
        check_address(&mut keys, "metrics.address", &metrics_address);
    }
    let health_address = keys.text("healthcheck_address", "");
    if !health_address.is_empty() {
        check_address(&mut keys, "healthcheck_address", &health_address);
    }

    let routing = super::routing::read(&mut keys, &data_dir);
    let config = Config {
        listen_address,
        data_dir,
        routing,
        row_cache_bytes: keys.number("store.row_cache_bytes", 256 * 1024 * 1024, "a number of bytes"),
        validation: validation(&mut keys),
        connection: connection(&mut keys),
        rate_limit: rate_limit(&mut keys),
        metrics_address: metrics_enabled.then_some(metrics_address),
        health_address: Some(health_address).filter(|address| !address.is_empty()),
        events: Events {
            subscriber_buffer_size: keys
                .number("events.subscriber_buffer_size", 100_usize, "a number")
                .clamp(1, 65_536),
            log_slow_consumers: keys.flag("events.log_slow_consumers", true),
            log_published_events: keys.flag("events.log_published_events", false),
        },
        startup_record: keys.flag("startup_record.enabled", true),
    };
    refuse_to_look_safe(&mut keys);
    let remarks = keys.finish(ACCEPTED)?;
    Ok((config, remarks))
}

/// Who asks for authentication must not get an open node: until there is any, the node does not start.
fn refuse_to_look_safe(keys: &mut Reader<'_>) {
    for path in ["authn.enabled", "authz.enabled"] {
        if keys.flag(path, false) {
            let source = keys.find(path).map_or_else(String::new, |found| found.source);
            let problem = "true, but this release has no authentication and no policies; set it to false and keep the API on \
                a private address, or put a proxy in front";
            keys.fault(path, &source, problem.to_owned());
        }
    }
    let workload = keys.text("spiffe_workload_address", "");
    if !workload.is_empty() {
        let problem = format!(
            "{workload:?} asks for SPIFFE identities, which this release does not have; remove the key"
        );
        keys.fault("spiffe_workload_address", "the configuration", problem);
    }
}

fn check_address(keys: &mut Reader<'_>, path: &str, address: &str) {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        let problem = format!("{address:?} is not host:port; write it like 0.0.0.0:8888 or localhost:8888");
        let source = keys
            .find(path)
            .map_or_else(|| "the default".to_owned(), |found| found.source);
        keys.fault(path, &source, problem);
    }
}

fn validation(keys: &mut Reader<'_>) -> Validation {
    let schema_url = keys.text("oasf_api_validation.schema_url", "");
    // The seeds disable the call to a schema server; what they want is a check without a network.
    let disabled = keys.flag("oasf_api_validation.disable", false);
    keys.flag("oasf_api_validation.strict_mode", false);
    let mode = keys.text("oasf_api_validation.mode", "builtin");
    match mode.to_lowercase().as_str() {
        "builtin" | "" => Validation::Builtin,
        "off" | "false" => Validation::Off,
        "remote" if disabled => Validation::Builtin,
        "remote" if schema_url.is_empty() => {
            keys.fault(
                "oasf_api_validation.schema_url",
                "the default",
                "mode remote needs the URL of a schema server; set it, or use mode builtin".to_owned(),
            );
            Validation::Builtin
        }
        "remote" => {
            let url = if schema_url.contains("://") {
                schema_url
            } else {
                format!("http://{schema_url}")
            };
            Validation::Remote {
                url: url.trim_end_matches('/').to_owned(),
            }
        }
        _ => {
            let source = keys
                .find("oasf_api_validation.mode")
                .map_or_else(String::new, |found| found.source);
            keys.fault(
                "oasf_api_validation.mode",
                &source,
                format!("{mode:?} is not a mode; write builtin, remote or off"),
            );
            Validation::Builtin
        }
    }
}

fn connection(keys: &mut Reader<'_>) -> Connection {
    let bytes = "a number of bytes";
    let connection = Connection {
        max_concurrent_streams: keys.number("connection.max_concurrent_streams", 1000, "a number of streams"),
        max_recv_msg_size_bytes: keys.number("connection.max_recv_msg_size", 4_194_304, bytes),
        max_send_msg_size_bytes: keys.number("connection.max_send_msg_size", 4_194_304, bytes),
        max_connection_age: keys.duration("connection.keepalive.max_connection_age", MINUTE * 30),
        max_connection_age_grace: keys.duration("connection.keepalive.max_connection_age_grace", MINUTE * 5),
        keepalive_time: keys.duration("connection.keepalive.time", MINUTE * 5),
        keepalive_timeout: keys.duration("connection.keepalive.timeout", MINUTE),
    };
    for (path, value) in [
        (
            "connection.keepalive.max_connection_age",
            connection.max_connection_age,
        ),
        ("connection.keepalive.time", connection.keepalive_time),
        ("connection.keepalive.timeout", connection.keepalive_timeout),
    ] {
        if value < SECOND {
            keys.fault(
                path,
                "the configuration",
                format!("{value:?} is too short; a bare number is nanoseconds, write 30s or 5m"),
            );
        }
    }
    for (path, value) in [
        (
            "connection.max_concurrent_streams",
            connection.max_concurrent_streams as usize,
        ),
        ("connection.max_recv_msg_size", connection.max_recv_msg_size_bytes),
        ("connection.max_send_msg_size", connection.max_send_msg_size_bytes),
    ] {
        if value == 0 {
            keys.fault(
                path,
                "the configuration",
                "0 would refuse everything; remove the key for the default".to_owned(),
            );
        }
    }
    connection
}

fn rate_limit(keys: &mut Reader<'_>) -> RateLimit {
    let mut rate = |name: &str| {
        let rate = Rate {
            per_second: keys.number(&format!("ratelimit.{name}_rps"), 0.0, "a number"),
            burst: keys.number(
                &format!("ratelimit.{name}_burst"),
                0,
                "a number that is not negative",
            ),
        };
        check_rate(keys, &format!("ratelimit.{name}_rps"), rate);
        rate
    };
    let (global, per_client) = (rate("global"), rate("per_client"));
    RateLimit {
        enabled: keys.flag("ratelimit.enabled", false),
        global,
        per_client,
        methods: method_limits(keys),
    }
}

fn check_rate(keys: &mut Reader<'_>, path: &str, rate: Rate) {
    if !(rate.per_second.is_finite() && rate.per_second >= 0.0) {
        keys.fault(
            path,
            "the configuration",
            format!("{} is not a rate; write 0 for no limit", rate.per_second),
        );
    } else if rate.per_second > 0.0 && rate.burst > 0 && f64::from(rate.burst) < rate.per_second {
        keys.fault(
            path,
            "the configuration",
            format!(
                "the burst {} is below the rate {}; raise the burst",
                rate.burst, rate.per_second
            ),
        );
    }
}

fn method_limits(keys: &mut Reader<'_>) -> Vec<(String, Rate)> {
    const PATH: &str = "ratelimit.method_limits";
    let Some(found) = keys.find(PATH) else {
        return Vec::new();
    };
    let Value::Object(methods) = &found.value else {
        keys.fault(
            PATH,
            &found.source,
            "not a mapping of full method names to {rps, burst}".to_owned(),
        );
        return Vec::new();
    };
    let mut limits = Vec::new();
    for (method, limit) in methods {
        let part = |name: &str| match limit.get(name) {
            None | Some(Value::Null) => Some(0.0),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_f64(),
        };
        let path = format!("{PATH}.{method}");
        match (part("rps"), part("burst")) {
            (Some(per_second), Some(burst)) if (0.0..=f64::from(u32::MAX)).contains(&burst) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked just above"
                )]
                let rate = Rate {
                    per_second,
                    burst: burst as u32,
                };
                check_rate(keys, &path, rate);
                limits.push((method.clone(), rate));
            }
            _ => keys.fault(
                &path,
                &found.source,
                format!("{limit} is not {{rps: number, burst: number}}"),
            ),
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_yaml(text: &str, env: &[(&str, &str)]) -> Result<(Config, Remarks), Faults> {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(&Layers::default().file("test.yml", text).unwrap().env(env))
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let (config, remarks) = read_yaml("", &[]).unwrap();
        assert_eq!(config.listen_address, "0.0.0.0:8888");
        assert_eq!(config.validation, Validation::Builtin);
        assert_eq!(config.connection.max_concurrent_streams, 1000);
        assert_eq!(config.metrics_address.as_deref(), Some(":9090"));
        assert_eq!(remarks, Remarks::default());
    }

    #[test]
    fn text_stands_for_numbers_and_truth_values() {
        let yaml = "ratelimit: {enabled: \"true\", global_rps: \"100\", global_burst: \"200\"}\nconnection: {keepalive: {time: \"90s\"}}";
        let (config, _) = read_yaml(yaml, &[]).unwrap();
        assert!(config.rate_limit.enabled);
        assert_eq!(
            config.rate_limit.global,
            Rate {
                per_second: 100.0,
                burst: 200
            }
        );
        assert_eq!(config.connection.keepalive_time, Duration::from_secs(90));
        // Its siblings keep their own defaults.
        assert_eq!(config.connection.keepalive_timeout, MINUTE);
        assert_eq!(config.connection.max_recv_msg_size_bytes, 4_194_304);
    }

    #[test]
    fn the_environment_wins_over_the_file_even_when_empty() {
        let yaml = "Listen_Address: 127.0.0.1:1\nhealthcheck_address: ':1'\nstore: {oci: {local_dir: /x}}";
        let env = [
            ("DIRECTORY_SERVER_LISTEN_ADDRESS", "127.0.0.1:2"),
            ("DIRECTORY_SERVER_HEALTHCHECK_ADDRESS", ""),
        ];
        let (config, _) = read_yaml(yaml, &env).unwrap();
        assert_eq!(config.listen_address, "127.0.0.1:2");
        assert_eq!(config.health_address, None);
        assert_eq!(config.data_dir, std::path::Path::new("/x"));
    }

    #[test]
    fn all_faults_come_at_once_with_path_value_and_source() {
        let yaml = "listen_address: nowhere\noasf_api_validation: {mode: maybe}\nconnection: {max_recv_msg_size: lots}";
        let error = read_yaml(yaml, &[("DIRECTORY_SERVER_RATELIMIT_GLOBAL_RPS", "fast")]).unwrap_err();
        let text = error.to_string();
        for part in [
            "listen_address (from test.yml): \"nowhere\"",
            "\"maybe\"",
            "\"lots\" is not a number of bytes",
            "DIRECTORY_SERVER_RATELIMIT_GLOBAL_RPS",
        ] {
            assert!(text.contains(part), "{part} missing in: {text}");
        }
        assert_eq!(error.0.len(), 4);
    }

    #[test]
    fn unknown_keys_are_told_apart_from_keys_without_effect() {
        let yaml =
            "listn_address: x\nauthn: {enabled: false, mode: x509}\nsync: {auth_config: {username: u}}";
        let env = [
            ("DIRECTORY_SERVER_TYPO", "1"),
            ("DIRECTORY_SERVER_AUTHN_SOCKET_PATH", "/s"),
        ];
        let (_, remarks) = read_yaml(yaml, &env).unwrap();
        assert_eq!(remarks.unknown, ["listn_address", "DIRECTORY_SERVER_TYPO"]);
        let accepted = [
            "authn.mode",
            "sync.auth_config.username",
            "DIRECTORY_SERVER_AUTHN_SOCKET_PATH",
        ];
        assert_eq!(remarks.without_effect, accepted);
    }

    #[test]
    fn a_node_that_is_asked_to_authenticate_does_not_start_open() {
        for yaml in [
            "authn: {enabled: true}",
            "authz: {enabled: 'true'}",
            "spiffe_workload_address: unix:///s",
        ] {
            assert_eq!(read_yaml(yaml, &[]).unwrap_err().0.len(), 1, "{yaml}");
        }
    }

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    #[test]
    fn the_network_s_keys_are_read_from_lists_and_texts() {
        let (config, remarks) = read_yaml("", &[]).unwrap();
        assert_eq!(config.routing.listen[0].to_string(), "/ip4/0.0.0.0/tcp/8999");
        assert!(config.routing.enabled && config.routing.gossip && !config.routing.mdns);
        assert_eq!(config.routing.refresh_interval, Duration::from_secs(30));
        assert_eq!(remarks, Remarks::default());

        let yaml = format!(
            "routing: {{bootstrap_peers: [/ip4/10.0.0.1/tcp/5555/p2p/{PEER}, ''], refresh_interval: 45s, gossipsub: {{enabled: \"false\"}}}}"
        );
        let env = [(
            "DIRECTORY_SERVER_ROUTING_LISTEN_ADDRESS",
            "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/udp/1/quic-v1",
        )];
        let (config, _) = read_yaml(&yaml, &env).unwrap();
        assert_eq!(
            (config.routing.listen.len(), config.routing.bootstrap.len()),
            (2, 1)
        );
        assert_eq!(config.routing.refresh_interval, Duration::from_secs(45));
        assert!(!config.routing.gossip);

        // A variable that is set but empty counts as set.
        let env = [("DIRECTORY_SERVER_ROUTING_BOOTSTRAP_PEERS", "")];
        assert!(read_yaml(&yaml, &env).unwrap().0.routing.bootstrap.is_empty());
    }

    #[test]
    fn every_fault_of_the_network_s_keys_is_named() {
        let yaml = "routing: {listen_address: nowhere, bootstrap_peers: /ip4/10.0.0.1/tcp/1, refresh_interval: 1ms, mdns: maybe}";
        let text = read_yaml(yaml, &[]).unwrap_err().to_string();
        for part in [
            "routing.listen_address (from test.yml): \"nowhere\"",
            "routing.bootstrap_peers (from test.yml): /ip4/10.0.0.1/tcp/1 has no peer id",
            "routing.refresh_interval (from test.yml)",
            "routing.mdns (from test.yml)",
        ] {
            assert!(text.contains(part), "{part} missing in: {text}");
        }
    }

    #[test]
    fn a_node_that_nobody_could_meet_is_a_fault_and_one_that_only_dials_is_not() {
        let alone = read_yaml("routing: {listen_address: ''}", &[]).unwrap_err();
        assert_eq!(alone.0.len(), 1, "{alone}");
        let yaml =
            format!("routing: {{listen_address: '', bootstrap_peers: [/ip4/10.0.0.1/tcp/1/p2p/{PEER}]}}");
        assert!(read_yaml(&yaml, &[]).unwrap().0.routing.listen.is_empty());
        let off = "routing: {listen_address: '', enabled: false}";
        assert!(!read_yaml(off, &[]).unwrap().0.routing.enabled);
    }

    #[test]
    fn forced_both_ways_means_public_and_is_said() {
        let yaml = "routing: {force_reachability_public: true, force_reachability_private: true}";
        let (config, remarks) = read_yaml(yaml, &[]).unwrap();
        assert_eq!(config.routing.reachability, dirnode_network::Reachability::Public);
        assert_eq!(remarks.warnings.len(), 1);
    }

    #[test]
    fn records_are_provided_again_as_often_as_is_said_and_before_others_forget() {
        let interval = |yaml: &str| {
            let (config, remarks) = read_yaml(yaml, &[]).unwrap();
            (config.routing.brain().interval(), remarks.warnings.len())
        };
        let hours = |hours: u64| MINUTE * 60 * u32::try_from(hours).unwrap();
        assert_eq!(interval(""), (hours(22), 0));
        assert_eq!(interval("routing: {republish_interval: 0}"), (hours(22), 0));
        assert_eq!(interval("routing: {republish_interval: 6h}"), (hours(6), 0));
        // The reference's own default, which is longer than its nodes keep addresses, and one that nobody can keep up.
        assert_eq!(interval("routing: {republish_interval: 36h}"), (hours(22), 1));
        assert_eq!(interval("routing: {republish_interval: 1s}"), (MINUTE, 1));
    }

    #[test]
    fn nobody_is_copied_from_unless_it_is_on_the_list_and_the_list_is_on() {
        let copied = |yaml: &str, env: &[(&str, &str)]| {
            let (config, remarks) = read_yaml(yaml, env).unwrap();
            assert!(
                remarks.without_effect.is_empty() && remarks.unknown.is_empty(),
                "{remarks:?}"
            );
            (config.routing.brain().sync_from.len(), remarks.warnings.len())
        };
        let list = format!("peerlist: [{{peer: {PEER}}}, {{Peer: {PEER}}}]");
        assert_eq!(copied("", &[]), (0, 0));
        assert_eq!(copied(&format!("routing: {{autosync: {{{list}}}}}"), &[]), (0, 0));
        assert_eq!(
            copied(&format!("routing: {{autosync: {{enabled: true, {list}}}}}"), &[]),
            (1, 0)
        );
        assert_eq!(copied("routing: {autosync: {enabled: 'true'}}", &[]), (0, 1));
        let env = [("DIRECTORY_SERVER_ROUTING_AUTOSYNC_PEERLIST", PEER)];
        assert_eq!(copied("routing: {autosync: {enabled: true}}", &env), (1, 0));
    }

    #[test]
    fn a_bad_peer_on_the_list_is_named_by_place_and_value_when_the_list_is_on() {
        let list = format!("peerlist: [{{peer: {PEER}}}, {{peer: nobody}}, {{per: x}}]");
        assert!(read_yaml(&format!("routing: {{autosync: {{{list}}}}}"), &[]).is_ok());
        let faults =
            read_yaml(&format!("routing: {{autosync: {{enabled: true, {list}}}}}"), &[]).unwrap_err();
        assert_eq!(faults.0.len(), 2, "{faults}");
        let text = faults.to_string();
        for part in [
            "routing.autosync.peerlist[1].peer (from test.yml): \"nobody\"",
            "peerlist[2]",
        ] {
            assert!(text.contains(part), "{part} missing in: {text}");
        }
    }

    #[test]
    fn method_names_are_taken_verbatim() {
        let yaml =
            "ratelimit: {method_limits: {/agntcy.dir.store.v1.StoreService/Push: {rps: 5, burst: 10}}}";
        let (config, remarks) = read_yaml(yaml, &[]).unwrap();
        let rate = Rate {
            per_second: 5.0,
            burst: 10,
        };
        assert_eq!(
            config.rate_limit.methods,
            [("/agntcy.dir.store.v1.StoreService/Push".to_owned(), rate)]
        );
        assert_eq!(remarks, Remarks::default());
    }

    #[test]
    fn a_disabled_schema_server_means_the_built_in_schemas() {
        for (yaml, expected) in [
            ("oasf_api_validation: {disable: true}", Validation::Builtin),
            (
                "oasf_api_validation: {schema_url: 'https://s.example'}",
                Validation::Builtin,
            ),
            (
                "oasf_api_validation: {mode: remote, schema_url: s.example/}",
                Validation::Remote {
                    url: "http://s.example".to_owned(),
                },
            ),
            ("oasf_api_validation: {mode: off}", Validation::Off),
            ("oasf_api_validation: {mode: \"off\"}", Validation::Off),
        ] {
            assert_eq!(read_yaml(yaml, &[]).unwrap().0.validation, expected, "{yaml}");
        }
        assert!(read_yaml("oasf_api_validation: {mode: remote}", &[]).is_err());
    }

    #[test]
    fn the_example_files_hold_known_keys_and_the_documented_defaults() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("bootstrap.yml") {
                // The bootstrap node's own; its tests read it.
                continue;
            }
            let (mut config, remarks) = read_yaml(&std::fs::read_to_string(&path).unwrap(), &[]).unwrap();
            assert_eq!(remarks, Remarks::default(), "{}", path.display());
            let (defaults, _) = read_yaml("", &[]).unwrap();
            config.data_dir.clone_from(&defaults.data_dir);
            assert_eq!(config, defaults, "{}", path.display());
            seen += 1;
        }
        assert!(seen > 0, "{folder} holds no example");
    }
}
