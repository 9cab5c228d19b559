//! Two Go peers with one another: proves the harness that the other interop tests stand on.

use std::time::Duration;

use dirnode_tests::go_peer::{End, GoPeer, Options, Raw};
use dirnode_tests::wait::eventually;
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn interop_two_go_peers_share_everything() {
    let endpoints = Options::new()
        .directory("dir.example.com:443")
        .oci("ghcr.io/org/a b");
    let (Some(one), Some(two)) = (
        GoPeer::start(endpoints).await,
        GoPeer::start(Options::new()).await,
    ) else {
        return;
    };
    two.connect(one.address()).await.unwrap();
    for (here, there) in [(&one, &two), (&two, &one)] {
        eventually(SOON, || async {
            let table = here.routing_table().await;
            let on_topic = here.topic_peers().await;
            let known = table.contains(&there.id().to_owned()) && on_topic.contains(&there.id().to_owned());
            known.then_some(()).ok_or(format!("{table:?} {on_topic:?}"))
        })
        .await;
    }

    let record = json!({"name": "a", "schema_version": "1.0.0", "skills": [{"name": "x/y", "id": 1}]});
    let cid = one.serve_record(&record, &json!({"name": "a"})).await;
    one.provide(&cid).await.unwrap();
    let providers = eventually(SOON, || async {
        let found = two.find_providers(&cid, 1).await?;
        if found.is_empty() {
            Err("no provider".to_owned())
        } else {
            Ok(found)
        }
    })
    .await;
    assert_eq!(providers[0].peer, one.id());
    assert_eq!(providers[0].directory.as_deref(), Some("dir.example.com:443"));
    assert_eq!(providers[0].oci.as_deref(), Some("ghcr.io/org/a b"));

    let pulled = two.must("pull", json!({"peer": one.id(), "cid": cid})).await;
    assert_eq!(pulled["matches"], true);
    let referrer = one
        .serve_referrer(&cid, "example.v1.Note", &json!({"text": "hello", "n": [1, null]}))
        .await;
    let fetched = two
        .must(
            "pull_referrer",
            json!({"peer": one.id(), "cid": cid, "type": "example.v1.Note", "referrer_cid": referrer}),
        )
        .await;
    assert_eq!(fetched["data"], json!({"text": "hello", "n": [1, null]}));
    let missing = two
        .ask("lookup", json!({"peer": one.id(), "cid": "baearei"}))
        .await;
    assert!(missing.unwrap_err().contains("code = NotFound"));

    // The mesh forms with the next heartbeat; an announcement before that goes nowhere, so it is repeated.
    eventually(SOON, || async {
        one.announce(&cid, &["/skills/x/y"]).await?;
        let heard = two.events().into_iter().find(|event| event["event"] == "labels");
        let heard = heard.ok_or("no labels heard")?;
        assert_eq!(heard["from"], one.id());
        assert_eq!(heard["labels"], json!(["/skills/x/y"]));
        Ok(())
    })
    .await;

    // The raw stream says what came and how it ended, byte by byte writes included.
    let ping = [7_u8; 32];
    let raw = Raw {
        protocol: Some("/ipfs/ping/1.0.0"),
        data: &ping,
        chunk_bytes: 1,
        ..Raw::default()
    };
    let answer = two.raw(one.id(), raw.clone()).await.unwrap();
    assert_eq!((answer.data, answer.end), (ping.to_vec(), End::Open));
    let header = b"\x13/multistream/1.0.0\n\x0f/dir/kad/1.0.0\n";
    let refused = Raw {
        data: header,
        ..Raw::default()
    };
    let answer = two.raw(one.id(), refused).await.unwrap();
    assert_eq!(answer.data, b"\x13/multistream/1.0.0\n\x03na\n");
}
