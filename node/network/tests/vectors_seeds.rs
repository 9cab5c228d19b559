//! Replays the seeds of the wire's fuzz targets with the stable compiler, each as it is and damaged a little.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing test may panic"
)]

use std::path::Path;

use dirnode_network::wire::fuzz;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/seeds")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let mut seed = std::fs::read(entry.unwrap().path()).unwrap();
        run(&seed);
        for cut in 0..seed.len() {
            run(&seed[..cut]);
        }
        for place in 0..seed.len() {
            let old = seed[place];
            for damage in [0, 0xc0, 0xdd, 0xff, b'"', old.wrapping_add(1), old ^ 0x80] {
                seed[place] = damage;
                run(&seed);
            }
            seed[place] = old;
        }
        count += 1;
    }
    assert!(count > 0, "no seeds in {}", folder.display());
}

#[test]
fn vectors_address_seeds() {
    replay("wire_address", fuzz::address);
}

#[test]
fn vectors_announcement_seeds() {
    replay("wire_announcement", fuzz::announcement);
}

#[test]
fn vectors_rpc_seeds() {
    replay("wire_rpc", fuzz::rpc);
}

#[test]
fn vectors_messages_seeds() {
    replay("wire_messages", fuzz::messages);
}

#[test]
fn vectors_key_file_seeds() {
    replay("key_file", dirnode_identity::fuzz::key_file);
}
