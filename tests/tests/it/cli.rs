//! The command line from outside: every client command in every form of output, exit codes, inputs, and what a faulty
//! configuration is told.

use dirnode_tests::node::Setup;
use dirnode_tests::program::{Program, run};
use dirnode_tests::repository;
use serde_json::{Value as Json, json};

use crate::common::{at, json_of, ok, record};

#[tokio::test(flavor = "multi_thread")]
async fn push_prints_the_cid_in_every_form() {
    let node = Setup::default().start().await;
    let file = record("translator.json");
    let cid = ok(at(&node.address, &["push", &file, "-o", "raw"], b""));
    assert!(
        cid.starts_with("baearei") && cid.len() == 59,
        "raw is the bare CID: {cid:?}"
    );
    assert_eq!(
        ok(at(&node.address, &["push", &file], b"")),
        format!("Pushed record with CID: {cid}\n")
    );
    assert_eq!(
        json_of(&ok(at(&node.address, &["push", &file, "-o", "json"], b""))),
        json!(cid)
    );
    assert_eq!(
        ok(at(&node.address, &["push", &file, "-o", "jsonl"], b"")),
        format!("\"{cid}\"\n")
    );
    assert_eq!(node.node.store().stats().records, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_gives_the_record_back_in_every_form_and_by_every_reference() {
    let node = Setup::default().start().await;
    let file = record("translator.json");
    let original = json_of(&std::fs::read_to_string(&file).unwrap());
    let cid = ok(at(&node.address, &["push", &file, "-o", "raw"], b""));
    for form in ["human", "json", "jsonl", "raw"] {
        let text = ok(at(&node.address, &["pull", &cid, "-o", form], b""));
        assert_eq!(json_of(&text), original, "{form}");
        if form == "raw" {
            assert_eq!(
                dirnode_record::RecordCid::of(text.as_bytes()).to_string(),
                cid,
                "raw is what the CID is made of"
            );
        }
    }
    let name = "agents.example.org/translator";
    for reference in [
        name.to_owned(),
        format!("{name}:v2.1.0"),
        format!("{name}@{cid}"),
        format!("{name}:v2.1.0@{cid}"),
    ] {
        assert_eq!(
            json_of(&ok(at(&node.address, &["pull", &reference], b""))),
            original,
            "{reference}"
        );
    }
    let other = "baeareicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri";
    for reference in [
        format!("{name}:v9"),
        format!("{name}@{other}"),
        other.to_owned(),
        "non-existent-CID".to_owned(),
    ] {
        let answer = at(&node.address, &["pull", &reference], b"");
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{reference}");
        assert!(answer.err.starts_with("Error: "), "{reference}: {}", answer.err);
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.json");
    ok(at(
        &node.address,
        &["pull", &cid, "--output-file", out.to_str().unwrap()],
        b"",
    ));
    assert_eq!(json_of(&std::fs::read_to_string(out).unwrap()), original);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn info_resolve_and_delete_answer_in_every_form() {
    let node = Setup::default().start().await;
    let cid = ok(at(
        &node.address,
        &["push", &record("parts-finder.json"), "-o", "raw"],
        b"",
    ));
    for form in ["json", "jsonl", "raw"] {
        let info = json_of(&ok(at(&node.address, &["info", &cid, "-o", form], b"")));
        assert_eq!(info["cid"], json!(cid), "{form}");
        assert_eq!(info["schemaVersion"], "1.0.0");
        assert_eq!(info["createdAt"], "2025-11-20T07:30:00Z");
        assert_eq!(info["annotations"]["contact"], "desk@example.org");
    }
    assert!(ok(at(&node.address, &["info", &cid], b"")).contains("Schema version: 1.0.0"));

    let named = json!({"name": "agents.example.org/parts-finder", "version": "v1.0.0", "cid": cid});
    let resolve = |form: &str| {
        ok(at(
            &node.address,
            &["resolve", "AGENTS.example.org/*", "-o", form],
            b"",
        ))
    };
    assert_eq!(json_of(&resolve("json")), json!([named]));
    assert_eq!(json_of(&resolve("jsonl")), named);
    assert_eq!(resolve("raw"), format!("{cid}\n"));
    assert!(resolve("human").lines().nth(1).unwrap().ends_with(&cid));
    let unknown = at(&node.address, &["resolve", "no.such/agent"], b"");
    assert_eq!(unknown.code, 1);
    assert!(
        unknown
            .err
            .contains("no record found with name \"no.such/agent\""),
        "{}",
        unknown.err
    );

    for (form, printed) in [
        ("human", format!("Deleted record with CID: {cid}\n")),
        ("json", format!("\"{cid}\"\n")),
        ("jsonl", format!("\"{cid}\"\n")),
        ("raw", cid.clone()),
    ] {
        assert_eq!(
            ok(at(&node.address, &["delete", &cid, "-o", form], b"")),
            printed,
            "deleting twice is no error"
        );
    }
    assert_eq!(
        ok(at(
            &node.address,
            &["rm", "--stdin"],
            format!("\"{cid}\"\n").as_bytes()
        )),
        format!("Deleted record with CID: {cid}\n")
    );
    assert_eq!(node.node.store().stats().records, 0);
    assert_eq!(at(&node.address, &["delete", "no-cid"], b"").code, 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_pushed_from_a_folder_from_lines_and_from_standard_input() {
    let node = Setup::default().start().await;
    let folder = repository().join("tests/records");
    let files = std::fs::read_dir(&folder).unwrap().count();
    let pushed = at(
        &node.address,
        &["push", folder.to_str().unwrap(), "-o", "jsonl"],
        b"",
    );
    assert_eq!(
        (pushed.code, pushed.out.lines().count()),
        (0, files),
        "{pushed:?}"
    );
    assert_eq!(node.node.store().stats().records, files as u64);
    assert_eq!(
        pushed.err,
        format!("{files} records stored\n"),
        "the remark keeps out of the way of the answer"
    );

    let all: Vec<Json> = pushed.out.lines().map(json_of).collect();
    let as_one = at(
        &node.address,
        &["push", folder.to_str().unwrap(), "-o", "json"],
        b"",
    );
    assert_eq!(json_of(&as_one.out), json!(all), "the order of the input is kept");

    let lines: Vec<String> = (0..40)
        .map(|n| {
            let mut record = json_of(&std::fs::read_to_string(record("translator.json")).unwrap());
            record["version"] = json!(format!("v3.0.{n}"));
            record.to_string()
        })
        .collect();
    let batch = at(
        &node.address,
        &["push", "-", "-o", "raw"],
        lines.join("\n").as_bytes(),
    );
    assert_eq!((batch.code, batch.out.lines().count()), (0, 40), "{batch:?}");
    let single = ok(at(
        &node.address,
        &["push", "--stdin", "-o", "raw"],
        lines[7].as_bytes(),
    ));
    assert_eq!(batch.out.lines().nth(7), Some(single.as_str()));

    let mixed = at(
        &node.address,
        &["push", "-"],
        format!("{}\n{{\"name\":\"x\"}}\n", lines[0]).as_bytes(),
    );
    assert_eq!(mixed.code, 1, "one bad record fails the command");
    assert!(
        mixed.out.contains("Pushed record with CID"),
        "and leaves the good one stored: {mixed:?}"
    );
    assert!(
        mixed.err.contains("stdin line 2") && mixed.err.contains("1 of 2 records were not stored"),
        "{}",
        mixed.err
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_record_is_refused_with_a_sentence_and_exit_code_1() {
    let node = Setup::default().start().await;
    let valid = std::fs::read_to_string(record("translator.json")).unwrap();
    for (input, part) in [
        ("not json".to_owned(), "stdin"),
        ("[]".to_owned(), "object"),
        ("null".to_owned(), "null"),
        (valid.replacen("\"version\"", "\"name\"", 1), "name"),
        (r#"{"name":"x"}"#.to_owned(), "schema_version field is missing"),
        (valid.replace("\"1.1.0\"", "\"9.9.9\""), "9.9.9"),
        (valid.replace("\"skills\"", "\"skillz\""), "ERROR: "),
    ] {
        let answer = at(&node.address, &["push", "-", "-o", "raw"], input.as_bytes());
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{input:.60}");
        assert!(answer.err.contains(part), "{part:?} is not in {:?}", answer.err);
    }
    for args in [
        &["push", "/no/such/file"][..],
        &["push"],
        &["frobnicate"],
        &["pull"],
        &["push", "-o", "yaml", "-"],
    ] {
        let answer = at(&node.address, args, b"");
        assert_eq!((answer.code, answer.out.as_str()), (1, ""), "{args:?}");
        assert!(!answer.err.is_empty(), "{args:?}");
    }
    assert_eq!(node.node.store().stats().records, 0);
    node.stop().await;
}

#[test]
fn a_node_that_is_not_there_is_said_plainly() {
    let answer = run(&["pull", "some/name", "--server-addr", "127.0.0.1:1"], b"", &[]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""));
    assert!(
        answer.err.contains("no node answers at 127.0.0.1:1") && answer.err.contains("dirnode run"),
        "{}",
        answer.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_in_every_form() {
    // Whoever is first builds the binary, which takes longer than anybody waits for a listener.
    tokio::task::block_in_place(dirnode_tests::program::binary);
    for form in ["human", "json", "jsonl", "raw"] {
        let node = Setup::default().with_metrics().start().await;
        let metrics = node.node.metrics_address().unwrap().to_string();
        let address = node.address.clone();
        let follower = std::thread::spawn(move || {
            let args = [
                "events",
                "--types",
                "RECORD_PUSHED",
                "--labels",
                "/skills/",
                "--count",
                "1",
                "-o",
                form,
            ];
            run(&args, b"", &[("DIRECTORY_CLIENT_SERVER_ADDRESS", &address)])
        });
        dirnode_tests::wait::eventually(std::time::Duration::from_secs(20), || async {
            let page = dirnode_tests::scrape::get(&metrics, "/metrics", "text/plain").await;
            let listening = dirnode_tests::scrape::total(&page.body, "dirnode_event_subscribers") > 0.0;
            listening.then_some(()).ok_or_else(|| "nobody listens".to_owned())
        })
        .await;
        let cid = ok(at(
            &node.address,
            &["push", &record("translator.json"), "-o", "raw"],
            b"",
        ));
        let heard = tokio::task::block_in_place(|| follower.join().unwrap());
        let out = ok(heard);
        match form {
            "human" => assert!(
                out.contains(&format!("RECORD_PUSHED: {cid} (labels: /skills/")),
                "{out}"
            ),
            "raw" => assert_eq!(out, format!("{cid}\n")),
            _ => {
                let event = json_of(&out);
                assert_eq!(
                    (event["resource_id"].as_str(), &event["type"]),
                    (Some(cid.as_str()), &json!("EVENT_TYPE_RECORD_PUSHED"))
                );
                assert!(event["timestamp"].as_str().unwrap().ends_with('Z'), "{event}");
            }
        }
        node.stop().await;
    }
}

#[test]
fn validate_says_valid_and_findings_and_exits_by_the_verdict() {
    let good = record("translator.json");
    let answer = run(&["validate", &good, "-o", "json"], b"", &[]);
    assert_eq!(
        (answer.code, json_of(&answer.out)["valid"].as_bool()),
        (0, Some(true))
    );
    assert!(json_of(&answer.out)["findings"].is_array());
    assert_eq!(run(&["validate", &good, "-o", "raw"], b"", &[]).out, "valid\n");
    assert!(run(&["validate", &good], b"", &[]).out.ends_with(": valid\n"));

    let bad = std::fs::read_to_string(&good)
        .unwrap()
        .replace("\"skills\"", "\"skillz\"");
    let answer = run(&["validate", "-o", "json"], bad.as_bytes(), &[]);
    assert_eq!(answer.code, 1);
    let verdict = json_of(&answer.out);
    assert_eq!(verdict["valid"], false);
    let errors: Vec<&Json> = verdict["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["severity"] == "error")
        .collect();
    assert!(!errors.is_empty());
    for finding in errors {
        for key in ["severity", "kind", "attribute_path", "message"] {
            assert!(finding.get(key).is_some(), "{finding} has no {key}");
        }
    }
    let folder = repository().join("tests/records");
    let many = run(&["validate", folder.to_str().unwrap(), "-o", "jsonl"], b"", &[]);
    assert_eq!(
        many.code, 0,
        "the samples of this repository are valid: {}",
        many.out
    );
    assert!(
        many.out
            .lines()
            .map(json_of)
            .all(|verdict| verdict["valid"] == true && verdict["file"].is_string())
    );
    let unknown = run(
        &["validate", &good, "--schema-version", "3.0.0", "-o", "json"],
        b"",
        &[],
    );
    assert_eq!(
        (unknown.code, &json_of(&unknown.out)["findings"][0]["kind"]),
        (1, &json!("version_without_schema"))
    );
    let deep = format!(
        "{{\"schema_version\":\"1.1.0\",\"x\":{}1{}}}",
        "[".repeat(9000),
        "]".repeat(9000)
    );
    assert_eq!(
        run(&["validate", "-o", "raw"], deep.as_bytes(), &[]).out,
        "invalid\n"
    );
}

#[test]
fn help_version_and_completions_go_to_standard_output() {
    for shell in ["bash", "zsh", "fish"] {
        let answer = run(&["completions", shell], b"", &[]);
        assert_eq!((answer.code, answer.err.as_str()), (0, ""));
        assert!(answer.out.contains("dirnode"), "{shell}");
    }
    // The script asks the binary for the words that fit, as a shell does here.
    let asked = [
        ("COMPLETE", "bash"),
        ("_CLAP_COMPLETE_INDEX", "1"),
        ("_CLAP_IFS", "\n"),
        ("_CLAP_COMPLETE_COMP_TYPE", "9"),
    ];
    let answer = run(&["--", "dirnode", "res"], b"", &asked);
    assert_eq!((answer.code, answer.out.trim()), (0, "resolve"), "{answer:?}");
    assert!(run(&["--version"], b"", &[]).out.starts_with("dirnode "));
    for command in [
        "run",
        "push",
        "pull",
        "info",
        "delete",
        "events",
        "resolve",
        "search",
        "count",
        "list",
        "validate",
        "completions",
    ] {
        let answer = run(&[command, "--help"], b"", &[]);
        assert_eq!(answer.code, 0, "{command}");
        assert!(answer.out.contains("Example"), "{command}");
    }
}

#[test]
fn every_fault_of_a_configuration_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("faulty.yml");
    std::fs::write(&file, "listen_address: nowhere\noasf_api_validation: {mode: maybe}\nconnection: {max_recv_msg_size: lots}\n").unwrap();
    let data = folder.path().join("data");
    let args = [
        "run",
        "--config",
        file.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let answer = run(&args, b"", &[("DIRECTORY_SERVER_RATELIMIT_GLOBAL_RPS", "fast")]);
    assert_eq!(answer.code, 1);
    for part in [
        "4 fault",
        "\"nowhere\"",
        "\"maybe\"",
        "\"lots\"",
        "DIRECTORY_SERVER_RATELIMIT_GLOBAL_RPS",
        "faulty.yml",
    ] {
        assert!(answer.err.contains(part), "{part} is not in {}", answer.err);
    }
    assert!(!data.exists(), "a faulty configuration touches nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_keys_are_named_in_one_warning_and_the_node_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.yml");
    std::fs::write(&file, "listn_address: x\nauthn: {enabled: false}\n").unwrap();
    let data = folder.path().join("data");
    let mut node = Program::start(
        &data,
        &["--config", file.to_str().unwrap()],
        &[("DIRECTORY_SERVER_TYPO", "1")],
    );
    node.client().await;
    let warnings: Vec<Json> = node
        .events()
        .into_iter()
        .filter(|event| {
            event["message"]
                .as_str()
                .is_some_and(|text| text.contains("unknown"))
        })
        .collect();
    assert_eq!(warnings.len(), 1, "{:#?}", node.log());
    assert_eq!(warnings[0]["keys"], "listn_address, DIRECTORY_SERVER_TYPO");
}
