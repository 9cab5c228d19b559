//! The folder reads as an OCI image layout: every descriptor leads to bytes of its size and digest.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::*;

fn blob(root: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().unwrap();
    let bytes = fs::read(root.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(
        descriptor["size"].as_u64().unwrap(),
        bytes.len() as u64,
        "{descriptor}"
    );
    assert_eq!(format!("sha256:{}", RecordCid::of(&bytes).digest_hex()), digest);
    bytes
}

/// Tag to manifest, everything below it checked.
fn read_layout(dir: &Path) -> BTreeMap<String, Value> {
    let root = dir.join("oci");
    let marker: Value = serde_json::from_slice(&fs::read(root.join("oci-layout")).unwrap()).unwrap();
    assert_eq!(marker["imageLayoutVersion"], "1.0.0");
    let index: Value = serde_json::from_slice(&fs::read(root.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    let mut tags = BTreeMap::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let manifest: Value = serde_json::from_slice(&blob(&root, descriptor)).unwrap();
        assert_eq!(manifest["schemaVersion"], 2);
        assert_eq!(blob(&root, &manifest["config"]), b"{}");
        for layer in manifest["layers"].as_array().unwrap() {
            blob(&root, layer);
        }
        if !manifest["subject"].is_null() {
            blob(&root, &manifest["subject"]);
        }
        let tag = descriptor["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .unwrap();
        assert!(
            tags.insert(tag.to_owned(), manifest).is_none(),
            "{tag} occurs twice"
        );
    }
    tags
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_store_is_an_oci_image_layout() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    let (one, two) = (record(1), record(2));
    let signature = referrer(one.cid, 1, "agntcy.dir.sign.v1.Signature");
    store.put_record(one.clone()).await.unwrap();
    store.put_record(two.clone()).await.unwrap();
    store.put_referrer(signature.clone()).await.unwrap();
    store.close().await.unwrap();

    let tags = read_layout(dir.path());
    assert_eq!(tags.len(), 3);
    let manifest = &tags[&one.cid.to_string()];
    assert_eq!(
        manifest["layers"][0]["digest"],
        format!("sha256:{}", one.cid.digest_hex())
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/json");
    assert_eq!(
        manifest["annotations"]["org.agntcy.dir/name"],
        "example.org/agent-1"
    );
    let attached = &tags[&signature.cid.to_string()];
    assert_eq!(
        attached["layers"][0]["mediaType"],
        "application/vnd.agntcy.dir.sign.signature.v1+json"
    );
    assert_eq!(attached["annotations"]["agntcy.dir.referrer.annotation.n"], "1");
    let subject = serde_json::to_vec(manifest).unwrap().len() as u64;
    assert_eq!(attached["subject"]["size"].as_u64(), Some(subject));
    let files = || fs::read_dir(dir.path().join("oci/blobs/sha256")).unwrap().count();
    // Three bodies, three manifests, the shared config.
    assert_eq!(files(), 7);

    let (store, _) = open(&config(dir.path()));
    store.delete_record(one.cid).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(
        read_layout(dir.path()).keys().collect::<Vec<_>>(),
        [&two.cid.to_string()]
    );
    assert_eq!(files(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&config(dir.path()));
    store.put_record(record(1)).await.unwrap();
    store.close().await.unwrap();
    fs::write(dir.path().join("oci/index.json"), b"{").unwrap();
    let (store, _) = open(&config(dir.path()));
    store.close().await.unwrap();
    assert_eq!(read_layout(dir.path()).len(), 1);
}
