//! The example file is what it says: every key known, every value the default unless a remark says otherwise.
#![allow(clippy::unwrap_used, reason = "a test: what does not hold ends it")]

use std::path::PathBuf;

use dirnode_bootstrap::settings::{Layers, Remarks, Settings};

#[test]
fn the_example_file_states_the_defaults() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/bootstrap.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let data = PathBuf::from("/var/lib/dirnode-bootstrap");
    let layers = Layers::default().file("bootstrap.yml", &text).unwrap();
    let (stated, remarks) = Settings::read(&layers, PathBuf::from("/elsewhere")).unwrap();
    assert_eq!(remarks, Remarks::default());
    let (default, _) = Settings::read(&Layers::default(), data).unwrap();
    assert_eq!(format!("{stated:?}"), format!("{default:?}"));
    stated.network.check().unwrap();
}
