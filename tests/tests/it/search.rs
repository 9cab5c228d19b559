//! Finding records on one node: the commands in every form, queries that mean harm, and searches beside writes.

use dirnode_server::runtime;
use dirnode_tests::grpc::{Client, DEADLINE, End, code_name};
use dirnode_tests::node::{Setup, TestNode};
use dirnode_tests::program::run;
use serde_json::{Value as Json, json};

use crate::common::{
    COUNT, DELETE, LIST, PUBLISH, PUSH, SEARCH_CIDS, at, cid_of, json_of, ok, record, sample,
};
use crate::publish::{listed, refs};

const SEARCH_RECORDS: &str = "/agntcy.dir.search.v1.SearchService/SearchRecords";
/// Kinds of conditions that the search knows, by number.
const KINDS: std::ops::RangeInclusive<i32> = 0..=18;

/// A node with the sample records; gives the CIDs in the order they were stored, the translator's last.
async fn furnished() -> (TestNode, Vec<String>) {
    let node = Setup::default().start().await;
    let files = [
        "archive-search.json",
        "crop-forecaster.json",
        "parts-finder.json",
        "phrase-book.json",
        "translator.json",
    ];
    let cids = files
        .iter()
        .map(|file| ok(at(&node.address, &["push", &record(file), "-o", "raw"], b"")));
    let cids = cids.collect();
    (node, cids)
}

#[tokio::test(flavor = "multi_thread")]
async fn search_prints_cids_in_every_form() {
    let (node, cids) = furnished().await;
    let search = |args: &[&str], form: &str| {
        let args = [&["search"], args, &["-o", form]].concat();
        ok(at(&node.address, &args, b""))
    };
    // Two records are of this author; the one stored later comes first.
    let by_author = ["--author", "orchard"];
    let (later, earlier) = (&cids[4], &cids[3]);
    assert_eq!(
        search(&by_author, "human"),
        format!("Record CIDs found:\n  {later}\n  {earlier}\n")
    );
    assert_eq!(json_of(&search(&by_author, "json")), json!([later, earlier]));
    assert_eq!(
        search(&by_author, "jsonl"),
        format!("\"{later}\"\n\"{earlier}\"\n")
    );
    assert_eq!(search(&by_author, "raw"), format!("{later}\n{earlier}\n"));
    assert_eq!(search(&["no such name"], "human"), "No record CIDs found\n");
    assert_eq!(search(&["no such name"], "json"), "[]\n");
    for form in ["jsonl", "raw"] {
        assert_eq!(search(&["no such name"], form), "", "{form}");
    }
    for (args, expected) in [
        (&["TRANSLAT"][..], &[4][..]),
        (&["--skill", "*language_translation*"], &[4, 3]),
        (
            &["--skill", "*language_translation*", "--exclude-version", "<v1"],
            &[4],
        ),
        (&["--locator", "docker_image"], &[0]),
        (&["--exclude-author", "orchard"], &[2, 1, 0]),
        (&["--limit", "2", "--offset", "1"], &[3, 2]),
        (&["--trusted"], &[]),
        (&["--trusted=false", "--limit", "1"], &[4]),
    ] {
        let expected: Vec<&str> = expected.iter().map(|at| cids[*at].as_str()).collect();
        assert_eq!(
            search(args, "raw").lines().collect::<Vec<_>>(),
            expected,
            "{args:?}"
        );
    }
    // A pull counts for popularity; searching does not.
    ok(at(&node.address, &["pull", &cids[1], "-o", "raw"], b""));
    assert_eq!(
        search(&["--sort", "popularity", "--limit", "1"], "raw"),
        format!("{}\n", cids[1])
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_prints_records_in_every_form() {
    let (node, cids) = furnished().await;
    let search = |form: &str| {
        let args = ["search", "--author", "orchard", "--format", "record", "-o", form];
        ok(at(&node.address, &args, b""))
    };
    let bodies: Vec<Json> = [&cids[4], &cids[3]]
        .iter()
        .map(|cid| json_of(&ok(at(&node.address, &["pull", cid, "-o", "raw"], b""))))
        .collect();
    let wrapped: Vec<Json> = bodies.iter().map(|body| json!({"data": body})).collect();
    assert_eq!(json_of(&search("json")), json!(wrapped));
    let lines = |form: &str| search(form).lines().map(json_of).collect::<Vec<Json>>();
    assert_eq!(lines("jsonl"), wrapped);
    assert_eq!(lines("raw"), bodies);
    let table = search("human");
    assert!(table.lines().next().unwrap().contains("NAME"), "{table}");
    assert!(
        table.contains("agents.example.org/translator") && table.contains("v2.1.0"),
        "{table}"
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn count_and_list_answer_in_every_form() {
    let (node, cids) = furnished().await;
    for (form, printed) in [
        ("human", "Records: 2\n"),
        ("json", "2\n"),
        ("jsonl", "2\n"),
        ("raw", "2"),
    ] {
        let args = ["count", "--author", "orchard", "-o", form];
        assert_eq!(ok(at(&node.address, &args, b"")), printed);
    }
    assert_eq!(ok(at(&node.address, &["count", "-o", "raw"], b"")), "5");
    assert_eq!(
        ok(at(&node.address, &["count", "nothing such", "-o", "raw"], b"")),
        "0"
    );

    let list = |args: &[&str], form: &str| {
        let args = [&["list"], args, &["-o", form]].concat();
        ok(at(&node.address, &args, b""))
    };
    assert_eq!(list(&[], "human"), "No published records found\n");
    assert_eq!(list(&[], "json"), "[]\n");
    assert_eq!(
        (list(&[], "jsonl"), list(&[], "raw")),
        (String::new(), String::new())
    );
    node.client
        .ask(PUBLISH, &[refs(&[cids[3].clone(), cids[4].clone()])])
        .await
        .unwrap();
    let skill = ["--skill", "language_processing"];
    let labels = json!([
        "/skills/audio_speech_processing/speech_processing/text_to_speech",
        "/skills/language_processing/language_translation/translation",
    ]);
    let item = json_of(&list(&skill, "jsonl"));
    assert_eq!(item["record_ref"]["cid"], json!(cids[4]));
    for label in labels.as_array().unwrap() {
        assert!(item["labels"].as_array().unwrap().contains(label), "{item}");
    }
    assert_eq!(json_of(&list(&skill, "json")), json!([item]));
    assert_eq!(list(&skill, "raw"), format!("{}\n", cids[4]));
    let human = list(&skill, "human");
    let mut lines = human.lines();
    assert_eq!(lines.next(), Some(cids[4].as_str()));
    assert_eq!(
        lines.map(str::trim).map(Json::from).collect::<Vec<_>>(),
        *item["labels"].as_array().unwrap()
    );
    assert_eq!(list(&["--cid", &cids[3]], "raw"), format!("{}\n", cids[3]));
    assert_eq!(list(&["--cid", &cids[0]], "raw"), "", "it is not published");
    assert_eq!(list(&["--limit", "1"], "raw").lines().count(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_said_with_exit_code_1() {
    let (node, _) = furnished().await;
    for (args, part) in [
        (
            &["search", "--skill-id", "x"][..],
            "failed to parse skill ID \"x\"",
        ),
        (&["count", "--domain-id", "-1"], "-1"),
        (&["search", "--limit", "many"], "many"),
        (&["search", "-o", "yaml"], "yaml"),
        (&["list", "--limit", "-3"], "-3"),
    ] {
        let answer = at(&node.address, args, b"");
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{args:?}");
        assert!(answer.err.contains(part), "{args:?}: {}", answer.err);
    }
    for command in ["search", "count", "list"] {
        let answer = run(&[command, "--server-addr", "127.0.0.1:1"], b"", &[]);
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{command}");
        assert!(
            answer.err.contains("no node answers at 127.0.0.1:1"),
            "{}",
            answer.err
        );
    }
    node.stop().await;
}

/// One call, with the code and text of its end and the number of its answers.
async fn outcome(client: &Client, path: &str, body: &Json) -> (&'static str, String, usize) {
    let request = client.encode(path, body);
    let outcome = client.call(path, vec![request], End::HalfClose, DEADLINE).await;
    let code = code_name(outcome.code);
    (code, outcome.message, outcome.responses.len())
}

#[tokio::test]
async fn hostile_queries_are_refused_or_answered_and_the_node_goes_on() {
    let node = Setup::unchecked().start().await;
    let client = &node.client;
    // Long texts of few letters, which is what patterns of stars and question marks suffer from.
    for n in 0..20 {
        let mut body = sample(&format!("v{n}"));
        body["data"]["description"] = json!("a".repeat(40_000));
        body["data"]["name"] = json!(format!("agents.example.org/{}", "a".repeat(200)));
        client.ask(PUSH, &[body]).await.unwrap();
    }
    let methods = [SEARCH_CIDS, SEARCH_RECORDS, COUNT];
    let same = |kind: i32, value: &str, count: usize| {
        let query = json!({"type": kind, "value": value});
        json!({"queries": vec![query; count]})
    };
    for path in methods {
        let (code, text, answers) = outcome(client, path, &same(1, "a*", 10_000)).await;
        assert_eq!(
            (code, text.as_str(), answers),
            ("INVALID_ARGUMENT", "search has 10000 queries, limit is 1024", 0),
            "{path}"
        );
        let (code, text, answers) = outcome(client, path, &same(1, &"a".repeat(1 << 20), 1)).await;
        assert_eq!((code, answers), ("INVALID_ARGUMENT", 0), "{path}: {text}");
        assert!(text.contains("1048576 bytes, limit is 65536"), "{path}: {text}");
    }
    let patterns = [
        "*?*?*?*".repeat(50),
        "*a".repeat(5_000) + "b",
        "?".repeat(60_000),
        "*".repeat(60_000),
        "\\".repeat(999),
        "%_[^a]{1,9}".to_owned(),
        "\u{0}\u{202e}\u{feff}".to_owned(),
    ];
    for kind in KINDS {
        for pattern in &patterns {
            for negate in [false, true] {
                let body = json!({"queries": [{"type": kind, "value": pattern, "negate": negate}]});
                let (code, text, _) = outcome(client, COUNT, &body).await;
                let fine = ["OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"].contains(&code);
                assert!(fine, "type {kind}, {pattern:.20}: {code} {text}");
                assert_ne!(text, "internal server error", "type {kind}, {pattern:.20}");
            }
        }
    }
    for (body, answers) in [
        (json!({"offset": 4_000_000_000_u32}), 0),
        (json!({"offset": u32::MAX, "limit": u32::MAX}), 0),
        (json!({"offset": 19, "limit": u32::MAX}), 1),
        (json!({"sort_mode": 77, "limit": 3}), 3),
        (
            json!({"sort_mode": -1, "limit": 2, "queries": [{"type": 99, "value": "x"}]}),
            2,
        ),
    ] {
        for path in [SEARCH_CIDS, SEARCH_RECORDS] {
            assert_eq!(
                outcome(client, path, &body).await,
                ("OK", String::new(), answers),
                "{path} {body}"
            );
        }
    }
    for (queries, part) in [
        (same(1, "a", 10_000), "10000"),
        (same(1, &"a".repeat(1 << 20), 1), "1048576"),
    ] {
        let (code, text, answers) = outcome(client, LIST, &queries).await;
        assert_eq!((code, answers), ("INVALID_ARGUMENT", 0), "{text}");
        assert!(text.contains(part), "{text}");
    }
    let counted = client.ask(COUNT, &[json!({})]).await;
    assert_eq!(counted, Ok(vec![json!({"total_count": 20})]), "the node goes on");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_beside_pushes_and_deletions_never_fail() {
    const RECORDS: usize = 300;
    let node = Setup::default().start().await;
    let kept = cid_of(&node.client.ask(PUSH, &[sample("v0")]).await.unwrap()[0]);
    node.client
        .ask(PUBLISH, &[refs(std::slice::from_ref(&kept))])
        .await
        .unwrap();
    let writer = node.client.clone();
    let (done, mut ended) = tokio::sync::watch::channel(false);
    let writing = runtime::spawn("writer", async move {
        for n in 0..RECORDS {
            let cid = cid_of(&writer.ask(PUSH, &[sample(&format!("w{n}"))]).await.unwrap()[0]);
            if n % 3 == 0 {
                writer.ask(DELETE, &[json!({"cid": cid})]).await.unwrap();
            }
        }
        done.send(true).unwrap();
    });
    let by_name = json!({"queries": [{"type": 1, "value": "agents.example.org/*"}]});
    let (mut rounds, mut highest) = (0, 0);
    while !*ended.borrow_and_update() && !writing.is_finished() {
        let found = node
            .client
            .ask(SEARCH_CIDS, std::slice::from_ref(&by_name))
            .await
            .unwrap();
        let cids: std::collections::BTreeSet<&str> = found
            .iter()
            .map(|answer| answer["record_cid"].as_str().unwrap())
            .collect();
        assert_eq!(cids.len(), found.len(), "no record comes twice");
        assert!(
            cids.contains(kept.as_str()),
            "what was there all the time is always found"
        );
        let records = node
            .client
            .ask(
                SEARCH_RECORDS,
                &[json!({"limit": 20, "queries": by_name["queries"]})],
            )
            .await
            .unwrap();
        assert!(!records.is_empty() && records.len() <= 20);
        let counted = node
            .client
            .ask(COUNT, std::slice::from_ref(&by_name))
            .await
            .unwrap();
        let counted = counted[0]["total_count"].as_u64().unwrap();
        // One record at a time is pushed before it is deleted.
        assert!(
            counted + 1 >= highest,
            "{counted} records after {highest}: some went away"
        );
        highest = highest.max(counted);
        assert_eq!(listed(&node.client).await, std::slice::from_ref(&kept));
        rounds += 1;
    }
    writing.await.unwrap();
    assert!(*ended.borrow(), "the writer ended in order");
    assert!(
        rounds > 3,
        "searches and pushes went side by side: {rounds} rounds"
    );
    assert_eq!(
        node.client.ask(COUNT, &[by_name]).await,
        Ok(vec![json!({"total_count": 1 + RECORDS - RECORDS / 3})])
    );
    node.stop().await;
}
