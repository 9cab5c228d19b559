//! Replays the seeds of the fuzz targets with the stable compiler, each as it is and damaged a little.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing test may panic"
)]

use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fuzz/seeds")
        .join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let mut seed = std::fs::read(entry.unwrap().path()).unwrap();
        run(&seed);
        for cut in [seed.len() / 3, seed.len() / 2, seed.len().saturating_sub(1)] {
            run(&seed[..cut]);
        }
        for place in (0..seed.len()).step_by(13) {
            let old = seed[place];
            for damage in [b'"', b'[', b'}', b'\\', b'9', 0xff, old.wrapping_add(1)] {
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
fn cid_text_seeds() {
    replay("cid_text", dirnode_record::fuzz::cid_text);
}

#[test]
fn record_text_seeds() {
    replay("record_text", dirnode_record::fuzz::record_text);
}

#[test]
fn referrer_seeds() {
    replay("referrer", dirnode_record::fuzz::referrer);
}

#[test]
fn validate_text_seeds() {
    replay("validate_text", dirnode_record::fuzz::validate_text);
}
