//! House checks: what the rules of the project say about itself, read from the sources and from cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use dirnode_tests::repository;
use prost_reflect::DescriptorPool;
use serde_json::Value as Json;

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(args)
        .arg("--offline")
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Files below a folder, but nothing that is built or fetched.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !["target", ".git", ".venv", "corpus", "seeds", "__pycache__"].contains(&name) {
                    waiting.push(path);
                }
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn tls_has_one_provider_and_it_is_not_ring() {
    let tree = cargo(&[
        "tree",
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p} [{f}]",
    ]);
    let lines: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let of = |name: &str| -> Vec<&&str> {
        lines
            .iter()
            .filter(|line| line.split(' ').next() == Some(name))
            .collect()
    };
    let rustls = of("rustls");
    assert_eq!(rustls.len(), 1, "one rustls with one set of features: {rustls:?}");
    let features = rustls[0].split(['[', ']']).nth(1).unwrap();
    let features: BTreeSet<&str> = features.split(',').collect();
    assert!(features.contains("aws_lc_rs"), "{features:?}");
    assert!(!features.contains("ring"), "{features:?}");
    // ring itself is in the tree: libp2p's noise and QUIC use its primitives, not as a provider of rustls.
    let providers: Vec<&str> = [
        "aws-lc-rs",
        "rustls-rustcrypto",
        "rustls-graviola",
        "rustls-openssl",
        "openssl",
        "native-tls",
        "boring",
    ]
    .into_iter()
    .filter(|provider| !of(provider).is_empty())
    .collect();
    assert_eq!(providers, ["aws-lc-rs"]);
}

#[test]
fn crates_use_only_crates_to_their_right() {
    let right: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("dirnode-proto", &[][..]),
        ("dirnode-record", &["dirnode-proto"]),
        ("dirnode-identity", &["dirnode-proto"]),
        (
            "dirnode-store",
            &["dirnode-record", "dirnode-identity", "dirnode-proto"],
        ),
        (
            "dirnode-network",
            &["dirnode-record", "dirnode-identity", "dirnode-proto"],
        ),
        (
            "dirnode-routing",
            &[
                "dirnode-network",
                "dirnode-store",
                "dirnode-record",
                "dirnode-identity",
                "dirnode-proto",
            ],
        ),
        (
            "dirnode-server",
            &[
                "dirnode-routing",
                "dirnode-network",
                "dirnode-store",
                "dirnode-record",
                "dirnode-identity",
                "dirnode-proto",
            ],
        ),
        (
            "dirnode-simulations",
            &[
                "dirnode-routing",
                "dirnode-network",
                "dirnode-store",
                "dirnode-record",
                "dirnode-proto",
            ],
        ),
        (
            "dirnode-bootstrap",
            &["dirnode-network", "dirnode-identity", "dirnode-proto"],
        ),
    ]);
    let metadata: Json =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let below_tests = repository().join("tests");
    let is_watcher =
        |package: &Json| Path::new(package["manifest_path"].as_str().unwrap()).starts_with(&below_tests);
    // What is below tests/ looks at everything from outside. Tests of a room may use it, the room itself may not.
    let members: BTreeMap<&str, bool> = packages
        .iter()
        .map(|package| (package["name"].as_str().unwrap(), is_watcher(package)))
        .collect();
    let mut checked = 0;
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if members[name] {
            continue;
        }
        let allowed = right
            .get(name)
            .unwrap_or_else(|| panic!("{name} has no place in the drawing; draw its arrows here"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let used = dependency["name"].as_str().unwrap();
            let in_tests = dependency["kind"] == "dev" && members.get(used) == Some(&true);
            if members.contains_key(used) && !in_tests {
                assert!(
                    allowed.contains(&used),
                    "{name} uses {used}, which is not to its right"
                );
            }
        }
        checked += 1;
    }
    assert!(checked >= 4, "the rooms of this workspace were looked at");
}

/// The part of a source file that is built into the product, without comments.
fn product_code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines()
        .map(|line| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The rooms that follow `crate::` somewhere in `code`, grouped uses included.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group
                .split('}')
                .next()
                .unwrap()
                .split(',')
                .map(str::trim)
                .collect(),
            None => vec![rest],
        };
        for name in names {
            let room: String = name.chars().take_while(is_name).collect();
            if !room.is_empty() {
                found.insert(room);
            }
        }
    }
    found
}

/// Source files of the server by room: the module at the top that they belong to.
fn server_rooms() -> BTreeMap<String, Vec<PathBuf>> {
    let source = repository().join("node/server/src");
    let mut rooms = BTreeMap::<String, Vec<PathBuf>>::new();
    for path in files_below(&source) {
        let relative = path.strip_prefix(&source).unwrap();
        let room = relative
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        rooms.entry(room).or_default().push(path);
    }
    rooms
}

#[test]
fn rooms_of_the_server_use_only_what_is_drawn() {
    // A room, and the rooms it may use besides itself. `node` and `cli` put everything together.
    let drawing: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("runtime", &["config"][..]),
        ("config", &["runtime"]),
        ("policy", &["runtime", "config"]),
        ("events", &["runtime", "config"]),
        ("remote_schema", &["runtime", "config"]),
        (
            "ingest",
            &["events", "policy", "config", "runtime", "remote_schema", "turns"],
        ),
        ("startup_record", &["ingest", "policy", "runtime", "config"]),
        ("turns", &["runtime"]),
        ("queries", &["runtime", "turns"]),
        ("shards", &["runtime"]),
        ("routing", &["ingest", "policy", "runtime"]),
        (
            "publications",
            &["events", "ingest", "queries", "routing", "runtime"],
        ),
        ("library", &["ingest", "policy", "routing"]),
        ("membership", &["config", "runtime"]),
        (
            "api",
            &[
                "ingest",
                "events",
                "policy",
                "config",
                "runtime",
                "telemetry",
                "queries",
                "publications",
                "membership",
                "routing",
            ],
        ),
        // It reads figures of rooms when somebody asks, and says codes as the API names them.
        ("telemetry", &["api", "events", "config", "routing", "runtime"]),
    ]);
    let free = ["node", "cli", "lib", "main"];
    let rooms = server_rooms();
    for (room, files) in &rooms {
        if free.contains(&room.as_str()) {
            continue;
        }
        let allowed = drawing
            .get(room.as_str())
            .unwrap_or_else(|| panic!("{room} has no place in the drawing; draw its arrows here"));
        for file in files {
            for used in rooms_used(&product_code(file)) {
                let is_room = rooms.contains_key(&used);
                let fits = !is_room || used == *room || allowed.contains(&used.as_str());
                assert!(fits, "{} uses {used}, which {room} may not", file.display());
            }
        }
    }
    for room in drawing.keys() {
        assert!(rooms.contains_key(*room), "{room} is drawn and does not exist");
    }
}

#[test]
fn only_the_api_and_the_command_line_speak_in_statuses() {
    for (room, files) in server_rooms() {
        if ["api", "cli"].contains(&room.as_str()) {
            continue;
        }
        for file in files {
            let code = product_code(&file);
            let imported = code.split("use tonic::").skip(1).any(|rest| {
                let names = rest.split(';').next().unwrap();
                names
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|name| name == "Status")
            });
            assert!(
                !imported && !code.contains("tonic::Status"),
                "{} speaks in statuses",
                file.display()
            );
        }
    }
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    let code =
        "use crate::policy::Policy;\nuse crate::{events, config::Rate};\nfn f() -> crate::ingest::Error {}";
    let rooms: Vec<String> = rooms_used(code).into_iter().collect();
    assert_eq!(rooms, ["config", "events", "ingest", "policy"]);
}

#[test]
fn every_proto_file_is_compiled() {
    let root = repository().join("proto/proto");
    let pool = DescriptorPool::decode(dirnode_proto::FILE_DESCRIPTOR_SET).unwrap();
    let protos: Vec<PathBuf> = files_below(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    assert!(protos.len() > 10);
    for path in protos {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        assert!(pool.get_file_by_name(name).is_some(), "{name} is not compiled");
    }
}

#[test]
fn the_top_of_the_repository_holds_only_what_belongs_there() {
    let rooms = [
        "proto",
        "node",
        "bootstrap",
        "config",
        "charts",
        "simulations",
        "tests",
        "docs",
    ];
    let papers = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "LICENSE",
        "NOTICE",
    ];
    let tools = [
        "Cargo.toml",
        "Cargo.lock",
        "Dockerfile",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
        "rust-toolchain.toml",
        "Makefile",
    ];
    let made = ["target"];
    for entry in std::fs::read_dir(repository()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = [&rooms[..], &papers, &tools, &made]
            .concat()
            .contains(&name.as_str());
        assert!(
            known || name.starts_with('.'),
            "{name} does not belong at the top"
        );
    }
}

#[test]
fn no_file_names_the_host_of_a_package_registry() {
    // Put together here, so that this file does not name them either.
    let hosts = [
        ["crates", "io/"],
        ["index.crates", "io"],
        ["pypi", "org"],
        ["registry.npmjs", "org"],
        ["proxy.golang", "org"],
    ]
    .map(|parts| parts.join("."));
    let kinds = [
        "rs", "toml", "md", "py", "yml", "yaml", "sh", "proto", "txt", "json",
    ];
    let mut read = 0;
    for path in files_below(&repository()) {
        let relative = path.strip_prefix(repository()).unwrap().to_owned();
        let kind = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or_default();
        if !kinds.contains(&kind) || relative.starts_with("tests/vectors") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for host in &hosts {
            assert!(
                !text.contains(host.as_str()),
                "{} names {host}",
                relative.display()
            );
        }
        read += 1;
    }
    assert!(read > 50, "the sources were read");
}

#[test]
fn every_exception_names_a_case_and_is_explained() {
    let explained = std::fs::read_to_string(repository().join("docs/differences.md")).unwrap();
    let mut ids = BTreeSet::new();
    for path in files_below(&repository().join("tests/vectors")) {
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let family = path.file_stem().unwrap().to_string_lossy().into_owned();
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let case: Json = serde_json::from_str(line).unwrap();
                ids.extend(case["id"].as_str().map(str::to_owned));
                // The cases of the peer-to-peer wire have names that are unique within their file.
                let name = case["name"]
                    .as_str()
                    .filter(|_| path.parent().unwrap().ends_with("p2p"));
                ids.extend(name.map(|name| format!("p2p/{family}/{name}")));
            }
        }
    }
    let text = std::fs::read_to_string(repository().join("tests/vectors/exceptions.txt")).unwrap();
    let mut checked = 0;
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let id = line.split('\t').next().unwrap();
        let case = id
            .trim_end_matches("/push")
            .trim_end_matches("/delete")
            .trim_end_matches("/lookup");
        assert!(ids.contains(case), "{id} names no case");
        assert!(
            explained.contains(&format!("`{id}`")),
            "{id} is not in docs/differences.md"
        );
        checked += 1;
    }
    assert!(checked > 0);
}
